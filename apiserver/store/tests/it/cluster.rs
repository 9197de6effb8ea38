//! Three processes under load, each in a network and with a disk of its own, one of which is killed, stopped, cut off from
//! the others or left without room on its disk, again and again; judged by clients that remember what they were told.
//!
//! Each writer has a key of its own, and knows at any time what that may hold: what was acknowledged last, or one of the
//! writes since whose outcome nobody could tell. Readers ask any member for any key, and somebody follows each. What all of
//! them are told is judged by the oracle that judges the simulated cluster too. It takes two minutes, and every kind of fault
//! comes at least once; `CORACLE_CLUSTER_SECONDS=n` is so long.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use self::{
    cables::Cables,
    clients::{Known, READERS, WRITERS, follow, read, write},
};
use super::full::Mounted;

mod cables;
mod clients;
mod member;

/// How long a fault lasts: longer than an election takes.
const FAULT: Duration = Duration::from_millis(1500);
/// Kinds of faults.
const KINDS: u64 = 9;
/// How long anything may take when nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member's process.
struct Process {
    child: Child,
    dir: PathBuf,
    address: String,
    id: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn start(mut command: Command, dir: &Path, address: &str, ports: &Path, joining: Option<&str>) -> (Process, PathBuf) {
    command.args(["--exact", "cluster::member::the_member", "--nocapture", "--test-threads=1"]);
    command.env(member::DIR, dir).env(member::PORTS, ports).env(member::ADDRESS, address).stdout(Stdio::piped());
    if let Some(joining) = joining {
        command.env(member::JOINING, joining);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| Some(line.ok()?.strip_prefix("ready ")?.to_owned())).expect("a member starts");
    let (id, socket) = ready.split_once(' ').unwrap();
    let process = Process { child, dir: dir.to_owned(), address: address.to_owned(), id: id.parse().unwrap() };
    (process, socket.into())
}

/// This very program, in the network of its machine if it has one.
fn program(cables: Option<&Cables>, at: usize) -> Command {
    let own = std::env::current_exe().unwrap();
    cables.map_or_else(|| Command::new(&own), |cables| cables.command(at, &own))
}

/// Asks a member something; none if it cannot be reached or does not answer in time.
fn ask(socket: &Path, line: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(8))).ok()?;
    stream.write_all(format!("{line}\n").as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    answer.strip_suffix('\n').map(str::to_owned)
}

/// Asks until the answer is what is wanted.
fn wait_for(what: &str, mut found: impl FnMut() -> Option<String>, wanted: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = found();
        if let Some(answer) = answer.as_deref().filter(|answer| wanted(answer)) {
            return answer.to_owned();
        }
        assert!(Instant::now() < end, "waited for {what}; last was {answer:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a process a signal by name.
fn signal(process: &Process, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &process.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Takes all the room there is.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).unwrap();
    let full = (0..).find_map(|_| file.write_all(&[1; 4096]).err()).unwrap();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

/// The processes, and who leads.
struct Cluster {
    processes: Vec<Process>,
    /// One for each process.
    disks: Vec<Mounted>,
    /// None without the right to make networks.
    cables: Option<Cables>,
    ports: PathBuf,
    known: Arc<Known>,
}

impl Cluster {
    fn ask(&self, at: usize, line: &str) -> Option<String> {
        ask(&self.known.socket(at as u64).0, line)
    }

    fn leader(&self) -> usize {
        let ids: Vec<u64> = self.processes.iter().map(|process| process.id).collect();
        let ask = || (0..ids.len()).find_map(|at| self.ask(at, "leader").filter(|id| id != "0"));
        let id: u64 = wait_for("a leader", ask, |_| true).parse().unwrap();
        ids.iter().position(|other| *other == id).unwrap()
    }

    /// Something happens to a member for a while.
    fn fault(&mut self, round: u64) {
        let leader = self.leader();
        let (what, at) = match round % KINDS {
            0 => ("kill", leader),
            1 => ("stop", leader),
            2 => ("kill", (leader + 1) % self.processes.len()),
            3 => ("cut", leader),
            4 => ("stop", (leader + 2) % self.processes.len()),
            5 => ("fill", leader),
            6 => ("unplug", leader),
            7 => ("unplug", (leader + 2) % self.processes.len()),
            _ => ("fill", (leader + 1) % self.processes.len()),
        };
        let before = self.known.writes.load(Ordering::SeqCst);
        match what {
            "kill" => {
                if at == leader {
                    *self.known.killed.lock().unwrap() = Some((Instant::now(), None));
                }
                self.processes[at].child.kill().unwrap();
                self.processes[at].child.wait().unwrap();
                std::thread::sleep(FAULT);
                let Process { dir, address, .. } = &self.processes[at];
                let (process, socket) = start(program(self.cables.as_ref(), at), dir, address, &self.ports, None);
                let pid = process.child.id().into();
                self.processes[at] = process;
                self.known.sockets.lock().unwrap()[at] = (socket, pid);
            }
            "stop" => {
                signal(&self.processes[at], "STOP");
                std::thread::sleep(FAULT);
                signal(&self.processes[at], "CONT");
            }
            "fill" => {
                // Its disk is its own; without the right to mount one there is nothing to fill.
                if self.disks.is_empty() {
                    return;
                }
                let other = self.processes[at].dir.with_file_name("other");
                fill(&other);
                std::thread::sleep(FAULT);
                std::fs::remove_file(other).unwrap();
            }
            "unplug" => {
                let Some(cables) = &self.cables else { return };
                cables.unplug(at);
                std::thread::sleep(FAULT);
                cables.plug(at);
            }
            _ => {
                let others = self.processes.iter().filter(|other| other.id != self.processes[at].id);
                let others: Vec<String> = others.map(|other| other.id.to_string()).collect();
                self.ask(at, &format!("cut {}", others.join(" "))).unwrap();
                std::thread::sleep(FAULT);
                self.ask(at, "heal").unwrap();
            }
        }
        // The next fault comes when this one is over: that many writes are made again, by every writer.
        let known = Arc::clone(&self.known);
        let writes = move || Some(known.writes.load(Ordering::SeqCst).to_string());
        wait_for("writes to go on", writes, |now| now.parse::<u64>().unwrap() >= before + WRITERS as u64 * 20);
        wait_for("the member to be back", || self.ask(at, "digest"), |said| said.contains(' '));
    }
}

#[test]
fn what_a_cluster_of_processes_acknowledged_is_there_whatever_happens_to_one() {
    let seconds = std::env::var("CORACLE_CLUSTER_SECONDS").map_or(120, |seconds| seconds.parse().expect("a number"));
    let seconds = Duration::from_secs(seconds);
    let dir = tempfile::tempdir().unwrap();
    let ports = dir.path().join("ports");
    std::fs::create_dir(&ports).unwrap();
    let known = Arc::new(Known::default());
    let disks: Vec<Mounted> = (0..3).map_while(|_| Mounted::new("24m")).collect();
    let place = |at: usize| disks.get(at).map_or_else(|| dir.path().join(at.to_string()), |disk| disk.path("store"));
    let cables = Cables::new(3).inspect_err(|why| println!("Skipped: pulling cables: {why}")).ok();
    let address = |at: usize| cables.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |_| Cables::address(at));
    let (first, socket) = start(program(cables.as_ref(), 0), &place(0), &address(0), &ports, None);
    known.sockets.lock().unwrap().push((socket, first.child.id().into()));
    let places = [(place(1), address(1)), (place(2), address(2))];
    let mut cluster =
        Cluster { processes: vec![first], disks, cables, ports: ports.clone(), known: Arc::clone(&known) };
    let who = cluster.ask(0, "who").unwrap();
    for (at, (place, address)) in (1..).zip(places) {
        let is_id = |said: &str| said.parse::<u64>().is_ok();
        let id = wait_for("to be admitted", || cluster.ask(0, &format!("admit machine-{at}")), is_id);
        let program = program(cluster.cables.as_ref(), at);
        let (process, socket) = start(program, &place, &address, &ports, Some(&format!("{who} {id}")));
        known.sockets.lock().unwrap().push((socket, process.child.id().into()));
        cluster.processes.push(process);
        wait_for("it to vote", || cluster.ask(0, "voters"), |voters| voters == (at + 1).to_string());
    }
    std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for writer in 0..WRITERS {
            let known = Arc::clone(&known);
            clients.push(scope.spawn(move || write(&known, writer)));
        }
        for reader in 0..READERS {
            let known = Arc::clone(&known);
            clients.push(scope.spawn(move || read(&known, reader as u64)));
        }
        let followers: Vec<_> = (0..3)
            .map(|at| {
                let known = Arc::clone(&known);
                scope.spawn(move || follow(&known, at))
            })
            .collect();
        let (mut failed_over, mut rounds, began) = (Vec::new(), 0, Instant::now());
        let faults = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while began.elapsed() < seconds || rounds < KINDS {
                cluster.fault(rounds);
                rounds += 1;
                let killed = known.killed.lock().unwrap().take();
                failed_over.extend(killed.and_then(|(_, after)| after));
            }
        }));
        known.stop.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().unwrap();
        }
        let digest = wait_for("a member to answer", || cluster.ask(0, "digest"), |said| said.contains(' '));
        let last: u64 = digest.split_once(' ').unwrap().0.parse().unwrap();
        known.last.store(last, Ordering::SeqCst);
        for follower in followers {
            follower.join().unwrap();
        }
        faults.unwrap();
        known.oracle().judge(last);
        println!(
            "{rounds} faults in {:?}, {} writes, {} of unknown outcome, {} reads; from a leader's death to the next write {failed_over:?}",
            began.elapsed(),
            known.writes.load(Ordering::SeqCst),
            known.unknown.load(Ordering::SeqCst),
            known.reads.load(Ordering::SeqCst),
        );
    });
    let digest = |at: usize| wait_for("a member to answer", || cluster.ask(at, "digest"), |said| said.contains(' '));
    let first = digest(0);
    assert!((1..3).all(|at| digest(at) == first), "the members hold the same");
}
