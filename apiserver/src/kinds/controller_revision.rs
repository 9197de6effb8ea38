//! ControllerRevisions: what a template was, kept by its workload's controller for going back to it.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;

use super::{cells, rules};
use crate::kind::{AGE, Column, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    meta,
    resource::Resource,
};

/// The strategy of `controllerrevisions.apps`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ControllerRevisions;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Controller", "Controller of the object"),
    cells::column("Revision", "Revision indicates the revision of the state represented by Data."),
    AGE,
];

/// The owner that controls the object, as `kind.group/name`.
fn controller(object: &ControllerRevision) -> String {
    let owners = object.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
        return cells::NONE.to_owned();
    };
    let kind = owner.kind.to_lowercase();
    match meta::group_version(&owner.api_version).0 {
        "" => format!("{kind}/{}", owner.name),
        group => format!("{kind}.{group}/{}", owner.name),
    }
}

impl Strategy for ControllerRevisions {
    type Object = ControllerRevision;

    fn resource(&self) -> &'static Resource {
        super::row_of("apps", "controllerrevisions")
    }

    fn validate(&self, object: &ControllerRevision) -> Errors {
        let mut errors = Errors::new();
        rules::not_negative(&mut errors, &Path::new("revision"), object.revision);
        let at = Path::new("data");
        match object.data.as_ref().map(|data| &data.0) {
            None | Some(serde_json::Value::Null) => errors.push(Error::required(&at, "data is mandatory")),
            Some(serde_json::Value::Object(_)) => {}
            Some(_) => errors.push(Error::required(&at, "data must be a valid JSON object")),
        }
        errors
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision) -> Errors {
        let mut errors = Errors::new();
        rules::not_negative(&mut errors, &Path::new("revision"), new.revision);
        rules::immutable(&mut errors, &Path::new("data"), &new.data, &old.data);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ControllerRevision, now: Timestamp) -> Vec<serde_json::Value> {
        vec![
            cells::name(&object.metadata),
            controller(object).into(),
            object.revision.into(),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{faults, merged, refusals, row};

    fn base() -> serde_json::Value {
        json!({"metadata": {"name": "web-1", "namespace": "d"}, "revision": 1, "data": {"spec": {"a": 1}}})
    }

    #[test]
    fn its_data_is_an_object_that_stays() {
        let patches = [json!({"revision": -1}), json!({"data": null}), json!({"data": "text"})];
        expect![[r#"
            {"revision":-1}
                revision: Invalid value: -1: must be greater than or equal to 0
            {"data":null}
                data: Required value: data is mandatory
            {"data":"text"}
                data: Required value: data must be a valid JSON object
        "#]]
        .assert_eq(&faults(&ControllerRevisions, &base(), &patches));
        expect![[r#"
            {"revision":2}
            {"data":{"spec":{"a":2}}}
                data: Invalid value: {"spec":{"a":2}}: field is immutable
        "#]]
        .assert_eq(&refusals(
            &ControllerRevisions,
            &base(),
            &[json!({"revision": 2}), json!({"data": {"spec": {"a": 2}}})],
        ));
    }

    #[test]
    fn a_row_names_the_controller() {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true});
        let meta = json!({"metadata": {"ownerReferences": [owner], "creationTimestamp": "2026-01-01T00:58:00Z"}});
        assert_eq!(row(&ControllerRevisions, &merged(&base(), &meta)), "web-1 | statefulset.apps/web | 1 | 2m");
        assert_eq!(row(&ControllerRevisions, &base()), "web-1 | <none> | 1 | <unknown>");
    }
}
