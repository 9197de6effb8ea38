//! What a person sees: every way of getting, describing, changing and waiting that a first week brings.

use crate::cluster::Cluster;

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster
}

fn sleeper(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {label}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: 'busybox:1', command: [sleep, '1000000']}}\n"
    )
}

#[test]
fn a_fresh_cluster_presents_itself() {
    let cluster = cluster();
    assert!(cluster.ready.contains("1 node"), "{}", cluster.ready);
    let node = cluster.kubectl(&["get", "nodes", "--no-headers"]);
    let words: Vec<&str> = node.split_whitespace().collect();
    assert_eq!(words[..2], ["node-1", "Ready"], "{node}");
    assert!(words[4].starts_with("v1.36."), "{node}");
    let cpus = cluster.kubectl(&["get", "node/node-1", "-o", "jsonpath={.status.capacity.cpu}"]);
    assert_eq!(cpus, std::thread::available_parallelism().unwrap().to_string());
    let namespaces = cluster.kubectl(&["get", "namespaces", "-o", "name"]);
    let expected = "namespace/default\nnamespace/kube-node-lease\nnamespace/kube-public\nnamespace/kube-system\n";
    assert_eq!(namespaces, expected);
    let resources = cluster.kubectl(&["api-resources", "--no-headers"]);
    for line in ["pods", "deployments", "clusterrolebindings", "leases"] {
        assert!(resources.lines().any(|l| l.starts_with(line)), "{line} is missing:\n{resources}");
    }
    assert!(cluster.kubectl(&["version"]).contains("Server Version: v1.36."));
    assert!(cluster.kubectl(&["cluster-info"]).contains("https://127.0.0.1:6443"));
    let explained = cluster.kubectl(&["explain", "pod.spec"]);
    assert!(explained.contains("containers") && explained.contains("-required-"), "{explained}");
    assert!(cluster.kubectl(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"]).contains("IntOrString"));
    assert_eq!(cluster.kubectl(&["auth", "can-i", "create", "pods"]), "yes\n");
    assert!(cluster.kubectl(&["auth", "whoami"]).contains("kubernetes-admin"));
    assert_eq!(cluster.kubectl(&["get", "--raw", "/readyz"]), "ok");
}

#[test]
fn pods_are_shown_in_every_form() {
    let cluster = cluster();
    for (name, label) in [("b", "one"), ("a", "two")] {
        cluster.apply(&sleeper(name, label));
    }
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);
    let get = |arguments: &[&str]| {
        let mut all = vec!["get", "pods"];
        all.extend_from_slice(arguments);
        cluster.kubectl(&all)
    };
    let wide = get(&["-o", "wide"]);
    let heading: Vec<&str> = wide.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading[..7], ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"], "{wide}");
    assert!(wide.contains("10.42.") && wide.contains("node-1"), "{wide}");
    assert_eq!(get(&["-o", "name"]), "pod/a\npod/b\n");
    assert_eq!(get(&["-o", "jsonpath={.items[*].metadata.name}"]), "a b");
    assert!(get(&["-o", "yaml"]).contains("kind: List"));
    let json: serde_json::Value = serde_json::from_str(&get(&["a", "-o", "json"])).unwrap();
    assert_eq!(json["spec"]["nodeName"], "node-1");
    let columns = get(&["-o", "custom-columns=N:.metadata.name,P:.status.phase", "--no-headers"]);
    assert_eq!(columns.split_whitespace().collect::<Vec<_>>(), ["a", "Running", "b", "Running"]);
    assert!(get(&["--show-labels"]).contains("app=two"));
    assert_eq!(get(&["-l", "app=one", "-o", "name"]), "pod/b\n");
    assert_eq!(get(&["-l", "app notin (one)", "-o", "name"]), "pod/a\n");
    assert_eq!(get(&["--field-selector", "status.phase!=Running", "-o", "name"]), "");
    assert_eq!(get(&["--field-selector", "spec.nodeName=node-1", "-o", "name"]).lines().count(), 2);
    // Not by the time of creation, which is in whole seconds.
    assert_eq!(get(&["--sort-by=.metadata.labels.app", "-o", "name"]), "pod/b\npod/a\n");
    assert!(get(&["-A"]).starts_with("NAMESPACE"));
    let described = cluster.kubectl(&["describe", "pod", "a"]);
    for word in ["Scheduled", "Pulled", "Created", "Started", "Status:", "IP:"] {
        assert!(described.contains(word), "{word} is missing:\n{described}");
    }
    let described = cluster.kubectl(&["describe", "node", "node-1"]);
    assert!(described.contains("Allocated resources") && described.contains("KubeletReady"), "{described}");
}

#[test]
fn objects_change_in_every_way() {
    let cluster = cluster();
    cluster.apply(&sleeper("a", "one"));
    cluster.kubectl(&["label", "pod/a", "tier=front"]);
    cluster.kubectl(&["annotate", "pod/a", "note=hello"]);
    cluster.kubectl(&["patch", "pod/a", "-p", r#"{"metadata":{"labels":{"by":"strategic"}}}"#]);
    cluster.kubectl(&["patch", "pod/a", "--type=merge", "-p", r#"{"metadata":{"labels":{"tier":null}}}"#]);
    cluster.kubectl(&[
        "patch",
        "pod/a",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/metadata/labels/app","value":"two"}]"#,
    ]);
    let labels = cluster.kubectl(&["get", "pod/a", "-o", "jsonpath={.metadata.labels}"]);
    assert_eq!(labels, r#"{"app":"two","by":"strategic"}"#);
    let refused = cluster.kubectl_refused(&["patch", "pod/a", "-p", r#"{"spec":{"nodeName":"other"}}"#]);
    assert!(refused.contains("pod updates may not change fields other than"), "{refused}");

    // kubectl edit with an editor that replaces a word.
    cluster.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue"]);
    let output = cluster
        .kubectl_command(&["edit", "configmap", "settings"])
        .env("KUBE_EDITOR", "sed -i s/blue/green/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(cluster.kubectl(&["get", "cm/settings", "-o", "jsonpath={.data.colour}"]), "green");

    let manifest = cluster.kubectl(&["get", "cm/settings", "-o", "yaml"]).replace("green", "red");
    cluster.kubectl_stdin(&["replace", "-f", "-"], &manifest);
    // The resourceVersion in it is old by now.
    let file = cluster.scratch().join("stale.yaml");
    std::fs::write(&file, &manifest).unwrap();
    let refused = cluster.kubectl_refused(&["replace", "-f", file.to_str().unwrap()]);
    assert!(
        refused.contains("the object has been modified; please apply your changes to the latest version and try again"),
        "{refused}"
    );

    let applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: yellow}\n";
    std::fs::write(&file, applied).unwrap();
    let output = cluster.kubectl_output(&["diff", "-f", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("+  colour: yellow"));
    assert_eq!(cluster.kubectl(&["get", "cm/settings", "-o", "jsonpath={.data.colour}"]), "red");

    let dry = cluster.kubectl_stdin(&["apply", "--dry-run=server", "-f", "-"], applied);
    assert!(dry.contains("configured (server dry run)") || dry.contains("configured (dry run)"), "{dry}");
    assert_eq!(cluster.kubectl(&["get", "cm/settings", "-o", "jsonpath={.data.colour}"]), "red");
}

#[test]
fn bad_manifests_are_refused_by_field() {
    let cluster = cluster();
    for (manifest, words) in [
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Upper}\n", "metadata.name: Invalid value: \"Upper\""),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n", "spec.containers: Required value"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i, nope: 1}]}\n",
            "unknown field \"spec.containers[0].nope\"",
        ),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: many}\n", "replicas"),
        ("apiVersion: v9\nkind: Pod\nmetadata: {name: p}\n", "no matches for kind \"Pod\" in version \"v9\""),
        (
            "apiVersion: v1\nkind: Nonsense\nmetadata: {name: none}\n",
            "no matches for kind \"Nonsense\" in version \"v1\"",
        ),
    ] {
        let file = cluster.scratch().join("bad.yaml");
        std::fs::write(&file, manifest).unwrap();
        let refused = cluster.kubectl_refused(&["apply", "-f", file.to_str().unwrap()]);
        assert!(refused.contains(words), "{manifest}\n{refused}");
    }
}
