//! API services: who serves which group and version.
//!
//! Those without a service are served by this server itself and always available. Of one with a service the condition is
//! written by whoever passes requests on to it, who knows whether it answers.

use jiff::Timestamp;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition, APIServiceStatus},
};

use super::{
    blank::{drop_blank, fill, list, text},
    cells, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name::{self, NameRule, path_segment_rule},
    resource::Resource,
};

/// The strategy of `apiservices.apiregistration.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApiServices;

/// Columns of the kind, as its OpenAPI definition in Kubernetes' aggregator prints them.
const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Service", "The reference to the service that hosts this API endpoint."),
    cells::column("Available", "Whether this service is available."),
    AGE,
];

/// The condition that an API service without a service has from its creation on.
fn available(object: &APIService, now: Timestamp) -> Option<APIServiceCondition> {
    object.spec.as_ref().is_none_or(|spec| spec.service.is_none()).then(|| APIServiceCondition {
        type_: "Available".to_owned(),
        status: "True".to_owned(),
        reason: Some("Local".to_owned()),
        message: Some("Local APIServices are always available".to_owned()),
        last_transition_time: Some(Time(now)),
    })
}

fn conditions(object: &APIService) -> &[APIServiceCondition] {
    object.status.as_ref().map_or(&[][..], |status| list(&status.conditions))
}

/// The name an API service of this group and version has.
#[must_use]
pub fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

impl Strategy for ApiServices {
    type Object = APIService;

    fn resource(&self) -> &'static Resource {
        super::row_of("apiregistration.k8s.io", "apiservices")
    }

    fn name_rule(&self) -> NameRule {
        path_segment_rule
    }

    fn default(&self, object: &mut APIService) {
        let spec = object.spec.get_or_insert_default();
        drop_blank(&mut spec.insecure_skip_tls_verify);
        if let Some(service) = &mut spec.service {
            fill(&mut service.port, 443);
        }
        drop_blank(&mut object.status.get_or_insert_default().conditions);
    }

    fn prepare_create(&self, object: &mut APIService, context: &Context<'_>) {
        let conditions = available(object, context.now).map(|condition| vec![condition]);
        object.status = Some(APIServiceStatus { conditions });
    }

    fn prepare_update(&self, new: &mut APIService, old: &APIService, context: &Context<'_>) {
        new.status.clone_from(&old.status);
        let Some(condition) = available(new, context.now) else { return };
        let status = new.status.get_or_insert_default().conditions.get_or_insert_default();
        match status.iter_mut().find(|before| before.type_ == condition.type_) {
            Some(before) if before.reason == condition.reason => {}
            Some(before) => *before = condition,
            None => status.push(condition),
        }
    }

    fn prepare_status(&self, new: &mut APIService, old: &APIService, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        rules::keep_meta_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, object: &APIService) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let spec = object.spec.clone().unwrap_or_default();
        let (group, version) = (text(&spec.group), text(&spec.version));
        let required = name_of(group, version);
        let given = text(&object.metadata.name);
        if given != required {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), given, &detail));
        }
        if group.is_empty() && version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.push(Error::required(&path.child("group"), detail));
        }
        if !group.is_empty() {
            rules::messages(&mut errors, &path.child("group"), group, name::dns1123_subdomain(group));
        }
        rules::messages(&mut errors, &path.child("version"), version, name::dns1035_label(version));
        for (field, value, most) in [
            ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
            ("versionPriority", spec.version_priority, 1000),
        ] {
            if !(1..=most).contains(&value) {
                let detail = format!("must be positive and less than {most}");
                errors.push(Error::invalid(&path.child(field), value, &detail));
            }
        }
        let bundle = spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len());
        let is_insecure = spec.insecure_skip_tls_verify.unwrap_or(false);
        let Some(service) = &spec.service else {
            if bundle > 0 {
                let detail = "local APIServices may not have a caBundle";
                errors.push(Error::invalid(&path.child("caBundle"), format!("{bundle} bytes"), detail));
            }
            if is_insecure {
                let detail = "local APIServices may not have insecureSkipTLSVerify";
                errors.push(Error::invalid(&path.child("insecureSkipTLSVerify"), true, detail));
            }
            return errors;
        };
        let at = path.child("service");
        for (field, value) in [("namespace", &service.namespace), ("name", &service.name)] {
            if text(value).is_empty() {
                errors.push(Error::required(&at.child(field), ""));
            }
        }
        let port = service.port.unwrap_or(0);
        let wrong = name::port_number(port.into());
        if !wrong.is_empty() {
            let detail = format!("port is not valid: {}", wrong.join(", "));
            errors.push(Error::invalid(&at.child("port"), port, &detail));
        }
        if is_insecure && bundle > 0 {
            let detail = "may not be true if caBundle is present";
            errors.push(Error::invalid(&path.child("insecureSkipTLSVerify"), true, detail));
        }
        errors
    }

    fn validate_status(&self, new: &APIService, _: &APIService) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("status").child("conditions"));
        for (i, condition) in conditions(new).iter().enumerate() {
            let at = path.index(i).child("status");
            rules::known_word(&mut errors, &at, &condition.status, &["False", "True", "Unknown"]);
        }
        errors
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &APIService, now: Timestamp) -> Vec<serde_json::Value> {
        let service = object.spec.as_ref().and_then(|spec| spec.service.as_ref()).map_or_else(
            || "Local".to_owned(),
            |service| format!("{}/{}", text(&service.namespace), text(&service.name)),
        );
        let available = match conditions(object).iter().find(|condition| condition.type_ == "Available") {
            Some(condition) if condition.status == "True" => "True".to_owned(),
            Some(condition) => format!("{} ({})", condition.status, text(&condition.reason)),
            None => "Unknown".to_owned(),
        };
        vec![cells::name(&object.metadata), service.into(), available.into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, row};

    fn base() -> Value {
        let service = json!({"namespace": "kube-system", "name": "metrics-server"});
        json!({
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": service,
            },
        })
    }

    #[test]
    fn faults_are_named() {
        let spec = |spec: Value| json!({"spec": spec});
        let patches = [
            json!({"metadata": {"name": "x"}}),
            spec(json!({"group": null})),
            spec(json!({"version": "1", "groupPriorityMinimum": 0, "versionPriority": 1001})),
            spec(json!({"service": null, "caBundle": "eA==", "insecureSkipTLSVerify": true})),
            spec(json!({"service": {"namespace": "", "name": "", "port": 70000}})),
            spec(json!({"caBundle": "eA==", "insecureSkipTLSVerify": true})),
        ];
        let text = faults(&ApiServices, &base(), &patches);
        for needle in [
            "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1beta1.metrics.k8s.io\"",
            "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
            "spec.version: Invalid value: \"1\"",
            "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
            "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            "spec.caBundle: Invalid value: \"1 bytes\": local APIServices may not have a caBundle",
            "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            "spec.service.namespace: Required value",
            "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
            "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn one_without_a_service_is_available_and_of_others_that_is_not_known_yet() {
        let object = serde_json::to_value(created(&ApiServices, &base())).unwrap();
        let expected = "v1beta1.metrics.k8s.io | kube-system/metrics-server | Unknown | <unknown>";
        assert_eq!(row(&ApiServices, &object), expected);
        assert_eq!(object["spec"]["service"]["port"], 443);
        let local = crate::kinds::testing::merged(&base(), &json!({"spec": {"service": null}}));
        let object = serde_json::to_value(created(&ApiServices, &local)).unwrap();
        assert_eq!(row(&ApiServices, &object), "v1beta1.metrics.k8s.io | Local | True | <unknown>");
    }
}
