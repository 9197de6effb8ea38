//! The `Local` API services: one for each built-in group and version, as Kubernetes' aggregator shows them.

use coracle_proto::resource::old;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec},
};

use crate::{discovery, kinds::api_service};

/// How important a group is to discovery, and its versions within it: Kubernetes 1.36's numbers.
const PRIORITIES: &[(&str, i32, i32)] = &[
    ("", 18_000, 1),
    ("apps", 17_800, 15),
    ("events.k8s.io", 17_750, 15),
    ("authentication.k8s.io", 17_700, 15),
    ("authorization.k8s.io", 17_600, 15),
    ("autoscaling", 17_500, 15),
    ("batch", 17_400, 15),
    ("certificates.k8s.io", 17_300, 15),
    ("networking.k8s.io", 17_200, 15),
    ("policy", 17_100, 15),
    ("rbac.authorization.k8s.io", 17_000, 15),
    ("storage.k8s.io", 16_800, 15),
    ("apiextensions.k8s.io", 16_700, 15),
    ("admissionregistration.k8s.io", 16_700, 15),
    ("scheduling.k8s.io", 16_600, 15),
    ("coordination.k8s.io", 16_500, 15),
    ("node.k8s.io", 16_300, 15),
    ("discovery.k8s.io", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", 16_100, 21),
    ("resource.k8s.io", 15_900, 15),
    // As metrics-server's own: after all others, so that `kubectl get pods` never means these.
    ("metrics.k8s.io", 100, 100),
];

/// A group that Kubernetes no longer has comes after all others.
const OLD_GROUP: i32 = 1000;

/// What those of definitions have as priorities of group and version.
pub(crate) const DEFINED: (i32, i32) = (1000, 100);

/// Says that the server made it and keeps it.
pub(crate) const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Whether the server itself has this group and version, whatever definitions there are.
pub(crate) fn is_built_in(group: &str, version: &str) -> bool {
    old::all().any(|resource| resource.group == group && resource.version == version)
}

/// How important a built-in group and its version are to discovery; those of definitions come after.
pub(crate) fn priority(group: &str, version: &str) -> (i32, i32) {
    let known = PRIORITIES.iter().find(|(known, ..)| *known == group);
    let (group_priority, first) = known.map_or((OLD_GROUP, 15), |(_, group, version)| (*group, *version));
    match version {
        "v1" => (group_priority, first),
        "v2" => (group_priority, first * 2),
        // Later beta versions are better ones.
        "v1beta2" => (group_priority, 2),
        _ => (group_priority, 1),
    }
}

/// One API service a group and version; the group of API services itself has none.
pub(super) fn all() -> Vec<APIService> {
    let mut found = Vec::new();
    for (group, versions) in discovery::groups(&old::all().collect::<Vec<_>>()) {
        for version in versions.into_iter().filter(|_| group != "apiregistration.k8s.io") {
            let (group_priority_minimum, version_priority) = priority(group, version);
            let spec = APIServiceSpec {
                group: (!group.is_empty()).then(|| group.to_owned()),
                version: Some(version.to_owned()),
                group_priority_minimum,
                version_priority,
                ..APIServiceSpec::default()
            };
            let metadata = ObjectMeta {
                name: Some(api_service::name_of(group, version)),
                labels: Some([(AUTOMANAGED.to_owned(), "onstart".to_owned())].into()),
                ..ObjectMeta::default()
            };
            found.push(APIService { metadata, spec: Some(spec), ..APIService::default() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Strategy as _;

    #[test]
    fn every_local_service_is_valid_and_every_modern_group_has_its_number() {
        for mut service in all() {
            api_service::ApiServices.default(&mut service);
            let errors = api_service::ApiServices.validate(&service);
            assert!(errors.is_empty(), "{errors:?}");
            let spec = service.spec.unwrap();
            let is_old = spec.group.as_deref() == Some("extensions");
            assert_eq!(spec.group_priority_minimum == OLD_GROUP, is_old, "{:?}", spec.group);
        }
    }
}
