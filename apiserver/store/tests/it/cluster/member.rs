//! One member as a process of its own: a store, a way to its peers over TCP, and a socket where it is asked things in lines
//! of text. Its port is another at every start, as if its machine had moved; the socket is a file, and so is reached
//! although the member's network is cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use coracle_store::{
    Compare, Config, Error, EventKind, Is, Joining, MemberId, MemberInfo, Op, Range, Revision, Store, Transport, Txn,
    WatchRequest,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Where this member's data is, where all tell their addresses, and which one it is to listen at.
pub(super) const DIR: &str = "CORACLE_CLUSTER_DIR";
pub(super) const PORTS: &str = "CORACLE_CLUSTER_PORTS";
pub(super) const ADDRESS: &str = "CORACLE_CLUSTER_ADDRESS";
/// What it was told on being admitted: cluster, founder, own id.
pub(super) const JOINING: &str = "CORACLE_CLUSTER_JOINING";

/// Packets that wait for one peer: more than a second of a busy leader's.
const WAITING: usize = 4096;
/// A peer that takes nothing for so long is called anew.
const PATIENCE: Duration = Duration::from_secs(1);

struct Post {
    packets: mpsc::Sender<(u64, Vec<u8>)>,
    cuts: Arc<Mutex<BTreeSet<u64>>>,
}

impl Transport for Post {
    fn send(&self, to: MemberId, packet: Vec<u8>) {
        if !self.cuts.lock().unwrap().contains(&to.0) {
            // What finds no room is lost, as on any network.
            self.packets.try_send((to.0, packet)).ok();
        }
    }
}

/// Gives each peer's packets to a task of its own, so that one that does not listen holds up no other.
async fn carry(mut packets: mpsc::Receiver<(u64, Vec<u8>)>, own: u64, ports: PathBuf) {
    let mut tasks = JoinSet::new();
    let mut peers = BTreeMap::new();
    while let Some((to, packet)) = packets.recv().await {
        let peer = peers.entry(to).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(WAITING);
            tasks.spawn(carry_to(receiver, own, ports.join(format!("{to}"))));
            sender
        });
        peer.try_send(packet).ok();
    }
}

async fn carry_to(mut packets: mpsc::Receiver<Vec<u8>>, own: u64, port: PathBuf) {
    let mut stream = None;
    while let Some(packet) = packets.recv().await {
        if stream.is_none() {
            stream = connect(own, &port).await;
        }
        let Some(open) = &mut stream else { continue };
        let written = async {
            open.write_all(&u32::try_from(packet.len()).unwrap().to_le_bytes()).await?;
            open.write_all(&packet).await
        };
        if !matches!(timeout(PATIENCE, written).await, Ok(Ok(()))) {
            stream = None;
        }
    }
}

async fn connect(own: u64, port: &Path) -> Option<TcpStream> {
    let address: SocketAddr = std::fs::read_to_string(port).ok()?.parse().ok()?;
    let mut stream = timeout(PATIENCE, TcpStream::connect(address)).await.ok()?.ok()?;
    stream.set_nodelay(true).ok()?;
    stream.write_all(&own.to_le_bytes()).await.ok()?;
    Some(stream)
}

async fn hear(mut stream: TcpStream, store: Store, cuts: Arc<Mutex<BTreeSet<u64>>>) -> Option<()> {
    let mut from = [0; 8];
    stream.read_exact(&mut from).await.ok()?;
    let from = u64::from_le_bytes(from);
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len).await.ok()?;
        let mut packet = vec![0; u32::from_le_bytes(len) as usize];
        stream.read_exact(&mut packet).await.ok()?;
        if !cuts.lock().unwrap().contains(&from) {
            store.deliver(MemberId(from), &packet).await.ok()?;
        }
    }
}

async fn answer(stream: UnixStream, store: Store, cuts: Arc<Mutex<BTreeSet<u64>>>) -> Option<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await.ok()? {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["watch", behind] = words[..] {
            tell(&mut writer, &store, behind.parse().unwrap()).await?;
            continue;
        }
        let said = say(&store, &cuts, &words).await.unwrap_or_else(|error| match error {
            Error::Unavailable | Error::DiskFull => "refused".to_owned(),
            _ => "unknown".to_owned(),
        });
        writer.write_all(format!("{said}\n").as_bytes()).await.ok()?;
    }
    Some(())
}

/// Tells what changes behind a revision, a line each: the revision, and each key with its value.
async fn tell(writer: &mut OwnedWriteHalf, store: &Store, behind: u64) -> Option<()> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut watcher = match store.watch(WatchRequest::prefix("", Revision(behind + 1))) {
        Ok(watcher) => watcher,
        Err(Error::Compacted { compacted }) => {
            return writer.write_all(format!("compacted {compacted}\n").as_bytes()).await.ok();
        }
        Err(_) => return None,
    };
    // Whoever follows reads anew when this ends: it was too slow, or the member has been sent an image.
    while let Some(Ok(batch)) = watcher.next().await {
        let mut line = batch.revision.to_string();
        for event in batch.events.iter() {
            assert_eq!(event.kind, EventKind::Put);
            line.push_str(&format!(" {}={}", text(&event.entry.key), text(&event.entry.value)));
        }
        writer.write_all(format!("{line}\n").as_bytes()).await.ok()?;
    }
    None
}

async fn say(store: &Store, cuts: &Mutex<BTreeSet<u64>>, words: &[&str]) -> Result<String, Error> {
    let id = |at: usize| words[at].parse::<u64>().unwrap();
    Ok(match words[0] {
        "who" => {
            let cluster = u128::from_be_bytes(store.cluster_id());
            format!("{cluster} {}", store.cluster().founder.0)
        }
        "admit" => store.admit(MemberInfo { name: words[1].to_owned(), ..MemberInfo::default() }).await?.0.to_string(),
        "dismiss" => store.dismiss(MemberId(id(1))).await.map(|()| "done".to_owned())?,
        "voters" => store.cluster().members.iter().filter(|member| member.votes).count().to_string(),
        "leader" => store.cluster().leader.map_or(0, |leader| leader.0).to_string(),
        "put" => {
            let key = words[1].to_owned();
            let before = if words[2] == "0" {
                Compare::absent(key.clone())
            } else {
                Compare::Value { key: key.clone().into(), is: Is::Equal, value: words[2].to_owned().into() }
            };
            let then = vec![Op::put(key, words[3].to_owned())];
            let done = store.txn(Txn { compare: vec![before], then, or_else: Vec::new() }).await?;
            if done.succeeded { format!("done {}", done.revision) } else { "conflict".to_owned() }
        }
        // The newest; or what this member has.
        "read" => {
            store.barrier().await?;
            shown(store, words[1])?
        }
        "peek" => shown(store, words[1])?,
        "cut" => {
            cuts.lock().unwrap().extend(words[1..].iter().map(|word| word.parse::<u64>().unwrap()));
            "done".to_owned()
        }
        "heal" => {
            cuts.lock().unwrap().clear();
            "done".to_owned()
        }
        "digest" => {
            store.barrier().await?;
            let found = store.range(&Range::prefix(""))?;
            let mut hasher = DefaultHasher::new();
            for entry in &found.entries {
                (&entry.key, &entry.value, entry.create_revision, entry.mod_revision, entry.version).hash(&mut hasher);
            }
            format!("{} {:x}", found.revision, hasher.finish())
        }
        other => panic!("{other}?"),
    })
}

/// The revision, and the value a key has by then.
fn shown(store: &Store, key: &str) -> Result<String, Error> {
    let found = store.range(&Range::key(key.to_owned()))?;
    let value = found.entries.first().map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
    Ok(format!("{} {}", found.revision, value.as_deref().unwrap_or("0")))
}

#[test]
fn the_member() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let ports = PathBuf::from(std::env::var_os(PORTS).unwrap());
    let joining = std::env::var(JOINING).ok().map(|text| {
        let mut words = text.split(' ');
        let cluster = words.next().unwrap().parse::<u128>().unwrap().to_be_bytes();
        let mut id = || MemberId(words.next().unwrap().parse().unwrap());
        Joining { cluster, founder: id(), own: id(), witness: false }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let address = std::env::var(ADDRESS).unwrap();
        let peers = TcpListener::bind((address.as_str(), 0)).await.unwrap();
        let socket = ports.join(format!("{}.sock", std::process::id()));
        let clients = UnixListener::bind(&socket).unwrap();
        let (sender, packets) = mpsc::channel(WAITING);
        let cuts = Arc::<Mutex<BTreeSet<u64>>>::default();
        let post = Arc::new(Post { packets: sender, cuts: Arc::clone(&cuts) });
        // Small, so that logs are cut, and who was away for a while needs an image.
        let config = Config { checkpoint_bytes: 256 << 10, joining, ..Config::new(&dir) };
        let (store, driver) = Store::open_among(config, post).await.unwrap();
        let own = store.cluster().own.0;
        let beside = ports.join(format!("{own}.new"));
        std::fs::write(&beside, peers.local_addr().unwrap().to_string()).unwrap();
        std::fs::rename(beside, ports.join(own.to_string())).unwrap();
        writeln!(std::io::stdout(), "\nready {own} {}", socket.display()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { driver.run(CancellationToken::new()).await.map(Some).unwrap() });
        tasks.spawn(async move {
            carry(packets, own, ports).await;
            None
        });
        loop {
            tokio::select! {
                Ok((stream, _)) = peers.accept() => {
                    tasks.spawn(hear(stream, store.clone(), Arc::clone(&cuts)));
                }
                Ok((stream, _)) = clients.accept() => {
                    tasks.spawn(answer(stream, store.clone(), Arc::clone(&cuts)));
                }
                Some(ended) = tasks.join_next() => drop(ended.unwrap()),
            }
        }
    });
}
