//! The pods of this node, those bound to it and its static ones: one watch of them, one worker for each, and what the runtime
//! tells passed on.

pub(crate) mod found;
mod mirrors;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{Event as RuntimeEvent, SandboxStatus};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::claims;
use crate::context::Context;
use crate::cri;
use crate::eviction::Eviction;
use crate::manifests::Manifests;
use crate::pod;
use crate::pod::worker::{self, Desired};
use crate::volume::set::{self, PodDir};
use found::Found;
use mirrors::{Mirrors, Outcome};

/// Seconds each container gets when the agent goes down with its pods.
const SHUTDOWN_GRACE: i64 = 5;
/// How long all pods together may take then; `coracle up` ends within ten seconds.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(8);

/// The workers and what they are told.
struct Pods {
    context: Arc<Context>,
    workers: JoinSet<String>,
    desired: BTreeMap<String, watch::Sender<Desired>>,
    /// Sandboxes found at the start that no worker has claimed yet, by the pod's uid.
    found: Found,
    leave: CancellationToken,
    /// The uids seen since the list began, until it is complete.
    listing: Option<BTreeSet<String>>,
    /// Pods that came back under a worker that had not ended yet.
    again: BTreeMap<String, Arc<Pod>>,
    /// Static pods and what shows them.
    mirrors: Mirrors,
    /// The one step that is under way to have the mirrors follow.
    step: JoinSet<Outcome>,
    /// The agent goes down: nothing begins any more.
    ending: bool,
}

/// Runs the node's pods until `shutdown`; then stops them, or leaves them with `keep_pods`.
pub(crate) async fn run(
    context: Arc<Context>,
    found: Found,
    manifests: watch::Receiver<Option<Manifests>>,
    evictions: mpsc::Receiver<Eviction>,
    shutdown: CancellationToken,
) {
    let mut pods = Pods {
        context,
        workers: JoinSet::new(),
        desired: BTreeMap::new(),
        found,
        leave: CancellationToken::new(),
        listing: None,
        again: BTreeMap::new(),
        mirrors: Mirrors::default(),
        step: JoinSet::new(),
        ending: false,
    };
    pods.work(manifests, evictions, shutdown).await;
    pods.step.shutdown().await;
    pods.end().await;
}

impl Pods {
    async fn work(
        &mut self,
        mut manifests: watch::Receiver<Option<Manifests>>,
        mut evictions: mpsc::Receiver<Eviction>,
        shutdown: CancellationToken,
    ) {
        // Before any worker begins, so that none misses what happens in its sandbox.
        let mut runtime = self.context.runtime.events();
        // What there is of static pods is known before anything is taken for nobody's.
        let first = tokio::select! {
            () = shutdown.cancelled() => return,
            first = manifests.wait_for(Option::is_some) => first.map(|first| first.clone()),
        };
        self.sync_static(first.ok().flatten().unwrap_or_default());
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.context.config.node_name));
        let mut events = Box::pin(watcher(api, config).default_backoff());
        loop {
            if let Some((step, wait)) = self.mirrors.begin_step() {
                self.step.spawn(mirrors::take(Arc::clone(&self.context), step, wait));
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = manifests.changed() => {
                    let pods = manifests.borrow_and_update().clone();
                    self.sync_static(pods.unwrap_or_default());
                }
                Some(done) = self.step.join_next() => {
                    let outcome = done.unwrap_or_else(|error| {
                        tracing::error!(error = &error as &(dyn StdError + 'static), "step of a mirror pod failed");
                        Outcome::Failed
                    });
                    let shown = self.mirrors.ended(outcome);
                    self.show(shown);
                }
                event = events.next() => match event {
                    Some(Ok(event)) => self.hear(event).await,
                    Some(Err(error)) => {
                        tracing::warn!(error = &error as &(dyn StdError + 'static), "watch of pods failed, trying again");
                    }
                    None => return,
                },
                event = runtime.next() => self.poke(&event),
                Some(eviction) = evictions.recv() => {
                    if let Some(sender) = self.desired.get(&eviction.uid) {
                        sender.send_modify(|desired| desired.evicted = Some(eviction));
                    }
                }
                Some(done) = self.workers.join_next() => self.ended(done),
            }
        }
    }

    async fn hear(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => {
                self.mirrors.begin();
                self.listing = Some(BTreeSet::new());
            }
            Event::InitApply(pod) | Event::Apply(pod) if mirrors::is_mirror(&pod) => {
                let shown = self.mirrors.hear(&pod);
                self.show(shown);
            }
            Event::Delete(pod) if mirrors::is_mirror(&pod) => {
                let shown = self.mirrors.gone(&pod);
                self.show(shown);
            }
            Event::InitApply(pod) => {
                if let Some(seen) = &mut self.listing {
                    seen.insert(pod::uid(&pod).to_owned());
                }
                self.tell(pod);
            }
            Event::Apply(pod) => self.tell(pod),
            Event::Delete(pod) => self.deleted(pod),
            Event::InitDone => {
                let mut seen = self.listing.take().unwrap_or_default();
                self.mirrors.complete();
                // Static pods are not the API server's to miss.
                let all = self.mirrors.pods().keys();
                seen.extend(all.cloned());
                let missing: Vec<String> = self.desired.keys().filter(|uid| !seen.contains(*uid)).cloned().collect();
                for uid in missing {
                    self.gone(&uid);
                }
                self.remove_orphans(&seen).await;
            }
        }
    }

    fn tell(&mut self, pod: Pod) {
        let uid = pod::uid(&pod).to_owned();
        let pod = Arc::new(pod);
        if let Some(sender) = self.desired.get(&uid) {
            sender.send_modify(|desired| desired.pod = Arc::clone(&pod));
            if sender.borrow().gone || sender.is_closed() {
                self.again.insert(uid, pod);
            }
            return;
        }
        self.begin(uid, pod, None);
    }

    /// Other manifests: pods that are no more end, new ones begin.
    fn sync_static(&mut self, pods: Manifests) {
        let gone: Vec<String> = self.mirrors.pods().keys().filter(|uid| !pods.contains_key(*uid)).cloned().collect();
        self.mirrors.set(pods);
        for uid in gone {
            self.gone(&uid);
        }
        self.begin_static();
    }

    /// Begins the static pods that have no worker, but not while another one of the same name ends: that one has its logs and
    /// its ports.
    fn begin_static(&mut self) {
        let names: BTreeSet<String> = self.desired.values().map(|sender| pod::key(&sender.borrow().pod)).collect();
        let missing =
            |(uid, pod): &(&String, &Arc<Pod>)| !self.desired.contains_key(*uid) && !names.contains(&pod::key(pod));
        let new: Vec<String> = self.mirrors.pods().iter().filter(missing).map(|(uid, _)| uid.clone()).collect();
        for uid in new {
            if let Some(shown) = self.mirrors.shown(&uid) {
                self.begin(uid, shown.pod, shown.mirror);
            }
        }
    }

    /// Tells a static pod's worker what the API server has of it.
    fn show(&mut self, uid: Option<String>) {
        let Some(uid) = uid else { return };
        let (Some(sender), Some(shown)) = (self.desired.get(&uid), self.mirrors.shown(&uid)) else { return };
        sender.send_modify(|desired| {
            desired.pod = shown.pod;
            desired.mirror = shown.mirror;
        });
    }

    fn begin(&mut self, uid: String, pod: Arc<Pod>, mirror: Option<String>) {
        let found = self.found.remove(&uid).unwrap_or_default();
        let (sender, receiver) =
            watch::channel(Desired { pod, mirror, gone: false, evicted: None, shutdown: None, pokes: 0 });
        self.desired.insert(uid.clone(), sender);
        let (context, leave) = (Arc::clone(&self.context), self.leave.clone());
        self.workers.spawn(async move {
            worker::run(context, found, receiver, leave).await;
            uid
        });
    }

    /// The pod as it was last says how it was deleted: by force or in peace.
    fn deleted(&mut self, pod: Pod) {
        let uid = pod::uid(&pod).to_owned();
        if let Some(sender) = self.desired.get(&uid) {
            sender.send_modify(|desired| desired.pod = Arc::new(pod));
        }
        self.gone(&uid);
    }

    fn gone(&mut self, uid: &str) {
        self.again.remove(uid);
        if let Some(sender) = self.desired.get(uid) {
            sender.send_modify(|desired| desired.gone = true);
        }
    }

    fn ended(&mut self, done: Result<String, tokio::task::JoinError>) {
        match done {
            Ok(uid) => {
                self.desired.remove(&uid);
                if let Some(pod) = self.again.remove(&uid) {
                    self.begin(uid, pod, None);
                }
                if !self.ending {
                    self.begin_static();
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &(dyn StdError + 'static), "pod worker failed");
                self.desired.retain(|_, sender| !sender.is_closed());
            }
        }
    }

    /// Wakes the worker whose sandbox something happened in; it reads itself what.
    fn poke(&mut self, event: &RuntimeEvent) {
        let sandbox = match event {
            RuntimeEvent::Started { sandbox, .. }
            | RuntimeEvent::Exited { sandbox, .. }
            | RuntimeEvent::SandboxDied { sandbox } => sandbox,
        };
        let owner = self.context.table.with(|table| {
            table
                .iter()
                .find(|(_, entry)| entry.sandbox.as_ref().is_some_and(|s| s.id() == sandbox))
                .map(|(uid, _)| uid.clone())
        });
        match owner.and_then(|uid| self.desired.get(&uid)) {
            Some(sender) => sender.send_modify(|desired| desired.pokes = desired.pokes.wrapping_add(1)),
            // Its worker is only now making it, and reads its containers when it has.
            None => tracing::trace!(sandbox = sandbox.as_str(), "event of a sandbox no worker has"),
        }
    }

    /// Removes what belongs to pods that are no more: their deletion came while no agent ran.
    async fn remove_orphans(&mut self, live: &BTreeSet<String>) {
        let orphans: Vec<(String, Vec<SandboxStatus>)> =
            std::mem::take(&mut self.found).into_iter().filter(|(uid, _)| !live.contains(uid)).collect();
        for (uid, sandboxes) in orphans {
            for sandbox in sandboxes {
                tracing::info!(uid, pod = sandbox.spec.pod_name, "removing the sandbox of a pod that is no more");
                found::remove(&self.context, &sandbox).await;
                let logs = sandbox.spec.log_directory.clone();
                drop(tokio::fs::remove_dir_all(&logs).await);
            }
        }
        let mut keep: BTreeSet<String> = live.iter().chain(self.desired.keys()).cloned().collect();
        self.context.devices.keep(|uid| keep.contains(uid));
        // Sandboxes that are no pods' have networks and images too; none begins until all is swept.
        let _none_begins = self.context.beginning.write().await;
        match cri::uids(&self.context.runtime).await {
            Ok(others) => keep.extend(others),
            Err(error) => {
                tracing::warn!(error = &error as &(dyn StdError + 'static), "what belongs to nobody is not removed");
                return;
            }
        }
        if let Err(error) = self.context.network.reconcile(keep.clone()).await {
            tracing::warn!(error = &error as &(dyn StdError + 'static), "pods' interfaces not all removed");
        }
        if let Err(error) = claims::release_others(&self.context.images, &self.context.config.mark, &keep).await {
            tracing::warn!(error = &error as &(dyn StdError + 'static), "images of pods that are no more stay claimed");
        }
        let root = self.context.config.pods_dir();
        let kept: BTreeSet<_> = keep.iter().map(|uid| PodDir::new(&root, uid).path().to_owned()).collect();
        let swept = tokio::task::spawn_blocking(move || {
            for entry in std::fs::read_dir(&root).into_iter().flatten().flatten() {
                if !kept.contains(&entry.path())
                    && let Some(name) = entry.file_name().to_str()
                    && let Err(error) = set::remove(&PodDir::new(&root, name))
                {
                    tracing::warn!(
                        error = &error as &(dyn StdError + 'static),
                        "volumes of a pod that is no more not removed"
                    );
                }
            }
        });
        if let Err(error) = swept.await {
            tracing::error!(error = &error as &(dyn StdError + 'static), "sweep of volumes failed");
        }
    }

    /// Ends every worker: with its pod, or leaving it as it is.
    async fn end(mut self) {
        self.ending = true;
        if self.context.config.keep_pods {
            self.leave.cancel();
        } else {
            for sender in self.desired.values() {
                sender.send_modify(|desired| desired.shutdown = Some(SHUTDOWN_GRACE));
            }
            // The list of pods had not come yet: these have no workers.
            found::stop(&self.context, std::mem::take(&mut self.found)).await;
        }
        let mut runtime = self.context.runtime.events();
        let limit = tokio::time::sleep(SHUTDOWN_LIMIT);
        tokio::pin!(limit);
        while !self.workers.is_empty() {
            tokio::select! {
                () = &mut limit => {
                    tracing::warn!(pods = self.workers.len(), "pods did not stop in time, leaving them");
                    self.leave.cancel();
                    break;
                }
                event = runtime.next() => self.poke(&event),
                Some(done) = self.workers.join_next() => self.ended_last(done),
            }
        }
        while let Some(done) = self.workers.join_next().await {
            self.ended_last(done);
        }
    }

    fn ended_last(&mut self, done: Result<String, tokio::task::JoinError>) {
        self.again.clear();
        self.ended(done);
    }
}
