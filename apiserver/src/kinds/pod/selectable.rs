//! What field selectors may ask of pods.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use serde::Deserialize;

use crate::kinds::blank::{list, text};

/// As much of a pod as selectors see. A node's agent watches its pods by such a field: every pod that anybody makes or
/// changes is looked at so.
#[derive(Deserialize, Default)]
#[serde(default)]
struct View<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(borrow)]
    status: Status<'a>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec<'a> {
    #[serde(borrow)]
    node_name: Cow<'a, str>,
    #[serde(borrow)]
    restart_policy: Cow<'a, str>,
    #[serde(borrow)]
    scheduler_name: Cow<'a, str>,
    #[serde(borrow)]
    service_account_name: Cow<'a, str>,
    host_network: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow, rename = "podIP")]
    pod_ip: Cow<'a, str>,
    #[serde(borrow, rename = "podIPs")]
    pod_ips: Vec<Ip<'a>>,
    #[serde(borrow)]
    nominated_node_name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Ip<'a> {
    #[serde(borrow)]
    ip: Cow<'a, str>,
}

impl View<'_> {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let Self { spec, status } = self;
        let pod_ip = status.pod_ips.first().map_or(&status.pod_ip, |ip| &ip.ip);
        vec![
            ("spec.nodeName", spec.node_name.to_string()),
            ("spec.restartPolicy", spec.restart_policy.to_string()),
            ("spec.schedulerName", spec.scheduler_name.to_string()),
            ("spec.serviceAccountName", spec.service_account_name.to_string()),
            ("spec.hostNetwork", spec.host_network.to_string()),
            ("status.phase", status.phase.to_string()),
            ("status.podIP", pod_ip.to_string()),
            ("status.nominatedNodeName", status.nominated_node_name.to_string()),
        ]
    }
}

/// The selectable fields and their values.
pub(super) fn fields(pod: &Pod) -> Vec<(&'static str, String)> {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let (spec, status) = (pod.spec.as_ref().unwrap_or(&no_spec), pod.status.as_ref().unwrap_or(&no_status));
    let view = View {
        spec: Spec {
            node_name: text(&spec.node_name).into(),
            restart_policy: text(&spec.restart_policy).into(),
            scheduler_name: text(&spec.scheduler_name).into(),
            service_account_name: text(&spec.service_account_name).into(),
            host_network: spec.host_network.unwrap_or(false),
        },
        status: Status {
            phase: text(&status.phase).into(),
            pod_ip: text(&status.pod_ip).into(),
            pod_ips: list(&status.pod_ips).iter().map(|ip| Ip { ip: ip.ip.as_str().into() }).collect(),
            nominated_node_name: text(&status.nominated_node_name).into(),
        },
    };
    view.fields()
}

/// The same of a stored pod.
pub(super) fn fields_of_stored(stored: &[u8]) -> serde_json::Result<Vec<(&'static str, String)>> {
    serde_json::from_slice::<View<'_>>(stored).map(|view| view.fields())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stored_pod_shows_what_the_pod_shows() {
        for pod in [
            json!({"metadata": {"name": "a"}}),
            json!({"spec": {"nodeName": "n", "restartPolicy": "Never", "schedulerName": "s\"x", "hostNetwork": true,
                            "serviceAccountName": "a", "containers": [{"name": "c"}]},
                   "status": {"phase": "Running", "podIP": "10.0.0.1", "nominatedNodeName": "m"}}),
            json!({"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::1"}]}}),
        ] {
            let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
            let stored = fields_of_stored(pod.to_string().as_bytes()).unwrap();
            assert_eq!(stored, fields(&typed), "{pod}");
            assert_eq!(stored.len(), 8);
        }
        assert!(fields_of_stored(b"{").is_err());
    }
}
