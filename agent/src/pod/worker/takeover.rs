//! What the runtime tells of a pod: found at the start, asked again whenever something happened.

use std::net::IpAddr;

use coracle_runtime::{SandboxId, SandboxStatus};
use jiff::Timestamp;

use super::{Worker, facts_from};
use crate::event::Kind;
use crate::pod::facts::Sandbox;
use crate::pod::{self, plan, restart, spec};

impl Worker {
    /// Takes over what an earlier agent left: the newest living sandbox goes on, counts and ends are remembered.
    pub(super) fn recover(&mut self, found: &[SandboxStatus]) {
        self.facts.attempts = facts_from::status(&self.pod);
        self.facts.probed = facts_from::probed(&self.pod);
        self.facts.told = facts_from::told(&self.pod);
        let status = self.pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"));
        self.facts.pod_told = status.and_then(|status| status.resources.clone());
        let begun = self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        if let Some(condition) = begun.into_iter().find(|c| c.type_ == "PodResizeInProgress") {
            self.facts.resize.under_way = true;
            self.facts.resize.generation = condition.observed_generation;
        }
        let mut sorted: Vec<&SandboxStatus> = found.iter().collect();
        sorted.sort_by_key(|s| s.spec.attempt);
        for sandbox in &sorted {
            let seen = facts_from::containers(
                &self.pod,
                &self.context,
                sandbox.spec.attempt,
                &sandbox.containers,
                &self.facts,
            );
            facts_from::merge(&mut self.facts.attempts, seen);
        }
        if let Some(newest) = sorted.last() {
            self.facts.sandbox = Some(Sandbox { attempt: newest.spec.attempt, ready: false, ips: Vec::new() });
            self.recovering = newest.alive;
        }
    }

    /// Finds the handle and the addresses of a sandbox that an earlier agent made.
    pub(super) async fn take_over(&mut self) {
        let Some(sandbox) = &mut self.facts.sandbox else { return };
        let id = SandboxId::of(&self.uid, sandbox.attempt);
        match self.context.runtime.sandbox(&id).await {
            Ok(handle) => {
                if spec(&self.pod).host_network() {
                    sandbox.ips.clone_from(&self.context.host.ips);
                } else if let Ok(Some(attachment)) = self.context.network.attachment(&self.uid).await {
                    sandbox.ips = vec![IpAddr::V4(attachment.ip)];
                }
                sandbox.ready = true;
                self.sandbox = Some(handle);
            }
            Err(_) => self.recovering = false,
        }
    }

    /// Asks the runtime how the containers are.
    pub(super) async fn refresh(&mut self) {
        self.refresh_attempts().await;
        self.facts.round = restart::round(&self.pod, &self.facts);
    }

    async fn refresh_attempts(&mut self) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        let Some(attempt) = self.facts.sandbox.as_ref().map(|s| s.attempt) else { return };
        match sandbox.containers().await {
            Ok(containers) => {
                let seen = facts_from::containers(&self.pod, &self.context, attempt, &containers, &self.facts);
                facts_from::merge(&mut self.facts.attempts, seen);
            }
            Err(error) if error.is_not_found() => self.sandbox_died(attempt).await,
            Err(error) => {
                tracing::warn!(
                    pod = pod::key(&self.pod),
                    error = &error as &dyn std::error::Error,
                    "containers not read"
                );
            }
        }
    }

    /// The supervisor is gone and took the containers along: their ends are on disk.
    pub(super) async fn sandbox_died(&mut self, attempt: u32) {
        self.sandbox = None;
        let dead = match self.context.runtime.list().await {
            Ok(list) => list.into_iter().find(|s| s.spec.pod_uid == self.uid && s.spec.attempt == attempt),
            Err(_) => None,
        };
        if let Some(dead) = dead {
            let seen = facts_from::containers(&self.pod, &self.context, attempt, &dead.containers, &self.facts);
            facts_from::merge(&mut self.facts.attempts, seen);
        }
        facts_from::lose(&mut self.facts.attempts, attempt, Timestamp::now());
        if let Some(sandbox) = &mut self.facts.sandbox {
            sandbox.ready = false;
        }
        if self.facts.ending.is_none() && !plan::is_over(&self.pod, &self.facts) {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.event(None, Kind::Normal, "SandboxChanged", message);
        }
    }
}
