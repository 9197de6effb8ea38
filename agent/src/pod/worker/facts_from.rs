//! The facts, read from the runtime's records and, for what those no longer hold, from the pod's last status.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use coracle_runtime::{ContainerState, ContainerStatus, Exit};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState as ApiState, Pod, ResourceRequirements};

use crate::context::Context;
use crate::log::tail_text;
use crate::pod::container_spec::{IMAGE, IMAGE_ID, ROUND, STOP_SIGNAL};
use crate::pod::facts::{Attempt, Facts, Phase, Probed};
use crate::pod::{spec, uid};
use crate::volume::set::PodDir;

/// The longest termination message of one container.
const MESSAGE: usize = 4096;
/// The most that the messages of all containers of a pod may take.
const MESSAGES: usize = 12 * 1024;
/// How much of its log stands in for a message, in lines and bytes.
const LOG_LINES: usize = 80;
const LOG_BYTES: usize = 2048;
/// A sandbox that is not among those the runtime knows.
const NO_SANDBOX: u32 = u32::MAX;

fn time(at: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(at).ok()
}

/// The attempts the runtime tells of.
pub(super) fn containers(
    pod: &Pod,
    context: &Context,
    sandbox: u32,
    containers: &[ContainerStatus],
    known: &Facts,
) -> Vec<(String, Attempt)> {
    let dir = PodDir::new(&context.config.pods_dir(), uid(pod));
    containers
        .iter()
        .map(|status| {
            let id = status.id.to_string();
            let before = known.attempts.get(&status.name).into_iter().flatten().find(|a| a.id == id);
            if let Some(before) = before
                && before.phase == Phase::Exited
                && before.sandbox == sandbox
            {
                // An end is final, and its message was read.
                return (status.name.clone(), before.clone());
            }
            (status.name.clone(), attempt(pod, &dir, sandbox, status))
        })
        .collect()
}

fn attempt(pod: &Pod, dir: &PodDir, sandbox: u32, status: &ContainerStatus) -> Attempt {
    let word =
        |key: &str| status.annotations.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()).unwrap_or_default();
    let mut attempt = Attempt {
        id: status.id.to_string(),
        attempt: status.attempt,
        sandbox,
        round: word(ROUND).parse().ok(),
        phase: Phase::Created,
        image: word(IMAGE),
        image_id: word(IMAGE_ID),
        stop_signal: Some(word(STOP_SIGNAL)).filter(|signal| !signal.is_empty()),
        log: status.log_path.clone(),
        user: None,
        started: None,
        finished: None,
        exit_code: None,
        reason: None,
        message: None,
    };
    match &status.state {
        ContainerState::Creating => {}
        ContainerState::Running { started_at, uid, gid, groups, .. } => {
            attempt.phase = Phase::Running;
            attempt.started = time(*started_at);
            attempt.user = Some((*uid, *gid, groups.clone()));
        }
        ContainerState::Exited(exit) => {
            attempt.phase = Phase::Exited;
            attempt.started = exit.started_at.and_then(time);
            attempt.finished = time(exit.finished_at);
            attempt.exit_code = Some(exit.code);
            attempt.reason = reason(exit);
            attempt.message = match &exit.start_error {
                Some(error) => Some(error.message.clone()),
                None => message(pod, dir, status, exit),
            };
        }
    }
    attempt
}

fn reason(exit: &Exit) -> Option<String> {
    if exit.start_error.is_some() {
        return Some("StartError".into());
    }
    if exit.oom_killed && exit.code != 0 {
        return Some("OOMKilled".into());
    }
    exit.lost.then(|| "ContainerStatusUnknown".into())
}

/// A container's last words: the file it wrote, or the end of its log if it failed and asks for that.
fn message(pod: &Pod, dir: &PodDir, status: &ContainerStatus, exit: &Exit) -> Option<String> {
    let limit = MESSAGE.min(MESSAGES / spec(pod).all().count().max(1));
    let file = dir.termination_log(&status.name, status.attempt);
    let written = read_end(&file, limit).filter(|text| !text.is_empty());
    if written.is_some() {
        return written;
    }
    let container = spec(pod).any_container(&status.name);
    let policy = container.as_ref().and_then(|c| c.termination_message_policy.as_deref());
    if policy == Some("FallbackToLogsOnError") && exit.code != 0 {
        return tail_text(&status.log_path, LOG_LINES, LOG_BYTES.min(limit)).filter(|text| !text.is_empty());
    }
    None
}

/// The last `limit` bytes of a small file, as text.
fn read_end(path: &Path, limit: usize) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let limit = u64::try_from(limit).ok()?;
    file.seek(SeekFrom::Start(length.saturating_sub(limit))).ok()?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Puts what was seen into the list, by id, in the order of attempts.
pub(super) fn merge(attempts: &mut BTreeMap<String, Vec<Attempt>>, seen: Vec<(String, Attempt)>) {
    for (name, attempt) in seen {
        let list = attempts.entry(name).or_default();
        match list.iter_mut().find(|a| a.id == attempt.id) {
            Some(known) => *known = attempt,
            None => list.push(attempt),
        }
        list.sort_by_key(|a| a.attempt);
    }
}

/// Ends what still seems to run in a sandbox that is gone and left no record of it.
pub(super) fn lose(attempts: &mut BTreeMap<String, Vec<Attempt>>, sandbox: u32, now: Timestamp) {
    for attempt in attempts.values_mut().flatten().filter(|a| a.sandbox == sandbox && a.is_alive()) {
        attempt.phase = Phase::Exited;
        attempt.finished = Some(now);
        attempt.exit_code = Some(137);
        attempt.reason = Some("ContainerStatusUnknown".into());
        attempt.message = Some("The container could not be located when the pod was terminated".into());
    }
}

/// The attempts the pod's status tells of: what is left of them after a boot, or after the agent removed them.
pub(super) fn status(pod: &Pod) -> BTreeMap<String, Vec<Attempt>> {
    let mut attempts: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    let Some(status) = &pod.status else { return attempts };
    let all = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    for container in all.into_iter().flatten().flatten() {
        let count = u32::try_from(container.restart_count).unwrap_or(0);
        let last = container.last_state.as_ref();
        let state = container.state.as_ref();
        let waits = state.is_some_and(|s| s.waiting.is_some());
        let list = attempts.entry(container.name.clone()).or_default();
        if let Some(mut ended) = last.and_then(|s| ended(s, if waits { count } else { count.saturating_sub(1) })) {
            ended.image.clone_from(&container.image);
            ended.image_id.clone_from(&container.image_id);
            ended.stop_signal.clone_from(&container.stop_signal);
            list.push(ended);
        }
        let id = container.container_id.as_deref().unwrap_or_default();
        if let Some(mut attempt) = state.and_then(|s| ended_or_lost(s, id, count)) {
            attempt.image.clone_from(&container.image);
            attempt.image_id.clone_from(&container.image_id);
            attempt.stop_signal.clone_from(&container.stop_signal);
            list.push(attempt);
        }
    }
    attempts.retain(|_, list| !list.is_empty());
    attempts
}

fn blank(id: &str, attempt: u32) -> Attempt {
    Attempt {
        id: id.strip_prefix("coracle://").unwrap_or(id).to_owned(),
        attempt,
        sandbox: NO_SANDBOX,
        round: None,
        phase: Phase::Exited,
        image: String::new(),
        image_id: String::new(),
        stop_signal: None,
        log: std::path::PathBuf::new(),
        user: None,
        started: None,
        finished: None,
        exit_code: None,
        reason: None,
        message: None,
    }
}

fn ended(state: &ApiState, attempt: u32) -> Option<Attempt> {
    let t = state.terminated.as_ref()?;
    Some(Attempt {
        started: t.started_at.as_ref().map(|t| t.0),
        finished: t.finished_at.as_ref().map(|t| t.0),
        exit_code: Some(t.exit_code),
        reason: t.reason.clone(),
        message: t.message.clone(),
        ..blank(t.container_id.as_deref().unwrap_or_default(), attempt)
    })
}

fn ended_or_lost(state: &ApiState, id: &str, attempt: u32) -> Option<Attempt> {
    if let Some(ended) = ended(state, attempt) {
        return Some(ended);
    }
    let running = state.running.as_ref()?;
    Some(Attempt {
        started: running.started_at.as_ref().map(|t| t.0),
        exit_code: Some(137),
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        ..blank(id, attempt)
    })
}

/// What running containers had of the node, by id.
pub(super) fn told(pod: &Pod) -> BTreeMap<String, ResourceRequirements> {
    let Some(status) = &pod.status else { return BTreeMap::new() };
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.filter(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()))
        .filter_map(|c| {
            let id = c.container_id.as_deref()?.strip_prefix("coracle://")?;
            Some((id.to_owned(), c.resources.clone()?))
        })
        .collect()
}

/// What the probes had said, for containers that are still the same.
pub(super) fn probed(pod: &Pod) -> BTreeMap<String, Probed> {
    let Some(status) = &pod.status else { return BTreeMap::new() };
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    all.filter_map(|c| {
        let id = c.container_id.as_deref()?.strip_prefix("coracle://")?.to_owned();
        Some((c.name.clone(), Probed { started: c.started.unwrap_or(false), ready: c.ready, id }))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn after_a_boot_the_counts_come_from_the_status() {
        let mut pod = crate::pod::testing::one("Always");
        pod.status = Some(
            serde_json::from_value(json!({"containerStatuses": [{
                "name": "app", "image": "i", "imageID": "x", "ready": true, "restartCount": 3, "containerID": "coracle://c3",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                "lastState": {"terminated": {"exitCode": 1, "containerID": "coracle://c2", "reason": "Error"}}}]}))
            .unwrap(),
        );
        let attempts = status(&pod);
        let shown: Vec<String> = attempts["app"]
            .iter()
            .map(|a| format!("{} {} {:?} {}", a.id, a.attempt, a.exit_code, a.reason.as_deref().unwrap()))
            .collect();
        assert_eq!(shown, ["c2 2 Some(1) Error", "c3 3 Some(137) ContainerStatusUnknown"]);
        assert!(probed(&pod)["app"].ready);
    }

    #[test]
    fn a_record_replaces_what_the_status_said_of_the_same_container() {
        let mut attempts = BTreeMap::from([("app".to_owned(), vec![blank("c3", 3)])]);
        let running = Attempt { phase: Phase::Running, sandbox: 0, ..blank("c3", 3) };
        merge(&mut attempts, vec![("app".into(), running)]);
        assert_eq!(attempts["app"].len(), 1);
        assert_eq!(attempts["app"][0].phase, Phase::Running);
        lose(&mut attempts, 0, Timestamp::UNIX_EPOCH);
        assert_eq!(attempts["app"][0].exit_code, Some(137));
    }
}
