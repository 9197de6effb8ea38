//! How many replicas each of a Deployment's ReplicaSets should have next: the pure part of rolling, scaling and
//! recreating (Kubernetes' `deployment/rolling.go`, `sync.go` and `util` say the same at greater length).

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::annotation;

/// A Deployment with its ReplicaSets, all read at one time.
pub(crate) struct Rollout<'a> {
    pub(crate) deployment: &'a Deployment,
    /// The ReplicaSet of the current template.
    pub(crate) new: Option<&'a ReplicaSet>,
    /// All others, oldest first.
    pub(crate) old: Vec<&'a ReplicaSet>,
}

/// A ReplicaSet's new size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resize {
    /// Name of the ReplicaSet.
    pub(crate) name: String,
    /// Replicas it should have.
    pub(crate) to: i32,
}

/// What a ReplicaSet asks for.
pub(crate) fn asked(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

fn name(set: &ReplicaSet) -> String {
    set.metadata.name.clone().unwrap_or_default()
}

/// Resolves a number or a percentage of `total`, rounding up or down.
pub(crate) fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            let product = i64::from(total) * percent;
            let rounded = if up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// What a Deployment asks for.
pub(crate) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether the strategy is to stop all old pods before the first new one.
pub(crate) fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` as numbers. Both zero would never get anywhere, so then one may be unavailable.
pub(crate) fn limits(deployment: &Deployment) -> (i32, i32) {
    let total = replicas(deployment);
    if recreates(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), total, true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(total)) }
}

impl<'a> Rollout<'a> {
    fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> + '_ {
        self.old.iter().copied().chain(self.new)
    }

    fn total_asked(&self) -> i32 {
        self.all().map(asked).sum()
    }

    /// The size of the new ReplicaSet when it is made or grows: as much as `maxSurge` leaves room for.
    pub(crate) fn new_size(&self) -> i32 {
        let wanted = replicas(self.deployment);
        if recreates(self.deployment) {
            return wanted;
        }
        let has = self.new.map(asked).unwrap_or_default();
        let most = wanted + limits(self.deployment).0;
        let room = (most - self.total_asked()).max(0);
        has + room.min((wanted - has).max(0))
    }

    /// Grows (or cuts) the new ReplicaSet, if it is time.
    pub(crate) fn resize_new(&self) -> Option<Resize> {
        let (new, wanted) = (self.new?, replicas(self.deployment));
        let to = if asked(new) > wanted { wanted } else { self.new_size() };
        (asked(new) != to).then(|| Resize { name: name(new), to })
    }

    /// Shrinks the old ReplicaSets as far as `maxUnavailable` allows: first what is not available anyway, then the
    /// oldest.
    pub(crate) fn shrink_old(&self) -> Vec<Resize> {
        let minimum = replicas(self.deployment) - limits(self.deployment).1;
        let new_unavailable = self.new.map(|n| asked(n) - available(n)).unwrap_or_default();
        let mut spare = self.total_asked() - minimum - new_unavailable;
        if spare <= 0 {
            return Vec::new();
        }
        let mut sizes: Vec<(&ReplicaSet, i32)> = self.old.iter().map(|set| (*set, asked(set))).collect();
        for (set, size) in &mut sizes {
            let useless = (*size - available(set)).clamp(0, spare.max(0));
            *size -= useless;
            spare -= useless;
        }
        let mut surplus = self.all().map(available).sum::<i32>() - minimum;
        for (_, size) in &mut sizes {
            let cut = surplus.clamp(0, *size);
            *size -= cut;
            surplus -= cut;
        }
        let changed = sizes.into_iter().filter(|(set, size)| asked(set) != *size);
        changed.map(|(set, to)| Resize { name: name(set), to }).collect()
    }

    /// Shrinks every old ReplicaSet to nothing.
    pub(crate) fn stop_old(&self) -> Vec<Resize> {
        let running = self.old.iter().filter(|set| asked(set) != 0);
        running.map(|set| Resize { name: name(set), to: 0 }).collect()
    }

    /// Whether the Deployment's own size was changed since its ReplicaSets were last sized.
    pub(crate) fn was_scaled(&self) -> bool {
        let wanted = replicas(self.deployment);
        let noted = |set: &ReplicaSet| annotation(&set.metadata, super::DESIRED).and_then(|a| a.parse::<i32>().ok());
        self.all().filter(|set| asked(set) > 0).any(|set| noted(set).is_some_and(|noted| noted != wanted))
    }

    /// The sizes after the Deployment itself was scaled: all of it to the one active ReplicaSet, or in the middle of a
    /// rollout to each its share.
    pub(crate) fn scale(&self) -> Vec<Resize> {
        let wanted = replicas(self.deployment);
        let active: Vec<&ReplicaSet> = self.all().filter(|set| asked(set) > 0).collect();
        let only = match active.as_slice() {
            [] => self.new.or(self.old.last().copied()),
            [only] => Some(*only),
            _ => None,
        };
        if let Some(only) = only {
            return (asked(only) != wanted).then(|| Resize { name: name(only), to: wanted }).into_iter().collect();
        }
        let saturated = self.new.is_some_and(|new| asked(new) == wanted && available(new) == wanted);
        if saturated {
            return self.stop_old();
        }
        if recreates(self.deployment) {
            return Vec::new();
        }
        self.scale_by_share(active)
    }

    fn scale_by_share(&self, mut active: Vec<&ReplicaSet>) -> Vec<Resize> {
        let wanted = replicas(self.deployment);
        let most = if wanted > 0 { wanted + limits(self.deployment).0 } else { 0 };
        let to_add = most - active.iter().map(|set| asked(set)).sum::<i32>();
        let age = |set: &ReplicaSet| set.metadata.creation_timestamp.clone();
        // The largest takes what rounding leaves; of equals, growth goes to the younger, shrinking to the older.
        active.sort_by(|a, b| {
            let by_age = age(a).cmp(&age(b));
            asked(b).cmp(&asked(a)).then(if to_add > 0 { by_age.reverse() } else { by_age })
        });
        let mut added = 0;
        let mut sizes = Vec::new();
        for set in &active {
            let has = asked(set);
            let before = annotation(&set.metadata, super::MOST).and_then(|a| a.parse::<i32>().ok());
            let before = before.filter(|b| *b > 0).or(self.deployment.status.as_ref().and_then(|s| s.replicas));
            let share = match before {
                Some(before) if wanted > 0 && before > 0 => {
                    let exact = f64::from(has) * f64::from(most) / f64::from(before);
                    #[expect(clippy::cast_possible_truncation, reason = "a share of an i32 is an i32")]
                    let rounded = exact.round() as i32;
                    rounded - has
                }
                _ => -has,
            };
            let left = to_add - added;
            let change = if to_add > 0 { share.clamp(0, left.max(0)) } else { share.clamp(left.min(0), 0) };
            added += change;
            sizes.push(has + change);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        let changed = active.iter().zip(sizes).filter(|(set, size)| asked(set) != *size);
        changed.map(|(set, to)| Resize { name: name(set), to }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i32, surge: &serde_json::Value, unavailable: &serde_json::Value) -> Deployment {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "d"},
            "spec": {"replicas": replicas, "selector": {}, "template": {}, "strategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}},
        }))
        .unwrap()
    }

    fn set(name: &str, asked: i32, available: i32, most: i32, desired: i32) -> ReplicaSet {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {
                "deployment.kubernetes.io/desired-replicas": desired.to_string(),
                "deployment.kubernetes.io/max-replicas": most.to_string()}},
            "spec": {"replicas": asked, "selector": {}},
            "status": {"replicas": asked, "availableReplicas": available},
        }))
        .unwrap()
    }

    #[test]
    fn percentages_round_towards_keeping_pods_available() {
        let of = |n: i32, surge: &str, unavailable: &str| {
            limits(&deployment(n, &serde_json::json!(surge), &serde_json::json!(unavailable)))
        };
        assert_eq!(of(3, "25%", "25%"), (1, 0));
        assert_eq!(of(10, "25%", "25%"), (3, 2));
        assert_eq!(of(10, "0%", "0%"), (0, 1));
        assert_eq!(limits(&deployment(4, &serde_json::json!(0), &serde_json::json!(9))), (0, 4));
    }

    /// Runs a rollout to its end against ReplicaSets that become available at once, and checks the limits at each step.
    fn roll(replicas: i32, surge: i32, unavailable: i32) -> usize {
        let deployment = deployment(replicas, &surge.into(), &unavailable.into());
        let (surge, unavailable) = limits(&deployment);
        let (mut old, mut new) = (set("old", replicas, replicas, 0, replicas), set("new", 0, 0, 0, replicas));
        for step in 0..200 {
            let rollout = Rollout { deployment: &deployment, new: Some(&new), old: vec![&old] };
            let resized = rollout.resize_new();
            let shrunk = if resized.is_some() { Vec::new() } else { rollout.shrink_old() };
            if resized.is_none() && shrunk.is_empty() {
                assert_eq!((asked(&old), asked(&new)), (0, replicas), "the rollout is stuck");
                return step;
            }
            for Resize { name, to } in resized.into_iter().chain(shrunk) {
                let target = if name == "old" { &mut old } else { &mut new };
                target.spec.as_mut().unwrap().replicas = Some(to);
                if name == "old" {
                    target.status.as_mut().unwrap().available_replicas = Some(to);
                }
            }
            assert!(asked(&old) + asked(&new) <= replicas + surge, "too many pods");
            assert!(available(&old) + available(&new) >= replicas - unavailable, "too few available");
            let asked_new = asked(&new);
            new.status.as_mut().unwrap().available_replicas = Some(asked_new);
        }
        panic!("no end to the rollout");
    }

    #[test]
    fn every_rollout_ends_and_keeps_within_its_limits() {
        for replicas in 1..12 {
            for surge in 0..4 {
                for unavailable in 0..4 {
                    roll(replicas, surge, unavailable);
                }
            }
        }
    }

    #[test]
    fn unavailable_old_pods_go_first() {
        let deployment = deployment(4, &1.into(), &1.into());
        let (broken, good, new) = (set("broken", 1, 0, 5, 4), set("good", 3, 3, 5, 4), set("new", 1, 0, 5, 4));
        let rollout = Rollout { deployment: &deployment, new: Some(&new), old: vec![&broken, &good] };
        assert_eq!(rollout.shrink_old(), [Resize { name: "broken".to_owned(), to: 0 }]);
    }

    #[test]
    fn a_deployment_scaled_in_mid_rollout_gives_each_its_share() {
        let deployment = deployment(20, &5.into(), &0.into());
        let (old, new) = (set("old", 10, 10, 15, 10), set("new", 5, 5, 15, 10));
        let rollout = Rollout { deployment: &deployment, new: Some(&new), old: vec![&old] };
        assert!(rollout.was_scaled());
        let sizes = rollout.scale();
        assert_eq!(sizes, [Resize { name: "old".into(), to: 17 }, Resize { name: "new".into(), to: 8 }]);
    }

    #[test]
    fn a_deployment_at_rest_scales_its_one_replica_set() {
        let deployment = deployment(7, &1.into(), &0.into());
        let (old, new) = (set("old", 0, 0, 4, 3), set("new", 3, 3, 4, 3));
        let rollout = Rollout { deployment: &deployment, new: Some(&new), old: vec![&old] };
        assert_eq!(rollout.scale(), [Resize { name: "new".into(), to: 7 }]);
    }
}
