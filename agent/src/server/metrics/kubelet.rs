//! What `/metrics` tells of the pods that are here now; what was counted of the past is in `figures.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_process::metrics::Page;
use k8s_openapi::api::core::v1::Volume;
use serde_json::Value;

use crate::context::{Context, Entry};
use crate::eviction::usage;
use crate::node;
use crate::pod::facts::Phase;
use crate::pod::{self, spec};
use crate::volume;

/// Bytes on disk of what a container said, with the pod and the container it is of.
pub(super) struct Log {
    uid: String,
    namespace: String,
    pod: String,
    container: String,
    bytes: u64,
}

/// The pods that are here, and the logs of their containers.
pub(super) async fn look(context: &Context) -> (Vec<Entry>, Vec<Log>) {
    let pods: Vec<Entry> = context.table.with(|table| table.values().cloned().collect());
    let of = |entry: &Entry| {
        let of: [String; 3] =
            [pod::uid(&entry.pod), pod::namespace(&entry.pod), pod::name(&entry.pod)].map(str::to_owned);
        let dir = |(name, attempts): (&String, &Vec<pod::facts::Attempt>)| {
            Some((of.clone(), name.clone(), attempts.last()?.log.parent()?.to_owned()))
        };
        entry.attempts.iter().filter_map(dir).collect::<Vec<_>>()
    };
    let places: Vec<([String; 3], String, PathBuf)> = pods.iter().flat_map(of).collect();
    let measure = move || {
        let of = |([uid, namespace, pod], container, dir): ([String; 3], String, PathBuf)| Log {
            uid,
            namespace,
            pod,
            container,
            bytes: usage::tree(&dir),
        };
        places.into_iter().map(of).collect()
    };
    (pods, tokio::task::spawn_blocking(measure).await.unwrap_or_default())
}

/// Kubelet's name for what makes a volume; none for a source that no node here has.
fn plugin(volume: &Volume) -> Option<String> {
    const NAMES: &[(&str, &str)] = &[
        ("emptyDir", "empty-dir"),
        ("hostPath", "host-path"),
        ("configMap", "configmap"),
        ("secret", "secret"),
        ("downwardAPI", "downward-api"),
        ("projected", "projected"),
        ("nfs", "nfs"),
        ("image", "image"),
    ];
    let Ok(Value::Object(fields)) = serde_json::to_value(volume) else { return None };
    let found = NAMES.iter().find(|(field, _)| fields.contains_key(*field));
    found.map(|(_, name)| format!("kubernetes.io/{name}"))
}

/// Writes what there is of pods, containers and volumes.
pub(super) fn write(out: &mut Page, node: &str, pods: &[Entry], logs: &[Log]) {
    out.head("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
    out.line("kubelet_node_name", format_args!("{{node=\"{node}\"}}"), 1);
    out.head("kubernetes_build_info", "gauge", "[ALPHA] The version that runs.");
    let version = node::VERSION;
    out.line("kubernetes_build_info", format_args!("{{git_version=\"{version}\",major=\"1\",minor=\"36\"}}"), 1);

    let running = pods.iter().filter(|entry| entry.sandbox.is_some()).count();
    out.one("kubelet_running_pods", "gauge", "[ALPHA] Number of pods that have a running pod sandbox", running);
    let mut states: BTreeMap<&str, usize> =
        [("created", 0), ("exited", 0), ("running", 0), ("unknown", 0)].into_iter().collect();
    for attempt in pods.iter().flat_map(|entry| entry.attempts.values().flatten()) {
        let state = match attempt.phase {
            Phase::Created => "created",
            Phase::Running => "running",
            Phase::Exited => "exited",
        };
        *states.entry(state).or_default() += 1;
    }
    let name = "kubelet_running_containers";
    out.head(name, "gauge", "[ALPHA] Number of containers currently running");
    for (state, count) in states {
        out.line(name, format_args!("{{container_state=\"{state}\"}}"), count);
    }

    for (name, help, counts) in [
        (
            "kubelet_desired_pods",
            "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
            (|_| true) as fn(&&Entry) -> bool,
        ),
        (
            "kubelet_active_pods",
            "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.",
            |entry| !entry.over,
        ),
    ] {
        out.head(name, "gauge", help);
        for is_static in [false, true] {
            let count = pods.iter().filter(counts).filter(|entry| pod::is_static(&entry.pod) == is_static).count();
            let shown = if is_static { "true" } else { "" };
            out.line(name, format_args!("{{static=\"{shown}\"}}"), count);
        }
    }
    let ephemeral: usize = pods.iter().map(|entry| spec(&entry.pod).ephemeral_containers().len()).sum();
    let help = "[ALPHA] Current number of ephemeral containers in pods managed by this kubelet.";
    out.one("kubelet_managed_ephemeral_containers", "gauge", help, ephemeral);

    let mut volumes: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for entry in pods.iter().filter(|entry| !entry.over) {
        for plugin in volume::volumes(&entry.pod).iter().filter_map(plugin) {
            *volumes.entry((plugin.clone(), "desired_state_of_world")).or_default() += 1;
            if entry.sandbox.is_some() {
                *volumes.entry((plugin, "actual_state_of_world")).or_default() += 1;
            }
        }
    }
    let name = "volume_manager_total_volumes";
    out.head(name, "gauge", "[ALPHA] Number of volumes in Volume Manager");
    for ((plugin, state), count) in volumes {
        out.line(name, format_args!("{{plugin_name=\"{plugin}\",state=\"{state}\"}}"), count);
    }

    let name = "kubelet_container_log_filesystem_used_bytes";
    out.head(name, "gauge", "[ALPHA] Bytes used by the container's logs on the filesystem.");
    for Log { uid, namespace, pod, container, bytes } in logs {
        let labels =
            format_args!("{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",uid=\"{uid}\"}}");
        out.line(name, labels, bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_here_is_told_by_kubelets_names() {
        let volumes = json!([{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "x"}}, {"name": "c"}]);
        let of = |over| Entry {
            pod: Arc::new(pod::testing::pod(json!({"containers": [{"name": "app"}], "volumes": volumes}))),
            sandbox: None,
            attempts: BTreeMap::new(),
            requests: BTreeMap::new(),
            over,
        };
        let [uid, namespace, pod, container] = ["u", "default", "web", "app"].map(str::to_owned);
        let log = Log { uid, namespace, pod, container, bytes: 4096 };
        let mut page = Page::default();
        write(&mut page, "n1", &[of(false), of(true)], &[log]);
        let samples: Vec<&str> = page.0.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            kubelet_node_name{node="n1"} 1
            kubernetes_build_info{git_version="v1.36.0+coracle0.1.0",major="1",minor="36"} 1
            kubelet_running_pods 0
            kubelet_running_containers{container_state="created"} 0
            kubelet_running_containers{container_state="exited"} 0
            kubelet_running_containers{container_state="running"} 0
            kubelet_running_containers{container_state="unknown"} 0
            kubelet_desired_pods{static=""} 2
            kubelet_desired_pods{static="true"} 0
            kubelet_active_pods{static=""} 1
            kubelet_active_pods{static="true"} 0
            kubelet_managed_ephemeral_containers 0
            volume_manager_total_volumes{plugin_name="kubernetes.io/configmap",state="desired_state_of_world"} 1
            volume_manager_total_volumes{plugin_name="kubernetes.io/empty-dir",state="desired_state_of_world"} 1
            kubelet_container_log_filesystem_used_bytes{container="app",namespace="default",pod="web",uid="u"} 4096"#]]
        .assert_eq(&samples.join("\n"));
    }
}
