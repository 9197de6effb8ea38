//! A pod's row in the table, and above all its STATUS: one word for what all its containers are doing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus};

use crate::{
    kind::{AGE, Column, NAME, age},
    kinds::{
        blank::{list, text},
        cells,
    },
};

/// The columns of pods.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    cells::column("Status", "The aggregate status of the containers in this pod."),
    cells::column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod \
         has restarted.",
    ),
    AGE,
    cells::wide("IP", "The pod's address."),
    cells::wide("Node", "The node the pod is bound to."),
    cells::wide("Nominated Node", "The node on which others are evicted to make room for the pod."),
    cells::wide("Readiness Gates", "How many of the conditions the pod also waits for are true."),
];

/// What the containers' statuses come to.
struct Summary {
    word: String,
    ready: usize,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

fn condition<'a>(conditions: &'a [PodCondition], kind: &str) -> Option<&'a PodCondition> {
    conditions.iter().find(|c| c.type_ == kind)
}

fn ended_before(status: &ContainerStatus) -> Option<Timestamp> {
    let ended = status.last_state.as_ref()?.terminated.as_ref()?;
    ended.finished_at.as_ref().map(|time| time.0)
}

fn is_sidecar(container: Option<&&Container>) -> bool {
    container.is_some_and(|c| c.restart_policy.as_deref() == Some("Always"))
}

fn why_ended(ended: &ContainerStateTerminated) -> String {
    match (text(&ended.reason), ended.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn summarize(pod: &Pod, status: &PodStatus) -> Summary {
    let no_containers = Vec::new();
    let init = pod.spec.as_ref().and_then(|s| s.init_containers.as_ref()).unwrap_or(&no_containers);
    let conditions = list(&status.conditions);

    let mut word = if text(&status.reason).is_empty() { text(&status.phase) } else { text(&status.reason) }.to_owned();
    if conditions.iter().any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated")) {
        "SchedulingGated".clone_into(&mut word);
    }

    let (mut restarts, mut last_restart) = (0, None);
    let (mut sidecar_restarts, mut last_sidecar_restart) = (0, None);
    let (mut ready, mut is_initializing) = (0, false);
    let by_name: BTreeMap<&str, &Container> = init.iter().map(|c| (c.name.as_str(), c)).collect();

    for (i, container) in list(&status.init_container_statuses).iter().enumerate() {
        let is_sidecar = is_sidecar(by_name.get(container.name.as_str()));
        restarts += container.restart_count;
        last_restart = last_restart.max(ended_before(container));
        if is_sidecar {
            sidecar_restarts += container.restart_count;
            last_sidecar_restart = last_sidecar_restart.max(ended_before(container));
        }
        let state = container.state.clone().unwrap_or_default();
        let waits_for = state.waiting.as_ref().map_or("", |w| text(&w.reason));
        match &state.terminated {
            Some(ended) if ended.exit_code == 0 => continue,
            _ if is_sidecar && container.started == Some(true) => {
                ready += usize::from(container.ready);
                continue;
            }
            Some(ended) => word = format!("Init:{}", why_ended(ended)),
            None if !matches!(waits_for, "" | "PodInitializing") => word = format!("Init:{waits_for}"),
            None => word = format!("Init:{i}/{}", init.len()),
        }
        is_initializing = true;
        break;
    }

    if !is_initializing || condition(conditions, "Initialized").is_some_and(|c| c.status == "True") {
        (restarts, last_restart) = (sidecar_restarts, last_sidecar_restart);
        let (mut has_running, mut error) = (false, None);
        for container in list(&status.container_statuses).iter().rev() {
            restarts += container.restart_count;
            last_restart = last_restart.max(ended_before(container));
            let state = container.state.clone().unwrap_or_default();
            let waits_for = state.waiting.as_ref().map_or("", |w| text(&w.reason));
            if !waits_for.is_empty() {
                waits_for.clone_into(&mut word);
            } else if let Some(ended) = &state.terminated {
                word = why_ended(ended);
                if ended.exit_code != 0 {
                    error = Some(word.clone());
                }
            } else if container.ready && state.running.is_some() {
                has_running = true;
                ready += 1;
            }
        }
        if word == "Completed" {
            let is_ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            match error {
                _ if has_running && is_ready => "Running".clone_into(&mut word),
                Some(error) => word = error,
                None if has_running => "NotReady".clone_into(&mut word),
                None => {}
            }
        }
    }

    if pod.metadata.deletion_timestamp.is_some() {
        if status.reason.as_deref() == Some("NodeLost") {
            "Unknown".clone_into(&mut word);
        } else if !matches!(text(&status.phase), "Failed" | "Succeeded") {
            "Terminating".clone_into(&mut word);
        }
    }
    Summary { word, ready, restarts, last_restart }
}

fn readiness_gates(pod: &Pod, status: &PodStatus) -> String {
    let gates = pod.spec.as_ref().map_or(&[][..], |s| list(&s.readiness_gates));
    if gates.is_empty() {
        return cells::NONE.to_owned();
    }
    let is_true = |kind: &str| condition(list(&status.conditions), kind).is_some_and(|c| c.status == "True");
    let open = gates.iter().filter(|gate| is_true(&gate.condition_type)).count();
    format!("{open}/{}", gates.len())
}

/// The cells of a pod.
pub(super) fn row(pod: &Pod, now: Timestamp) -> Vec<serde_json::Value> {
    let no_status = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let spec = pod.spec.as_ref();
    let sidecars = spec.map_or(&[][..], |s| list(&s.init_containers)).iter().filter(|c| is_sidecar(Some(c))).count();
    let containers = spec.map_or(0, |s| s.containers.len()) + sidecars;

    let summary = summarize(pod, status);
    let restarts = match summary.last_restart {
        Some(time) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, cells::since(Some(time), now))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = list(&status.pod_ips).first().map_or("", |ip| ip.ip.as_str());
    vec![
        cells::name(&pod.metadata),
        format!("{}/{containers}", summary.ready).into(),
        summary.word.into(),
        restarts.into(),
        age(&pod.metadata, now).into(),
        cells::or_none(ip).into(),
        cells::or_none(spec.map_or("", |s| text(&s.node_name))).into(),
        cells::or_none(text(&status.nominated_node_name)).into(),
        readiness_gates(pod, status).into(),
    ]
}

#[cfg(test)]
mod tests;
