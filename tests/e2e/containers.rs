//! What a container sees and may do, how it ends, and what the node does about it.

use std::time::Duration;

use crate::{cluster::Cluster, wait::wait_for};

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster
}

/// A pod of one container with the given fields of its own and of the container's.
fn pod(name: &str, command: &str, container: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{spec}  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [sh, -c, {command:?}]\n{container}"
    )
}

const SLEEP: &str = "exec sleep 1000000";

#[test]
fn a_container_is_alone_with_its_own_namespaces_and_few_rights() {
    let cluster = cluster();
    cluster.apply(&pod("plain", SLEEP, "", "  hostname: my-host\n"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/plain", "--timeout=60s"]);
    cluster.wait_processes("sleep 1000000", 1);
    let run = |script: &str| cluster.kubectl(&["exec", "plain", "--", "sh", "-c", script]);

    assert_eq!(run("hostname"), "my-host\n");
    assert_eq!(run("tr '\\0' ' ' < /proc/1/cmdline"), "sleep 1000000 ");
    for namespace in ["pid", "mnt", "net", "uts", "ipc", "cgroup"] {
        let inside = run(&format!("readlink /proc/self/ns/{namespace}"));
        let outside = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(inside.trim(), outside.to_str().unwrap(), "{namespace}");
    }
    let status = run("cat /proc/1/status");
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    // The capabilities containerd gives by default.
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "0");
    // Where the kernel has these files, they are empty for a container.
    assert_eq!(run("cat /proc/kcore /proc/keys /proc/timer_list 2> /dev/null | wc -c").trim(), "0");
    assert!(run("echo x > /proc/sys/kernel/hostname 2>&1; echo $?").trim().ends_with('1'));
    let devices = run("ls /dev");
    for device in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "pts", "fd", "stdin"] {
        assert!(devices.split_whitespace().any(|d| d == device), "/dev/{device} is missing: {devices}");
    }
    assert!(run("cat /etc/hosts").contains("my-host"));
    assert!(run("test -s /etc/resolv.conf && echo there").contains("there"));
    // A root that others share is not changed by one.
    run("echo mine > /bin/added");
    cluster.apply(&pod("other", SLEEP, "", ""));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/other", "--timeout=60s"]);
    assert!(!cluster.kubectl(&["exec", "other", "--", "ls", "/bin"]).contains("added"));
}

#[test]
fn a_security_context_is_honoured() {
    let cluster = cluster();
    let context = "    securityContext:\n      runAsUser: 33\n      runAsGroup: 44\n      allowPrivilegeEscalation: false\n      \
                   readOnlyRootFilesystem: true\n      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}\n";
    cluster.apply(&pod("strict", SLEEP, context, "  securityContext: {supplementalGroups: [55]}\n"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/strict", "--timeout=60s"]);
    let run = |script: &str| cluster.kubectl(&["exec", "strict", "--", "sh", "-c", script]);
    assert_eq!(run("id -u; id -g"), "33\n44\n");
    assert!(run("id -G").split_whitespace().any(|g| g == "55"));
    let status = run("cat /proc/1/status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("CapBnd:\t0000000000000400"), "{status}");
    assert!(run("touch /file 2>&1; true").contains("Read-only file system"));

    cluster.apply(&pod("root", SLEEP, "    securityContext: {runAsNonRoot: true}\n", ""));
    cluster.wait_jsonpath(
        &["pod/root"],
        "{.status.containerStatuses[0].state.waiting.reason}",
        "CreateContainerConfigError",
    );
}

#[test]
fn a_pod_with_users_of_its_own_is_root_inside_alone() {
    let cluster = cluster();
    let volume = "    volumeMounts: [{name: e, mountPath: /e}]\n";
    let spec = "  hostUsers: false\n  volumes: [{name: e, emptyDir: {}}]\n";
    cluster.apply(&pod("own", "touch /e/made; exec sleep 636363", volume, spec));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/own", "--timeout=60s"]);
    let run = |script: &str| cluster.kubectl(&["exec", "own", "--", "sh", "-c", script]);
    cluster.wait_processes("sleep 636363", 1);
    assert_eq!(run("id -u; stat -c %u / /e /e/made /etc/hosts"), "0\n0\n0\n0\n0\n");
    let map = run("cat /proc/self/uid_map");
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "65536", "65536"]);
    let pid = pid_of("sleep 636363", &cluster);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nUid:\t65536\t65536\t65536\t65536\n"), "{status}");

    // What the host cannot do is said in kubelet's words.
    if !std::path::Path::new("/sys/module/apparmor").exists() {
        let profile = "  securityContext: {appArmorProfile: {type: Localhost, localhostProfile: mine}}\n";
        cluster.apply(&pod("confined", SLEEP, "", profile));
        cluster.wait_jsonpath(&["pod", "confined"], "{.status.phase} {.status.reason}", "Failed AppArmor");
        let message = cluster.kubectl(&["get", "pod", "confined", "-o", "jsonpath={.status.message}"]);
        assert!(message.ends_with("Cannot enforce AppArmor: AppArmor is not enabled on the host"), "{message}");
    }
}

#[test]
fn a_container_over_its_memory_limit_is_killed_and_says_so() {
    let cluster = cluster();
    let limits = "    resources: {limits: {memory: 32Mi}}\n";
    let spec = "  restartPolicy: Never\n";
    cluster.apply(&pod("hungry", "tail -c 200000000 /dev/zero", limits, spec));
    let reason = "{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}";
    cluster.wait_jsonpath(&["pod/hungry"], reason, "OOMKilled 137");
    cluster.wait_jsonpath(&["pod/hungry"], "{.status.phase}", "Failed");
}

#[test]
fn a_container_that_forks_without_end_is_held_by_its_limits() {
    let cluster = cluster();
    cluster.apply(&bomb("bomb"));
    // The node stays usable beside it, and the pod can be deleted.
    cluster.apply(&pod("bystander", SLEEP, "", ""));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/bystander", "--timeout=90s"]);
    cluster.kubectl(&["delete", "pod/bomb", "--timeout=60s"]);
}

fn bomb(name: &str) -> String {
    let limits = "    resources: {limits: {memory: 48Mi, cpu: 200m}}\n";
    pod(name, "bomb() { bomb | bomb & }; bomb; exec sleep 1000000", limits, "")
}

#[test]
fn a_container_that_forks_without_end_does_not_keep_the_cluster_from_ending() {
    let mut cluster = cluster();
    cluster.apply(&bomb("bomb"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/bomb", "--timeout=90s"]);
    let pods = pids_max(&cluster);
    assert_eq!(pods, ["4096"], "a pod's limit of processes");
    cluster.end(nix::sys::signal::Signal::SIGTERM);
    let log = cluster.log();
    assert!(!log.contains("pods did not stop in time"), "{log}");
}

/// The limits of processes of the cluster's pods.
fn pids_max(cluster: &Cluster) -> Vec<String> {
    let tops = cluster.groups().into_iter();
    let classes = tops.flat_map(|top| ["", "burstable", "besteffort"].map(|class| top.join("kubepods").join(class)));
    let groups = classes.filter_map(|class| std::fs::read_dir(class).ok()).flatten().flatten();
    let pods = groups.filter(|group| group.file_name().to_string_lossy().starts_with("pod"));
    let limits = pods.filter_map(|pod| std::fs::read_to_string(pod.path().join("pids.max")).ok());
    limits.map(|limit| limit.trim().to_owned()).collect()
}

#[test]
fn a_killed_process_is_restarted_and_a_crashing_one_is_held_back() {
    let cluster = cluster();
    cluster.apply(&pod("victim", SLEEP, "", ""));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/victim", "--timeout=60s"]);
    cluster.wait_processes("sleep 1000000", 1);
    let count = "{.status.containerStatuses[0].restartCount}";
    assert_eq!(cluster.kubectl(&["get", "pod/victim", "-o", &format!("jsonpath={count}")]), "0");
    // A container's first process ignores signals from inside that it does not handle; it is killed from the host.
    let pid = pid_of("sleep 1000000", &cluster);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    cluster.wait_jsonpath(&["pod/victim"], count, "1");
    cluster.wait_jsonpath(&["pod/victim"], "{.status.containerStatuses[0].lastState.terminated.exitCode}", "137");

    cluster.apply(&pod("crasher", "echo bye; exit 3", "", ""));
    cluster.wait_jsonpath(&["pod/crasher"], "{.status.containerStatuses[0].state.waiting.reason}", "CrashLoopBackOff");
    cluster.wait_jsonpath(&["pod/crasher"], "{.status.containerStatuses[0].lastState.terminated.exitCode}", "3");
    let shown = cluster.kubectl(&["get", "pod/crasher", "--no-headers"]);
    assert!(shown.contains("CrashLoopBackOff"), "{shown}");
    let message = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
    let message = cluster.kubectl(&["get", "pod/crasher", "-o", message]);
    assert!(message.starts_with("back-off 10s restarting failed container=c pod=crasher_default("), "{message}");
    assert_eq!(cluster.kubectl(&["logs", "crasher", "--previous"]), "bye\n");
}

/// The process on this machine with this command line inside one of the cluster's pods.
fn pid_of(command: &str, cluster: &Cluster) -> i32 {
    let ours = std::fs::read_link(format!("/proc/{}/ns/net", cluster.pid())).unwrap();
    let matching = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let net = std::fs::read_link(format!("/proc/{pid}/ns/net"));
        line.trim() == command && net.is_ok_and(|net| net != ours) && cluster.mounts_in(*pid)
    };
    let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    numbers.into_iter().find(matching).unwrap_or_else(|| panic!("no process {command:?}"))
}

#[test]
fn probes_decide_what_is_ready_and_what_is_restarted() {
    let cluster = cluster();
    let ready = "    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}\n";
    cluster.apply(&pod("waits", SLEEP, ready, ""));
    cluster.wait_jsonpath(&["pod/waits"], "{.status.phase} {.status.containerStatuses[0].ready}", "Running false");
    cluster.kubectl(&["exec", "waits", "--", "touch", "/tmp/ready"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/waits", "--timeout=90s"]);
    cluster.kubectl(&["exec", "waits", "--", "rm", "/tmp/ready"]);
    cluster.kubectl(&["wait", "--for=condition=Ready=false", "pod/waits", "--timeout=90s"]);

    let live =
        "    livenessProbe: {exec: {command: [test, '!', -e, /tmp/sick]}, periodSeconds: 1, failureThreshold: 1}\n";
    cluster.apply(&pod("sick", SLEEP, live, ""));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/sick", "--timeout=60s"]);
    cluster.kubectl(&["exec", "sick", "--", "touch", "/tmp/sick"]);
    cluster.wait_jsonpath(&["pod/sick"], "{.status.containerStatuses[0].restartCount}", "1");
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=sick"]);
    assert!(events.contains("Unhealthy") && events.contains("Killing"), "{events}");
}

#[test]
fn init_containers_run_in_order_and_volumes_are_shared() {
    let cluster = cluster();
    let spec = "  initContainers:\n  - {name: one, image: 'busybox:1', command: [sh, -c, 'echo one > /data/log'], volumeMounts: [{name: data, mountPath: /data}]}\n  \
                - {name: two, image: 'busybox:1', command: [sh, -c, 'echo two >> /data/log'], volumeMounts: [{name: data, mountPath: /data}]}\n  \
                volumes: [{name: data, emptyDir: {}}]\n";
    let mounts = "    volumeMounts: [{name: data, mountPath: /data}]\n";
    cluster.apply(&pod("steps", SLEEP, mounts, spec));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/steps", "--timeout=60s"]);
    assert_eq!(cluster.kubectl(&["exec", "steps", "--", "cat", "/data/log"]), "one\ntwo\n");
    let reason = "{.status.initContainerStatuses[*].state.terminated.reason}";
    cluster.wait_jsonpath(&["pod/steps"], reason, "Completed Completed");
}

#[test]
fn termination_waits_for_the_grace_period_and_no_longer() {
    let cluster = cluster();
    let polite = "trap 'echo saw TERM; exit 0' TERM; echo up; while true; do sleep 1; done";
    cluster.apply(
        &pod("polite", polite, "", "")
            .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 300"),
    );
    wait_for("the program to be ready for the signal", Duration::from_secs(60), || {
        let log = cluster.try_kubectl(&["logs", "polite"]);
        if log.as_deref() == Ok("up\n") { Ok(()) } else { Err(log) }
    });
    cluster.kubectl(&["delete", "pod/polite", "--timeout=90s"]);
    let stubborn = "trap '' TERM; while true; do sleep 1; done";
    cluster.apply(&pod("stubborn", stubborn, "", ""));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/stubborn", "--timeout=60s"]);
    cluster.kubectl(&["delete", "pod/stubborn", "--timeout=90s"]);
}

#[test]
fn a_log_without_newlines_is_kept_in_bounds() {
    let cluster = cluster();
    cluster.apply(&pod(
        "loud",
        "head -c 1000000000 /dev/zero | tr '\\0' x; echo; echo done; exec sleep 1000000",
        "",
        "",
    ));
    wait_for("the end of the flood", Duration::from_secs(240), || {
        let tail = cluster.try_kubectl(&["logs", "loud", "--tail=1"]);
        if tail.as_deref() == Ok("done\n") { Ok(()) } else { Err(tail.map(|t| t.len())) }
    });
    let size = cluster.host.stdout("du", &["-sm", cluster.data_dir().to_str().unwrap()]);
    let megabytes: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
    assert!(megabytes < 300, "the data directory holds {megabytes} MB");
}
