//! What a PersistentVolumeClaim waits for.

use k8s_openapi::api::{
    core::v1::{Event, PersistentVolumeClaim},
    storage::v1::StorageClass,
};

use super::{Answer, latest, message};

/// What `claim` waits for, with its storage class, if that is there, and the pods that use it.
pub(crate) fn why(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    users: &[String],
    events: &[Event],
) -> Answer {
    let created = claim.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if let Some(since) = claim.metadata.deletion_timestamp.as_ref() {
        let answer = Answer::new("is being deleted", Some(since.0));
        return match users {
            [] => answer.advising("Nothing uses it any more; its controller takes its finalizer off."),
            users => answer.advising(format!("It stays while pods use it: {}.", users.join(", "))),
        };
    }
    let (spec, status) = (claim.spec.clone().unwrap_or_default(), claim.status.clone().unwrap_or_default());
    let volume = spec.volume_name.clone().unwrap_or_default();
    match status.phase.as_deref() {
        Some("Bound") => return Answer::new(format!("is bound to {volume}; it waits for nothing"), None),
        Some("Lost") => {
            return Answer::new(format!("has lost its volume {volume}"), created)
                .advising("What was on it is gone with it; delete the claim and make it anew.");
        }
        _ => {}
    }
    let trouble = latest(events, &["ProvisioningFailed", "FailedBinding"]);
    let said = |answer: Answer| answer.saying(message(trouble));
    if !volume.is_empty() {
        return said(Answer::new(format!("waits for the volume {volume} that it names"), created))
            .advising("Make that PersistentVolume, with room, access modes and class that fit the claim.");
    }
    let name = spec.storage_class_name.unwrap_or_default();
    match (name.as_str(), class) {
        ("", _) => said(Answer::new("waits for a volume that fits it", created))
            .advising("It names no storage class, so a PersistentVolume must be made for it by hand."),
        (name, None) => said(Answer::new(format!("waits for the storage class {name}, which is not there"), created))
            .advising("Make that class, or a PersistentVolume of its name; or name another class in a new claim."),
        (name, Some(class)) => {
            let late = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
            if late && users.is_empty() {
                return said(Answer::new("waits for the first pod that uses it", created))
                    .advising("Its class makes volumes where the pod runs: start the pod.");
            }
            let by = &class.provisioner;
            let answer = Answer::new(format!("waits for {by} to make a volume of the class {name}"), created);
            let advice = match by.as_str() {
                "kubernetes.io/no-provisioner" => {
                    "Nothing makes volumes of this class: make a PersistentVolume by hand.".to_owned()
                }
                _ => format!("See that the program behind {by} runs."),
            };
            said(answer).advising(advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn state(spec: Value, phase: &str, class: Option<Value>, users: &[&str]) -> String {
        let claim = json!({"metadata": {}, "spec": spec, "status": {"phase": phase}});
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let class: Option<StorageClass> = class.map(|class| serde_json::from_value(class).unwrap());
        let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        why(&claim, class.as_ref(), &users, &[]).state
    }

    #[test]
    fn a_claim_says_who_is_to_give_it_a_volume() {
        let late =
            || Some(json!({"metadata": {}, "provisioner": "x.example/p", "volumeBindingMode": "WaitForFirstConsumer"}));
        let fast = || json!({"storageClassName": "fast"});
        for (spec, phase, class, users, want) in [
            (json!({"volumeName": "v"}), "Bound", None, &[][..], "is bound to v; it waits for nothing"),
            (json!({"volumeName": "v"}), "Lost", None, &[], "has lost its volume v"),
            (json!({"volumeName": "v"}), "Pending", None, &[], "waits for the volume v that it names"),
            (json!({}), "Pending", None, &[], "waits for a volume that fits it"),
            (fast(), "Pending", None, &[], "waits for the storage class fast, which is not there"),
            (fast(), "Pending", late(), &[], "waits for the first pod that uses it"),
            (fast(), "Pending", late(), &["web"], "waits for x.example/p to make a volume of the class fast"),
        ] {
            assert_eq!(state(spec, phase, class, users), want);
        }
    }
}
