//! Which pods a Job is to make, and which to stop, so that as many run as shall. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Counts, NewPod, Picture, Plan, number};
use crate::{
    job::{
        indexes::Indexes,
        policy::{self, Verdict},
        tracked::{self, has_failed, is_indexed, is_terminating, is_tracked, replaces_only_failed},
    },
    pod_owners::BURST,
    replica_set::doom,
    view::PodView,
};

impl Picture<'_> {
    /// Active pods that go when `surplus` are too many: first those whose index another has, or nobody wants.
    fn superfluous(&self, active: &[Arc<PodView>], surplus: usize) -> Vec<Arc<PodView>> {
        let mut left: Vec<Arc<PodView>> = active.to_vec();
        left.sort_by(|a, b| doom(a, b, &HashMap::new()));
        let mut doomed = Vec::new();
        if is_indexed(self.spec) {
            let mut kept = BTreeSet::new();
            // The most useful of each index is looked at first, and stays.
            left.reverse();
            left.retain(|pod| {
                let stays = self.valid_index(pod).is_some_and(|index| kept.insert(index));
                if !stays {
                    doomed.push(Arc::clone(pod));
                }
                stays
            });
            left.reverse();
        }
        let more = surplus.saturating_sub(doomed.len());
        doomed.extend(left.into_iter().take(more));
        doomed
    }

    /// The last failure of each index that is to be tried again: its pod stays until the next one says what it said.
    pub(super) fn last_failures(&self, counts: &Counts) -> BTreeMap<i32, Arc<PodView>> {
        let mut last: BTreeMap<i32, Arc<PodView>> = BTreeMap::new();
        let Some(failed) = &counts.failed_indexes else { return last };
        let active: BTreeSet<i32> = counts.active.iter().filter_map(|pod| tracked::index(pod)).collect();
        let order = |pod: &PodView| {
            let (counted, ignored) = tracked::failures_before(pod);
            (counted + ignored, tracked::ended(pod))
        };
        for pod in self.pods.iter().filter(|pod| is_tracked(pod) && has_failed(self.job, pod)) {
            let Some(index) = self.valid_index(pod) else { continue };
            if counts.succeeded_indexes.1.has(index) || failed.has(index) || active.contains(&index) {
                continue;
            }
            match last.get(&index) {
                Some(known) if order(known) > order(pod) => {}
                _ => drop(last.insert(index, Arc::clone(pod))),
            }
        }
        last
    }

    /// Pods to make and pods to stop, so that as many run as shall.
    pub(super) fn manage(&self, counts: &Counts, last: &BTreeMap<i32, Arc<PodView>>, plan: &mut Plan) {
        let active = number(counts.active.len());
        if self.is_suspended() {
            plan.drop = self.superfluous(&counts.active, counts.active.len());
            return;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match counts.completions {
            None if counts.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - counts.succeeded).min(parallelism).max(0),
        };
        let surplus = usize::try_from(active - wanted).unwrap_or_default();
        plan.drop = self.superfluous(&counts.active, surplus);
        plan.drop.truncate(BURST);
        if !plan.drop.is_empty() {
            return;
        }
        let ending = if replaces_only_failed(self.job) { counts.terminating } else { 0 };
        let missing = usize::try_from(wanted - ending - active).unwrap_or_default().min(BURST);
        if missing == 0 {
            return;
        }
        let limits_each = counts.failed_indexes.is_some();
        if !limits_each {
            let wait = plan.backoff.wait(self.now);
            if !wait.is_zero() {
                plan.wake = Some(plan.wake.map_or(wait, |wake| wake.min(wait)));
                return;
            }
        }
        let Some(completions) = counts.completions.filter(|_| is_indexed(self.spec)) else {
            plan.create = vec![NewPod::default(); missing];
            return;
        };
        let mut taken = Indexes::of(counts.active.iter().filter_map(|pod| tracked::index(pod)));
        if ending > 0 {
            let going = self.pods.iter().filter(|pod| is_terminating(pod));
            taken = taken.or(&Indexes::of(going.filter_map(|pod| tracked::index(pod))));
        }
        taken = taken.or(&counts.succeeded_indexes.1);
        if let Some(failed) = &counts.failed_indexes {
            taken = taken.or(failed);
        }
        let mut soonest: Option<Duration> = None;
        for index in taken.first_missing(missing, completions) {
            if !limits_each {
                plan.create.push(NewPod { index: Some(index), failures: None });
                continue;
            }
            let replaced = last.get(&index);
            let failures = replaced.map_or((0, 0), |pod| {
                let (counted, ignored) = tracked::failures_before(pod);
                match policy::verdict(self.job, pod) {
                    Verdict::Ignore => (counted, ignored + 1),
                    Verdict::Count | Verdict::FailIndex | Verdict::FailJob(_) => (counted + 1, ignored),
                }
            });
            let wait = tracked::wait(failures.0 + failures.1, replaced.map(|pod| tracked::ended(pod)), self.now);
            if wait.is_zero() {
                plan.create.push(NewPod { index: Some(index), failures: Some(failures) });
            } else {
                soonest = Some(soonest.map_or(wait, |known| known.min(wait)));
            }
        }
        if let Some(wait) = soonest {
            plan.wake = Some(plan.wake.map_or(wait, |wake| wake.min(wait)));
        }
    }
}
