//! The other members of the store: packets to them and from them, over the API's own port.
//!
//! ```text
//!   store ──send──▶ one bounded queue a peer ──▶ one connection a peer ══TLS, ALPN coracle-peer/1══▶ its port
//!         ◀─deliver── one reader a peer ◀══════════════════════════════════════════════ its connection
//! ```
//!
//! Both ends show a certificate of the cluster's authority that names the cluster and the member (`identity`), so a peer is
//! known by that and not by where it is. Each connection carries packets one way, since each member connects to every
//! other; `hello` at its beginning tells where the one who connected is found, so two that know of each
//! other find each other again as long as one of them stays where it was.
//!
//! What waits for a peer is bounded in number and in bytes and then dropped: Raft sends again what is still needed. What
//! comes is bounded by the store's own room ([`coracle_store::Store::deliver`]), and a peer that sends more than there is
//! room for waits, for TCP passes that on. Pieces of images are asked for one by one.
//!
//! A lone member has no queues and no connections.

mod frame;
mod hearing;
mod identity;
mod keys;
mod sending;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_store::{MemberId, Store, Transport};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{hearing::Heard, sending::Line};
pub(crate) use self::{
    identity::{GROUPS, member_profile},
    keys::{Givers, take as take_keys},
};
use crate::pki::ClientVerifier;

/// Packets that wait for one peer: more than a second of a busy leader's.
const WAITING: usize = 4096;

/// Their bytes: as much as some group commits hold. A single packet may have more.
const WAITING_BYTES: usize = 16 << 20;

/// Peers there are queues for: more than a store has members, with those that were removed of late.
const LINES: usize = 32;

/// Something is said at least this often, so that a peer whose machine is gone is missed.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// A peer that said nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);

/// How long one packet may take on a slow network.
const PACKET: Duration = Duration::from_secs(60);

/// How long a peer may take for a connection and its handshakes.
const CONNECT: Duration = Duration::from_secs(3);

/// The first and the longest pause between two attempts to reach a peer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What is to be done for a peer that nothing was sent to before.
type Begun = (MemberId, Line);

/// See the module.
#[derive(Debug)]
pub(crate) struct Peers {
    queues: Mutex<BTreeMap<MemberId, sending::Queue>>,
    begun: mpsc::Sender<Begun>,
    /// Where peers said they are found, which is newer than what the store knows.
    said: Mutex<BTreeMap<MemberId, Vec<String>>>,
    /// Where this member is found.
    own: Mutex<Vec<String>>,
    heard: Heard,
}

/// What [`Peers`] needs to be run.
#[derive(Debug)]
pub(crate) struct Lines(mpsc::Receiver<Begun>);

impl Peers {
    pub(crate) fn new() -> (Arc<Self>, Lines) {
        let (begun, lines) = mpsc::channel(LINES);
        let peers = Self {
            queues: Mutex::default(),
            begun,
            said: Mutex::default(),
            own: Mutex::default(),
            heard: Heard::default(),
        };
        (Arc::new(peers), Lines(lines))
    }

    /// Says where peers are found that the store does not know yet.
    pub(crate) fn are_at(&self, known: impl IntoIterator<Item = (MemberId, Vec<String>)>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for (member, addresses) in known {
            if said.len() < LINES || said.contains_key(&member) {
                said.insert(member, addresses);
            }
        }
    }

    /// Says where this member is found.
    pub(crate) fn is_at(&self, addresses: Vec<String>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn own_addresses(&self) -> Vec<String> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a member may be: where it said it is, then where the store has it.
    fn addresses_of(&self, store: &Store, member: MemberId) -> Vec<String> {
        let mut found =
            self.said.lock().unwrap_or_else(PoisonError::into_inner).get(&member).cloned().unwrap_or_default();
        let members = store.cluster().members;
        let known = members.into_iter().find(|known| known.id == member).map(|known| known.info.addresses);
        for address in known.unwrap_or_default() {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    /// The members that are connected to this one now.
    pub(crate) fn heard(&self) -> watch::Receiver<BTreeSet<MemberId>> {
        self.heard.subscribe()
    }

    /// Carries packets until `shutdown`; then all connections to peers have ended.
    pub(crate) async fn run(
        self: Arc<Self>,
        lines: Lines,
        store: Store,
        tls: rustls::ClientConfig,
        shutdown: CancellationToken,
    ) {
        let Lines(mut begun) = lines;
        let tls = Arc::new(tls);
        let mut tasks = JoinSet::new();
        let mut changes = store.cluster_changes();
        changes.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // The store lives at least as long as this.
                Ok(()) = changes.changed() => self.greet(&store),
                Some((member, line)) = begun.recv() => {
                    let way = sending::Way {
                        peers: Arc::clone(&self),
                        store: store.clone(),
                        tls: Arc::clone(&tls),
                        member,
                    };
                    tasks.spawn(way.carry(line, shutdown.clone()));
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Has every other member connected to, whether there is something to say to it or not: it is then known to be there.
    fn greet(&self, store: &Store) {
        let cluster = store.cluster();
        for member in cluster.members.iter().filter(|member| member.id != cluster.own) {
            let is_known = self.queues.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&member.id);
            if !is_known {
                self.send(member.id, Vec::new());
            }
        }
    }

    /// Hears a peer out that has connected, until it goes or `shutdown`.
    pub(crate) async fn hear<S>(
        &self,
        stream: S,
        certificates: &[rustls::pki_types::CertificateDer<'_>],
        verifier: &ClientVerifier,
        store: &Store,
        shutdown: &CancellationToken,
    ) where
        S: tokio::io::AsyncRead + Unpin,
    {
        match identity::member_of(certificates, verifier, store.cluster_id(), jiff::Timestamp::now()) {
            Ok(who) => hearing::hear(self, stream, who, store, shutdown).await,
            Err(why) => hearing::strange(&why),
        }
    }
}

impl Transport for Peers {
    fn send(&self, to: MemberId, packet: Vec<u8>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&to).filter(|queue| !queue.is_idle()) {
            queue.push(packet);
            return;
        }
        if queues.len() >= LINES {
            // To those that nothing was said to for long.
            queues.retain(|_, queue| !queue.is_idle());
        }
        if queues.len() >= LINES {
            return;
        }
        let (queue, line) = sending::queue();
        queue.push(packet);
        if self.begun.try_send((to, line)).is_ok() {
            queues.insert(to, queue);
        }
    }
}
