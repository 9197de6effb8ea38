//! A real OCI registry on a host's loopback: Debian's docker-registry, filled with skopeo.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use crate::{host::Host, images, wait::wait_for};

/// A running registry; stopped when dropped.
pub(crate) struct Registry {
    process: Child,
    _folder: tempfile::TempDir,
    /// `127.0.0.1:5000`.
    pub(crate) address: String,
    credentials: Option<&'static str>,
}

/// `me` with the password `secret` (bcrypt, as docker-registry wants it).
const HTPASSWD: &str = "me:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

impl Registry {
    /// Starts one on `port` of the host's loopback and pushes `busybox:1` and `nginx:1`.
    pub(crate) fn start(host: &Host, port: u16) -> Self {
        Self::start_with(host, port, None)
    }

    /// Starts one that asks for the user `me` with the password `secret`.
    pub(crate) fn start_private(host: &Host, port: u16) -> Self {
        Self::start_with(host, port, Some("me:secret"))
    }

    fn start_with(host: &Host, port: u16, credentials: Option<&'static str>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = format!("127.0.0.1:{port}");
        let auth = if credentials.is_some() {
            let file = folder.path().join("htpasswd");
            fs::write(&file, HTPASSWD).expect("the registry's users");
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}'}}\n{auth}",
            folder.path().join("data").display()
        );
        let file = folder.path().join("config.yml");
        fs::write(&file, config).expect("the registry's configuration");
        let process = host
            .command("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry of Debian starts");
        let registry = Self { process, _folder: folder, address, credentials };
        for name in ["busybox", "nginx"] {
            registry.push(host, name, &format!("{name}:1"));
        }
        registry
    }

    /// Pushes one of the test images under a name; waits for the registry to come up.
    pub(crate) fn push(&self, host: &Host, layout: &str, name: &str) {
        let from = format!("oci:{}:latest", images::layout_of(layout).display());
        let to = format!("docker://{}/{name}", self.address);
        wait_for("the push to the registry", Duration::from_secs(60), || {
            let mut arguments = vec!["copy", "--insecure-policy", "--quiet", "--dest-tls-verify=false"];
            if let Some(credentials) = self.credentials {
                arguments.extend(["--dest-creds", credentials]);
            }
            arguments.extend([from.as_str(), to.as_str()]);
            let output = host.output("skopeo", &arguments);
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that ended by itself is what is wanted here too.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
