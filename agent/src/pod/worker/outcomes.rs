//! What follows from a job that has ended.

use std::sync::Arc;

use coracle_runtime::ContainerId;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use tokio::task::JoinError;

use super::jobs::{self, Done, SandboxFailure};
use super::{CONFIG_RETRY, STATUS_RETRY, Worker, later, newer};
use crate::event::Kind;
use crate::pod;
use crate::pod::facts::{Doom, Sandbox};
use crate::pod::start::Failure;

impl Worker {
    /// A job has ended.
    pub(super) async fn finish(&mut self, done: Result<Done, JoinError>) {
        let now = Timestamp::now();
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // A job that panicked is a bug; the pod must not hang on it.
                tracing::error!(pod = pod::key(&self.pod), error = &error as &dyn std::error::Error, "pod job failed");
                self.facts.starting.clear();
                self.anew.clear();
                self.facts.stopping.clear();
                self.facts.sandbox_busy = false;
                self.status_busy = false;
                self.volumes_busy = false;
                self.resize_busy = false;
                self.confirming = false;
                return;
            }
        };
        match done {
            Done::SetUp { attempt, result } => self.set_up_done(attempt, result, now),
            Done::Started { container, resources, result } => {
                self.facts.renewed.remove(&container);
                self.anew.remove(&container);
                self.started(&container, resources, result, now);
            }
            Done::Resized(resized) => self.resized(resized, now),
            Done::Stopped { id } => {
                self.facts.stopping.remove(&id);
            }
            Done::Rewritten { result } => {
                self.volumes_busy = false;
                match result {
                    Ok((volumes, refresh)) => {
                        self.volumes = volumes;
                        self.refresh_tokens = refresh;
                    }
                    Err((volume, why)) => {
                        self.event(None, Kind::Warning, "FailedMount", mount_message(&volume, &why));
                        self.refresh_tokens = Some(later(now, CONFIG_RETRY));
                    }
                }
            }
            Done::TornDown { result, only_stop } => {
                self.facts.sandbox_busy = false;
                self.sandbox = None;
                match result {
                    Ok(()) if only_stop => {
                        if let Some(sandbox) = &mut self.facts.sandbox {
                            sandbox.ready = false;
                        }
                    }
                    Ok(()) => {
                        self.facts.torn_down = true;
                        self.facts.sandbox = None;
                        self.sandboxes.clear();
                    }
                    Err(why) => {
                        tracing::warn!(pod = pod::key(&self.pod), why, "pod not removed yet");
                        self.event(None, Kind::Warning, "FailedKillPod", format!("error killing pod: {why}"));
                        self.facts.sandbox_busy = true;
                        self.jobs.spawn(jobs::wait_then_retry());
                    }
                }
            }
            Done::RetryTearDown => self.facts.sandbox_busy = false,
            Done::Status { result } => {
                self.status_busy = false;
                match result {
                    Ok(Some(pod)) => {
                        if newer(&pod, &self.asked) {
                            self.accept(Arc::new(self.as_asked(pod)));
                        }
                    }
                    // Gone, or another pod of the same name: the watch tells.
                    Ok(None) => self.status_not_before = Some(later(now, STATUS_RETRY)),
                    Err(why) => {
                        tracing::debug!(pod = pod::key(&self.pod), why, "status not written");
                        self.status_not_before = Some(later(now, STATUS_RETRY));
                    }
                }
            }
            Done::Confirmed { result } => {
                self.confirming = false;
                match result {
                    Ok(()) => self.finished = true,
                    Err(why) => {
                        tracing::debug!(pod = pod::key(&self.pod), why, "deletion not confirmed");
                        self.status_not_before = Some(later(now, STATUS_RETRY));
                    }
                }
            }
        }
    }

    /// An object of the API server's as the pod: of a static pod's mirror only the status is the pod's.
    fn as_asked(&self, object: Pod) -> Pod {
        if !pod::is_static(&self.asked) {
            return object;
        }
        let mut asked = Pod::clone(&self.asked);
        asked.metadata.resource_version = object.metadata.resource_version;
        asked.status = object.status;
        asked
    }

    pub(super) fn set_up_done(&mut self, attempt: u32, result: Result<jobs::SetUp, SandboxFailure>, now: Timestamp) {
        self.facts.sandbox_busy = false;
        let recovered = std::mem::take(&mut self.recovering);
        match result {
            Ok(made) => {
                if !recovered {
                    self.facts.pod_told = Some(made.told);
                }
                self.mounts.reset("volumes");
                self.volumes = made.volumes;
                self.refresh_tokens = made.refresh_tokens;
                self.sandbox = Some(made.sandbox);
                self.facts.sandbox = Some(Sandbox { attempt, ready: true, ips: made.ips });
                self.facts.sandbox_not_before = None;
            }
            Err(failure) => {
                match failure {
                    SandboxFailure::Volume { volume, why } => {
                        self.event(None, Kind::Warning, "FailedMount", mount_message(&volume, &why));
                    }
                    SandboxFailure::Sandbox { why } => {
                        let message = format!("Failed to create pod sandbox: {why}");
                        self.event(None, Kind::Warning, "FailedCreatePodSandBox", message);
                    }
                }
                let delay = self.mounts.next("volumes", now, now);
                // Volumes are tried again sooner than crashed containers: what they wait for is usually on its way.
                let delay = SignedDuration::from_millis(i64::try_from(delay.as_millis() / 10).unwrap_or(1000));
                self.facts.sandbox_not_before = Some(later(now, delay));
            }
        }
    }

    pub(super) fn started(
        &mut self,
        name: &str,
        resources: ResourceRequirements,
        result: Result<String, Failure>,
        now: Timestamp,
    ) {
        self.facts.starting.remove(name);
        self.count_start(name, &result);
        match result {
            Ok(id) => {
                let attempts = &self.facts.attempts;
                self.facts.told.retain(|id, _| attempts.values().flatten().any(|a| a.id == *id));
                self.facts.told.insert(id, resources);
                self.facts.waiting.remove(name);
                self.pull_failed.remove(name);
                self.pulls.reset(name);
                self.prune(name);
            }
            Err(Failure::Image(waiting)) => {
                let delay = self.pulls.next(name, now, now);
                self.facts.not_before.insert(name.to_owned(), later(now, delay));
                if waiting.reason == "ErrImagePull" {
                    self.pull_failed.insert(name.to_owned(), now);
                }
                self.facts.waiting.insert(name.to_owned(), waiting);
            }
            Err(Failure::Config(waiting)) => {
                self.facts.not_before.insert(name.to_owned(), later(now, CONFIG_RETRY));
                self.facts.waiting.insert(name.to_owned(), waiting);
            }
            Err(Failure::Run(waiting)) => {
                self.facts.waiting.insert(name.to_owned(), waiting);
                self.prune(name);
            }
            Err(Failure::PostStart { id, message }) => {
                self.facts.told.insert(id.clone(), resources);
                self.facts.waiting.remove(name);
                self.facts.doomed.insert(name.to_owned(), Doom { id, message, grace: None, anew: false });
            }
            Err(Failure::Cancelled) => {}
        }
    }

    /// Counts a start. One that was given up with its pod was none.
    fn count_start(&self, name: &str, result: &Result<String, Failure>) {
        let reason = match result {
            Ok(_) => None,
            Err(Failure::Image(waiting) | Failure::Config(waiting) | Failure::Run(waiting)) => Some(&*waiting.reason),
            Err(Failure::PostStart { .. }) => Some("PostStartHookError"),
            Err(Failure::Cancelled) => return,
        };
        let of = pod::spec(&self.pod);
        let is_init = of.init_containers().iter().any(|container| container.name == name);
        let is_app = of.containers().iter().any(|container| container.name == name);
        let kind = match (is_app, is_init) {
            (true, _) => "container",
            (false, true) => "init_container",
            (false, false) => "ephemeral_container",
        };
        self.context.figures.container_began(kind, reason);
    }

    /// Keeps a container's running attempt and the one before it; what is older is removed from the runtime.
    pub(super) fn prune(&mut self, name: &str) {
        let Some(attempts) = self.facts.attempts.get_mut(name) else { return };
        let Some(sandbox) = &self.sandbox else { return };
        while attempts.len() > 2 {
            let old = attempts.remove(0);
            if let Some(id) = ContainerId::parse(&old.id) {
                self.jobs.spawn(jobs::forget(Arc::clone(&self.context), sandbox.clone(), id, old.log));
            }
        }
    }
}

/// Kubelet's words for a volume that could not be made.
fn mount_message(volume: &str, why: &str) -> String {
    format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}")
}
