//! Images for the tests, made on the spot from programs of this machine: nothing is downloaded, no binary is in git.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use sha2::{Digest, Sha256};

/// The folder of the image `name` (`busybox`, `nginx`) as an OCI layout, made the first time it is wanted.
pub(crate) fn layout_of(name: &str) -> PathBuf {
    static BUSYBOX: OnceLock<tempfile::TempDir> = OnceLock::new();
    static NGINX: OnceLock<tempfile::TempDir> = OnceLock::new();
    let (made, make): (_, fn(&Path)) = match name {
        "busybox" => (&BUSYBOX, make_busybox),
        "nginx" => (&NGINX, make_nginx),
        _ => panic!("{name} is no test image"),
    };
    let make = || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        make(folder.path());
        folder
    };
    made.get_or_init(make).path().to_owned()
}

fn make_busybox(folder: &Path) {
    layout(folder, &[tar(add_busybox)], &serde_json::json!({"Cmd": ["sh"], "Env": [PATH]}));
}

fn make_nginx(folder: &Path) {
    let config = serde_json::json!({
        "Cmd": ["nginx", "-g", "daemon off;"], "Env": [PATH], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT",
    });
    layout(folder, &[tar(add_busybox), tar(add_nginx)], &config);
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn tar(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(true);
    fill(&mut builder);
    builder.into_inner().expect("a tar in memory")
}

fn add_dir(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(mode);
    tar.append_data(&mut header, path, std::io::empty()).expect(path);
}

fn add_text(tar: &mut tar::Builder<Vec<u8>>, path: &str, text: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, text.as_bytes()).expect(path);
}

fn add_link(tar: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, path, target).expect(path);
}

fn add_busybox(tar: &mut tar::Builder<Vec<u8>>) {
    for (dir, mode) in
        [("bin", 0o755), ("etc", 0o755), ("home", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)]
    {
        add_dir(tar, dir, mode);
    }
    add_text(
        tar,
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nwww:x:33:33:www:/:/bin/sh\n",
    );
    add_text(tar, "etc/group", "root:x:0:\nnogroup:x:65534:\nwww:x:33:\nextra:x:3000:www\n");
    tar.append_path_with_name("/bin/busybox", "bin/busybox").expect("/bin/busybox of busybox-static");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("/bin/busybox runs");
    for applet in String::from_utf8(list.stdout).expect("names are text").lines().filter(|a| *a != "busybox") {
        add_link(tar, &format!("bin/{applet}"), "busybox");
    }
}

fn add_nginx(tar: &mut tar::Builder<Vec<u8>>) {
    for dir in
        ["usr", "usr/sbin", "etc/nginx", "var/log", "var/log/nginx", "var/lib", "var/lib/nginx", "var/www", "run"]
    {
        add_dir(tar, dir, 0o755);
    }
    tar.append_path_with_name("/usr/sbin/nginx", "usr/sbin/nginx").expect("/usr/sbin/nginx of nginx-light");
    let libraries = Command::new("ldd").arg("/usr/sbin/nginx").output().expect("ldd runs");
    for library in String::from_utf8_lossy(&libraries.stdout).split_whitespace().filter(|w| w.starts_with('/')) {
        tar.append_path_with_name(library, library.trim_start_matches('/')).expect(library);
    }
    let config = "user root; error_log stderr; pid /run/nginx.pid; events {}\n\
        http { access_log off; server { listen 80; location / { root /var/www; index index.html; } } }\n";
    add_text(tar, "etc/nginx/nginx.conf", config);
    add_text(tar, "var/www/index.html", "Welcome to nginx!\n");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Writes an OCI layout with one image of the given layers.
fn layout(folder: &Path, layers: &[Vec<u8>], config: &serde_json::Value) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    let put = |bytes: &[u8], media: &str| {
        let digest = digest(bytes);
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).expect("a blob");
        serde_json::json!({"mediaType": media, "digest": digest, "size": bytes.len()})
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = serde_json::json!({
        "architecture": architecture(), "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let layers: Vec<_> =
        layers.iter().map(|layer| put(&gzip(layer), "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": layers});
    let mut manifest = put(manifest.to_string().as_bytes(), media);
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).expect("the index");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("the marker");
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
