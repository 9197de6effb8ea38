//! What a pod asks for itself and its volumes, seen from inside its containers and from the host.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{cluster::Cluster, wait::wait_for};

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster
}

/// A pod of one container that sleeps, with further fields of its own and of the container's.
fn pod(name: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{spec}  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [sh, -c, exec sleep 1000000]\n{container}"
    )
}

/// What a line of shell says in a pod that is made for it.
#[track_caller]
fn says(cluster: &Cluster, name: &str, spec: &str, container: &str, line: &str) -> String {
    cluster.apply(&pod(name, spec, container));
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    cluster.kubectl(&["exec", name, "--", "sh", "-c", line])
}

#[test]
fn names_groups_and_profiles_are_as_the_pod_says() {
    let cluster = cluster();
    let names = "  hostname: host\n  subdomain: sub\n";
    let line = "hostname; tail -n 1 /etc/hosts | cut -f2-";
    assert_eq!(says(&cluster, "short", names, "", line), "host\nhost.sub.default.svc.cluster.local\thost\n");
    let whole = "  hostname: host\n  subdomain: sub\n  setHostnameAsFQDN: true\n";
    assert_eq!(says(&cluster, "whole", whole, "", "hostname"), "host.sub.default.svc.cluster.local\n");

    // The image has www in the group extra (3000).
    let groups = |more: &str| format!("  securityContext: {{runAsUser: 33, supplementalGroups: [55]{more}}}\n");
    let merged = says(&cluster, "merge", &groups(""), "", "id -G");
    assert!(merged.split_whitespace().any(|group| group == "3000"), "{merged}");
    let strict = says(&cluster, "strict", &groups(", supplementalGroupsPolicy: Strict"), "", "id -G");
    let strict: Vec<&str> = strict.split_whitespace().collect();
    assert!(strict.contains(&"55") && !strict.contains(&"3000"), "{strict:?}");

    let profile = cluster.data_dir().join("agent/seccomp/no-mkdir.json");
    std::fs::create_dir_all(profile.parent().unwrap()).unwrap();
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(profile, rules).unwrap();
    let own = "    securityContext: {seccompProfile: {type: Localhost, localhostProfile: no-mkdir.json}}\n";
    let said = says(&cluster, "profiled", "", own, "mkdir /x 2>&1; touch /y && echo touched");
    assert_eq!(said, "mkdir: can't create directory '/x': Operation not permitted\ntouched\n");

    // What is masked is a mount of its own.
    let masks = "grep -c ' /proc/' /proc/self/mountinfo";
    assert_ne!(says(&cluster, "masked", "  hostUsers: false\n", "", &format!("{masks}; true")), "0\n");
    let open = "    securityContext: {procMount: Unmasked}\n";
    assert_eq!(says(&cluster, "unmasked", "  hostUsers: false\n", open, &format!("{masks}; true")), "0\n");
}

#[test]
fn volumes_belong_to_the_pods_group_whatever_its_change_policy() {
    let cluster = cluster();
    cluster.kubectl(&["create", "configmap", "words", "--from-literal=word=here"]);
    let mounts = "    volumeMounts: [{name: e, mountPath: /e}, {name: m, mountPath: /m}, {name: w, mountPath: /w}]\n    \
                  securityContext: {runAsUser: 33}\n";
    for policy in ["Always", "OnRootMismatch"] {
        let spec = format!(
            "  securityContext: {{fsGroup: 4242, fsGroupChangePolicy: {policy}}}\n  volumes: [{{name: e, emptyDir: {{}}}}, \
             {{name: m, emptyDir: {{medium: Memory}}}}, {{name: w, configMap: {{name: words, defaultMode: 0440}}}}]\n"
        );
        let line = "touch /e/f /m/f; stat -c %g /e /e/f /m /m/f; stat -Lc '%g %a' /w/word; cat /w/word; id -G";
        let said = says(&cluster, &policy.to_lowercase(), &spec, mounts, line);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..5], ["4242", "4242", "4242", "4242", "4242 440"], "{said}");
        assert!(lines[5].starts_with("here") && said.ends_with("4242\n"), "{said}");
    }
}

/// A directory that is a mount others follow, whatever the host's root is; gone when dropped.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Self {
        let shared = Self(tempfile::tempdir().unwrap());
        let path = shared.0.path().to_str().unwrap();
        run("mount", &["--bind", path, path]);
        run("mount", &["--make-shared", path]);
        shared
    }

    fn at(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let done = Command::new("umount").args(["--recursive", "--lazy"]).arg(self.0.path()).status();
        assert!(done.is_ok_and(|done| done.success()) || std::thread::panicking());
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn mounts_of_the_host_and_of_a_container_are_seen_as_far_as_the_pod_says() {
    let shared = Shared::new();
    let cluster = cluster();
    let volume = |path: &PathBuf| format!("  volumes: [{{name: h, hostPath: {{path: {}}}}}]\n", path.display());
    let mount = |more: &str| format!("    volumeMounts: [{{name: h, mountPath: /h{more}}}]\n");
    let data = shared.at("data");
    shared.at("data/before");
    run("mount", &["-t", "tmpfs", "tmpfs", data.join("before").to_str().unwrap()]);

    // What is mounted below is read-only too if that was asked for, and else it is not.
    let touch = "touch /h/f 2>&1; touch /h/before/f 2>&1 && echo wrote below";
    assert_eq!(
        says(&cluster, "plain", &volume(&data), &mount(", readOnly: true"), touch),
        "touch: /h/f: Read-only file system\nwrote below\n"
    );
    let recursive = mount(", readOnly: true, recursiveReadOnly: Enabled");
    assert_eq!(
        says(&cluster, "recursive", &volume(&data), &recursive, &format!("{touch}; true")),
        "touch: /h/f: Read-only file system\ntouch: /h/before/f: Read-only file system\n"
    );
    let shown = "jsonpath={.status.containerStatuses[0].volumeMounts[?(@.name==\"h\")].recursiveReadOnly}";
    assert_eq!(cluster.kubectl(&["get", "pod", "recursive", "-o", shown]), "Enabled");

    // What the host mounts later is seen by who follows it.
    for (name, more) in [("private", ""), ("follows", ", mountPropagation: HostToContainer")] {
        says(&cluster, name, &volume(&data), &mount(more), "true");
    }
    shared.at("data/later");
    run("mount", &["-t", "tmpfs", "tmpfs", data.join("later").to_str().unwrap()]);
    std::fs::write(data.join("later/file"), "").unwrap();
    let later = |name: &str| cluster.kubectl(&["exec", name, "--", "sh", "-c", "ls /h/later"]);
    assert_eq!((later("private").as_str(), later("follows").as_str()), ("", "file\n"));

    // And what a privileged container mounts is seen by the host, if it says so; when it is gone it can be taken away.
    let both = shared.at("both");
    let privileged = "    securityContext: {privileged: true}\n";
    let mounts = "mkdir -p /h/inside && mount -t tmpfs inside /h/inside && touch /h/inside/file && echo mounted";
    let spread = format!("{}{privileged}", mount(", mountPropagation: Bidirectional"));
    assert_eq!(says(&cluster, "spreads", &volume(&both), &spread, mounts), "mounted\n");
    assert!(both.join("inside/file").exists());
    let kept = format!("{}{privileged}", mount(""));
    let alone = shared.at("alone");
    assert_eq!(says(&cluster, "keeps", &volume(&alone), &kept, mounts), "mounted\n");
    assert!(!alone.join("inside/file").exists());
}

/// Kubelet's 4096 bytes of one container, 12 KiB of all of a pod's, and 2048 bytes of a log that stands for a message.
#[test]
fn last_words_are_kept_up_to_their_bounds() {
    let cluster = cluster();
    let container = |name: &str, script: &str| {
        format!(
            "  - name: {name}\n    image: busybox:1\n    terminationMessagePolicy: FallbackToLogsOnError\n    \
             command: [sh, -c, '{script}']\n"
        )
    };
    let file = "seq -w 10000 | head -c 50000 > /dev/termination-log";
    let log = "for i in $(seq 60); do printf \"%0100d\\n\" $i; done; exit 3";
    let pod = |name: &str, containers: &[String]| {
        let all = containers.concat();
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n{all}"
        ));
    };
    pod("two", &[container("file", file), container("log", log)]);
    let names = ["a", "b", "c", "d", "e", "f"];
    pod("six", &names.map(|name| container(name, file)));
    let messages = |pod: &str| {
        let ended = "{range .status.containerStatuses[*]}{.state.terminated.message}|{end}";
        wait_for("all to have ended", Duration::from_secs(60), || {
            let said = cluster.kubectl(&["get", "pod", pod, "-o", &format!("jsonpath={ended}")]);
            let all: Vec<String> = said.split('|').map(str::to_owned).filter(|said| !said.is_empty()).collect();
            let count = cluster.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.containers[*].name}"]);
            if all.len() == count.split(' ').count() { Ok(all) } else { Err(said) }
        })
    };
    let two = messages("two");
    assert_eq!((two[0].len(), two[1].len()), (4096, 2048), "{two:?}");
    assert!(two[0].ends_with("08332\n08333\n08"), "the last of it: {}", &two[0][4000..]);
    assert!(two[1].ends_with("0060\n"), "the last of it: {}", &two[1][2000..]);
    assert_eq!(messages("six").iter().map(String::len).collect::<Vec<_>>(), [2048; 6]);
}

#[test]
fn sources_of_volumes_that_no_node_here_has_are_named() {
    let cluster = cluster();
    for (name, source) in [
        ("clusterTrustBundle", "clusterTrustBundle: {name: x, path: ca.pem}"),
        ("podCertificate", "podCertificate: {signerName: a.example/b, keyType: ED25519, credentialBundlePath: x.pem}"),
    ] {
        let volume = format!("  volumes: [{{name: v, projected: {{sources: [{{{source}}}]}}}}]\n");
        let lower = name.to_lowercase();
        cluster.apply(&pod(&lower, &volume, "    volumeMounts: [{name: v, mountPath: /v}]\n"));
        wait_for("the event that says so", Duration::from_secs(60), || {
            let about = format!("involvedObject.name={lower},reason=FailedMount");
            let events = cluster.kubectl(&["get", "events", "--field-selector", &about]);
            if events.contains(name) && events.contains("not supported") { Ok(()) } else { Err(events) }
        });
    }
}
