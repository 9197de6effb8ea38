//! Three members of the store in one process, each with a directory and a thread of its own: what it costs that a majority
//! has everything on its disk, and how long nobody leads when the one that did is gone.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use coracle_store::{Config, Joining, MemberId, MemberInfo, Op, Store, Transport, Txn};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    report::Report,
    store::{millis, writes},
};

/// Writers of the rows.
const WRITERS: [usize; 2] = [32, 256];
/// How often a leader is lost.
const LOSSES: usize = 5;
/// Packets on their way to a member.
const UNDER_WAY: usize = 4096;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// From whom, and what.
type Packet = (MemberId, Vec<u8>);

/// The ways to all members.
type Wires = Arc<Mutex<BTreeMap<MemberId, mpsc::Sender<Packet>>>>;

/// A member's way to the others.
struct Way {
    own: Mutex<MemberId>,
    wires: Wires,
}

impl Transport for Way {
    fn send(&self, to: MemberId, packet: Vec<u8>) {
        let own = *self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = self.wires.lock().unwrap_or_else(PoisonError::into_inner).get(&to) {
            // What finds no room is lost, as on any network.
            let _ = wire.try_send((own, packet));
        }
    }
}

struct Member {
    store: Store,
    id: MemberId,
    /// Ends its driver, as if its process had been killed.
    kill: AbortHandle,
}

struct Cluster {
    wires: Wires,
    members: Vec<Member>,
    tasks: JoinSet<()>,
}

impl Cluster {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let mut cluster = Self { wires: Wires::default(), members: Vec::new(), tasks: JoinSet::new() };
        cluster.open(&dir.join("0"), None).await?;
        for name in ["1", "2"] {
            let first = cluster.members.first().context("the first member")?.store.clone();
            let own = first.admit(MemberInfo { name: name.to_owned(), ..MemberInfo::default() }).await?;
            let joining =
                Joining { cluster: first.cluster_id(), founder: first.cluster().founder, own, witness: false };
            cluster.open(&dir.join(name), Some(joining)).await?;
            let (mut changes, voters) = (first.cluster_changes(), cluster.members.len());
            let votes = async {
                while first.cluster().members.iter().filter(|member| member.votes).count() < voters {
                    changes.changed().await?;
                }
                anyhow::Ok(())
            };
            timeout(PATIENCE, votes).await.context("a member does not come to vote")??;
        }
        Ok(cluster)
    }

    async fn open(&mut self, dir: &Path, joining: Option<Joining>) -> anyhow::Result<()> {
        let known = joining.map_or(MemberId(0), |joining| joining.own);
        let way = Arc::new(Way { own: Mutex::new(known), wires: Arc::clone(&self.wires) });
        let transport = Arc::clone(&way);
        let (store, driver) = Store::open_among(Config { joining, ..Config::new(dir) }, transport).await?;
        let id = store.cluster().own;
        *way.own.lock().unwrap_or_else(PoisonError::into_inner) = id;
        let (sender, mut packets) = mpsc::channel::<Packet>(UNDER_WAY);
        self.wires.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let receiving = store.clone();
        self.tasks.spawn(async move {
            while let Some((from, packet)) = packets.recv().await {
                if receiving.deliver(from, &packet).await.is_err() {
                    break;
                }
            }
        });
        let kill = self.tasks.spawn(async move {
            if let Err(error) = driver.run(CancellationToken::new()).await {
                tracing::warn!(error = &error as &(dyn std::error::Error + 'static), "a member ended");
            }
        });
        self.members.push(Member { store, id, kill });
        Ok(())
    }

    /// The one that leads, and one that does not.
    fn leader(&self) -> Option<(&Member, &Member)> {
        let leads = |member: &&Member| member.store.cluster().leader == Some(member.id);
        let leader = self.members.iter().find(leads)?;
        Some((leader, self.members.iter().find(|member| member.id != leader.id)?))
    }

    async fn write(store: &Store) -> coracle_store::Result<()> {
        let then = vec![Op::put("/registry/pods/last", "x")];
        store.txn(Txn { then, ..Txn::default() }).await.map(drop)
    }

    /// How long after its leader is gone a write is acknowledged that was asked for later.
    async fn lose_leader(&self) -> anyhow::Result<Duration> {
        let (leader, other) = self.leader().context("nobody leads")?;
        Self::write(&other.store).await?;
        self.wires.lock().unwrap_or_else(PoisonError::into_inner).remove(&leader.id);
        leader.kill.abort();
        let gone = Instant::now();
        while let Err(error) = Self::write(&other.store).await {
            anyhow::ensure!(gone.elapsed() < PATIENCE, "nobody leads for a minute: {error}");
        }
        Ok(gone.elapsed())
    }
}

/// Measures in new directories below `dir`.
pub(crate) async fn run(dir: &Path, length: Duration, report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::start(&dir.join("three")).await?;
    let leader = cluster.leader().context("nobody leads")?.0.store.clone();
    for writers in WRITERS {
        writes(&leader, writers, ", three members", length, report).await?;
    }
    drop(cluster);
    let mut took = Vec::new();
    for loss in 0..LOSSES {
        took.push(Cluster::start(&dir.join(format!("lost-{loss}"))).await?.lose_leader().await?);
    }
    took.sort_unstable();
    let median = took.get(LOSSES / 2).copied().unwrap_or_default();
    report.promised("from a leader's end to the next write, three members", millis(median), "ms", 1500.0);
    report.add("  longest of five", millis(took.last().copied().unwrap_or_default()), "ms");
    Ok(())
}
