//! What changes of a pod while it runs, and what the node does about pods that take too much.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{cluster::Cluster, host::Host, wait::wait_for};

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster
}

const SLEEP: &str = "command: [sh, -c, exec sleep 1000000]";

/// The container's limits as the kernel has them: CPU time in a period, and bytes of memory.
const LIMITS: &str = "cd /sys/fs/cgroup; if [ -e cpu.max ]; then cut -d' ' -f1 cpu.max; cat memory.max; \
                      else cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes; fi";

#[test]
fn resources_of_a_running_pod_are_changed_in_place() {
    let cluster = cluster();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: grow}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - name: still\n    image: busybox:1\n    {SLEEP}\n    resources: {{requests: {{cpu: 100m}}, limits: {{cpu: 100m, memory: 64Mi}}}}\n  \
         - name: anew\n    image: busybox:1\n    {SLEEP}\n    resources: {{limits: {{memory: 64Mi}}}}\n    \
         resizePolicy: [{{resourceName: memory, restartPolicy: RestartContainer}}]\n"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/grow", "--timeout=60s"]);
    let limits = |container: &str| cluster.kubectl(&["exec", "grow", "-c", container, "--", "sh", "-c", LIMITS]);
    assert_eq!(limits("still"), format!("10000\n{}\n", 64 << 20));

    let resize = |patch: &str| cluster.kubectl(&["patch", "pod", "grow", "--subresource", "resize", "-p", patch]);
    resize(
        r#"{"spec":{"containers":[
            {"name":"still","resources":{"requests":{"cpu":"200m"},"limits":{"cpu":"200m","memory":"96Mi"}}},
            {"name":"anew","resources":{"limits":{"memory":"80Mi"},"requests":{"memory":"80Mi"}}}]}}"#,
    );
    let told = "{.status.observedGeneration} {.status.containerStatuses[*].restartCount} {.status.containerStatuses[*].resources.limits.memory}";
    cluster.wait_jsonpath(&["pod/grow"], told, "2 0 1 96Mi 80Mi");
    cluster.wait_jsonpath(&["pod/grow"], "{.status.conditions[?(@.type==\"PodResizeInProgress\")].status}", "");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/grow", "--timeout=60s"]);
    assert_eq!(limits("still"), format!("20000\n{}\n", 96 << 20));
    assert!(limits("anew").ends_with(&format!("\n{}\n", 80 << 20)));
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=grow"]);
    assert!(events.contains("ResizeStarted") && events.contains("ResizeCompleted"), "{events}");
    assert!(events.contains("Container anew resize requires restart"), "{events}");

    // More than the node has waits, and the container keeps what it has.
    let pending = "{.status.conditions[?(@.type==\"PodResizePending\")].reason}";
    resize(
        r#"{"spec":{"containers":[{"name":"still","resources":{"requests":{"cpu":"1000"},"limits":{"cpu":"1000"}}}]}}"#,
    );
    cluster.wait_jsonpath(&["pod/grow"], pending, "Deferred");
    assert_eq!(limits("still"), format!("20000\n{}\n", 96 << 20));
    resize(
        r#"{"spec":{"containers":[{"name":"still","resources":{"requests":{"cpu":"50m"},"limits":{"cpu":"50m"}}}]}}"#,
    );
    cluster.wait_jsonpath(&["pod/grow"], pending, "");
    let allocated = "{.status.containerStatuses[?(@.name==\"still\")].allocatedResources.cpu}";
    cluster.wait_jsonpath(&["pod/grow"], allocated, "50m");
    wait_for("the smaller limit", Duration::from_secs(60), || {
        let now = limits("still");
        if now.starts_with("5000\n") { Ok(()) } else { Err(now) }
    });
}

#[test]
fn a_container_with_another_image_is_started_anew() {
    let cluster = cluster();
    cluster.import("busybox", "busybox:2");
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: moves}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers: [{{name: c, image: 'busybox:1', {SLEEP}}}]\n"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/moves", "--timeout=60s"]);
    let before = cluster.kubectl(&["get", "pod/moves", "-o", "jsonpath={.metadata.resourceVersion}"]);
    cluster.kubectl(&["set", "image", "pod/moves", "c=busybox:2"]);
    let shown = "{.status.phase} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].image}";
    cluster.wait_jsonpath(&["pod/moves"], shown, "Running 1 docker.io/library/busybox:2");
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=moves"]);
    assert!(events.contains("Container c definition changed, will be restarted"), "{events}");
    // Its end and its new start were one step: nobody saw it not ready.
    let watch = format!(
        "/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1&fieldSelector=metadata.name=moves&resourceVersion={before}"
    );
    let told = cluster.kubectl(&["get", "--raw", &watch]);
    let ready = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    assert!(told.lines().count() >= 2 && told.lines().all(ready), "{told}");

    // One that cannot be had is waited for longer and longer; another one is tried at once, as the first time.
    cluster.kubectl(&["set", "image", "pod/moves", "c=localhost:1/none"]);
    let why = "{.status.containerStatuses[0].state.waiting.reason}";
    cluster.wait_jsonpath(&["pod/moves"], why, "ImagePullBackOff");
    cluster.kubectl(&["set", "image", "pod/moves", "c=busybox:1"]);
    let shown = "{.status.phase} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].image}";
    cluster.wait_jsonpath(&["pod/moves"], shown, "Running 2 docker.io/library/busybox:1");
}

#[test]
fn files_follow_the_pods_labels_and_an_image_is_a_volume() {
    let cluster = cluster();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: shows, labels: {{colour: red}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: c\n    image: busybox:1\n    {SLEEP}\n    volumeMounts:\n    \
         - {{name: about, mountPath: /about}}\n    - {{name: tools, mountPath: /tools}}\n    \
         - {{name: tools, mountPath: /only, subPath: bin}}\n  volumes:\n  \
         - name: about\n    downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}\n  \
         - name: tools\n    image: {{reference: 'busybox:1'}}\n"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/shows", "--timeout=60s"]);
    let run = |script: &str| cluster.kubectl(&["exec", "shows", "--", "sh", "-c", script]);
    assert_eq!(run("cat /about/labels"), "colour=\"red\"");
    assert_eq!(run("cmp /bin/busybox /tools/bin/busybox && cmp /bin/busybox /only/busybox && echo same"), "same\n");
    assert!(run("touch /tools/x 2>&1; true").contains("Read-only file system"));
    cluster.kubectl(&["label", "pod/shows", "--overwrite", "colour=blue"]);
    wait_for("the new label in the file", Duration::from_secs(60), || {
        let now = run("cat /about/labels");
        if now == "colour=\"blue\"" { Ok(()) } else { Err(now) }
    });
}

#[test]
fn a_pod_that_fills_its_volume_is_evicted_and_one_that_may_not_run_is_refused() {
    let cluster = cluster();
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: full}\nspec:\n  containers:\n  - name: c\n    image: busybox:1\n    \
         command: [sh, -c, 'head -c 3000000 /dev/zero > /data/file; exec sleep 1000000']\n    \
         volumeMounts: [{name: data, mountPath: /data}]\n  volumes: [{name: data, emptyDir: {sizeLimit: 1Mi}}]\n",
    );
    let ended = "{.status.phase} {.status.reason}: {.status.message}";
    let why = "Failed Evicted: Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". ";
    cluster.wait_jsonpath(&["pod/full"], ended, why);

    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: greedy}}\nspec:\n  \
         securityContext: {{sysctls: [{{name: kernel.msgmax, value: '65536'}}]}}\n  \
         containers: [{{name: c, image: 'busybox:1', {SLEEP}}}]\n"
    ));
    let why = "Failed SysctlForbidden: Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    cluster.wait_jsonpath(&["pod/greedy"], ended, why);
}

#[test]
fn sidecars_start_first_and_stop_last_and_rules_restart_a_container() {
    let cluster = cluster();
    let step = |name: &str| {
        format!(
            "trap 'echo {name} ends >> /data/log; exit 0' TERM; echo {name} begins >> /data/log; touch /tmp/up; while true; do sleep 0.1; done"
        )
    };
    let sidecar = |name: &str| {
        format!(
            "  - name: {name}\n    image: busybox:1\n    restartPolicy: Always\n    command: [sh, -c, {:?}]\n    \
             startupProbe: {{exec: {{command: [test, -e, /tmp/up]}}, periodSeconds: 1}}\n    \
             volumeMounts: [{{name: data, mountPath: /data}}]\n",
            step(name)
        )
    };
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: convoy}}\nspec:\n  restartPolicy: Never\n  initContainers:\n{}{}  \
         containers:\n  - name: app\n    image: busybox:1\n    command: [sh, -c, 'echo app >> /data/log; test $(grep -c app /data/log) = 2 || exit 42']\n    \
         restartPolicy: Never\n    restartPolicyRules: [{{action: Restart, exitCodes: {{operator: In, values: [42]}}}}]\n    \
         volumeMounts: [{{name: data, mountPath: /data}}]\n  - name: reader\n    image: busybox:1\n    {SLEEP}\n    \
         volumeMounts: [{{name: data, mountPath: /data}}]\n  volumes: [{{name: data, hostPath: {{path: {}, type: DirectoryOrCreate}}}}]\n",
        sidecar("one"),
        sidecar("two"),
        cluster.scratch().join("convoy").display()
    ));
    let app = "{.status.containerStatuses[?(@.name==\"app\")].restartCount} {.status.containerStatuses[?(@.name==\"app\")].state.terminated.exitCode}";
    cluster.wait_jsonpath(&["pod/convoy"], app, "1 0");
    cluster.kubectl(&["delete", "pod/convoy", "--timeout=60s", "--grace-period=10"]);
    let log = std::fs::read_to_string(cluster.scratch().join("convoy/log")).unwrap();
    assert_eq!(log, "one begins\ntwo begins\napp\napp\ntwo ends\none ends\n");
}

/// KEP-4960.
#[test]
fn a_container_is_asked_to_end_by_the_signal_it_names() {
    let cluster = cluster();
    let script = "trap 'echo usr1 >> /data/log; exit 0' USR1; trap 'echo term >> /data/log; exit 0' TERM; touch /tmp/up; \
                  while true; do sleep 0.1; done";
    let container = |name: &str, lifecycle: &str| {
        format!(
            "  - name: {name}\n    image: busybox:1\n    command: [sh, -c, {script:?}]\n{lifecycle}    \
             readinessProbe: {{exec: {{command: [test, -e, /tmp/up]}}, periodSeconds: 1}}\n    \
             volumeMounts: [{{name: data, mountPath: /data, subPath: {name}}}]\n"
        )
    };
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: asked}}\nspec:\n  os: {{name: linux}}\n  containers:\n{}{}  \
         volumes: [{{name: data, hostPath: {{path: {}, type: DirectoryOrCreate}}}}]\n",
        container("own", "    lifecycle: {stopSignal: SIGUSR1}\n"),
        container("usual", ""),
        cluster.scratch().join("asked").display()
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/asked", "--timeout=60s"]);
    let signals = "jsonpath={.status.containerStatuses[*].stopSignal}";
    assert_eq!(cluster.kubectl(&["get", "pod/asked", "-o", signals]), "SIGUSR1 SIGTERM");
    cluster.kubectl(&["delete", "pod/asked", "--timeout=60s"]);
    let log = |name: &str| std::fs::read_to_string(cluster.scratch().join("asked").join(name).join("log")).unwrap();
    assert_eq!((log("own").as_str(), log("usual").as_str()), ("usr1\n", "term\n"));
}

/// KEP-5532.
#[test]
fn a_rule_restarts_all_containers_in_their_order() {
    let cluster = cluster();
    let mount = "volumeMounts: [{name: data, mountPath: /data}]";
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: again}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 0\n  initContainers:\n  - name: first\n    image: busybox:1\n    {mount}\n    \
         command: [sh, -c, 'echo first >> /data/log']\n  containers:\n  - name: app\n    image: busybox:1\n    {mount}\n    \
         command: [sh, -c, 'echo app >> /data/log; until test -e /data/up; do sleep 0.1; done; test $(grep -c app /data/log) = 2 || exit 42; exec sleep 1000000']\n    \
         restartPolicy: Never\n    restartPolicyRules: \
         [{{action: RestartAllContainers, exitCodes: {{operator: In, values: [42]}}}}]\n  \
         - name: other\n    image: busybox:1\n    {mount}\n    \
         command: [sh, -c, 'touch /data/up; exec sleep 1000000']\n  volumes: [{{name: data, emptyDir: {{}}}}]\n"
    ));
    let counts =
        "{.status.phase} {.status.initContainerStatuses[0].restartCount} {.status.containerStatuses[*].restartCount}";
    cluster.wait_jsonpath(&["pod/again"], counts, "Running 1 1 1");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/again", "--timeout=60s"]);
    assert_eq!(cluster.kubectl(&["exec", "again", "-c", "app", "--", "cat", "/data/log"]), "first\napp\nfirst\napp\n");
    let condition = "{.status.conditions[?(@.type==\"AllContainersRestarting\")].status}";
    cluster.wait_jsonpath(&["pod/again"], condition, "False");
}

#[test]
fn a_pod_on_the_hosts_network_has_the_hosts_address() {
    let cluster = cluster();
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: host}\nspec:\n  hostNetwork: true\n  restartPolicy: Never\n  containers:\n  \
         - name: c\n    image: busybox:1\n    command: [sh, -c, 'echo $POD $HOST']\n    env:\n    \
         - {name: POD, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n    \
         - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}\n",
    );
    cluster.wait_jsonpath(&["pod/host"], "{.status.phase}", "Succeeded");
    let address = cluster.kubectl(&["get", "pod/host", "-o", "jsonpath={.status.podIP}"]);
    assert_eq!(cluster.kubectl(&["logs", "host"]), format!("{address} {address}\n"));
}

/// As Kubernetes has it: one number of the host leads to several pods, if addresses or protocols tell them apart.
#[test]
fn ports_of_the_host_lead_to_the_pods_that_have_them() {
    let mut cluster = cluster();
    cluster.host.stdout("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
    let pod = |name: &str, host_ip: &str, protocol: &str| {
        let script = format!("mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 8080 -h /www");
        cluster.apply(
            &serde_json::json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                // With no time at all the object would be gone before the pod.
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "c", "image": "busybox:1", "command": ["sh", "-c", script],
                    "ports": [{"containerPort": 8080, "hostPort": 8088, "hostIP": host_ip, "protocol": protocol}],
                    "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
                }]},
            })
            .to_string(),
        );
        cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"]);
    };
    pod("here", "127.0.0.1", "TCP");
    pod("there", "192.0.2.1", "TCP");
    pod("datagrams", "192.0.2.1", "UDP");
    let get = |host: &Host, address: &str| host.stdout("curl", &["-sS", &format!("http://{address}:8088/")]);
    assert_eq!(get(&cluster.host, "127.0.0.1"), "here\n");
    assert_eq!(get(&cluster.host, "192.0.2.1"), "there\n");
    // A pod reaches them as anybody does.
    assert_eq!(cluster.kubectl(&["exec", "here", "--", "wget", "-qO-", "http://192.0.2.1:8088/"]), "there\n");

    // The next agent finds them as they were.
    cluster.end(Signal::SIGKILL);
    cluster.up();
    assert_eq!(get(&cluster.host, "192.0.2.1"), "there\n");
    cluster.kubectl(&["delete", "pod/there", "--wait=true"]);
    let refused = cluster.host.output("curl", &["-sS", "http://192.0.2.1:8088/"]);
    // What curl says when nobody takes its connection.
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    assert_eq!(get(&cluster.host, "127.0.0.1"), "here\n");
}
