//! Taking the planner's steps: each begins a job.

use std::sync::Arc;

use coracle_runtime::{ContainerId, SandboxId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use tokio::time::Instant;

use super::{ANEW, Worker, jobs, later};
use crate::event::Kind;
use crate::pod::facts::{Ending, Phase, Waiting};
use crate::pod::plan::{self, Action};
use crate::pod::start::{Start, Target};
use crate::pod::{is_sidecar, security, spec, status};

/// Seconds a sidecar gets at least, as kubelet has it.
const LEAST_GRACE: i64 = 2;

impl Worker {
    /// Takes one step of the plan.
    pub(super) async fn take(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::CreateSandbox { attempt } => self.set_up(attempt),
            Action::Start { container, attempt, after } => self.start(&container, attempt, after, now),
            Action::Stop { container, id, grace, message } => self.stop(&container, &id, grace, message),
            Action::BackOff { container, delay } => {
                let message = plan::back_off_message(&self.pod, &container, delay);
                let waiting = Waiting { reason: "CrashLoopBackOff".into(), message };
                self.facts.waiting.insert(container.clone(), waiting);
                let ended = self.facts.last(&container).map_or(0, |a| a.attempt);
                if self.told.insert(container.clone(), ended) != Some(ended) {
                    let name = security::long_name(&self.pod);
                    let message = format!("Back-off restarting failed container {container} in pod {name}");
                    self.event(Some(&container), Kind::Warning, "BackOff", message);
                }
            }
            Action::TearDown => self.tear_down(),
            Action::Confirm => self.confirm(),
            Action::Fail { reason, message } => {
                self.event(None, Kind::Normal, "DeadlineExceeded", message.clone());
                self.facts.ending = Some(Ending::Failed { reason, message, grace: None });
                self.cancel.cancel();
            }
        }
    }

    pub(super) fn start(&mut self, name: &str, attempt: u32, after: Option<Timestamp>, now: Timestamp) {
        let (Some(sandbox), Some(container)) = (self.sandbox.clone(), spec(&self.pod).any_container(name)) else {
            return;
        };
        // Until the API server has told of every object, the watch wakes the worker.
        let Some(objects) = self.held.objects() else { return };
        if let Some(finished) = after {
            self.facts.crashes.next(name, finished, now);
        }
        self.facts.starting.insert(name.to_owned(), self.facts.round);
        self.facts.not_before.remove(name);
        if self.facts.doomed.remove(name).is_some_and(|doom| doom.anew) {
            self.anew.insert(name.to_owned(), later(now, ANEW));
        }
        let start = Start {
            context: Arc::clone(&self.context),
            pod: Arc::clone(&self.pod),
            sandbox,
            ips: self.facts.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default(),
            container,
            target: self.target_of(name),
            attempt,
            round: self.facts.round,
            volumes: self.volumes.clone(),
            objects,
            cancel: self.cancel.clone(),
        };
        self.jobs.spawn(jobs::start(start));
    }

    /// Whose processes an ephemeral container is to see, if it says so.
    fn target_of(&self, name: &str) -> Option<Target> {
        let ephemeral = spec(&self.pod).ephemeral_containers().iter().find(|c| c.name == name)?;
        let target = ephemeral.target_container_name.clone().filter(|target| !target.is_empty())?;
        let running = self.facts.current(&target).filter(|attempt| attempt.phase == Phase::Running);
        Some(Target { id: running.and_then(|attempt| ContainerId::parse(&attempt.id)), name: target })
    }

    pub(super) fn stop(&mut self, name: &str, id: &str, grace: i64, message: String) {
        let (Some(sandbox), Some(container_id)) = (self.sandbox.clone(), ContainerId::parse(id)) else { return };
        self.facts.stopping.insert(id.to_owned());
        self.event(Some(name), Kind::Normal, "Killing", message);
        let container = spec(&self.pod).any_container(name).unwrap_or_default();
        let grace = self.left_of(grace, &container);
        let ip = self.probe_ip();
        let stop = jobs::Stop {
            context: Arc::clone(&self.context),
            pod: Arc::clone(&self.pod),
            sandbox,
            container,
            id: container_id,
            grace,
            ip,
            deadline: self.deadline.subscribe(),
        };
        self.jobs.spawn(jobs::stop(stop));
    }

    /// What is left of the pod's grace period: a sidecar, which stops after others, shares it with them (KEP-753).
    fn left_of(&mut self, grace: i64, container: &Container) -> i64 {
        if self.facts.ending.is_none() {
            return grace;
        }
        let begin = *self.ends_since.get_or_insert_with(Instant::now);
        if !is_sidecar(container) {
            return grace;
        }
        let gone = i64::try_from(begin.elapsed().as_secs()).unwrap_or(i64::MAX);
        grace.saturating_sub(gone).max(LEAST_GRACE.min(grace))
    }

    pub(super) fn set_up(&mut self, attempt: u32) {
        let Some(objects) = self.held.objects() else {
            return;
        };
        self.facts.sandbox_busy = true;
        // It makes the volumes too, of the objects as they are.
        self.volumes_stale = false;
        self.sandboxes.insert(SandboxId::of(&self.uid, attempt));
        self.jobs.spawn(jobs::set_up(
            Arc::clone(&self.context),
            Arc::clone(&self.pod),
            objects,
            attempt,
            self.recovering,
        ));
    }

    /// Writes the volumes anew when they are stale, as soon as nothing else writes them.
    pub(super) fn sync_volumes(&mut self) {
        let busy =
            self.volumes_busy || self.facts.sandbox_busy || self.sandbox.is_none() || self.facts.ending.is_some();
        if busy || !self.volumes_stale {
            return;
        }
        let Some(objects) = self.held.objects() else { return };
        let ips = self.facts.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default();
        self.volumes_busy = true;
        self.volumes_stale = false;
        self.jobs.spawn(jobs::rewrite(Arc::clone(&self.context), Arc::clone(&self.pod), objects, ips));
    }

    pub(super) fn tear_down(&mut self) {
        self.facts.sandbox_busy = true;
        // Whoever asked the supervisor from here on would find it gone, or going.
        self.sandbox = None;
        let keep_logs = matches!(self.facts.ending, Some(Ending::Shutdown { .. }));
        let only_stop = matches!(self.facts.ending, Some(Ending::Failed { .. }) | None);
        self.jobs.spawn(jobs::tear_down(
            Arc::clone(&self.context),
            Arc::clone(&self.pod),
            self.sandboxes.clone(),
            only_stop,
            keep_logs,
        ));
    }

    pub(super) fn confirm(&mut self) {
        if matches!(self.facts.ending, Some(Ending::Gone)) {
            self.finished = true;
            return;
        }
        if self.confirming || self.status_busy || self.status_not_before.is_some() {
            return;
        }
        // The last status goes first: it says how the containers ended.
        let last = status::compute(&self.pod, &self.facts, &self.context.host, Timestamp::now());
        if status::patch(&self.pod, &self.uid, &last).is_some() {
            return;
        }
        self.confirming = true;
        self.jobs.spawn(jobs::confirm(self.context.client.clone(), Arc::clone(&self.pod)));
    }
}
