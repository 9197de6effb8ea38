//! What a peer says that has connected.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use coracle_store::{Error, MemberId, MemberInfo, Store};
use tokio::{
    io::{AsyncRead, BufReader},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{CONNECT, PACKET, Peers, SILENCE, frame};
use crate::{seldom::Seldom, servers::Kind};

/// Whoever reaches the port can try.
static STRANGE: Seldom = Seldom::new();

/// Who is connected, and the word that ends its connection when it opens another.
#[derive(Debug, Default)]
pub(super) struct Heard {
    connections: Mutex<BTreeMap<MemberId, CancellationToken>>,
    members: watch::Sender<BTreeSet<MemberId>>,
}

impl Heard {
    pub(super) fn subscribe(&self) -> watch::Receiver<BTreeSet<MemberId>> {
        self.members.subscribe()
    }

    /// A member has one connection: the newest.
    fn begin(&self, member: MemberId) -> CancellationToken {
        let own = CancellationToken::new();
        let before = self.connections.lock().unwrap_or_else(PoisonError::into_inner).insert(member, own.clone());
        if let Some(before) = before {
            before.cancel();
        }
        self.members.send_if_modified(|members| members.insert(member));
        own
    }

    fn end(&self, member: MemberId, own: &CancellationToken) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_cancelled() {
            // Another connection has its place.
            return;
        }
        connections.remove(&member);
        self.members.send_if_modified(|members| members.remove(&member));
    }
}

/// Somebody connected as a peer who is none.
pub(super) fn strange(why: &str) {
    if let Some(before) = STRANGE.next(Instant::now()) {
        tracing::warn!(reason = why, before, "somebody who is no member of the store was turned away");
    }
}

pub(super) async fn hear<S>(
    peers: &Peers,
    stream: S,
    who: (MemberId, Kind),
    store: &Store,
    shutdown: &CancellationToken,
) where
    S: AsyncRead + Unpin,
{
    let (member, _) = who;
    let replaced = peers.heard.begin(member);
    let result = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        () = replaced.cancelled() => Ok(()),
        result = listen(peers, stream, who, store) => result,
    };
    peers.heard.end(member, &replaced);
    if let Err(why) = result {
        tracing::debug!(peer = member.to_string(), reason = why, "a peer's connection has ended");
    }
}

async fn listen<S>(peers: &Peers, stream: S, (member, kind): (MemberId, Kind), store: &Store) -> Result<(), String>
where
    S: AsyncRead + Unpin,
{
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let silent = |_| "it said nothing for too long".to_owned();
    let hello = timeout(CONNECT, frame::read_hello(&mut stream)).await.map_err(silent)?;
    let said = MemberInfo { addresses: hello.map_err(|error| error.to_string())?.addresses, ..MemberInfo::default() };
    if said.is_valid() && !said.addresses.is_empty() {
        peers.are_at([(member, said.addresses)]);
    }
    let mut packet = Vec::new();
    loop {
        let text = |error: std::io::Error| error.to_string();
        let length = timeout(SILENCE, frame::read_length(&mut stream)).await.map_err(silent)?.map_err(text)?;
        timeout(PACKET, frame::read(&mut stream, length, &mut packet)).await.map_err(silent)?.map_err(text)?;
        if packet.is_empty() {
            continue;
        }
        let delivered = match kind {
            Kind::Server => store.deliver(member, &packet).await,
            Kind::Witness => store.deliver_of_witness(member, &packet).await,
        };
        match delivered {
            Ok(()) => {}
            Err(error @ Error::Malformed { .. }) => {
                tracing::warn!(
                    peer = member.to_string(),
                    error = &error as &dyn std::error::Error,
                    "a peer says what no member of this version says"
                );
                return Err(error.to_string());
            }
            Err(error) => return Err(error.to_string()),
        }
        // One large packet is not kept room for until the next.
        packet.shrink_to(64 << 10);
    }
}
