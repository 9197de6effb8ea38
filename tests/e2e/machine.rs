//! A whole cluster on a machine that has cgroup v2 alone, as most of today's distributions do: a virtual one.

use std::{path::Path, process::Command, time::Duration};

use coracle_test_machine::{Memory, kernel};

/// What bridges, cables and address translation are in Debian's kernel; each after what it needs.
const MODULES: &[&str] = &[
    "overlay",
    "llc",
    "stp",
    "bridge",
    "veth",
    "libcrc32c",
    "nfnetlink",
    "nf_tables",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_masq",
];

/// What the machine does. Files are said with a mark before each line, so that they can be told from what the kernel says.
const SCRIPT: &str = r#"
mount -t tmpfs lib /var/lib
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
hostname machine
coracle up --log warn >/tmp/ready 2>/tmp/log &
up=$!
while ! [ -s /tmp/ready ] && kill -0 $up; do sleep 1; done
cat /tmp/ready
coracle image import /busybox.tar --rootfs --name busybox:1 --cmd sh
kubectl apply -f /pods.yaml
kubectl wait --for=condition=Ready pod/steady --timeout=200s
kubectl exec steady -- sh -c 'echo "memory $(cat /sys/fs/cgroup/memory.max), processor $(cat /sys/fs/cgroup/cpu.max)"'
kubectl wait --for=jsonpath='{.status.phase}'=Failed pod/greedy --timeout=200s
kubectl get pod greedy -o jsonpath='greedy: {.status.containerStatuses[0].state.terminated.reason}{"\n"}'
kubectl exec steady -- wget -q -O - http://$(kubectl get pod web -o jsonpath='{.status.podIP}')/index.html
kubectl delete pod --all --wait
kill $up
wait $up
echo "up ended with $?"
coracle down --purge
echo "left: $(ls -d /sys/fs/cgroup/coracle* /var/lib/coracle 2>/dev/null)."
while read -r line; do echo "log: $line"; done </tmp/log
echo the end
"#;

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: steady}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: busybox:1
      command: [sleep, "100000"]
      resources: {requests: {cpu: 100m, memory: 16Mi}, limits: {cpu: 500m, memory: 32Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: busybox:1
      command: [sh, -c, 'x=x; while true; do x=$x$x; done']
      resources: {limits: {memory: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: busybox:1
      command: [sh, -c, 'mkdir /www; echo a page of another pod >/www/index.html; exec httpd -f -h /www']
      readinessProbe: {httpGet: {port: 80, path: /index.html}, periodSeconds: 1}
"#;

/// Longer than the machine needs by far where every instruction is emulated and others compute beside it.
const PATIENCE: Duration = Duration::from_secs(900);

/// Busybox and nothing else, as the files of an image.
fn rootfs() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for applet in ["sh", "sleep", "cat", "mkdir", "httpd", "wget"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    let packed = Command::new("tar").arg("-C").arg(folder.path()).args(["-c", "."]).output().unwrap();
    assert!(packed.status.success());
    packed.stdout
}

fn kubectl() -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.is_file()).expect("kubectl")
}

#[test]
fn a_machine_with_cgroup_v2_alone_runs_a_cluster() {
    let Some(kernel) = kernel() else { return };
    let mut memory = Memory::new(&["sleep", "cat", "hostname", "kill", "ls"]);
    memory.modules(&kernel, MODULES);
    memory.program("/bin/coracle", Path::new(env!("CARGO_BIN_EXE_coracle")));
    memory.file("/bin/kubectl", &std::fs::read(kubectl()).unwrap());
    memory.file("/busybox.tar", &rootfs());
    memory.file("/pods.yaml", PODS.as_bytes());
    let said = memory.run(&kernel, SCRIPT, 3072, PATIENCE);
    for expected in [
        "coracle is ready in ",
        "pod/steady condition met",
        "memory 33554432, processor 50000 100000",
        "greedy: OOMKilled",
        "a page of another pod",
        "up ended with 0",
        "left: .",
        "the end",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing; the machine said:\n{said}");
    }
    assert!(!said.contains(" ERROR ") && !said.contains("panicked"), "the machine said:\n{said}");
}
