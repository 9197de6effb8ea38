//! Volumes made of objects, and of places on the host.

use std::time::Duration;

use crate::{cluster::Cluster, wait::wait_for};

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster
}

fn pod(name: &str, mounts: &str, volumes: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [sh, -c, exec sleep 1000000]\n    \
         env: [{{name: ME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]\n    \
         volumeMounts: [{mounts}]\n  volumes: [{volumes}]\n"
    )
}

fn ready(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

#[test]
fn files_follow_their_objects_at_once_and_all_together() {
    let cluster = cluster();
    cluster.kubectl(&["create", "configmap", "words", "--from-literal=a=one", "--from-literal=b=one"]);
    cluster.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=key=one"]);
    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fixed}\nimmutable: true\ndata: {word: always}\n");
    cluster.apply(&pod(
        "reads",
        "{name: w, mountPath: /w}, {name: w, mountPath: /once, subPath: a}, {name: h, mountPath: /h}, \
         {name: all, mountPath: /all}, {name: may, mountPath: /may}, {name: f, mountPath: /f}",
        "{name: w, configMap: {name: words}}, {name: h, secret: {secretName: hidden, defaultMode: 0400, \
         items: [{key: key, path: deep/er/key, mode: 0440}]}}, {name: may, configMap: {name: absent, optional: true}}, \
         {name: f, configMap: {name: fixed}}, {name: all, projected: {defaultMode: 0444, sources: [{configMap: {name: words, \
         items: [{key: a, path: word}]}}, {secret: {name: hidden}}, {downwardAPI: {items: [{path: name, \
         fieldRef: {fieldPath: metadata.name}}]}}, {serviceAccountToken: {path: token, expirationSeconds: 600}}]}}",
    ));
    ready(&cluster, "reads");
    let run = |line: &str| cluster.kubectl(&["exec", "reads", "--", "sh", "-c", line]);
    let all = "cat /w/a /w/b /once /h/deep/er/key /all/word /all/key /all/name /f/word; ls /may";
    assert_eq!(run(all), "oneoneoneoneoneonereadsalways");
    assert_eq!(
        run("stat -Lc %a /h/deep/er/key /all/word; stat -f -c %T /h; wc -c < /all/token | grep -c '...'"),
        "440\n444\ntmpfs\n1\n"
    );
    assert_eq!(run("readlink /w/a; readlink /w/..data | cut -c1-2"), "..data/a\n..\n");

    // One reader never sees an old file beside a new one.
    let watch = "for i in $(seq 100000); do d=$(readlink -f /w/..data); set -- $(cat $d/a) $(cat $d/b); \
                 test \"$1\" = \"$2\" || { echo torn: $1 $2; exit 1; }; test $1 = two && exit 0; done; echo never";
    let mut reader = cluster.kubectl_command(&["exec", "reads", "--", "sh", "-c", watch]);
    let reader = reader.stdout(std::process::Stdio::piped()).spawn().unwrap();
    cluster.kubectl(&["patch", "configmap", "words", "-p", r#"{"data": {"a": "two", "b": "two"}}"#]);
    cluster.kubectl(&["patch", "secret", "hidden", "-p", r#"{"stringData": {"key": "two"}}"#]);
    cluster.kubectl(&["create", "configmap", "absent", "--from-literal=now=here"]);
    wait_for("the new words in all files", Duration::from_secs(30), || {
        let now = run("cat /w/a /w/b /h/deep/er/key /all/word /all/key /may/now 2>/dev/null; true");
        if now == "twotwotwotwotwohere" { Ok(()) } else { Err(now) }
    });
    let seen = reader.wait_with_output().unwrap();
    assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stdout));
    assert_eq!(run("cat /once"), "one", "part of a volume stays as it was");
}

#[test]
fn places_on_the_host_are_what_the_pod_says_they_are() {
    let cluster = cluster();
    let host = cluster.scratch().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "text").unwrap();
    let volume = |path: &str, kind: &str| {
        format!("{{name: v, hostPath: {{path: {}, type: {kind:?}}}}}", host.join(path).display())
    };
    let mount = "{name: v, mountPath: /v}";
    for (name, path, kind, line, said) in [
        ("any", "file", "", "cat /v", "text"),
        ("file", "file", "File", "cat /v", "text"),
        ("make", "new/dir", "DirectoryOrCreate", "stat -c %F /v", "directory\n"),
        ("touch", "made", "FileOrCreate", "stat -c '%F %s' /v", "regular empty file 0\n"),
    ] {
        cluster.apply(&pod(name, mount, &volume(path, kind)));
        ready(&cluster, name);
        assert_eq!(cluster.kubectl(&["exec", name, "--", "sh", "-c", line]), said, "{name}");
    }
    for (name, path, kind, words) in [
        ("wrong", "file", "Directory", "hostPath type check failed"),
        ("socket", "file", "Socket", "hostPath type check failed"),
        ("none", "absent", "File", "hostPath type check failed"),
    ] {
        cluster.apply(&pod(name, mount, &volume(path, kind)));
        wait_for("the event about the volume", Duration::from_secs(60), || {
            let about = format!("involvedObject.name={name},reason=FailedMount");
            let events = cluster.kubectl(&["get", "events", "--field-selector", &about]);
            if events.contains(words) { Ok(()) } else { Err(events) }
        });
    }
    // A part of a volume that is called after the pod.
    let part = "{name: v, mountPath: /v, subPathExpr: of/$(ME)}";
    cluster.apply(&pod("named", part, &volume("", "Directory")));
    ready(&cluster, "named");
    cluster.kubectl(&["exec", "named", "--", "touch", "/v/mine"]);
    assert!(host.join("of/named/mine").exists());
}
