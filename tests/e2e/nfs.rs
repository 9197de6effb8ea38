//! Volumes of another machine, which serves them as Debian's does (exportfs(8), rpc.nfsd(8), rpc.mountd(8)).

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use crate::{
    cluster::{Cluster, LONG},
    host::{self, Host},
    wait::wait_for,
};

/// The programs of a server.
pub(crate) const SERVER: [&str; 4] = ["rpcbind", "exportfs", "rpc.nfsd", "rpc.mountd"];

/// Whether this machine's kernel can be server and client, and the server's programs are there.
fn is_possible() -> bool {
    let kinds = fs::read_to_string("/proc/filesystems").unwrap();
    let knows = |kind: &str| kinds.split_whitespace().any(|word| word == kind);
    ["nfs", "nfs4", "nfsd"].into_iter().all(knows) && SERVER.into_iter().all(|name| host::program(name).is_some())
}

/// Another machine with a share.
struct Server {
    host: Host,
    folder: tempfile::TempDir,
    /// Its shell, which holds the mounts that it alone sees.
    shell: Option<Child>,
}

impl Server {
    fn new() -> Self {
        let server = Self { host: Host::new(), folder: tempfile::tempdir().unwrap(), shell: None };
        fs::set_permissions(server.folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(server.share()).unwrap();
        server
    }

    fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    /// Serves it from now on by these versions of the protocol.
    fn serve(&mut self, versions: &str) {
        self.rest();
        let share = self.share();
        let script = format!(
            "set -e\nmount -t tmpfs run /run\nmkdir -p /var/lib/nfs /run/rpcbind\nmount -t tmpfs lib /var/lib/nfs\n: > /var/lib/nfs/etab\n\
             mount -t nfsd nfsd /proc/fs/nfsd\nrpcbind -w\n\
             exportfs -i -o rw,insecure,no_root_squash,no_subtree_check,fsid=7 '*:{share}'\n\
             rpc.nfsd --grace-time 10 --lease-time 10 {versions} 2\nrpc.mountd\necho serves\ncat\nrpc.nfsd 0\n",
            share = share.display()
        );
        let mut command = self.host.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script]);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        self.shell = Some(shell);
        assert_eq!(line, "serves\n");
    }

    /// Serves nothing any more.
    fn rest(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.rest();
    }
}

/// A pod with what a server has at a path.
fn pod(name: &str, path: &Path, read_only: bool) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [sh, -c, exec sleep 1000000]\n    \
         volumeMounts: [{{name: v, mountPath: /v}}, {{name: v, mountPath: /part, subPath: part}}]\n  \
         volumes: [{{name: v, nfs: {{server: 192.0.2.2, path: {}, readOnly: {read_only}}}}}]\n",
        path.display()
    )
}

#[test]
fn a_share_of_another_machine_is_what_that_machine_has() {
    if !is_possible() {
        eprintln!("Skipped: this machine's kernel has no NFS, or there is no nfs-kernel-server");
        return;
    }
    let mut server = Server::new();
    let host = Host::new();
    host.link(&server.host, "192.0.2.1/24", "192.0.2.2/24");
    server.serve("");
    let share = server.share();
    fs::write(share.join("word"), "theirs").unwrap();
    let cluster = Cluster::start_on(host, &[]);
    cluster.import("busybox", "busybox:1");
    let ready =
        |name: &str| cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"]);
    let run = |name: &str, line: &str| cluster.kubectl(&["exec", name, "--", "sh", "-c", line]);
    let mounted =
        || -> Vec<String> { cluster.mounts().into_iter().filter(|line| line.contains("192.0.2.2")).collect() };
    let delete = |name: &str| cluster.kubectl(&["delete", "pod", name, "--timeout=90s"]);

    cluster.apply(&pod("writes", &share, false));
    ready("writes");
    assert_eq!(
        run("writes", "cat /v/word; echo ours > /v/answer; echo part > /part/file; cat /v/part/file"),
        "theirspart\n"
    );
    assert_eq!(fs::read_to_string(share.join("answer")).unwrap(), "ours\n");
    assert_eq!(fs::read_to_string(share.join("part/file")).unwrap(), "part\n");
    let mounts = run("writes", "cat /proc/mounts");
    assert!(mounts.lines().any(|line| line.contains(" /v nfs4 rw,") && line.contains("vers=4.2")), "{mounts}");

    // One that may only read, beside it.
    cluster.apply(&pod("reads", &share, true));
    ready("reads");
    assert_eq!(run("reads", "cat /v/answer; echo no > /v/answer || echo refused"), "ours\nrefused\n");

    let is_told = |name: &str, words: &str| {
        wait_for("the reason", LONG, || {
            let told = cluster.kubectl(&["describe", "pod", name]);
            if told.contains("FailedMount") && told.contains(words) { Ok(()) } else { Err(told) }
        });
    };

    // What the server has not.
    let lost = share.join("nothing");
    cluster.apply(&pod("lost", &lost, false));
    is_told("lost", &format!("mount nfs 192.0.2.2:{}: No such file or directory", lost.display()));
    for name in ["lost", "reads", "writes"] {
        delete(name);
    }
    assert_eq!(mounted(), Vec::<String>::new());

    // A server that says nothing: that is told soon, and who wants it can go.
    server.host.stdout("ip", &["route", "add", "blackhole", "192.0.2.1/32"]);
    cluster.apply(&pod("waits", &share, false));
    is_told("waits", "192.0.2.2:2049 has not answered within 10 seconds");
    delete("waits");
    server.host.stdout("ip", &["route", "del", "blackhole", "192.0.2.1/32"]);

    // One that knows the oldest version alone.
    server.serve("--no-nfs-version 4");
    cluster.apply(&pod("older", &share, false));
    ready("older");
    assert_eq!(run("older", "cat /v/answer; echo again > /v/answer; grep -c vers=3 /proc/mounts"), "ours\n2\n");
    assert_eq!(fs::read_to_string(share.join("answer")).unwrap(), "again\n");
    delete("older");

    // The cable is cut under one that is at it: it goes all the same, and nobody else waits for it.
    server.serve("");
    cluster.apply(&pod("works", &share, false));
    ready("works");
    let line = "echo begins; while echo more; do :; done > /v/much";
    let mut work =
        cluster.kubectl_command(&["exec", "works", "--", "sh", "-c", line]).stdout(Stdio::piped()).spawn().unwrap();
    let mut begins = [0; 7];
    work.stdout.as_mut().unwrap().read_exact(&mut begins).unwrap();
    assert_eq!(&begins, b"begins\n");
    server.host.stdout("ip", &["link", "set", "cable", "down"]);
    cluster.kubectl(&["run", "other", "--image=busybox:1", "--", "sleep", "1000000"]);
    ready("other");
    delete("works");
    work.wait().unwrap();
    assert_eq!(mounted(), Vec::<String>::new());
}
