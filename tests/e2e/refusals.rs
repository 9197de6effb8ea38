//! Mistakes and malice at the edges: wrong flags, hostile requests, registries that hang, disks that are full.

use std::{
    io::Write,
    process::{Output, Stdio},
    time::Duration,
};

use crate::{cluster::Cluster, disk::Disk, host::Host, wait::wait_for};

fn coracle(arguments: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_coracle")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn wrong_flags_are_named_with_what_is_allowed() {
    for (arguments, code, words) in [
        (&["up", "--listen", "nonsense"][..], 2, "--listen"),
        (&["up", "--pod-cidr", "10.42.0.0"], 2, "--pod-cidr"),
        (&["up", "--node-name", "Not A Name", "--data-dir", "/nonexistent/x"], 2, "--node-name"),
        (&["up", "--system-reserved", "memory=500Ti", "--data-dir", "/nonexistent/x"], 2, "--system-reserved"),
        (
            &["up", "--eviction-soft", "pid.available<7", "--data-dir", "/nonexistent/x"],
            2,
            "--eviction-soft: grace period must be specified for the soft eviction threshold pid.available",
        ),
        (&["up", "--taint", "a:Never"], 2, "NoSchedule, PreferNoSchedule, NoExecute"),
        (&["up", "--log", "no=such=level"], 2, "--log"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["--config", "/nonexistent/file", "up"], 2, "/nonexistent/file"),
        (&["server", "--join", "https://127.0.0.1:1", "--token", "x"], 2, "--token"),
        (&["server", "--join", "https://127.0.0.1:1"], 2, "coracle token create --server"),
        (&["witness", "--join", "https://127.0.0.1:1"], 2, "coracle token create --witness"),
        (&["up", "--join", "https://127.0.0.1:1", "--token", "x"], 2, "--token"),
        (&["up", "--join", "https://127.0.0.1:1"], 2, "coracle token create --server"),
    ] {
        let output = coracle(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_data_directory_of_another_version_is_left_alone() {
    let mut cluster = Cluster::start();
    cluster.end(nix::sys::signal::Signal::SIGTERM);
    let version = find(&cluster.data_dir(), "format").expect("the store notes the version of its format");
    std::fs::write(&version, "999\n").unwrap();
    let output = cluster
        .host
        .command(env!("CARGO_BIN_EXE_coracle"))
        .args(["up", "--listen", "127.0.0.1:6443", "--data-dir"])
        .arg(cluster.data_dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("999"), "{said}");
}

fn find(folder: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).ok()?.filter_map(Result::ok).find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return find(&path, name);
        }
        path.file_name().is_some_and(|file| file.to_string_lossy().to_lowercase().contains(name)).then_some(path)
    })
}

#[test]
fn strangers_learn_nothing_and_change_nothing() {
    let cluster = Cluster::start();
    let curl = |arguments: &[&str]| {
        let mut all = vec!["-sk", "-o", "/dev/null", "-w", "%{http_code}"];
        all.extend_from_slice(arguments);
        cluster.host.stdout("curl", &all)
    };
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(curl(&[&format!("https://127.0.0.1:6443{open}")]), "200", "{open}");
    }
    for closed in [
        "/",
        "/api",
        "/apis",
        "/api/v1/pods",
        "/api/v1/namespaces/kube-system/secrets",
        "/openapi/v3",
        "/metrics",
        "/logs",
    ] {
        assert_eq!(curl(&[&format!("https://127.0.0.1:6443{closed}")]), "401", "{closed}");
    }
    for token in ["nonsense", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06YWRtaW4ifQ."] {
        let header = format!("Authorization: Bearer {token}");
        assert_eq!(curl(&["-H", &header, "https://127.0.0.1:6443/api/v1/pods"]), "401", "{token}");
    }
    // The node's own server is for the API server and for whom it lets.
    let port = "jsonpath={.items[0].status.daemonEndpoints.kubeletEndpoint.Port}";
    let port = cluster.kubectl(&["get", "nodes", "-o", port]);
    for path in ["/pods", "/stats/summary", "/exec/default/x/y?command=id"] {
        let code = curl(&[&format!("https://127.0.0.1:{port}{path}")]);
        assert_eq!(code, "401", "{path}");
    }
}

#[test]
fn a_service_account_may_do_what_its_roles_say() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "serviceaccount", "reader"]);
    cluster.kubectl(&["create", "role", "read-pods", "--verb=get,list", "--resource=pods"]);
    cluster.kubectl(&["create", "rolebinding", "reader", "--role=read-pods", "--serviceaccount=default:reader"]);
    let token = cluster.kubectl(&["create", "token", "reader"]);
    let as_reader = |arguments: &[&str]| {
        let mut command = cluster.host.command("kubectl");
        command.args(["--server=https://127.0.0.1:6443", "--insecure-skip-tls-verify", "--token", token.trim()]);
        command.env("KUBECONFIG", "/dev/null").args(arguments).output().unwrap()
    };
    assert!(as_reader(&["get", "pods"]).status.success());
    let refused = as_reader(&["get", "secrets"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    let words = "secrets is forbidden: User \"system:serviceaccount:default:reader\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"";
    assert!(said.contains(words), "{said}");
    cluster.kubectl(&["delete", "serviceaccount", "reader"]);
    wait_for("the token to be worthless", Duration::from_secs(60), || {
        let output = as_reader(&["get", "pods"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("Unauthorized") || said.contains("logged in") { Ok(()) } else { Err(said) }
    });
}

/// A wish to be somebody else that is passed over would be granted with the asker's own rights.
#[test]
fn who_acts_as_somebody_else_has_that_ones_rights() {
    let cluster = Cluster::start();
    // Raw, for kubectl does not show what is said to its discovery.
    let refused = cluster.kubectl_refused(&["get", "--raw", "/api/v1/secrets", "--as=nobody"]);
    assert!(refused.contains("User \"nobody\" cannot list resource \"secrets\""), "{refused}");
}

/// Invariant 5: no request, however malformed, stops a component.
#[test]
fn hostile_bodies_get_an_answer_and_change_nothing() {
    let cluster = Cluster::start();
    let folder = cluster.scratch().join("bodies");
    std::fs::create_dir(&folder).unwrap();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let huge = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"huge\"}},\"data\":{{\"k\":\"{}\"}}}}",
        "x".repeat(20_000_000)
    );
    let bodies: [(&str, &str, &str, &[&str]); 6] = [
        ("malformed", "{\"apiVersion\": ", "application/json", &["400"]),
        ("deep", &deep, "application/json", &["400"]),
        ("huge", &huge, "application/json", &["413"]),
        ("yaml", "a: [b\n- c", "application/yaml", &["400"]),
        ("media", "x", "application/x-nonsense", &["415"]),
        (
            "type",
            "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":7}}",
            "application/json",
            &["400"],
        ),
    ];
    let token = cluster.kubectl(&["create", "token", "default", "-n", "kube-system"]);
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "all",
        "--clusterrole=cluster-admin",
        "--serviceaccount=kube-system:default",
    ]);
    for (name, body, media, codes) in bodies {
        let file = folder.join(name);
        std::fs::write(&file, body).unwrap();
        let data = format!("@{}", file.display());
        let (bearer, media) = (format!("Authorization: Bearer {}", token.trim()), format!("Content-Type: {media}"));
        let url = "https://127.0.0.1:6443/api/v1/namespaces/default/configmaps";
        let arguments = [
            "-sk",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "POST",
            "-H",
            &bearer,
            "-H",
            &media,
            "--data-binary",
            &data,
            url,
        ];
        let output = cluster.host.output("curl", &arguments);
        let code = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(codes.contains(&code.as_str()), "{name}: {code}");
    }
    assert_eq!(cluster.kubectl(&["get", "configmaps", "-o", "name"]), "configmap/kube-root-ca.crt\n");
}

#[test]
fn a_registry_that_hangs_delays_nobody_else() {
    let host = Host::new();
    let cluster = Cluster::start_on(host, &[]);
    cluster.import("busybox", "busybox:1");
    // A listener in the cluster's network that accepts and never answers.
    let mut silent =
        cluster.host.command("busybox").args(["nc", "-l", "-p", "5999"]).stdin(Stdio::piped()).spawn().unwrap();
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: waiting}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {name: c, image: '127.0.0.1:5999/app:1'}\n",
    );
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: other}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {name: c, image: 'busybox:1', command: [sleep, '1000000']}\n",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/other", "--timeout=60s"]);
    cluster.wait_jsonpath(&["pod/waiting"], "{.status.containerStatuses[0].state.waiting.reason}", "ContainerCreating");
    cluster.kubectl(&["delete", "pod/waiting", "--timeout=90s"]);
    let _ = silent.kill();
    let _ = silent.wait();
}

#[test]
fn a_full_disk_refuses_writes_and_heals() {
    let disk = Disk::of("size=96m");
    {
        let mut cluster = Cluster::start_in(disk.path().join("data"), &["--no-agent"]);
        cluster.expected_error = Some("the disk is full");
        let filler = disk.path().join("filler");
        cluster.kubectl(&["create", "configmap", "before"]);
        fill(&filler);
        let big = "x".repeat(900_000);
        let file = cluster.scratch().join("big.yaml");
        std::fs::write(
            &file,
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata: {{k: {big}}}\n"),
        )
        .unwrap();
        let mut refused = None;
        for _ in 0..5 {
            let output = cluster.kubectl_output(&["create", "-f", file.to_str().unwrap()]);
            if !output.status.success() {
                refused = Some(String::from_utf8_lossy(&output.stderr).into_owned());
                break;
            }
            cluster.kubectl(&["delete", "configmap/big"]);
        }
        let refused = refused.expect("a full disk refuses a write");
        assert!(refused.contains("space") || refused.contains("full"), "{refused}");
        assert_eq!(cluster.kubectl(&["get", "configmap/before", "-o", "name"]), "configmap/before\n");
        std::fs::remove_file(&filler).unwrap();
        wait_for("writes to go on", Duration::from_secs(60), || cluster.try_kubectl(&["create", "configmap", "after"]));
    }
}

fn fill(path: &std::path::Path) {
    let mut file = std::fs::File::create(path).unwrap();
    let block = vec![0; 65_536];
    while file.write_all(&block).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
}
