//! The stream of what happens in all sandboxes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::watch;

use super::{Runtime, client::Client};
use crate::{
    id::SandboxId,
    protocol::{Reply, Request},
    state::{ContainerState, ContainerStatus, Event},
};

/// How long a supervisor that takes a connection and ends it without a word is left alone before it is asked again: doubled
/// each time, to a bound at which being asked costs nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

type Heard = (SandboxId, io::Result<(Client, ContainerStatus)>);

/// What happens in all sandboxes of a runtime, including those made later.
///
/// # Guarantees
/// Every start and exit is told at least once, exits in order after starts. The first thing told of a sandbox is the state
/// of its containers. Reading slowly loses nothing: a supervisor that cannot get rid of its events closes the connection, and
/// the state is told again on the next.
pub struct Events {
    runtime: Runtime,
    sandboxes: watch::Receiver<BTreeSet<SandboxId>>,
    known: BTreeSet<SandboxId>,
    /// Those that ended the last connection without a word, and how long they are left alone next.
    pauses: BTreeMap<SandboxId, Duration>,
    listening: FuturesUnordered<BoxFuture<'static, Heard>>,
    ready: VecDeque<Event>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(runtime: Runtime) -> Events {
        let mut sandboxes = runtime.watch();
        sandboxes.mark_changed();
        Events {
            runtime,
            sandboxes,
            known: BTreeSet::new(),
            pauses: BTreeMap::new(),
            listening: FuturesUnordered::new(),
            ready: VecDeque::new(),
        }
    }

    /// The next event; waits for ever when nothing happens.
    ///
    /// # Cancel safety
    /// Safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            tokio::select! {
                biased;
                changed = self.sandboxes.changed() => match changed {
                    Ok(()) => self.listen_to_new(),
                    // The runtime is gone and with it whoever could make a sandbox.
                    Err(_) => return std::future::pending().await,
                },
                Some(heard) = self.listening.next(), if !self.listening.is_empty() => self.hear(heard),
            }
        }
    }

    fn listen_to_new(&mut self) {
        let now = self.sandboxes.borrow_and_update().clone();
        for id in now.difference(&self.known) {
            self.listening.push(subscribe(self.runtime.clone(), id.clone(), Duration::ZERO));
        }
        self.pauses.retain(|id, _| now.contains(id));
        self.known = now;
    }

    fn hear(&mut self, (id, heard): Heard) {
        match heard {
            Ok((client, status)) => {
                self.pauses.remove(&id);
                self.ready.extend(event(id.clone(), status));
                self.listening.push(listen(id, client));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                if self.known.contains(&id) {
                    let pause = self.pauses.get(&id).copied().unwrap_or_default();
                    self.listening.push(subscribe(self.runtime.clone(), id.clone(), pause));
                    self.pauses.insert(id, (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE));
                }
            }
            // Nobody listens where the supervisor did. If it was meant to end, the sandbox is not in the set any more.
            Err(_) => {
                if self.sandboxes.borrow().contains(&id) {
                    self.ready.push_back(Event::SandboxDied { sandbox: id });
                }
            }
        }
    }
}

fn subscribe(runtime: Runtime, id: SandboxId, pause: Duration) -> BoxFuture<'static, Heard> {
    async move {
        tokio::time::sleep(pause).await;
        let connect = async {
            let mut client = Client::connect(&runtime.directory(&id)).await?;
            client.send(&Request::Subscribe).await?;
            Ok::<_, io::Error>(client)
        };
        match connect.await {
            Ok(client) => listen(id, client).await,
            // One that closed the connection between the two steps may have ended: asking again will tell.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                (id, Err(io::ErrorKind::UnexpectedEof.into()))
            }
            Err(error) => (id, Err(error)),
        }
    }
    .boxed()
}

fn listen(id: SandboxId, mut client: Client) -> BoxFuture<'static, Heard> {
    async move {
        let heard = match client.receive().await {
            Ok(Reply::Container(status)) => Ok((client, status)),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        };
        (id, heard)
    }
    .boxed()
}

fn event(sandbox: SandboxId, status: ContainerStatus) -> Option<Event> {
    let container = status.id;
    match status.state {
        ContainerState::Creating => None,
        ContainerState::Running { pid, started_at, .. } => {
            Some(Event::Started { sandbox, container, pid, at: started_at })
        }
        ContainerState::Exited(exit) => Some(Event::Exited { sandbox, container, exit }),
    }
}
