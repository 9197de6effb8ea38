//! The README's tour, run as it stands there: every command of its `sh` blocks, one after the other, as pasted.
//!
//! It runs in namespaces of its own, so that `pgrep` and port 6443 mean this cluster and no other. Two commands are
//! stood in for: `cargo run --release` runs the binary under test, and `apt-get` has nothing to do.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use crate::host::Host;

/// What a newcomer's two terminals do; the tour itself follows.
const FIRST_TERMINAL: &str = r#"
mount -t tmpfs tmpfs "$MEMORY"
exec 3< <(exec cargo run --release -- up 2>>"$LOG")
read -r -u 3 ready
echo "first terminal: $ready"
set -x
"#;

/// Nothing is left of the cluster, and nobody.
const AFTERWARDS: &str = r#"
test ! -e "$CORACLE_DATA_DIR"
test -z "$(pgrep coracle)"
test -z "$(ip -brief link | grep -v '^lo ')"
"#;

fn tour() -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, tour) = readme.split_once("## A tour of").expect("the README has a tour");
    let (tour, _) = tour.split_once("\n## ").expect("something follows the tour");
    let blocks: Vec<&str> =
        tour.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n")).collect();
    assert!(blocks.len() > 5, "the tour's blocks are not found");
    blocks.concat()
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_readmes_tour_works_as_pasted() {
    // The data directory is in memory, which a full disk of the machine's leaves alone.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["bin", "home", "memory", "clone", "clone/target", "clone/target/release"] {
        fs::create_dir(at(name)).unwrap();
    }
    symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/docs"), at("clone/docs")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_coracle"), at("clone/target/release/coracle")).unwrap();
    program(&at("bin/cargo"), "#!/bin/sh\nshift 3\nexec target/release/coracle \"$@\"\n");
    program(&at("bin/apt-get"), "#!/bin/sh\ncommand -v busybox\n");
    fs::write(at("tour.sh"), [FIRST_TERMINAL, &tour(), AFTERWARDS].concat()).unwrap();

    let host = Host::new();
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let output = host
        .command("timeout")
        .args(["600", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euo", "pipefail"])
        .arg(at("tour.sh"))
        .current_dir(at("clone"))
        .envs([("PATH", path.as_str()), ("CORACLE_NODE_NAME", "boat")])
        .envs([
            ("HOME", at("home")),
            ("LOG", at("log")),
            ("MEMORY", at("memory")),
            ("CORACLE_DATA_DIR", at("memory/data")),
        ])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let told = format!(
        "{out}\n{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        fs::read_to_string(at("log")).unwrap_or_default()
    );
    assert!(output.status.success(), "{}\n{told}", output.status);
    assert_eq!(out.matches("coracle is ready in").count(), 2, "{told}");
    for said in
        ["Hello from a ConfigMap", "deployment \"web\" successfully rolled out", "deployment.apps/web rolled back"]
    {
        assert!(out.contains(said), "{said} is missing\n{told}");
    }
    // The five pods that the last `get pods` shows have lived through the kill.
    let last = out.rfind("NAME ").map(|at| &out[at..]).unwrap_or_default();
    // Those the rollouts replaced may still be ending.
    let pods: Vec<&str> =
        last.lines().filter(|line| line.starts_with("web-") && !line.contains("Terminating")).collect();
    assert_eq!(pods.len(), 5, "{told}");
    assert!(pods.iter().all(|line| line.split_whitespace().nth(3) == Some("0")), "a container was restarted\n{told}");
}
