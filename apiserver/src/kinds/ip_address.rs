//! IP addresses in use, and by what.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IPAddress;

use super::{
    addresses,
    blank::{drop_blank, text},
    cells, rules,
};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name::{self, NameRule},
    resource::Resource,
};

/// The strategy of `ipaddresses.networking.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct IpAddresses;

const COLUMNS: &[Column] =
    &[NAME, cells::column("ParentRef", "ParentRef references the resource that an IPAddress is attached to."), AGE];

/// The name is the address itself.
fn name_rule(name: &str, _: bool) -> Vec<String> {
    let mut errors = Errors::new();
    addresses::ip(&mut errors, &Path::new("name"), name);
    let shown = serde_json::Value::from(name).to_string();
    let head = format!("Invalid value: {shown}: ");
    errors.into_iter().map(|error| error.message.strip_prefix(&head).unwrap_or(&error.message).to_owned()).collect()
}

impl Strategy for IpAddresses {
    type Object = IPAddress;

    fn resource(&self) -> &'static Resource {
        super::row_of("networking.k8s.io", "ipaddresses")
    }

    fn name_rule(&self) -> NameRule {
        name_rule
    }

    fn default(&self, object: &mut IPAddress) {
        let parent = &mut object.spec.parent_ref;
        drop_blank(&mut parent.group);
        drop_blank(&mut parent.namespace);
    }

    fn validate(&self, object: &IPAddress) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec").child("parentRef"));
        let parent = &object.spec.parent_ref;
        if *parent == Default::default() {
            errors.push(Error::required(&path, ""));
            return errors;
        }
        let group = text(&parent.group);
        if !group.is_empty() {
            rules::messages(&mut errors, &path.child("group"), group, name::dns1123_subdomain(group));
        }
        rules::required_segment(&mut errors, &path.child("resource"), &parent.resource);
        rules::required_segment(&mut errors, &path.child("name"), &parent.name);
        let namespace = text(&parent.namespace);
        rules::messages(&mut errors, &path.child("namespace"), namespace, name::path_segment(namespace));
        errors
    }

    fn validate_update(&self, new: &IPAddress, old: &IPAddress) -> Errors {
        let mut errors = self.validate(new);
        let at = Path::new("spec").child("parentRef");
        rules::immutable(&mut errors, &at, &new.spec.parent_ref, &old.spec.parent_ref);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &IPAddress, now: Timestamp) -> Vec<serde_json::Value> {
        let parent = &object.spec.parent_ref;
        let mut shown = match text(&parent.group) {
            "" => parent.resource.to_lowercase(),
            group => format!("{}.{group}", parent.resource).to_lowercase(),
        };
        for part in [text(&parent.namespace), parent.name.as_str()] {
            if !part.is_empty() {
                shown.push('/');
                shown.push_str(part);
            }
        }
        vec![cells::name(&object.metadata), shown.into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{faults, refusals, row};

    fn base() -> Value {
        let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
        json!({"metadata": {"name": "10.96.0.7"}, "spec": {"parentRef": parent}})
    }

    #[test]
    fn faults_are_named() {
        let parent = |parent: Value| json!({"spec": {"parentRef": parent}});
        let patches = [parent(json!({"resource": "", "name": "a/b"})), parent(json!({"group": "_"}))];
        let text = faults(&IpAddresses, &base(), &patches);
        for needle in [
            "spec.parentRef.resource: Required value",
            "spec.parentRef.name: Invalid value: \"a/b\": may not contain '/'",
            "spec.parentRef.group: Invalid value: \"_\"",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
        assert_eq!(name_rule("2001:DB8::1", false), ["must be in canonical form (\"2001:db8::1\")"]);
        assert!(name_rule("10.0.0.1", false).is_empty());
    }

    #[test]
    fn the_holder_stays() {
        let text = refusals(&IpAddresses, &base(), &[json!({"spec": {"parentRef": {"name": "other"}}})]);
        assert!(text.contains("spec.parentRef: Invalid value:") && text.contains("field is immutable"), "{text}");
    }

    #[test]
    fn a_row_names_the_holder() {
        assert_eq!(row(&IpAddresses, &base()), "10.96.0.7 | services/default/web | <unknown>");
    }
}
