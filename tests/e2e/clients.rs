//! Other clients than kubectl: kube-rs and the Python client, with all they can do to pods that really run.

use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{AttachParams, DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cluster::Cluster;

/// A pod that says a line and has a page.
fn pod(name: &str) -> Pod {
    let script = "mkdir /www; echo page > /www/index.html; httpd -p 8080 -h /www; echo grüße; exec sleep 1000000";
    let container = json!({"name": "main", "image": "busybox:1", "command": ["sh", "-c", script]});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": "talker"}}, "spec": spec}))
        .expect("a pod")
}

async fn drive(cluster: &Cluster) -> anyhow::Result<()> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, "default");
    for name in ["a", "b"] {
        pods.create(&PostParams::default(), &pod(name)).await?;
        await_condition(pods.clone(), name, conditions::is_pod_running()).await?;
    }

    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream("a", &follow).await?.lines();
    assert_eq!(lines.try_next().await?.as_deref(), Some("grüße"));
    assert_eq!(pods.logs("a", &LogParams::default()).await?, "grüße\n");

    let asked = AttachParams::default().stdin(true).stderr(false);
    let mut running = pods.exec("a", ["sh", "-c", "read x; echo $x; exit 3"], &asked).await?;
    running.stdin().expect("its standard input").write_all("名前\n".as_bytes()).await?;
    let mut out = String::new();
    running.stdout().expect("its output").read_to_string(&mut out).await?;
    let status = running.take_status().expect("its status").await.expect("a status at the end");
    assert_eq!((out.as_str(), status.reason.as_deref()), ("名前\n", Some("NonZeroExitCode")));

    // Ports over a plain WebSocket, each on channels of its own.
    let mut ports = pods.portforward("a", &[8080, 9]).await?;
    let mut stream = ports.take_stream(8080).expect("its stream");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    assert!(page.starts_with("HTTP/1.") && page.ends_with("\r\n\r\npage\n"), "{page}");
    let why = ports.take_error(9).expect("its errors").await.unwrap_or_default();
    assert!(why.contains("dial tcp4 127.0.0.1:9: connect: connection refused"), "{why}");

    let labels = Patch::Merge(json!({"metadata": {"labels": {"seen": "yes"}}}));
    pods.patch("a", &PatchParams::default(), &labels).await?;
    assert_eq!(pods.list(&ListParams::default().labels("seen=yes")).await?.items.len(), 1);
    pods.evict("a", &EvictParams::default()).await?;
    await_condition(pods.clone(), "a", conditions::is_deleted(&uid(&pods, "a").await?)).await?;
    pods.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=talker")).await?;
    await_condition(pods.clone(), "b", conditions::is_deleted(&uid(&pods, "b").await?)).await?;
    Ok(())
}

/// The uid of a pod that may be gone.
async fn uid(pods: &Api<Pod>, name: &str) -> anyhow::Result<String> {
    Ok(pods.get_opt(name).await?.and_then(|pod| pod.metadata.uid).unwrap_or_default())
}

#[test]
fn kube_drives_pods_with_their_logs_and_sessions() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.host.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(drive(&cluster)).expect("every call is answered");
    });
}

/// What the Python client does; it prints `done` at the end.
const PYTHON: &str = r#"
import json, sys
from kubernetes import client, config, dynamic, watch
from kubernetes.stream import stream

config.load_kube_config(sys.argv[1])
core, apps, extensions = client.CoreV1Api(), client.AppsV1Api(), client.ApiextensionsV1Api()
maps = lambda: [m.metadata.name for m in core.list_namespaced_config_map("default", label_selector="t=1").items]

def refused(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except client.ApiException as error:
        assert error.status == code, error
        return error
    raise AssertionError("it was not refused")

# Objects: create, get, list, replace, patch in every way, watch, delete, deletecollection.
body = lambda name: {"metadata": {"name": name, "labels": {"t": "1"}}, "data": {"größe": "x"}}
refused(422, core.create_namespaced_config_map, "default", body("a"))
body = lambda name: {"metadata": {"name": name, "labels": {"t": "1"}}, "data": {"k": "größe 名前 🦀"}}
made = core.create_namespaced_config_map("default", body("a"))
refused(409, core.create_namespaced_config_map, "default", body("a"))
assert core.read_namespaced_config_map("a", "default").data == {"k": "größe 名前 🦀"}
made.data["k"] = "2"
core.replace_namespaced_config_map("a", "default", made)
refused(409, core.replace_namespaced_config_map, "a", "default", made)
core.patch_namespaced_config_map("a", "default", [{"op": "replace", "path": "/data/k", "value": "3"}])
assert core.patch_namespaced_config_map("a", "default", {"data": {"l": "4"}}).data == {"k": "3", "l": "4"}
core.create_namespaced_config_map("default", body("dry"), dry_run="All")
core.create_namespaced_config_map("default", body("b"))
assert maps() == ["a", "b"], maps()
page = core.list_namespaced_config_map("default", label_selector="t=1", limit=1)
assert page.metadata.remaining_item_count == 1 or page.metadata._continue
rest = core.list_namespaced_config_map("default", label_selector="t=1", limit=1, _continue=page.metadata._continue)
assert [m.metadata.name for m in rest.items] == ["b"]
version = core.list_namespaced_config_map("default").metadata.resource_version
core.delete_namespaced_config_map("a", "default")
refused(404, core.read_namespaced_config_map, "a", "default")
for event in watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=30):
    assert (event["type"], event["object"].metadata.name) == ("DELETED", "a"), event
    break
core.delete_collection_namespaced_config_map("default", label_selector="t=1")
assert maps() == []

# Subresources.
template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "busybox:1", "command": ["sleep", "1000000"]}], "terminationGracePeriodSeconds": 0}}
apps.create_namespaced_deployment("default", {"metadata": {"name": "d"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}})
assert apps.read_namespaced_deployment_scale("d", "default").spec.replicas == 0
assert apps.patch_namespaced_deployment_scale("d", "default", {"spec": {"replicas": 1}}).spec.replicas == 1
apps.patch_namespaced_deployment_status("d", "default", {"metadata": {"annotations": {"x": "y"}}})
apps.delete_namespaced_deployment("d", "default", propagation_policy="Background")

# Kinds it has no type for, and server-side apply.
names = {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"}
schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
extensions.create_custom_resource_definition({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}]}})
for event in watch.Watch().stream(extensions.list_custom_resource_definition, timeout_seconds=30):
    if any(c.type == "Established" and c.status == "True" for c in event["object"].status.conditions or []):
        break
foos = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="example.com/v1", kind="Foo")
foo = {"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "f"}, "spec": {"größe": 1}}
foos.server_side_apply(body=json.dumps(foo), name="f", namespace="default", field_manager="python")
assert foos.patch(body={"spec": {"größe": 2}}, name="f", namespace="default", content_type="application/merge-patch+json").spec["größe"] == 2
foos.delete(name="f", namespace="default")

# Pods with their logs and sessions.
script = "echo grüße; exec sleep 1000000"
container = {"name": "main", "image": "busybox:1", "command": ["sh", "-c", script]}
core.create_namespaced_pod("default", {"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}})
for event in watch.Watch().stream(core.list_namespaced_pod, "default", field_selector="metadata.name=p", timeout_seconds=90):
    if event["object"].status.phase == "Running":
        break
for line in watch.Watch().stream(core.read_namespaced_pod_log, "p", "default"):
    assert line == "grüße", line
    break
assert core.read_namespaced_pod_log("p", "default", tail_lines=1) == "grüße\n"
out = stream(core.connect_get_namespaced_pod_exec, "p", "default", command=["echo", "名前"], stderr=True, stdin=False, stdout=True, tty=False)
assert out == "名前\n", repr(out)
core.create_namespaced_pod_eviction("p", "default", client.V1Eviction(metadata=client.V1ObjectMeta(name="p")))
print("done")
"#;

#[test]
fn the_python_client_drives_every_verb() {
    let probe = std::process::Command::new("/usr/bin/python3").args(["-c", "import kubernetes"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("Skipped: Python's kubernetes package is missing; tests/run installs it where Debian has it");
        return;
    }
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    let kubeconfig = cluster.kubeconfig();
    let told =
        cluster.host.stdout("/usr/bin/python3", &["-c", PYTHON, kubeconfig.to_str().expect("a path that is text")]);
    assert_eq!(told, "done\n");
}
