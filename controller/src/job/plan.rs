//! What a Job's pods ask for: pure. A pod is counted in three steps, so that none is counted twice or never however a
//! reconcile is cut: its uid is noted in the status, its finalizer is taken off, the uid becomes a number.

mod pods;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    indexes::Indexes,
    policy::{self, Verdict},
    tracked::{self, Backoff, has_failed, has_succeeded, is_indexed, is_terminating, is_tracked},
};
use crate::view::PodView;

/// So many uids are noted in a status at once.
const MOST_UNCOUNTED: usize = 500;

/// How the job is to end, or has ended already but for its last condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// It has all it wanted.
    pub(super) is_success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Outcome {
    fn failure(reason: &str, message: &str) -> Self {
        Self { is_success: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    fn success(reason: &str, message: &str) -> Self {
        Self { is_success: true, reason: reason.to_owned(), message: message.to_owned() }
    }

    /// The condition that says so while pods are still ending, and the one that says so in the end.
    fn conditions(&self) -> [&'static str; 2] {
        if self.is_success { ["SuccessCriteriaMet", "Complete"] } else { ["FailureTarget", "Failed"] }
    }
}

/// A pod to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NewPod {
    pub(super) index: Option<i32>,
    /// How often its index failed before, counting and not, where that is limited for each index.
    pub(super) failures: Option<(i32, i32)>,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pods to delete that are counted before they go.
    pub(super) stop: Vec<Arc<PodView>>,
    /// Pods to take the finalizer off and to delete: they count for nothing.
    pub(super) drop: Vec<Arc<PodView>>,
    pub(super) create: Vec<NewPod>,
    /// The status before finalizers are taken off.
    pub(super) status: JobStatus,
    /// Pods whose finalizer goes once the status is written.
    pub(super) untrack: Vec<Arc<PodView>>,
    /// How it ends, when it does.
    pub(super) outcome: Option<Outcome>,
    pub(super) backoff: Backoff,
    pub(super) wake: Option<Duration>,
    /// `Suspended` or `Resumed`, and in words.
    pub(super) event: Option<(&'static str, &'static str)>,
}

/// What is looked at.
pub(super) struct Picture<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: &'a JobSpec,
    pub(super) pods: &'a [Arc<PodView>],
    pub(super) backoff: Backoff,
    pub(super) now: Timestamp,
}

/// Whether it has ended, and by which condition.
pub(crate) fn finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn condition_is<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True")
}

fn outcome_of(condition: &JobCondition, is_success: bool) -> Outcome {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Outcome { is_success, reason: text(&condition.reason), message: text(&condition.message) }
}

/// Sets a condition; whether it was another. One that is not there and would be `False` is left away.
fn set_condition(
    status: &mut JobStatus,
    now: Timestamp,
    type_: &str,
    value: &str,
    reason: &str,
    message: &str,
) -> bool {
    let new = JobCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) if old.status == new.status && old.reason == new.reason && old.message == new.message => false,
        Some(old) => {
            *old = new;
            true
        }
        None if value == "False" => false,
        None => {
            conditions.push(new);
            true
        }
    }
}

/// Zeroes and empty lists in one form, so that equal statuses compare equal.
pub(super) fn normal(mut status: JobStatus) -> JobStatus {
    for count in [&mut status.active, &mut status.succeeded, &mut status.failed] {
        *count = count.filter(|count| *count != 0);
    }
    status.completed_indexes = status.completed_indexes.filter(|text| !text.is_empty());
    status.conditions = status.conditions.filter(|list| !list.is_empty());
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    for list in [&mut uncounted.succeeded, &mut uncounted.failed] {
        *list = list.take().filter(|list| !list.is_empty());
    }
    status
}

/// Turns noted uids into numbers, of those pods that are not `held` by their finalizer any more.
pub(super) fn settle(status: &mut JobStatus, held: &BTreeSet<String>) {
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    for (list, count) in
        [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
    {
        let list = list.get_or_insert_default();
        let before = list.len();
        list.retain(|uid| held.contains(uid));
        *count = Some(count.unwrap_or_default() + number(before - list.len()));
    }
}

/// Says the end in the status if nothing is left to be counted and no pod is left to end; whether it did.
pub(super) fn finish(status: &mut JobStatus, outcome: &Outcome, now: Timestamp) -> bool {
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let left = uncounted.succeeded.map_or(0, |l| l.len()) + uncounted.failed.map_or(0, |l| l.len());
    if left > 0 || status.terminating.unwrap_or_default() > 0 {
        return false;
    }
    let [_, last] = outcome.conditions();
    set_condition(status, now, last, "True", &outcome.reason, &outcome.message);
    if outcome.is_success {
        status.completion_time = Some(Time(now));
    }
    true
}

/// The uids of pods that have not been counted.
pub(super) fn held(pods: &[Arc<PodView>]) -> BTreeSet<String> {
    pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.metadata.uid.clone()).collect()
}

/// The numbers everything is decided by.
struct Counts {
    active: Vec<Arc<PodView>>,
    terminating: i32,
    succeeded: i32,
    failed: i32,
    completions: Option<i32>,
    /// What has succeeded before, and with what has not been counted.
    succeeded_indexes: (Indexes, Indexes),
    /// Only where each index has a limit of its own.
    failed_indexes: Option<Indexes>,
}

impl Picture<'_> {
    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// The completion a pod is for, if it is one there shall be.
    fn valid_index(&self, pod: &PodView) -> Option<i32> {
        tracked::index(pod).filter(|index| *index < self.spec.completions.unwrap_or_default())
    }

    /// Pods not counted yet that count if they have ended as `is_meant`.
    fn uncounted<'a>(&'a self, noted: &Option<Vec<String>>, is_meant: impl Fn(&PodView) -> bool) -> Vec<&'a PodView> {
        let is_noted = |pod: &PodView| noted.iter().flatten().any(|uid| Some(uid) == pod.metadata.uid.as_ref());
        let counts = |pod: &PodView| {
            let valid = !is_indexed(self.spec) || self.valid_index(pod).is_some();
            is_tracked(pod) && !is_noted(pod) && valid && is_meant(pod)
        };
        self.pods.iter().map(AsRef::as_ref).filter(|pod| counts(pod)).collect()
    }

    fn counts(&self, status: &JobStatus, newly_succeeded: &[&PodView], newly_failed: &[&PodView]) -> Counts {
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let noted = |list: &Option<Vec<String>>| number(list.as_ref().map_or(0, Vec::len));
        let failures = newly_failed.iter().filter(|pod| policy::verdict(self.job, pod) != Verdict::Ignore).count();
        let mut counts = Counts {
            active: self.pods.iter().filter(|pod| pod.is_active()).cloned().collect(),
            terminating: number(self.pods.iter().filter(|pod| is_terminating(pod)).count()),
            succeeded: status.succeeded.unwrap_or_default()
                + number(newly_succeeded.len())
                + noted(&uncounted.succeeded),
            failed: status.failed.unwrap_or_default() + number(failures) + noted(&uncounted.failed),
            completions: self.spec.completions,
            succeeded_indexes: Default::default(),
            failed_indexes: None,
        };
        if let Some(completions) = counts.completions.filter(|_| is_indexed(self.spec)) {
            let before = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
            let tracked = || self.pods.iter().filter(|pod| is_tracked(pod));
            let new = tracked().filter(|pod| has_succeeded(pod)).filter_map(|pod| self.valid_index(pod));
            let all = before.or(&Indexes::of(new));
            counts.succeeded = all.count();
            counts.succeeded_indexes = (before, all);
            if let Some(limit) = self.spec.backoff_limit_per_index {
                let before = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
                let new = tracked().filter(|pod| self.has_used_up_index(pod, limit));
                counts.failed_indexes = Some(before.or(&Indexes::of(new.filter_map(|pod| self.valid_index(pod)))));
            }
        }
        counts
    }

    /// Whether a pod's failure is the last that its index may have.
    fn has_used_up_index(&self, pod: &PodView, limit: i32) -> bool {
        has_failed(self.job, pod)
            && match policy::verdict(self.job, pod) {
                Verdict::FailIndex => true,
                Verdict::Ignore => false,
                Verdict::Count | Verdict::FailJob(_) => tracked::failures_before(pod).0 >= limit,
            }
    }

    /// Whether containers that are started again in their pods have failed too often.
    fn restarts_too_often(&self, limit: i32) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(pod.status.phase.as_str(), "Running" | "Pending"));
        let statuses =
            running.flat_map(|pod| pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses));
        let restarts: i32 = statuses.map(|status| status.restart_count).sum();
        restarts >= limit.max(1)
    }

    /// How long it may still be active, if that is limited.
    fn time_left(&self, status: &JobStatus) -> Option<Duration> {
        let (limit, start) = (self.spec.active_deadline_seconds?, status.start_time.as_ref()?.0);
        let passed = self.now.duration_since(start);
        (!self.is_suspended())
            .then(|| Duration::try_from(SignedDuration::from_secs(limit) - passed).unwrap_or_default())
    }

    /// How it ends, if it does, as far as that does not depend on what is to be done next.
    fn outcome(&self, status: &JobStatus, counts: &Counts, wake: &mut Option<Duration>) -> Option<Outcome> {
        if let Some(met) = condition_is(status, "SuccessCriteriaMet") {
            return Some(outcome_of(met, true));
        }
        if let Some(target) = condition_is(status, "FailureTarget") {
            return Some(outcome_of(target, false));
        }
        let failed = self.pods.iter().filter(|pod| has_failed(self.job, pod));
        let mut verdicts = failed.map(|pod| policy::verdict(self.job, pod));
        if self.spec.pod_failure_policy.is_some()
            && let Some(why) = verdicts.find_map(|v| if let Verdict::FailJob(why) = v { Some(why) } else { None })
        {
            return Some(Outcome::failure("PodFailurePolicy", &why));
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if counts.failed > limit || self.restarts_too_often(limit) {
            return Some(Outcome::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        match self.time_left(status) {
            Some(Duration::ZERO) => {
                return Some(Outcome::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
            }
            Some(left) => *wake = Some(left),
            None => {}
        }
        let completions = counts.completions.filter(|_| is_indexed(self.spec))?;
        if let Some(indexes) = counts.failed_indexes.as_ref().map(Indexes::count) {
            if self.spec.max_failed_indexes.is_some_and(|most| indexes > most) {
                let why = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Outcome::failure("MaxFailedIndexesExceeded", why));
            }
            if indexes > 0 && indexes + counts.succeeded_indexes.1.count() >= completions {
                return Some(Outcome::failure("FailedIndexes", "Job has failed indexes"));
            }
        }
        let met = policy::success(self.job, completions, &counts.succeeded_indexes.1)?;
        Some(Outcome::success("SuccessPolicy", &met))
    }

    /// Notes the pods that have ended and can be let go.
    fn track(&self, counts: &Counts, last: &BTreeMap<i32, Arc<PodView>>, plan: &mut Plan) {
        let is_leaving = self.job.metadata.deletion_timestamp.is_some();
        let is_failure = plan.outcome.as_ref().is_some_and(|outcome| !outcome.is_success);
        let dropped: BTreeSet<Option<String>> = plan.drop.iter().map(|pod| pod.metadata.uid.clone()).collect();
        let mut new_indexes = Vec::new();
        let uncounted = plan.status.uncounted_terminated_pods.get_or_insert_default();
        let mut pods: Vec<&Arc<PodView>> = self.pods.iter().filter(|pod| is_tracked(pod)).collect();
        pods.sort_by_key(|pod| (tracked::index(pod), pod.metadata.name.clone()));
        for pod in pods {
            let failed = has_failed(self.job, pod);
            let is_kept = || {
                let index = tracked::index(pod);
                index.and_then(|index| last.get(&index)).is_some_and(|kept| kept.metadata.uid == pod.metadata.uid)
            };
            let may_go = is_leaving || plan.outcome.is_some() || has_succeeded(pod) || (failed && !is_kept());
            if !may_go || dropped.contains(&pod.metadata.uid) {
                continue;
            }
            plan.untrack.push(Arc::clone(pod));
            let Some(uid) = pod.metadata.uid.clone() else { continue };
            let valid = !is_indexed(self.spec) || self.valid_index(pod).is_some();
            let (noted, unlucky) =
                (uncounted.succeeded.get_or_insert_default(), uncounted.failed.get_or_insert_default());
            if has_succeeded(pod) && !unlucky.contains(&uid) {
                if is_indexed(self.spec) {
                    new_indexes.extend(self.valid_index(pod));
                } else if !noted.contains(&uid) {
                    noted.push(uid);
                }
            } else if (failed || is_failure)
                && valid
                && !unlucky.contains(&uid)
                && policy::verdict(self.job, pod) != Verdict::Ignore
            {
                unlucky.push(uid);
            }
            if new_indexes.len() + noted.len() + unlucky.len() >= MOST_UNCOUNTED {
                // The rest comes with the next reconcile, which these changes bring about.
                plan.wake = Some(Duration::ZERO);
                break;
            }
        }
        if is_indexed(self.spec) {
            let all = counts.succeeded_indexes.0.or(&Indexes::of(new_indexes));
            plan.status.succeeded = Some(all.count());
            plan.status.completed_indexes = Some(all.to_string());
            plan.status.failed_indexes = counts.failed_indexes.as_ref().map(Indexes::to_string);
        }
    }

    fn suspend(&self, plan: &mut Plan) {
        let (status, now) = (&mut plan.status, self.now);
        if self.is_suspended() {
            if set_condition(status, now, "Suspended", "True", "JobSuspended", "Job suspended") {
                status.start_time = None;
                plan.event = Some(("Suspended", "Job suspended"));
            }
        } else if set_condition(status, now, "Suspended", "False", "JobResumed", "Job resumed") {
            status.start_time = Some(Time(now));
            plan.event = Some(("Resumed", "Job resumed"));
        }
    }

    /// What is to be done.
    pub(super) fn plan(&self) -> Plan {
        let mut status = normal(self.job.status.clone().unwrap_or_default());
        settle(&mut status, &held(self.pods));
        if status.start_time.is_none() && !self.is_suspended() {
            status.start_time = Some(Time(self.now));
        }
        let uncounted: UncountedTerminatedPods = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let succeeded = self.uncounted(&uncounted.succeeded, has_succeeded);
        let failed = self.uncounted(&uncounted.failed, |pod| has_failed(self.job, pod));
        let counts = self.counts(&status, &succeeded, &failed);
        let mut plan = Plan { backoff: self.backoff.with(&succeeded, &failed), ..Plan::default() };
        let last = self.last_failures(&counts);
        plan.outcome = self.outcome(&status, &counts, &mut plan.wake);
        plan.status = status;
        if plan.outcome.is_some() {
            plan.stop.clone_from(&counts.active);
        } else if self.job.metadata.deletion_timestamp.is_none() {
            self.manage(&counts, &last, &mut plan);
            let active = number(counts.active.len() + plan.create.len() - plan.drop.len());
            let is_complete = counts.completions.map_or(counts.succeeded > 0, |wanted| counts.succeeded >= wanted);
            if is_complete && active == 0 {
                let why = "Reached expected number of succeeded pods";
                plan.outcome = Some(Outcome::success("CompletionsReached", why));
            } else {
                self.suspend(&mut plan);
            }
        }
        let going = plan.stop.len() + plan.drop.len();
        let ready = |pods: &[Arc<PodView>]| number(pods.iter().filter(|pod| pod.is_ready()).count());
        plan.status.active = Some(number(counts.active.len() + plan.create.len() - going));
        plan.status.ready = Some(ready(&counts.active) - ready(&plan.stop) - ready(&plan.drop));
        plan.status.terminating = Some(counts.terminating.saturating_add(number(going)));
        self.track(&counts, &last, &mut plan);
        if let Some(outcome) = &plan.outcome {
            let [first, _] = outcome.conditions();
            set_condition(&mut plan.status, self.now, first, "True", &outcome.reason, &outcome.message);
        }
        plan.status = normal(plan.status);
        plan
    }
}

/// Whether nothing of weight differs, times of conditions included.
pub(super) fn is_same(a: &JobStatus, b: &JobStatus) -> bool {
    matches!(serde_json::to_value(a).ok().zip(serde_json::to_value(b).ok()), Some((a, b)) if a == b)
}

/// How long until it is to be deleted, and whether at all.
pub(super) fn life_left(job: &Job, now: Timestamp) -> Option<Duration> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let end = finished(job)?.last_transition_time.as_ref()?.0;
    let left = SignedDuration::from_secs(seconds.into()) - now.duration_since(end);
    match left.cmp(&SignedDuration::ZERO) {
        Ordering::Greater => Duration::try_from(left).ok(),
        _ => Some(Duration::ZERO),
    }
}

#[cfg(test)]
mod tests;
