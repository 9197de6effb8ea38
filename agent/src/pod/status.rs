//! A pod's status, computed from its spec and the facts as Kubernetes 1.36's kubelet computes it.
//!
//! Pure. What it gives is compared with what the API server has and only a difference is written ([`patch`]).

mod patch;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, EphemeralContainer, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus,
    ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::facts::{Attempt, Ending, Facts, Phase, Waiting};
use super::{as_container, is_sidecar, resize, resources, restart, spec};
pub(crate) use patch::patch;

/// What of the node goes into every pod's status.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// The node's addresses, the first one being `hostIP`.
    pub(crate) ips: Vec<IpAddr>,
}

/// The status of `pod`.
pub(crate) fn compute(pod: &Pod, facts: &Facts, host: &Host, now: Timestamp) -> PodStatus {
    let old = pod.status.as_ref();
    let generation = pod.metadata.generation;
    let start_time = old.and_then(|s| s.start_time.clone()).or(Some(Time(now)));
    let qos_class =
        old.and_then(|s| s.qos_class.clone()).or_else(|| Some(resources::qos_class(pod).as_str().to_owned()));
    if let Some(Ending::Failed { reason, message, .. }) = &facts.ending
        && facts.attempts.is_empty()
        && facts.sandbox.is_none()
        && facts.torn_down
    {
        // Refused at the door: nothing of it ever was on the node.
        return PodStatus {
            phase: Some("Failed".into()),
            reason: Some(reason.clone()),
            message: Some(message.clone()),
            start_time,
            qos_class,
            observed_generation: generation,
            conditions: old.and_then(|s| s.conditions.clone()),
            ..PodStatus::default()
        };
    }

    let initialized = initialized(pod, facts);
    let default_waiting =
        if spec(pod).init_containers().is_empty() || initialized { "ContainerCreating" } else { "PodInitializing" };
    let init: Vec<ContainerStatus> =
        spec(pod).init_containers().iter().map(|c| container_status(pod, c, facts, default_waiting, true)).collect();
    let apps: Vec<ContainerStatus> =
        spec(pod).containers().iter().map(|c| container_status(pod, c, facts, default_waiting, false)).collect();

    let ephemeral: Vec<ContainerStatus> =
        spec(pod).ephemeral_containers().iter().map(|c| ephemeral_status(pod, c, facts)).collect();

    let phase = phase(pod, facts, &init, &apps);
    let (reason, message) = match &facts.ending {
        Some(Ending::Failed { reason, message, .. }) => (Some(reason.clone()), Some(message.clone())),
        _ => (old.and_then(|s| s.reason.clone()), old.and_then(|s| s.message.clone())),
    };

    let ips: Vec<IpAddr> = if spec(pod).host_network() {
        host.ips.clone()
    } else {
        match &facts.sandbox {
            Some(sandbox) if !sandbox.ips.is_empty() => sandbox.ips.clone(),
            // A pod that is over keeps showing the address it had.
            _ => old
                .and_then(|s| s.pod_ips.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|p| p.ip.parse().ok())
                .filter(|_| phase == "Succeeded" || phase == "Failed" || facts.ending.is_some())
                .collect(),
        }
    };

    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        host_ip: host.ips.first().map(ToString::to_string),
        host_ips: Some(host.ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: ips.first().map(ToString::to_string),
        pod_ips: (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        start_time,
        qos_class,
        observed_generation: generation,
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(apps),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        allocated_resources: Some(resize::allocated(pod)).filter(|all| !all.is_empty()),
        resources: Some(facts.pod_told.clone().filter(|_| phase == "Running").unwrap_or_else(|| resize::of_pod(pod))),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions(pod, facts, &status, now));
    status
}

/// Whether every init container has done its part in the current sandbox.
fn initialized(pod: &Pod, facts: &Facts) -> bool {
    if spec(pod).containers().iter().any(|c| facts.current(&c.name).is_some()) {
        return true;
    }
    spec(pod).init_containers().iter().all(|c| {
        if is_sidecar(c) {
            facts.is_started(&c.name)
        } else {
            facts.last(&c.name).is_some_and(|a| a.succeeded() && !facts.is_past(a))
        }
    })
}

fn phase(pod: &Pod, facts: &Facts, init: &[ContainerStatus], apps: &[ContainerStatus]) -> &'static str {
    match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
        // Terminal phases are for ever.
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if matches!(facts.ending, Some(Ending::Failed { .. })) {
        return if facts.any_alive() { "Running" } else { "Failed" };
    }
    // Whether a container that has ended stays so.
    let over = |name: &str| {
        let (container, last) = (spec(pod).container(name), facts.last(name));
        let ended = last.filter(|a| a.phase == Phase::Exited && !facts.is_past(a));
        container.zip(ended).is_some_and(|(c, a)| !restart::follows(pod, c, a))
    };
    let sidecars: Vec<&str> =
        spec(pod).init_containers().iter().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let regular = init.iter().filter(|s| !sidecars.contains(&s.name.as_str()));
    let failed_init = regular
        .clone()
        .filter(|s| over(&s.name))
        .any(|s| terminated(s.state.as_ref()).or(terminated(s.last_state.as_ref())).is_some_and(|t| t.exit_code != 0));
    if failed_init {
        return "Failed";
    }
    let started = apps.iter().any(|s| {
        s.state.as_ref().is_some_and(|x| x.running.is_some() || x.terminated.is_some())
            || terminated(s.last_state.as_ref()).is_some()
    });
    let pending_init = regular.clone().any(|s| terminated(s.state.as_ref()).is_none_or(|t| t.exit_code != 0));
    if pending_init && !started {
        return "Pending";
    }
    if !started && init.iter().any(|s| sidecars.contains(&s.name.as_str()) && s.started != Some(true)) {
        return "Pending";
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in apps {
        let Some(state) = &status.state else {
            waiting += 1;
            continue;
        };
        if state.running.is_some() {
            running += 1;
        } else if let Some(t) = &state.terminated {
            stopped += 1;
            succeeded += i32::from(t.exit_code == 0);
        } else if terminated(status.last_state.as_ref()).is_some() {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    if waiting > 0 {
        "Pending"
    } else if running > 0 {
        "Running"
    } else if stopped > 0 {
        let ending = facts.ending.is_some() && facts.torn_down;
        let stays = ending || apps.iter().all(|s| over(&s.name));
        match stays {
            false => "Running",
            true if stopped == succeeded => "Succeeded",
            true => "Failed",
        }
    } else {
        "Pending"
    }
}

fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state.and_then(|s| s.terminated.as_ref())
}

fn container_status(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    default_waiting: &str,
    init: bool,
) -> ContainerStatus {
    let name = &container.name;
    let last = facts.last(name);
    let waiting = facts.waiting.get(name);
    let ended = facts.ending.is_some();
    // A new sandbox or round begins anew: what ended in the old one is the last state, not the state.
    let begins_anew = last.is_some_and(|a| {
        let elsewhere = facts.sandbox.as_ref().is_some_and(|s| s.ready && s.attempt != a.sandbox);
        a.phase == Phase::Exited && !ended && (elsewhere || facts.is_past(a))
    });
    let (state, last_state) = match (last, waiting) {
        (None, waiting) => (waiting_state(waiting, default_waiting), None),
        (Some(a), _) if a.phase == Phase::Running => (running_state(a), facts.previous(name).map(terminated_state)),
        (Some(a), _) if a.phase == Phase::Created => {
            (waiting_state(None, default_waiting), facts.previous(name).map(terminated_state))
        }
        (Some(a), Some(w)) if !ended && restart::follows(pod, container, a) => {
            (waiting_state(Some(w), default_waiting), Some(terminated_state(a)))
        }
        (Some(a), None) if begins_anew => {
            let why = facts.is_past(a).then(|| Waiting {
                reason: "RestartingAllContainers".into(),
                message: "The container has ended because all containers of the pod begin anew".into(),
            });
            (waiting_state(why.as_ref(), default_waiting), Some(terminated_state(a)))
        }
        (Some(a), _) => (terminated_state(a), facts.previous(name).map(terminated_state)),
    };
    let running = state.running.is_some();
    let sidecar = is_sidecar(container);
    let ready = if init && !sidecar {
        terminated(Some(&state)).is_some_and(|t| t.exit_code == 0)
    } else {
        running && facts.is_ready(name)
    };
    let started = running && if init && !sidecar { true } else { facts.is_started(name) };
    let shown = last.filter(|a| !a.image.is_empty());
    ContainerStatus {
        name: name.clone(),
        image: shown.map_or_else(|| container.image.clone().unwrap_or_default(), |a| a.image.clone()),
        image_id: shown.map_or_else(String::new, |a| a.image_id.clone()),
        container_id: last.filter(|a| !a.id.is_empty()).map(|a| format!("coracle://{}", a.id)),
        ready,
        started: Some(started),
        restart_count: last.map_or(0, |a| i32::try_from(a.attempt).unwrap_or(i32::MAX)),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        allocated_resources: container.resources.as_ref().and_then(|r| r.requests.clone()).filter(|r| !r.is_empty()),
        resources: last.map(|a| {
            let told = facts.told.get(&a.id).filter(|_| running).cloned();
            let wanted = || container.resources.clone().unwrap_or_default();
            ResourceRequirements { claims: None, ..told.unwrap_or_else(wanted) }
        }),
        user: last.filter(|_| running).and_then(|a| a.user.as_ref()).map(|(uid, gid, groups)| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: i64::from(*uid),
                gid: i64::from(*gid),
                supplemental_groups: Some(groups.iter().map(|g| i64::from(*g)).collect()),
            }),
        }),
        volume_mounts: volume_mounts(container),
        stop_signal: last.and_then(|attempt| attempt.stop_signal.clone()),
        ..ContainerStatus::default()
    }
}

/// An ephemeral container is never started again, and never ready.
fn ephemeral_status(pod: &Pod, container: &EphemeralContainer, facts: &Facts) -> ContainerStatus {
    let status = container_status(pod, &as_container(container), facts, "ContainerCreating", false);
    let state = match (facts.last(&container.name), status.state) {
        (Some(attempt), _) if attempt.phase == Phase::Exited => Some(terminated_state(attempt)),
        (_, state) => state,
    };
    ContainerStatus { state, last_state: Some(ContainerState::default()), ready: false, started: None, ..status }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|m| !m.is_empty())?;
    Some(
        mounts
            .iter()
            .map(|m| {
                let read_only = m.read_only.unwrap_or(false);
                VolumeMountStatus {
                    name: m.name.clone(),
                    mount_path: m.mount_path.clone(),
                    read_only: read_only.then_some(true),
                    recursive_read_only: read_only.then(|| {
                        match m.recursive_read_only.as_deref() {
                            Some("Enabled" | "IfPossible") => "Enabled",
                            _ => "Disabled",
                        }
                        .to_owned()
                    }),
                    volume_status: None,
                }
            })
            .collect(),
    )
}

fn waiting_state(waiting: Option<&Waiting>, default: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waiting.map_or_else(|| default.to_owned(), |w| w.reason.clone())),
            message: waiting.map(|w| w.message.clone()).filter(|m| !m.is_empty()),
        }),
        ..ContainerState::default()
    }
}

fn running_state(attempt: &Attempt) -> ContainerState {
    ContainerState {
        running: Some(ContainerStateRunning { started_at: attempt.started.map(Time) }),
        ..ContainerState::default()
    }
}

fn terminated_state(attempt: &Attempt) -> ContainerState {
    let exit_code = attempt.exit_code.unwrap_or(137);
    let reason =
        attempt.reason.clone().unwrap_or_else(|| if exit_code == 0 { "Completed" } else { "Error" }.to_owned());
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: (!attempt.id.is_empty()).then(|| format!("coracle://{}", attempt.id)),
            exit_code,
            reason: Some(reason),
            message: attempt.message.clone().filter(|m| !m.is_empty()),
            started_at: attempt.started.or(Some(Timestamp::UNIX_EPOCH)).map(Time),
            finished_at: attempt.finished.map(Time),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// The conditions the node owns, in kubelet's order, then the others the pod has.
fn conditions(pod: &Pod, facts: &Facts, status: &PodStatus, now: Timestamp) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let old = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let networked = facts.sandbox.as_ref().is_some_and(|s| s.ready && (spec(pod).host_network() || !s.ips.is_empty()));
    let init: Vec<&ContainerStatus> = status.init_container_statuses.iter().flatten().collect();
    let apps: Vec<&ContainerStatus> = status.container_statuses.iter().flatten().collect();

    let containers_ready = containers_ready(pod, phase, &init, &apps);
    let ready = gates(pod, &containers_ready, old);
    let mut wanted = vec![
        condition("PodReadyToStartContainers", networked, "", ""),
        initialized_condition(pod, phase, &init, &apps),
        PodCondition { type_: "Ready".into(), ..ready },
        PodCondition { type_: "ContainersReady".into(), ..containers_ready },
        condition("PodScheduled", true, "", ""),
    ];
    if restart::may_restart_all(pod) {
        wanted.push(restarting_condition(facts, phase));
    }
    for condition in &mut wanted {
        let before = old.iter().find(|c| c.type_ == condition.type_);
        condition.last_transition_time = match before {
            Some(b) if b.status == condition.status && b.last_transition_time.is_some() => {
                b.last_transition_time.clone()
            }
            _ => Some(Time(now)),
        };
        condition.observed_generation = pod.metadata.generation;
    }
    wanted.extend(resize_conditions(facts, old, now));
    if let Some(why) = &facts.disrupted {
        let condition = condition("DisruptionTarget", true, "TerminationByKubelet", why);
        let since = old.iter().find(|c| c.type_ == condition.type_).and_then(|c| c.last_transition_time.clone());
        let observed_generation = pod.metadata.generation;
        wanted.push(PodCondition { last_transition_time: since.or(Some(Time(now))), observed_generation, ..condition });
    }
    let others: Vec<PodCondition> = old
        .iter()
        .filter(|c| wanted.iter().all(|w| w.type_ != c.type_) && !PASSING.contains(&c.type_.as_str()))
        .cloned()
        .collect();
    wanted.extend(others);
    wanted
}

/// Whether all containers are being ended to begin anew.
fn restarting_condition(facts: &Facts, phase: &str) -> PodCondition {
    let ending = facts.attempts.values().flatten().any(|a| a.is_alive() && facts.is_past(a));
    match phase {
        "Succeeded" => condition(RESTARTING, false, "PodCompleted", ""),
        "Failed" => condition(RESTARTING, false, "PodFailed", ""),
        _ if ending => {
            condition(RESTARTING, true, "RestartAllContainersStarted", "container exited with restart policy rule")
        }
        _ => condition(RESTARTING, false, "", ""),
    }
}

/// Conditions that are there only while a resize is not done.
fn resize_conditions(facts: &Facts, old: &[PodCondition], now: Timestamp) -> Vec<PodCondition> {
    let mut conditions = Vec::new();
    let resize = &facts.resize;
    if let Some(pending) = &resize.pending {
        let condition = condition("PodResizePending", true, &pending.reason, &pending.message);
        conditions.push(PodCondition { observed_generation: pending.generation, ..condition });
    }
    if resize.under_way {
        let reason = if resize.error.is_some() { "Error" } else { "" };
        let condition = condition("PodResizeInProgress", true, reason, resize.error.as_deref().unwrap_or_default());
        conditions.push(PodCondition { observed_generation: resize.generation, ..condition });
    }
    for condition in &mut conditions {
        let before = old.iter().find(|c| c.type_ == condition.type_).and_then(|c| c.last_transition_time.clone());
        condition.last_transition_time = before.or(Some(Time(now)));
    }
    conditions
}

fn condition(type_: &str, holds: bool, reason: &str, message: &str) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then(|| message.to_owned()),
        ..PodCondition::default()
    }
}

fn initialized_condition(pod: &Pod, phase: &str, init: &[&ContainerStatus], apps: &[&ContainerStatus]) -> PodCondition {
    if phase == "Succeeded" {
        return condition("Initialized", true, "PodCompleted", "");
    }
    let begun = apps.iter().any(|s| {
        s.state.as_ref().is_some_and(|x| x.running.is_some() || x.terminated.is_some())
            || terminated(s.last_state.as_ref()).is_some()
    });
    if begun {
        return condition("Initialized", true, "", "");
    }
    let sidecar = |name: &str| spec(pod).init_containers().iter().any(|c| c.name == name && is_sidecar(c));
    let incomplete: Vec<&str> = init
        .iter()
        .filter(|s| if sidecar(&s.name) { s.started != Some(true) } else { !s.ready })
        .map(|s| s.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return condition("Initialized", true, "", "");
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    condition("Initialized", false, "ContainersNotInitialized", &message)
}

fn containers_ready(pod: &Pod, phase: &str, init: &[&ContainerStatus], apps: &[&ContainerStatus]) -> PodCondition {
    match phase {
        "Succeeded" => return condition("ContainersReady", false, "PodCompleted", ""),
        "Failed" => return condition("ContainersReady", false, "PodFailed", ""),
        _ => {}
    }
    let sidecar = |name: &str| spec(pod).init_containers().iter().any(|c| c.name == name && is_sidecar(c));
    let unready: Vec<&str> =
        init.iter().filter(|s| sidecar(&s.name)).chain(apps).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if unready.is_empty() {
        return condition("ContainersReady", true, "", "");
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    condition("ContainersReady", false, "ContainersNotReady", &message)
}

/// `Ready` is `ContainersReady` and every readiness gate.
fn gates(pod: &Pod, containers_ready: &PodCondition, old: &[PodCondition]) -> PodCondition {
    if containers_ready.status != "True" {
        return containers_ready.clone();
    }
    let gates = spec(pod).0.and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    let messages: Vec<String> = gates
        .iter()
        .filter_map(|gate| match old.iter().find(|c| c.type_ == gate.condition_type) {
            None => Some(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
            Some(c) if c.status != "True" => Some(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, c.status
            )),
            Some(_) => None,
        })
        .collect();
    if messages.is_empty() {
        return containers_ready.clone();
    }
    condition("Ready", false, "ReadinessGatesNotReady", &messages.join(", "))
}

/// The conditions only the node writes.
const OWNED: [&str; 6] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", RESTARTING];

/// The condition of a pod whose containers may all begin anew at one's end.
const RESTARTING: &str = "AllContainersRestarting";

/// Those only the node writes and takes away again.
const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

#[cfg(test)]
mod tests;
