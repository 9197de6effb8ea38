//! Cordoned nodes (`kubectl cordon`) take only pods that tolerate being there.

use k8s_openapi::api::core::v1::Taint;

use super::{Reasons, refuse, tolerates};
use crate::cluster::{Node, Pod};

pub(super) fn check(pod: &Pod, node: &Node) -> Result<(), Reasons> {
    if !node.unschedulable {
        return Ok(());
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if tolerates(&pod.tolerations, &taint) { Ok(()) } else { refuse("node(s) were unschedulable") }
}
