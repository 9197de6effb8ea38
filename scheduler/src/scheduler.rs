//! The loop: watches pods and nodes, takes decisions one by one, and has them carried out.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use rand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Config, Error,
    cluster::{Change, Cluster, Pod, PodKey},
    decide::decide,
    outcome::{Outcomes, Verdict},
    queue::Queue,
    view::{NodeView, PodView},
};

/// How many bindings and reports may be under way at once: enough to keep the API server's group commit full, few enough
/// that a burst of pods does not become a burst of tasks.
const MOST_IN_FLIGHT: usize = 128;

/// What a finished task tells the loop.
struct Done {
    key: PodKey,
    verdict: Verdict,
}

struct Scheduler {
    config: Config,
    cluster: Cluster,
    queue: Queue,
    outcomes: Outcomes,
    tasks: JoinSet<Done>,
    /// Where to begin looking at nodes next time.
    start: usize,
    /// Pods and nodes a fresh list has shown so far, while it is being read.
    listed_pods: Option<HashSet<PodKey>>,
    listed_nodes: Option<HashSet<String>>,
    nodes_known: bool,
}

/// Schedules until `shutdown`.
///
/// # Errors
/// When a task of its own panics; everything the API answers is dealt with inside.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let live = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let mut pods: BoxStream<'_, _> =
        watcher::watcher(Api::<PodView>::all(client.clone()), live).default_backoff().boxed();
    let nodes = Api::<NodeView>::all(client.clone());
    let mut nodes: BoxStream<'_, _> = watcher::watcher(nodes, watcher::Config::default()).default_backoff().boxed();
    let mut scheduler = Scheduler {
        outcomes: Outcomes::new(client, &config.name),
        config,
        cluster: Cluster::default(),
        queue: Queue::default(),
        tasks: JoinSet::new(),
        start: 0,
        listed_pods: None,
        listed_nodes: None,
        nodes_known: false,
    };
    info!(scheduler = %scheduler.config.name, "scheduling");
    loop {
        scheduler.turn();
        let next = scheduler.queue.next().map(tokio::time::Instant::from_std);
        let wait = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(done) = scheduler.tasks.join_next(), if !scheduler.tasks.is_empty() => scheduler.done(done?),
            Some(event) = nodes.next() => match event {
                Ok(event) => scheduler.node_event(event),
                Err(error) => warn!(error = &error as &(dyn std::error::Error + 'static), "the watch on nodes broke off"),
            },
            Some(event) = pods.next() => match event {
                Ok(event) => scheduler.pod_event(event),
                Err(error) => warn!(error = &error as &(dyn std::error::Error + 'static), "the watch on pods broke off"),
            },
            () = wait => {}
        }
    }
    // What is being bound is bound to its end, if the API answers in time: of a binding cut off half-way, who schedules next
    // sees whether it happened.
    let bound = async {
        while let Some(done) = scheduler.tasks.join_next().await {
            done?;
        }
        Ok(())
    };
    tokio::time::timeout(LAST_STEPS, bound).await.unwrap_or(Ok(()))
}

impl Scheduler {
    /// Takes every decision that can be taken now.
    fn turn(&mut self) {
        // Before the first list of nodes every pod would be refused for lack of nodes.
        while self.nodes_known && self.tasks.len() < MOST_IN_FLIGHT {
            let Some(pod) = self.queue.pop(Instant::now()) else { break };
            let key = pod.key();
            let draw = |n: usize| rand::rng().random_range(0..n.max(1));
            let outcomes = self.outcomes.clone();
            match decide(&pod, self.cluster.nodes(), self.start, draw) {
                Ok(node) => {
                    debug!(pod = %pod.name, namespace = %pod.namespace, uid = %pod.uid, node = %node, "chosen");
                    self.cluster.place(Arc::clone(&pod), &node);
                    self.tasks.spawn(async move { Done { verdict: outcomes.bind(&pod, &node).await, key } });
                }
                Err(why) => {
                    self.queue.park(&key);
                    let why = why.to_string();
                    self.tasks.spawn(async move { Done { verdict: outcomes.refuse(&pod, &why).await, key } });
                }
            }
            self.start = self.start.wrapping_add(1);
        }
    }

    fn done(&mut self, done: Done) {
        match done.verdict {
            // The watch will show it bound; until then it stays in flight, so that it is not tried twice.
            Verdict::Bound | Verdict::Refused => {}
            Verdict::Gone => self.remove_pod(&done.key),
            Verdict::Failed => {
                self.queue.retry(&done.key, Instant::now());
                if self.cluster.displace(&done.key) == Change::MayHelp {
                    self.queue.wake(Instant::now());
                }
            }
        }
    }

    fn pod_event(&mut self, event: Event<PodView>) {
        match event {
            Event::Init => self.listed_pods = Some(HashSet::new()),
            Event::InitApply(view) => {
                let key = self.set_pod(view);
                if let Some(listed) = &mut self.listed_pods {
                    listed.insert(key);
                }
            }
            Event::Apply(view) => {
                self.set_pod(view);
            }
            Event::Delete(view) => self.remove_pod(&Pod::read(view).key()),
            Event::InitDone => {
                let listed = self.listed_pods.take().unwrap_or_default();
                let known = self.cluster.placed_keys().chain(self.queue.keys());
                let gone: Vec<PodKey> = known.filter(|key| !listed.contains(*key)).cloned().collect();
                gone.iter().for_each(|key| self.remove_pod(key));
            }
        }
    }

    fn set_pod(&mut self, view: PodView) -> PodKey {
        let held_back = !view.spec.scheduling_gates.is_empty() || view.metadata.deletion_timestamp.is_some();
        let mine = view.spec.scheduler_name == self.config.name;
        let over = matches!(view.status.phase.as_str(), "Succeeded" | "Failed");
        let pod = Arc::new(Pod::read(view));
        let key = pod.key();
        if over {
            self.remove_pod(&key);
        } else if !pod.node_name.is_empty() {
            self.queue.remove(&key);
            let node = pod.node_name.clone();
            let known = self.cluster.placed(&key);
            if known.is_none_or(|(on, old)| on != node || old.asks != pod.asks || old.uid != pod.uid) {
                self.cluster.place(pod, &node);
            }
        } else if held_back || !mine {
            self.queue.remove(&key);
        } else {
            // A pod of the same name as one that was placed is a new one.
            if self.cluster.placed(&key).is_some_and(|(_, old)| old.uid != pod.uid) {
                self.cluster.displace(&key);
                self.queue.remove(&key);
            }
            self.queue.set(pod);
        }
        key
    }

    fn remove_pod(&mut self, key: &str) {
        self.queue.remove(key);
        if self.cluster.displace(key) == Change::MayHelp {
            self.queue.wake(Instant::now());
        }
    }

    fn node_event(&mut self, event: Event<NodeView>) {
        match event {
            Event::Init => self.listed_nodes = Some(HashSet::new()),
            Event::InitApply(view) => {
                if let (Some(listed), Some(name)) = (&mut self.listed_nodes, &view.metadata.name) {
                    listed.insert(name.clone());
                }
                self.set_node(view);
            }
            Event::Apply(view) => self.set_node(view),
            Event::Delete(view) => self.cluster.remove_node(&view.metadata.name.unwrap_or_default()),
            Event::InitDone => {
                let listed = self.listed_nodes.take().unwrap_or_default();
                let names = self.cluster.nodes().iter().map(|node| node.name.clone());
                let gone: Vec<String> = names.filter(|name| !listed.contains(name)).collect();
                gone.iter().for_each(|name| self.cluster.remove_node(name));
                self.nodes_known = true;
            }
        }
    }

    fn set_node(&mut self, view: NodeView) {
        if self.cluster.set_node(view) == Change::MayHelp {
            self.queue.wake(Instant::now());
        }
    }
}

/// How long bindings under way may take to get through when the scheduler is told to end.
const LAST_STEPS: Duration = Duration::from_secs(3);

/// How long one call to the API may take before it counts as failed.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
