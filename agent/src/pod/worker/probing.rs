//! Probers, begun and ended with the containers they look at, and what follows from their reports.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_runtime::ContainerId;

use super::Worker;
use crate::event::Kind;
use crate::pod::facts::{Doom, Phase, Probed};
use crate::pod::lifecycle::InContainer;
use crate::pod::probe::{self, Kind as ProbeKind, Outcome, Report, Target};
use crate::pod::{restart, spec};

impl Worker {
    /// Begins and ends probers as containers begin and end.
    pub(super) fn sync_probes(&mut self) {
        let mut running = BTreeSet::new();
        for container in spec(&self.pod).all() {
            let Some(attempt) = self.facts.current(&container.name).filter(|a| a.phase == Phase::Running) else {
                continue;
            };
            let id = attempt.id.clone();
            running.insert(id.clone());
            let probed = Probed::of(container, &id, self.facts.probed.get(&container.name));
            self.facts.probed.insert(container.name.clone(), probed);
            if probe::is_probed(container)
                && !self.probing.contains_key(&id)
                && self.facts.ending.is_none()
                && let (Some(sandbox), Some(container_id)) = (&self.sandbox, ContainerId::parse(&id))
            {
                let ip = self.probe_ip();
                let figures = &self.context.figures;
                let counts = self.probes.entry(container.name.clone());
                let counts = Arc::clone(counts.or_insert_with(|| figures.probes(&self.pod, &container.name)));
                let target = Target { container: container.clone(), id: id.clone(), ip, counts };
                let commands = InContainer { sandbox: sandbox.clone(), id: container_id };
                let reports = self.reports.0.clone();
                let handle = self.probers.spawn(async move { probe::run(&target, &commands, reports).await });
                self.probing.insert(id, handle);
            }
        }
        let ending = self.facts.ending.is_some();
        self.probing.retain(|id, handle| {
            let keep = running.contains(id) && !ending;
            if !keep {
                handle.abort();
            }
            keep
        });
    }

    pub(super) fn probe_ip(&self) -> Option<IpAddr> {
        if spec(&self.pod).host_network() {
            return self.context.host.ips.first().copied();
        }
        self.facts.sandbox.as_ref().and_then(|s| s.ips.first().copied())
    }

    pub(super) fn report(&mut self, report: &Report) {
        let Some(container) = spec(&self.pod).container(&report.container).cloned() else { return };
        let name = &container.name;
        let kind = report.kind.as_str();
        if self.facts.ending.is_some() {
            return;
        }
        match &report.failure {
            Some(Outcome::Failure(why)) => {
                let why = why.chars().take(1024).collect::<String>();
                self.event(Some(name), Kind::Warning, "Unhealthy", format!("{kind} probe failed: {why}"));
            }
            Some(Outcome::Error(why)) => {
                let message = format!("{kind} probe errored and resulted in unknown state: {why}");
                self.event(Some(name), Kind::Warning, "Unhealthy", message);
            }
            Some(Outcome::Success) | None => {}
        }
        let Some(probed) = self.facts.probed.get_mut(name).filter(|p| p.id == report.id) else { return };
        match (report.kind, report.verdict) {
            (ProbeKind::Startup, Some(true)) => {
                probed.started = true;
                probed.ready = container.readiness_probe.is_none();
            }
            (ProbeKind::Readiness, Some(verdict)) => probed.ready = verdict,
            (ProbeKind::Startup | ProbeKind::Liveness, Some(false)) => {
                let (probe, word) = if report.kind == ProbeKind::Startup {
                    (container.startup_probe.as_ref(), "startup")
                } else {
                    (container.liveness_probe.as_ref(), "liveness")
                };
                let then = if restart::may_follow(&self.pod, &container) { ", will be restarted" } else { "" };
                let doom = Doom {
                    id: report.id.clone(),
                    message: format!("Container {name} failed {word} probe{then}"),
                    grace: probe.and_then(|p| p.termination_grace_period_seconds),
                    anew: false,
                };
                self.facts.doomed.insert(name.clone(), doom);
            }
            (_, None) | (ProbeKind::Liveness, Some(true)) => {}
        }
    }
}
