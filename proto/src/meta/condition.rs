//! Conditions: one status a type, whose transition time moves only when the status does.

use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch, core::v1 as core};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
use metav1::Time;

/// What every kind's condition type has in common.
pub trait Condition {
    /// `Ready`, `Available`, …: there is one condition a type.
    fn kind(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// When the status last changed.
    fn transition_time(&self) -> Option<&Time>;
    /// Sets when the status last changed.
    fn set_transition_time(&mut self, time: Option<Time>);
}

macro_rules! optional_time {
    ($($ty:ty),+ $(,)?) => {$(
        impl Condition for $ty {
            fn kind(&self) -> &str {
                &self.type_
            }
            fn status(&self) -> &str {
                &self.status
            }
            fn transition_time(&self) -> Option<&Time> {
                self.last_transition_time.as_ref()
            }
            fn set_transition_time(&mut self, time: Option<Time>) {
                self.last_transition_time = time;
            }
        }
    )+};
}

optional_time!(
    core::PodCondition,
    core::NodeCondition,
    core::NamespaceCondition,
    core::PersistentVolumeClaimCondition,
    core::ReplicationControllerCondition,
    apps::DeploymentCondition,
    apps::ReplicaSetCondition,
    apps::StatefulSetCondition,
    apps::DaemonSetCondition,
    batch::JobCondition,
);

impl Condition for metav1::Condition {
    fn kind(&self) -> &str {
        &self.type_
    }
    fn status(&self) -> &str {
        &self.status
    }
    fn transition_time(&self) -> Option<&Time> {
        Some(&self.last_transition_time)
    }
    fn set_transition_time(&mut self, time: Option<Time>) {
        if let Some(time) = time {
            self.last_transition_time = time;
        }
    }
}

/// The condition of that type.
#[must_use]
pub fn find_condition<'a, C: Condition>(conditions: &'a [C], kind: &str) -> Option<&'a C> {
    conditions.iter().find(|c| c.kind() == kind)
}

/// Whether the condition of that type is there and `True`.
#[must_use]
pub fn is_condition_true<C: Condition>(conditions: &[C], kind: &str) -> bool {
    find_condition(conditions, kind).is_some_and(|c| c.status() == "True")
}

/// Puts `new` in the place of the condition of its type, or at the end, and says whether anything changed.
///
/// While the status stays the same, so does the transition time: callers set it to the present and need not look.
pub fn set_condition<C: Condition + PartialEq>(conditions: &mut Vec<C>, mut new: C) -> bool {
    let Some(old) = conditions.iter_mut().find(|c| c.kind() == new.kind()) else {
        conditions.push(new);
        return true;
    };
    if old.status() == new.status() {
        new.set_transition_time(old.transition_time().cloned());
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// Takes the condition of that type away, and says whether it was there.
pub fn remove_condition<C: Condition>(conditions: &mut Vec<C>, kind: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|c| c.kind() != kind);
    conditions.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: &str, reason: &str, seconds: i64) -> core::PodCondition {
        let time = k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap();
        core::PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: Some(reason.into()),
            last_transition_time: Some(Time(time)),
            ..core::PodCondition::default()
        }
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut list = Vec::new();
        assert!(set_condition(&mut list, condition("False", "a", 1)));
        assert!(!set_condition(&mut list, condition("False", "a", 2)));
        assert!(set_condition(&mut list, condition("False", "b", 3)));
        assert_eq!(list, [condition("False", "b", 1)]);
        assert!(set_condition(&mut list, condition("True", "b", 4)));
        assert_eq!(list, [condition("True", "b", 4)]);
        assert!(is_condition_true(&list, "Ready") && !is_condition_true(&list, "Other"));
        assert!(remove_condition(&mut list, "Ready") && !remove_condition(&mut list, "Ready"));
    }
}
