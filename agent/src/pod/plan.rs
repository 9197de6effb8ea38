//! What to do next for one pod: a pure function of its spec and the facts.
//!
//! Level-triggered: it looks only at what is, never at what was done before, so it can be asked at any time and after any
//! crash. Kubernetes' order holds: sandbox, init containers one after the other (sidecars stay), app containers together;
//! restarts per policy and backoff; when the pod ends, app containers before sidecars, then the sandbox, then the rest.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::backoff;
use super::facts::{Attempt, Doom, Ending, Facts, Phase};
use super::{is_sidecar, restart, spec};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a sandbox with this attempt number.
    CreateSandbox {
        /// 0 for the pod's first.
        attempt: u32,
    },
    /// Pull the image if need be, create the container and start it.
    Start {
        /// Its name.
        container: String,
        /// The restart count it will have.
        attempt: u32,
        /// When the attempt before it ended, for the crash backoff.
        after: Option<Timestamp>,
    },
    /// Stop a running container.
    Stop {
        /// Its name.
        container: String,
        /// The attempt's id.
        id: String,
        /// Seconds it gets before it is killed.
        grace: i64,
        /// The words of the `Killing` event.
        message: String,
    },
    /// Say that a container waits in CrashLoopBackOff.
    BackOff {
        /// Its name.
        container: String,
        /// The delay that holds.
        delay: SignedDuration,
    },
    /// Remove the sandbox, its containers, network and volumes.
    TearDown,
    /// Everything is gone from the node: confirm the deletion to the API server.
    Confirm,
    /// Fail the pod as a whole.
    Fail {
        /// The status' reason.
        reason: String,
        /// The status' message.
        message: String,
    },
}

/// What to do now, and when to ask again although nothing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The steps; they do not depend on each other and may be taken together.
    pub(crate) actions: Vec<Action>,
    /// When a waiting time ends.
    pub(crate) wake: Option<Timestamp>,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
}

/// What a container may do next.
enum Turn {
    /// It runs; nothing to do.
    Runs,
    /// It has ended and stays so.
    Done,
    /// It is to be started.
    Start,
}

/// The next steps for `pod`.
pub(crate) fn plan(pod: &Pod, facts: &Facts, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if facts.ending.is_none()
        && let Some(action) = deadline(pod, now, &mut plan)
    {
        plan.actions.push(action);
        return plan;
    }
    if facts.ending.is_some() || is_over(pod, facts) {
        end(pod, facts, &mut plan);
        return plan;
    }
    if facts.sandbox_busy {
        return plan;
    }
    match &facts.sandbox {
        Some(sandbox) if sandbox.ready => run(pod, facts, now, &mut plan),
        other => {
            // What still runs in a dead sandbox is stopped before the pod is started anew.
            if facts.any_alive() {
                stop_all(pod, facts, &mut plan, "Pod sandbox changed, it will be killed and re-created.");
                return plan;
            }
            if let Some(at) = facts.sandbox_not_before
                && now < at
            {
                plan.wake_at(at);
                return plan;
            }
            plan.actions.push(Action::CreateSandbox { attempt: other.as_ref().map_or(0, |s| s.attempt + 1) });
        }
    }
    plan
}

/// Whether all is said and done for a pod that is not deleted: its containers ended and none may start again.
pub(crate) fn is_over(pod: &Pod, facts: &Facts) -> bool {
    if super::is_terminal(pod) {
        return true;
    }
    let ended = |c: &Container| {
        !facts.starting.contains_key(&c.name)
            && facts
                .last(&c.name)
                .is_some_and(|a| a.phase == Phase::Exited && !facts.is_past(a) && !restart::follows(pod, c, a))
    };
    // An init container that failed for good fails the pod.
    let init = spec(pod).init_containers().iter();
    if init.filter(|c| ended(c)).any(|c| facts.last(&c.name).is_some_and(|a| !a.succeeded())) {
        return true;
    }
    let apps = spec(pod).containers();
    !apps.is_empty() && apps.iter().all(ended)
}

/// `activeDeadlineSeconds`: the pod fails when it has run longer than it may.
fn deadline(pod: &Pod, now: Timestamp, plan: &mut Plan) -> Option<Action> {
    let seconds = spec(pod).0?.active_deadline_seconds?;
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let start = status.start_time.as_ref()?.0;
    let end = start.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    if now < end {
        plan.wake_at(end);
        return None;
    }
    Some(Action::Fail {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    })
}

/// The pod is to be up: init containers in turn, then app containers.
fn run(pod: &Pod, facts: &Facts, now: Timestamp, plan: &mut Plan) {
    if !end_round(pod, facts, plan) {
        return;
    }
    // Whatever the others do: they are there to find out why those do not start. Each is started once.
    for container in spec(pod).ephemeral_containers() {
        if !facts.starting.contains_key(&container.name) && facts.last(&container.name).is_none() {
            start(&container.name, facts, now, plan);
        }
    }
    // Once an app container of this sandbox was started, the init containers are behind it.
    let initialized = spec(pod).containers().iter().any(|c| facts.current(&c.name).is_some());
    for container in spec(pod).init_containers() {
        if is_sidecar(container) {
            step(container, pod, facts, now, plan);
            if !initialized && !facts.is_started(&container.name) {
                return;
            }
            continue;
        }
        if initialized || facts.current(&container.name).is_some_and(Attempt::succeeded) {
            continue;
        }
        step(container, pod, facts, now, plan);
        return;
    }
    for container in spec(pod).containers() {
        step(container, pod, facts, now, plan);
    }
}

/// All are to begin anew: first all of the round before end, app containers before the others, without a grace period, as
/// kubelet does it; and starts under way come to their end. Answers whether that is so. Ephemeral containers stay.
fn end_round(pod: &Pod, facts: &Facts, plan: &mut Plan) -> bool {
    let alive = |container: &&Container| {
        let attempts = facts.attempts.get(&container.name);
        attempts.is_some_and(|all| all.iter().any(|attempt| attempt.is_alive() && facts.is_past(attempt)))
    };
    let mut last: Vec<&Container> = spec(pod).containers().iter().filter(alive).collect();
    if last.is_empty() {
        last = spec(pod).init_containers().iter().rev().filter(alive).take(1).collect();
    }
    for container in &last {
        for attempt in facts.attempts.get(&container.name).into_iter().flatten() {
            if attempt.is_alive() && facts.is_past(attempt) && !facts.stopping.contains(&attempt.id) {
                let message = "Container will be killed: all containers of the pod are restarted".to_owned();
                let (container, id) = (container.name.clone(), attempt.id.clone());
                plan.actions.push(Action::Stop { container, id, grace: 0, message });
            }
        }
    }
    let under_way = |container: &Container| facts.starting.get(&container.name).is_some_and(|r| *r < facts.round);
    last.is_empty() && !spec(pod).all().any(under_way)
}

/// The step of one container that has its turn.
fn step(container: &Container, pod: &Pod, facts: &Facts, now: Timestamp, plan: &mut Plan) {
    let name = &container.name;
    if facts.starting.contains_key(name) {
        return;
    }
    let current = facts.current(name);
    let turn = match current {
        None => Turn::Start,
        Some(a) if a.is_alive() => Turn::Runs,
        Some(a) if restart::follows(pod, container, a) => Turn::Start,
        Some(_) => Turn::Done,
    };
    match turn {
        Turn::Done => {}
        Turn::Runs => {
            if let (Some(attempt), Some(doom)) = (current, facts.doomed.get(name))
                && doom.id == attempt.id
                && !facts.stopping.contains(&attempt.id)
            {
                plan.actions.push(stop(pod, name, attempt, doom));
            }
        }
        Turn::Start => start(name, facts, now, plan),
    }
}

fn stop(pod: &Pod, name: &str, attempt: &Attempt, doom: &Doom) -> Action {
    Action::Stop {
        container: name.to_owned(),
        id: attempt.id.clone(),
        grace: doom.grace.unwrap_or_else(|| grace(pod)),
        message: doom.message.clone(),
    }
}

fn start(name: &str, facts: &Facts, now: Timestamp, plan: &mut Plan) {
    if let Some(at) = facts.not_before.get(name)
        && now < *at
    {
        plan.wake_at(*at);
        return;
    }
    let last = facts.last(name);
    // Who was ended for another's sake has not crashed.
    let blameless = |a: &&Attempt| facts.is_past(a) && a.finished != facts.round;
    let after = last.filter(|a| !blameless(a)).and_then(|a| a.finished);
    if let Some(finished) = after
        && let Some((delay, until)) = facts.crashes.held(name, finished, now)
    {
        plan.wake_at(until);
        plan.actions.push(Action::BackOff { container: name.to_owned(), delay });
        return;
    }
    let attempt = last.map_or(0, |a| a.attempt.saturating_add(1));
    plan.actions.push(Action::Start { container: name.to_owned(), attempt, after });
}

/// The pod is to be down.
fn end(pod: &Pod, facts: &Facts, plan: &mut Plan) {
    if facts.sandbox_busy {
        return;
    }
    if facts.any_alive() {
        stop_all(pod, facts, plan, "");
        return;
    }
    // A start that is under way is waited for: it ends with a container that then is stopped.
    if !facts.starting.is_empty() || !facts.stopping.is_empty() {
        return;
    }
    match (&facts.ending, facts.torn_down) {
        (Some(Ending::Deleted { .. } | Ending::Gone), true) => plan.actions.push(Action::Confirm),
        (Some(Ending::Shutdown { .. }), true) => {}
        (Some(Ending::Deleted { .. } | Ending::Gone | Ending::Shutdown { .. }), false) => {
            plan.actions.push(Action::TearDown);
        }
        // A pod that is over keeps its containers (for their logs) until it is deleted; its sandbox holds an address.
        (Some(Ending::Failed { .. }) | None, _) => {
            if facts.sandbox.as_ref().is_some_and(|s| s.ready) {
                plan.actions.push(Action::TearDown);
            }
        }
    }
}

/// Stops what runs: app containers first, sidecars after them in reverse order, as KEP-753 has it.
fn stop_all(pod: &Pod, facts: &Facts, plan: &mut Plan, why: &str) {
    let grace = ending_grace(pod, facts.ending.as_ref());
    let sidecars: Vec<&str> =
        spec(pod).init_containers().iter().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let alive = |name: &str| facts.attempts.get(name).is_some_and(|a| a.iter().any(Attempt::is_alive));
    let mut names: Vec<&str> =
        facts.attempts.keys().map(String::as_str).filter(|n| alive(n) && !sidecars.contains(n)).collect();
    if names.is_empty() {
        names = sidecars.into_iter().rev().filter(|n| alive(n)).take(1).collect();
    }
    for name in names {
        for attempt in facts.attempts.get(name).into_iter().flatten().filter(|a| a.is_alive()) {
            if facts.stopping.contains(&attempt.id) {
                continue;
            }
            let message = if why.is_empty() { format!("Stopping container {name}") } else { why.to_owned() };
            plan.actions.push(Action::Stop { container: name.to_owned(), id: attempt.id.clone(), grace, message });
        }
    }
}

/// Seconds each container gets when the pod ends like this.
pub(crate) fn ending_grace(pod: &Pod, ending: Option<&Ending>) -> i64 {
    match ending {
        Some(Ending::Deleted { grace } | Ending::Shutdown { grace }) => *grace,
        // One that was deleted by force tells how: with a period of zero.
        Some(Ending::Gone) => pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| grace(pod)),
        Some(Ending::Failed { grace: own, .. }) => own.unwrap_or_else(|| grace(pod)),
        None => grace(pod),
    }
}

/// The pod's own grace period. A negative one counts as one second, as the API warns who gives it.
pub(crate) fn grace(pod: &Pod) -> i64 {
    let seconds = spec(pod).0.and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    if seconds < 0 { 1 } else { seconds }
}

/// Words of a pod's CrashLoopBackOff: `back-off 10s restarting failed container=app pod=web_default(u1)`.
pub(crate) fn back_off_message(pod: &Pod, container: &str, delay: SignedDuration) -> String {
    format!(
        "back-off {} restarting failed container={container} pod={}_{}({})",
        backoff::show(delay),
        super::name(pod),
        super::namespace(pod),
        super::uid(pod)
    )
}

#[cfg(test)]
mod tests;
