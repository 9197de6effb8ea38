//! Against a real registry: Debian's `docker-registry`, filled by `skopeo`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::*;
use crate::image::{ImportSource, testing::Fixture};

/// `me` with the password `secret`, bcrypt with cost 4.
const HTPASSWD: &str = "me:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

struct RealRegistry {
    process: Child,
    address: String,
}

impl RealRegistry {
    /// A registry on a port of its own; `None`, with the reason told, when a program is missing.
    fn start(directory: &Path, auth: bool) -> Option<Self> {
        for program in ["docker-registry", "skopeo"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                eprintln!("Skipped: {program} is not installed");
                return None;
            }
        }
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            directory.join("registry").display()
        );
        if auth {
            let file = directory.join("htpasswd");
            fs::write(&file, HTPASSWD).unwrap();
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display()));
        }
        let path = directory.join("registry.yml");
        fs::write(&path, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut registry = Self { process, address: String::new() };
        let mut log = BufReader::new(registry.process.stderr.take().unwrap());
        let mut line = String::new();
        while log.read_line(&mut line).unwrap() > 0 {
            let found = line.split("listening on ").nth(1).and_then(|rest| rest.split(['"', ' ', '\n']).next());
            if let Some(address) = found.filter(|address| !address.is_empty()) {
                registry.address = address.to_owned();
                // The registry must be able to go on writing its log.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Some(registry);
            }
            line.clear();
        }
        panic!("docker-registry did not start");
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo").arg("--insecure-policy").args(arguments).output().unwrap();
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn store(root: &Path) -> ImageStore {
    let config = StoreConfig {
        root: root.join("images"),
        registries: Registries::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
    };
    ImageStore::open(config).await.unwrap()
}

fn layout(directory: &Path, fixture: &Fixture) -> PathBuf {
    let path = directory.join("layout");
    fixture.write_layout(&path, "docker.io/library/app:v1");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_registry_is_pulled_from_with_and_without_credentials() {
    for auth in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let Some(registry) = RealRegistry::start(dir.path(), auth) else { return };
        let fixture = Fixture::new(&[&[("a", "1")], &[("b", "2")], &[("c", "3")]]);
        let from = format!("oci:{}:v1", layout(dir.path(), &fixture).display());
        let name = format!("{}/team/app:v1", registry.address);
        let to = format!("docker://{name}");
        let mut arguments = vec!["copy", "--dest-tls-verify=false"];
        if auth {
            arguments.extend(["--dest-creds", "me:secret"]);
        }
        arguments.extend([from.as_str(), to.as_str()]);
        skopeo(&arguments);

        let store = store(dir.path()).await;
        let mut request = PullRequest::new(name.parse().unwrap());
        if auth {
            let error = store.pull(request.clone()).await.unwrap_err().to_string();
            assert!(error.contains("pull access denied"), "{error}");
            request.credentials = vec![Credential { username: "me".to_owned(), password: "secret".to_owned() }];
        }
        let image = store.pull(request.clone()).await.unwrap();
        assert_eq!(image.id, fixture.config_digest());
        assert_eq!(fs::read_to_string(store.lower_dirs(&image)[0].join("c")).unwrap(), "3");
        request.reference = format!("{}/team/app:v2", registry.address).parse().unwrap();
        assert!(store.pull(request.clone()).await.unwrap_err().is_not_found());
        request.reference = format!("{}/team/other", registry.address).parse().unwrap();
        assert!(store.pull(request).await.unwrap_err().is_not_found());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeos_archives_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("Skipped: skopeo is not installed");
        return;
    }
    let fixture = Fixture::new(&[&[("a", "1")], &[("b", "2")]]);
    let from = format!("oci:{}:v1", layout(dir.path(), &fixture).display());
    for kind in ["docker-archive", "oci-archive"] {
        let file = dir.path().join(kind);
        let to = format!("{kind}:{}:docker.io/library/app:v1", file.display());
        skopeo(&["copy", &from, &to]);
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path()).await;
        let images = store.import(ImportSource::Path(file), None).await.unwrap();
        assert_eq!(images[0].repo_tags, ["docker.io/library/app:v1"], "{kind}");
        assert_eq!(fs::read_to_string(store.lower_dirs(&images[0])[0].join("b")).unwrap(), "2");
    }
}
