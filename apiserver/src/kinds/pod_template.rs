//! Pod templates, as Deployments and ReplicaSets carry them.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::{blank::drop_blank, pod_spec::defaults::default_pod_spec};

/// Completes a template.
pub(super) fn default_pod_template(template: &mut PodTemplateSpec) {
    let metadata = template.metadata.get_or_insert_default();
    drop_blank(&mut metadata.labels);
    drop_blank(&mut metadata.annotations);
    default_pod_spec(template.spec.get_or_insert_default());
}
