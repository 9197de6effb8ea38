//! PodTemplates: templates that stand by themselves; nothing in Kubernetes makes pods from them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;

use super::{
    cells,
    pod_template::{self, default_pod_template},
};
use crate::kind::{Column, NAME, Strategy};
use coracle_proto::{
    field::{Errors, Path},
    resource::Resource,
};

/// The strategy of `podtemplates`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodTemplates;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Containers", "Names of each container in the template."),
    cells::column("Images", "Images referenced by each container in the template."),
    cells::column("Pod Labels", "The labels for the pod template."),
];

impl Strategy for PodTemplates {
    type Object = PodTemplate;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "podtemplates")
    }

    fn default(&self, object: &mut PodTemplate) {
        default_pod_template(object.template.get_or_insert_default());
    }

    fn validate(&self, object: &PodTemplate) -> Errors {
        let mut errors = Errors::new();
        pod_template::validate(&mut errors, &Path::new("template"), &object.template.clone().unwrap_or_default());
        errors
    }

    fn warnings(&self, object: &PodTemplate) -> Vec<String> {
        let template = object.template.iter();
        template.flat_map(|template| pod_template::warnings_at(&Path::new("template"), template)).collect()
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &PodTemplate, _: Timestamp) -> Vec<serde_json::Value> {
        let template = object.template.clone().unwrap_or_default();
        let (names, images) = cells::containers(template.spec.as_ref().map_or(&[][..], |spec| &spec.containers));
        let labels = pod_template::labels(&template);
        vec![cells::name(&object.metadata), names.into(), images.into(), cells::labels(Some(&labels)).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{faults, row};

    #[test]
    fn a_template_may_be_of_any_restart_policy_but_must_have_containers() {
        let base = json!({"metadata": {"name": "t", "namespace": "d"}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
        assert_eq!(
            faults(&PodTemplates, &base, &[json!({"template": {"spec": {"containers": []}}})]),
            "{\"template\":{\"spec\":{\"containers\":[]}}}\n    template.spec.containers: Required value\n"
        );
        assert_eq!(row(&PodTemplates, &base), "t | c | i | a=b");
    }
}
