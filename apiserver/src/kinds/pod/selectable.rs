//! What field selectors may ask of pods.

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

use crate::kinds::blank::{list, text};

/// The selectable fields and their values.
pub(super) fn fields(pod: &Pod) -> Vec<(&'static str, String)> {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let (spec, status) = (pod.spec.as_ref().unwrap_or(&no_spec), pod.status.as_ref().unwrap_or(&no_status));
    let pod_ip = list(&status.pod_ips).first().map_or(text(&status.pod_ip), |ip| ip.ip.as_str());
    vec![
        ("spec.nodeName", text(&spec.node_name).to_owned()),
        ("spec.restartPolicy", text(&spec.restart_policy).to_owned()),
        ("spec.schedulerName", text(&spec.scheduler_name).to_owned()),
        ("spec.serviceAccountName", text(&spec.service_account_name).to_owned()),
        ("spec.hostNetwork", spec.host_network.unwrap_or(false).to_string()),
        ("status.phase", text(&status.phase).to_owned()),
        ("status.podIP", pod_ip.to_owned()),
        ("status.nominatedNodeName", text(&status.nominated_node_name).to_owned()),
    ]
}
