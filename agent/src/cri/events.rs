//! What happens to sandboxes and containers, told to who listens. Nobody listens, nothing is done: each listener hears the
//! runtime itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use coracle_process::grpc::{Answers, Code, Refusal};
use coracle_runtime::{ContainerId, Event, Events, Exit, SandboxId};
use tokio::sync::broadcast::{self, error::RecvError};

use super::messages::{ContainerEventResponse, ContainerEventType as Kind, ContainerState};
use super::{Front, nanoseconds};

/// Containers that may be remembered beyond those there are.
const SLACK: usize = 256;

/// What a call has done, which the runtime does not tell.
#[derive(Clone, Debug)]
pub(super) enum Happened {
    SandboxMade(SandboxId),
    SandboxStopped(SandboxId),
    SandboxRemoved(SandboxId),
    ContainerMade(SandboxId, ContainerId),
    ContainerRemoved(ContainerId),
}

/// How far a container is, as its listener was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Started,
    Stopped,
}

/// What is heard for somebody who listens.
pub(super) struct Heard {
    happened: broadcast::Receiver<Happened>,
    runtime: Events,
    known: Known,
}

/// How things are, as the listener was told or could see before anything was told.
#[derive(Default)]
struct Known {
    containers: BTreeMap<ContainerId, (SandboxId, Told)>,
    sandboxes: BTreeMap<SandboxId, Told>,
}

/// Somebody who listens.
struct Listener {
    front: Arc<Front>,
    answers: Answers,
    known: Known,
}

/// The listener has gone.
struct Gone;

impl Front {
    /// Tells who listens.
    pub(super) fn tell(&self, happened: Happened) {
        // Nobody may listen.
        let _ = self.happened.send(happened);
    }
}

/// Hears everything from when this has returned on: a client that is answered then misses nothing of what it looks at or
/// does afterwards.
///
/// # Errors
/// What there is cannot be looked at.
pub(super) async fn listen(front: &Front) -> Result<Heard, Refusal> {
    let (happened, runtime) = (front.happened.subscribe(), front.context.runtime.events());
    Ok(Heard { happened, runtime, known: Known::look(front).await? })
}

/// Tells what is heard, until the client leaves.
pub(super) async fn serve(front: Arc<Front>, heard: Heard, answers: Answers) {
    let Heard { mut happened, mut runtime, known } = heard;
    let mut listener = Listener { front, answers: answers.clone(), known };
    loop {
        let told = tokio::select! {
            biased;
            () = answers.gone() => return,
            heard = happened.recv() => match heard {
                Ok(heard) => listener.hear(heard).await,
                Err(RecvError::Closed) => return,
                Err(RecvError::Lagged(missed)) => {
                    let why = format!("{missed} events were missed: list what there is, and listen again");
                    answers.refuse(Refusal(Code::ResourceExhausted, why)).await;
                    return;
                }
            },
            event = runtime.next() => listener.hear_runtime(event).await,
        };
        if told.is_err() {
            return;
        }
    }
}

impl Known {
    /// Notes how things are now; that is not told.
    async fn look(front: &Front) -> Result<Self, Refusal> {
        let mut known = Self::default();
        for seen in &front.sandboxes().await? {
            let alive = if seen.status.alive { Told::Started } else { Told::Stopped };
            known.sandboxes.insert(seen.status.id.clone(), alive);
            for container in seen.containers() {
                let told = match container.state() {
                    ContainerState::Created => Told::Nothing,
                    ContainerState::Running => Told::Started,
                    ContainerState::Exited | ContainerState::Unknown => Told::Stopped,
                };
                known.containers.insert(container.id.clone(), (seen.status.id.clone(), told));
            }
        }
        Ok(known)
    }
}

impl Listener {
    /// Tells one event, with how the sandbox is now.
    async fn tell(&self, sandbox: Option<&SandboxId>, id: &str, kind: Kind, at: SystemTime) -> Result<(), Gone> {
        let mut event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: nanoseconds(at),
            ..ContainerEventResponse::default()
        };
        if let Some(sandbox) = sandbox
            && let Ok(seen) = self.front.sandbox(sandbox.as_str()).await
        {
            event.pod_sandbox_status = Some(seen.shown(&self.front.addresses(&seen).await));
            event.containers_statuses = seen.containers().map(|container| container.shown()).collect();
        }
        self.answers.send(&event).await.map_err(|_| Gone)
    }

    async fn hear(&mut self, happened: Happened) -> Result<(), Gone> {
        let now = SystemTime::now();
        match happened {
            Happened::SandboxMade(id) => {
                self.known.sandboxes.insert(id.clone(), Told::Started);
                self.tell(Some(&id), id.as_str(), Kind::Created, now).await?;
                self.tell(Some(&id), id.as_str(), Kind::Started, now).await
            }
            Happened::ContainerMade(sandbox, id) => {
                self.known.containers.insert(id.clone(), (sandbox.clone(), Told::Nothing));
                self.tell(Some(&sandbox), id.as_str(), Kind::Created, now).await
            }
            Happened::SandboxStopped(id) => self.ended(&id, now).await,
            Happened::ContainerRemoved(id) => {
                let of = self.known.containers.remove(&id).map(|(sandbox, _)| sandbox);
                self.tell(of.as_ref(), id.as_str(), Kind::Deleted, now).await
            }
            Happened::SandboxRemoved(id) => {
                self.known.sandboxes.remove(&id);
                self.tell(None, id.as_str(), Kind::Deleted, now).await
            }
        }
    }

    /// A sandbox has ended, and with it all that ran in it.
    async fn ended(&mut self, id: &SandboxId, now: SystemTime) -> Result<(), Gone> {
        let running: Vec<ContainerId> = self
            .known
            .containers
            .iter()
            .filter(|(_, (sandbox, told))| sandbox == id && *told == Told::Started)
            .map(|(container, _)| container.clone())
            .collect();
        for container in running {
            self.known.containers.insert(container.clone(), (id.clone(), Told::Stopped));
            self.tell(Some(id), container.as_str(), Kind::Stopped, now).await?;
        }
        match self.known.sandboxes.insert(id.clone(), Told::Stopped) {
            Some(Told::Stopped) => Ok(()),
            _ => self.tell(Some(id), id.as_str(), Kind::Stopped, now).await,
        }
    }

    async fn hear_runtime(&mut self, event: Event) -> Result<(), Gone> {
        match event {
            Event::Started { sandbox, container, at, .. } => self.started(&sandbox, &container, at).await,
            Event::Exited { sandbox, container, exit: Exit { started_at, finished_at, .. } } => {
                if let Some(at) = started_at {
                    self.started(&sandbox, &container, at).await?;
                }
                match self.known.containers.insert(container.clone(), (sandbox.clone(), Told::Stopped)) {
                    Some((_, Told::Stopped)) => Ok(()),
                    _ => self.tell(Some(&sandbox), container.as_str(), Kind::Stopped, finished_at).await,
                }
            }
            Event::SandboxDied { sandbox } => self.ended(&sandbox, SystemTime::now()).await,
        }
    }

    async fn started(&mut self, sandbox: &SandboxId, container: &ContainerId, at: SystemTime) -> Result<(), Gone> {
        if matches!(self.known.containers.get(container), Some((_, Told::Started | Told::Stopped))) {
            return Ok(());
        }
        self.forget_gone().await;
        self.known.containers.insert(container.clone(), (sandbox.clone(), Told::Started));
        self.tell(Some(sandbox), container.as_str(), Kind::Started, at).await
    }

    /// Pods of the API server go without a word: what is remembered of them is dropped now and then.
    async fn forget_gone(&mut self) {
        let stopped = self.known.containers.values().filter(|(_, told)| *told == Told::Stopped).count();
        if stopped < SLACK {
            return;
        }
        let Ok(all) = self.front.sandboxes().await else { return };
        let there: std::collections::BTreeSet<&SandboxId> = all.iter().map(|seen| &seen.status.id).collect();
        self.known.containers.retain(|_, (sandbox, told)| *told != Told::Stopped || there.contains(sandbox));
        self.known.sandboxes.retain(|id, told| *told != Told::Stopped || there.contains(id));
    }
}
