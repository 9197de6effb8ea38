//! Resource claims: devices that pods want, and those they got.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimStatus};

use super::{
    blank::{drop_blank, list},
    cells, devices, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `resourceclaims.resource.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceClaims;

const COLUMNS: &[Column] =
    &[NAME, cells::column("State", "A summary of the current state (allocated, pending, reserved, etc.)."), AGE];

const MAX_CONSUMERS: usize = 256;
const MAX_RESULTS: usize = 32;

fn state(object: &ResourceClaim) -> String {
    let (is_deleting, status) =
        (object.metadata.deletion_timestamp.is_some(), object.status.clone().unwrap_or_default());
    let is_reserved = !list(&status.reserved_for).is_empty();
    let states = [
        (is_deleting, "deleted"),
        (status.allocation.is_none() && !is_deleting, "pending"),
        (status.allocation.is_some(), "allocated"),
        (status.allocation.is_some() && is_reserved, "reserved"),
    ];
    states.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word).collect::<Vec<_>>().join(",")
}

fn validate_status(errors: &mut Errors, new: &ResourceClaim, old: &ResourceClaim) {
    let path = Path::new("status");
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let (at, consumers) = (path.child("reservedFor"), list(&status.reserved_for));
    if devices::bounded(errors, &at, consumers, MAX_CONSUMERS) {
        for (i, consumer) in consumers.iter().enumerate() {
            let at = at.index(i);
            for (field, value) in [("resource", &consumer.resource), ("name", &consumer.name), ("uid", &consumer.uid)] {
                if value.is_empty() {
                    errors.push(Error::required(&at.child(field), ""));
                }
            }
            if consumers.iter().take(i).any(|other| other.uid == consumer.uid) {
                errors.push(Error::duplicate(&at.child("uid"), consumer.uid.as_str()));
            }
        }
    }
    if !consumers.is_empty() {
        let is_new = |consumer| !list(&before.reserved_for).contains(consumer);
        if status.allocation.is_none() {
            errors.push(Error::forbidden(&at, "may not be specified when `allocated` is not set"));
        } else if new.metadata.deletion_timestamp.is_some() && consumers.iter().any(is_new) {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(Error::forbidden(&at, detail));
        }
    }
    let at = path.child("allocation");
    match (&status.allocation, &before.allocation) {
        (Some(new), Some(old)) => rules::immutable(errors, &at, new, old),
        (Some(allocation), None) => {
            let claim = new.spec.devices.clone().unwrap_or_default();
            let results = allocation.devices.as_ref().map_or(&[][..], |devices| list(&devices.results));
            let at = at.child("devices").child("results");
            if devices::bounded(errors, &at, results, MAX_RESULTS) {
                let names = devices::names(&claim);
                for (i, result) in results.iter().enumerate() {
                    let at = at.index(i);
                    devices::validate_reference(errors, &at.child("request"), &result.request, &names);
                    rules::csi_driver_name(errors, &at.child("driver"), &result.driver);
                    rules::pool_name(errors, &at.child("pool"), &result.pool);
                    rules::required_label(errors, &at.child("device"), &result.device);
                }
            }
        }
        _ => {}
    }
}

impl Strategy for ResourceClaims {
    type Object = ResourceClaim;

    fn resource(&self) -> &'static Resource {
        super::row_of("resource.k8s.io", "resourceclaims")
    }

    fn default(&self, object: &mut ResourceClaim) {
        // It is written out even when there is nothing in it.
        devices::default_claim(object.spec.devices.get_or_insert_default());
        let status = object.status.get_or_insert_default();
        drop_blank(&mut status.reserved_for);
        drop_blank(&mut status.devices);
    }

    fn prepare_create(&self, object: &mut ResourceClaim, _: &Context<'_>) {
        object.status = Some(ResourceClaimStatus::default());
    }

    fn prepare_update(&self, new: &mut ResourceClaim, old: &ResourceClaim, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    /// What drivers told of devices that are no longer allocated goes with them.
    fn prepare_status(&self, new: &mut ResourceClaim, old: &ResourceClaim, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        rules::keep_meta_for_status(&mut new.metadata, &old.metadata);
        let had = old.status.as_ref().is_some_and(|status| status.allocation.is_some());
        let status = new.status.get_or_insert_default();
        if had && status.allocation.is_none() {
            status.devices = None;
        }
    }

    fn validate(&self, object: &ResourceClaim) -> Errors {
        let mut errors = Errors::new();
        let claim = object.spec.devices.clone().unwrap_or_default();
        devices::validate_claim(&mut errors, &Path::new("spec").child("devices"), &claim);
        errors
    }

    fn validate_update(&self, new: &ResourceClaim, old: &ResourceClaim) -> Errors {
        let mut errors = Errors::new();
        rules::immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn validate_status(&self, new: &ResourceClaim, old: &ResourceClaim) -> Errors {
        let mut errors = Errors::new();
        validate_status(&mut errors, new, old);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ResourceClaim, now: Timestamp) -> Vec<serde_json::Value> {
        vec![cells::name(&object.metadata), state(object).into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, lines, merged, refusals, row, shown};

    fn base() -> Value {
        json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {"devices": {"requests": [request("a")]}}})
    }

    fn request(name: &str) -> Value {
        json!({"name": name, "exactly": {"deviceClassName": "gpu"}})
    }

    fn devices(devices: Value) -> Value {
        json!({"spec": {"devices": devices}})
    }

    #[test]
    fn faults_are_named() {
        let exactly = |exactly: Value| devices(json!({"requests": [{"name": "a", "exactly": exactly}]}));
        let patches = [
            devices(json!({"requests": [request("A"), {"name": "b"}, request("c"), request("c")]})),
            exactly(json!({"deviceClassName": "", "allocationMode": "Some"})),
            exactly(json!({"deviceClassName": "gpu", "allocationMode": "All", "count": 2})),
            exactly(
                json!({"deviceClassName": "gpu", "count": -1, "tolerations": [{"operator": "Exists", "value": "x"}]}),
            ),
            devices(json!({"constraints": [{"requests": ["b", "a/x"]}, {"matchAttribute": "model"}]})),
            devices(json!({"config": [{"requests": ["b"]}]})),
        ];
        let text = faults(&ResourceClaims, &base(), &patches);
        for needle in [
            "spec.devices.requests[0].name: Invalid value: \"A\"",
            "spec.devices.requests[1]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.requests[3]: Duplicate value: \"c\"",
            "spec.devices.requests[0].exactly.deviceClassName: Required value",
            "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
            "exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            "exactly.count: Invalid value: -1: must be greater than zero",
            "exactly.tolerations[0].value: Invalid value: \"x\": must be empty for operator `Exists`",
            "spec.devices.constraints[0].requests[0]: Invalid value: \"b\": must be the name of a request in the claim",
            "spec.devices.constraints[0].requests[1]: Invalid value: \"a/x\": must be the name of a request in the claim",
            "spec.devices.constraints[0]: Required value: exactly one of",
            "spec.devices.constraints[1].matchAttribute: Invalid value: \"model\": must include a domain",
            "spec.devices.config[0].opaque: Required value",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn a_request_is_for_one_device_unless_said_otherwise() {
        let text = shown(&ResourceClaims, &created(&ResourceClaims, &base()));
        assert!(text.contains("\"allocationMode\": \"ExactCount\"") && text.contains("\"count\": 1"), "{text}");
    }

    #[test]
    fn a_toleration_compares_unless_said_otherwise() {
        let tolerations = json!([{"key": "example.com/a"}, {"operator": "Exists"}]);
        let wanted = json!({"deviceClassName": "gpu", "tolerations": tolerations});
        let given = merged(
            &base(),
            &devices(json!({"requests": [
                {"name": "a", "exactly": wanted.clone()},
                {"name": "b", "firstAvailable": [merged(&wanted, &json!({"name": "c"}))]},
            ]})),
        );
        let made: Value = serde_json::from_str(&shown(&ResourceClaims, &created(&ResourceClaims, &given))).unwrap();
        let requests = &made["spec"]["devices"]["requests"];
        for request in [&requests[0]["exactly"], &requests[1]["firstAvailable"][0]] {
            let operators = [0, 1].map(|n| request["tolerations"][n]["operator"].as_str().unwrap());
            assert_eq!(operators, ["Equal", "Exists"]);
        }
    }

    #[test]
    fn the_spec_stays() {
        let text = refusals(&ResourceClaims, &base(), &[devices(json!({"requests": [request("b")]}))]);
        assert!(text.contains("spec: Invalid value:") && text.contains("field is immutable"), "{text}");
    }

    #[test]
    fn an_allocation_is_for_the_requests_and_stays() {
        let old = created(&ResourceClaims, &base());
        let with = |status: Value| -> ResourceClaim {
            let json = merged(&serde_json::to_value(&old).unwrap(), &json!({"status": status}));
            serde_json::from_value(json).unwrap()
        };
        let result = |request: &str| json!({"devices": {"results": [{"request": request, "driver": "d.example.com", "pool": "p", "device": "0"}]}});
        let consumer = json!([{"resource": "pods", "name": "p", "uid": "1"}]);
        let early = with(json!({"reservedFor": consumer}));
        assert!(lines(&ResourceClaims.validate_status(&early, &old)).contains("may not be specified when `allocated`"));
        let wrong = with(json!({"allocation": result("z")}));
        assert!(lines(&ResourceClaims.validate_status(&wrong, &old)).contains("results[0].request: Invalid value"));
        let right = with(json!({"allocation": result("a"), "reservedFor": consumer}));
        assert_eq!(lines(&ResourceClaims.validate_status(&right, &old)), "");
        let moved = with(json!({"allocation": result("a/b")}));
        assert!(lines(&ResourceClaims.validate_status(&moved, &right)).contains("status.allocation: Invalid value"));
        assert_eq!(state(&right), "allocated,reserved");
    }

    #[test]
    fn a_row_tells_the_state() {
        assert_eq!(row(&ResourceClaims, &base()), "c | pending | <unknown>");
    }
}
