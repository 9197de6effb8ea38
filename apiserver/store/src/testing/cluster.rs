//! A whole cluster on one thread from one seed: members that come, go, are killed, stall and lose their disks, a network
//! that does what networks do, clients that write and read anywhere; judged by one file per invariant.
//!
//! First everything may go wrong (safety); then nothing does any more, and the cluster must come to itself (liveness).
//! `CORACLE_SEED=n` runs that seed alone, `CORACLE_SEEDS=n` so many.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    fmt::Write as _,
    hash::{Hash, Hasher},
    sync::Arc,
};

use tokio::sync::oneshot::{self, error::TryRecvError};

use self::{
    agreement::Agreement,
    leaders::Leaders,
    machine::{Machine, at, is_excused},
    monotonic::Monotonic,
    net::{Net, Way},
    watches::Follower,
    writes::Writes,
};
use super::{model::command, state::told, world::Dice};
use crate::{
    check,
    command::{Command, Outcome},
    datadir::Identity,
    error::{Error, Result},
    packet::Packet,
    peer::{MemberId, MemberInfo},
    queue::Request,
    revision::Revision,
};

mod agreement;
mod leaders;
mod lies;
mod machine;
mod monotonic;
mod net;
mod reads;
mod slow;
mod watches;
mod writes;

const CLUSTER: [u8; 16] = [7; 16];
const FOUNDER: u64 = 1 << 50;
/// Milliseconds of a step, and steps of the two phases.
const STEP: u64 = 20;
const SAFETY: u64 = 700;
const HEAL: u64 = 900;
const MOST: usize = 6;
/// Servers beside a witness, and how many there may be in some seeds.
const TWO: usize = 2;
const FEW: usize = 4;

/// What a client waits for.
enum Asked {
    Write(usize, oneshot::Receiver<Outcome>),
    Read(u64, usize, oneshot::Receiver<Result<Revision>>),
    /// Whether it is to be a witness.
    Admit(bool, oneshot::Receiver<Result<MemberId>>),
    Dismiss(u64, oneshot::Receiver<Result<()>>),
    Other(oneshot::Receiver<Outcome>),
}

impl Asked {
    const fn name(&self) -> &'static str {
        match self {
            Self::Write(..) => "write",
            Self::Read(..) => "read",
            Self::Admit(..) => "admit",
            Self::Dismiss(..) => "dismiss",
            Self::Other(..) => "other",
        }
    }
}

struct Simulation {
    dice: Dice,
    now: u64,
    net: Net,
    machines: Vec<Machine>,
    followers: BTreeMap<(u64, u64), Follower>,
    asked: Vec<Asked>,
    unique: u64,
    transcript: String,
    log: Agreement,
    leaders: Leaders,
    writes: Writes,
    monotonic: Monotonic,
    removed: Vec<u64>,
    reads: u64,
    images: u64,
    /// Members say what no correct member says: nothing is promised then but that nobody panics.
    lies: bool,
    /// How many servers there are, and whether a witness is to be beside them.
    most: usize,
    witness: bool,
    witnesses: BTreeSet<u64>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed ^ 0xC1);
        let founder = Identity { cluster: CLUSTER, member: FOUNDER, founder: FOUNDER, witness: false };
        let machine = Machine::new(founder, dice.next(), 10 + dice.below(10));
        Self {
            dice,
            now: 0,
            net: Net::new(),
            machines: vec![machine],
            followers: BTreeMap::new(),
            asked: Vec::new(),
            unique: 0,
            transcript: String::new(),
            log: Agreement::default(),
            leaders: Leaders::default(),
            writes: Writes::new(FOUNDER),
            monotonic: Monotonic::default(),
            removed: Vec::new(),
            reads: 0,
            images: 0,
            lies: false,
            most: MOST,
            witness: false,
            witnesses: BTreeSet::new(),
        }
    }

    /// Two servers, or some more, and a witness.
    fn witnessed(seed: u64, most: usize) -> Self {
        Self { most, witness: true, ..Self::new(seed) }
    }

    /// Wall clocks jump by an hour and back; nothing may depend on them.
    fn wall(&mut self) -> u64 {
        1_000_000_000 + self.now + [0, 3_600_000][self.dice.below(2)]
    }

    fn way(&self, own: u64) -> Way {
        Way { own, sent: Arc::clone(&self.net.sent) }
    }

    /// A server that runs, drawn by lot.
    fn running(&mut self) -> Option<usize> {
        let runs = |machine: &Machine| machine.running.is_some() && !machine.identity.witness;
        let running: Vec<usize> = (0..self.machines.len()).filter(|at| runs(&self.machines[*at])).collect();
        (!running.is_empty()).then(|| running[self.dice.below(running.len())])
    }

    fn step(&mut self) {
        self.now += STEP;
        let wall = self.wall();
        for (from, to, bytes) in self.net.arrived(self.now) {
            let Some(machine) = self.machines.iter_mut().find(|machine| machine.identity.member == to) else {
                continue;
            };
            let Some(run) = &machine.running else { continue };
            let Ok(packet) = Packet::decode(&bytes) else {
                assert!(self.lies, "members understand each other");
                continue;
            };
            self.images += u64::from(matches!(packet, Packet::Installed { .. }));
            if self.witnesses.contains(&from) {
                assert_eq!(check::of_witness(&packet, from), Ok(()), "a witness may say what it says: {packet:?}");
            }
            let room = Arc::clone(&run.room).try_acquire_owned().unwrap();
            machine.asked.push(Request::Packet { from, packet, size: bytes.len(), room });
        }
        for at in 0..self.machines.len() {
            self.turn(at, wall);
        }
        if self.lies {
            self.lie();
        }
        self.net.carry(self.now, &mut self.dice);
        if !self.lies {
            self.writes.follow(&self.log);
            self.hear();
            self.judge();
        }
    }

    /// Says again what was said, with something changed.
    fn lie(&mut self) {
        let said = self.net.sent.lock().unwrap().clone();
        for (from, to, bytes) in said {
            if self.dice.once_in(2) {
                let lie = lies::lie(&bytes, &mut self.dice);
                self.net.sent.lock().unwrap().push((from, to, lie));
            }
        }
    }

    /// Lets one machine do its work.
    fn turn(&mut self, index: usize, wall: u64) {
        let now = at(self.now, wall);
        let own = self.machines[index].identity.member;
        let way = self.way(own);
        let machine = &mut self.machines[index];
        if machine.lost || self.now < machine.until {
            return;
        }
        let count = self.net.count();
        if machine.running.is_none() {
            machine.start(way, now);
        }
        let requests = std::mem::take(&mut machine.asked);
        let Some(run) = &mut machine.running else { return };
        run.worker.serve(requests, now);
        run.worker.expire(now);
        run.job = run.job.take().or_else(|| run.worker.take_job());
        if self.dice.once_in(3)
            && let Some(job) = run.job.take()
        {
            let saved = run.checkpoints.save(&job);
            run.worker.checkpointed(job, saved, now);
        }
        let spent = std::mem::take(&mut machine.world.lock().unwrap().spent);
        if !spent.is_zero() {
            // So long it sees and says nothing.
            machine.until = self.now + u64::try_from(spent.as_millis()).unwrap();
            self.net.hold(count, machine.until);
        }
        for entry in std::mem::take(&mut run.worker.trace) {
            if machine.identity.witness {
                self.log.witnessed(&entry);
            } else if !self.lies {
                self.log.applied(own, entry);
            }
        }
        let stopped = machine.world.lock().unwrap().stopped;
        if run.worker.was_removed() {
            self.removed.push(own);
            machine.lost = true;
            machine.running = None;
        } else if stopped || run.worker.has_failed() {
            let (power, until) = (self.dice.once_in(2), self.now + self.dice.next() % 3000);
            machine.stop(power, until);
        }
    }

    /// Hears what became of what clients asked.
    fn hear(&mut self) {
        for asked in std::mem::take(&mut self.asked) {
            match asked {
                Asked::Write(number, mut answer) => match answer.try_recv() {
                    Ok(Err(Error::Unavailable | Error::DiskFull | Error::Failed { .. } | Error::Removed)) => {
                        self.writes.refused(number);
                    }
                    Ok(Err(Error::OutcomeUnknown)) | Err(TryRecvError::Closed) => {}
                    Ok(outcome) => self.writes.answered(number, told(&outcome, 0)),
                    Err(TryRecvError::Empty) => self.asked.push(Asked::Write(number, answer)),
                },
                Asked::Read(began, index, mut answer) => match answer.try_recv() {
                    Ok(Ok(revision)) => {
                        self.reads += 1;
                        reads::waited(began, revision.0);
                        if let Some(run) = &self.machines[index].running {
                            reads::shows(&run.shared, &self.writes);
                        }
                    }
                    Ok(Err(error)) => assert!(matches!(error, Error::Unavailable) || is_excused(&error), "{error:?}"),
                    Err(TryRecvError::Closed) => {}
                    Err(TryRecvError::Empty) => self.asked.push(Asked::Read(began, index, answer)),
                },
                Asked::Admit(witness, mut answer) => match answer.try_recv() {
                    Ok(Ok(id)) => self.come(id.0, witness),
                    Err(TryRecvError::Empty) => self.asked.push(Asked::Admit(witness, answer)),
                    Ok(Err(_)) | Err(TryRecvError::Closed) => {}
                },
                Asked::Dismiss(id, mut answer) => match answer.try_recv() {
                    Err(TryRecvError::Empty) => self.asked.push(Asked::Dismiss(id, answer)),
                    Ok(_) | Err(TryRecvError::Closed) => {}
                },
                Asked::Other(mut answer) => {
                    if matches!(answer.try_recv(), Err(TryRecvError::Empty)) {
                        self.asked.push(Asked::Other(answer));
                    }
                }
            }
        }
    }

    /// A machine joins as the member it was admitted as.
    fn come(&mut self, id: u64, witness: bool) {
        assert!(self.machines.iter().all(|machine| machine.identity.member != id), "an id was given out twice");
        if witness {
            self.witnesses.insert(id);
        }
        let identity = Identity { cluster: CLUSTER, member: id, founder: FOUNDER, witness };
        let patience = 10 + (self.machines.len() * 3) % 11;
        self.machines.push(Machine::new(identity, self.dice.next(), patience));
    }

    fn judge(&mut self) {
        let mut hasher = DefaultHasher::new();
        for machine in &self.machines {
            let Some(run) = &machine.running else { continue };
            let member = machine.identity.member;
            let (term, leads, applied) = run.worker.standing();
            let revision = run.shared.read().revision().0;
            if leads {
                self.leaders.leads(member, term);
            }
            self.monotonic.stands(member, machine.life, applied, revision);
            (member, term, leads, applied, revision, machine.world.lock().unwrap().steps).hash(&mut hasher);
            if machine.identity.witness {
                assert!(!leads, "a witness leads");
                assert_eq!(run.shared.read().index().len(), 0, "a witness keeps what is stored");
                continue;
            }
            let follower = self.followers.entry((member, machine.life)).or_default();
            follower.follow(&run.shared, &self.writes);
        }
        writeln!(self.transcript, "{} {:x}", self.now, hasher.finish()).unwrap();
    }

    /// A client asks some machine for something.
    fn ask(&mut self, index: usize) {
        self.unique += 1;
        let drawn = command(&mut self.dice, self.unique, self.writes.model.revision(), 3000);
        let machine = &mut self.machines[index];
        let Some(run) = machine.running.as_ref().filter(|_| !machine.identity.witness) else { return };
        if self.dice.once_in(4) {
            let (answer, answered) = oneshot::channel();
            machine.asked.push(Request::Barrier { answer });
            self.asked.push(Asked::Read(self.writes.revision, index, answered));
            return;
        }
        let Ok(room) = Arc::clone(&run.room).try_acquire_owned() else { return };
        let (answer, answered) = oneshot::channel();
        let (asked, command) = match drawn {
            Command::Txn(txn) => {
                let (number, command) = self.writes.begin(txn);
                (Asked::Write(number, answered), command)
            }
            other => (Asked::Other(answered), other),
        };
        machine.asked.push(Request::Propose { command, answer, room });
        self.asked.push(asked);
    }

    fn change_members(&mut self, index: usize) {
        let there = self.machines.iter().filter(|machine| !machine.lost && !machine.identity.witness).count();
        let witness = self.machines.iter().any(|machine| !machine.lost && machine.identity.witness);
        let is_next = self.witness && !witness && there >= TWO;
        if is_next || there < self.most.min(3) || (there < self.most && self.dice.once_in(2)) {
            self.admit(index, &format!("machine {there}"), is_next);
        } else if self.most > TWO || self.dice.once_in(4) {
            let ids: Vec<u64> = self.machines.iter().map(|machine| machine.identity.member).collect();
            let id = ids[self.dice.below(ids.len())];
            self.dismiss(index, id);
        }
    }

    fn admit(&mut self, index: usize, name: &str, witness: bool) {
        let (answer, answered) = oneshot::channel();
        let info = MemberInfo { name: name.to_owned(), addresses: Vec::new(), witness };
        self.machines[index].asked.push(Request::Admit { info, answer });
        self.asked.push(Asked::Admit(witness, answered));
    }

    fn dismiss(&mut self, index: usize, id: u64) {
        let (answer, answered) = oneshot::channel();
        self.machines[index].asked.push(Request::Dismiss { id: MemberId(id), answer });
        self.asked.push(Asked::Dismiss(id, answered));
    }

    /// Something goes wrong.
    fn fault(&mut self) {
        let index = self.dice.below(self.machines.len());
        let ids: Vec<u64> = self.machines.iter().map(|machine| machine.identity.member).collect();
        let until = self.now + self.dice.next() % 4000;
        let fate = self.dice.below(12);
        let machine = &mut self.machines[index];
        match fate {
            0 => machine.stop(self.dice.once_in(2), until),
            // It stalls, and goes on as if nothing had been.
            1 => machine.until = until,
            2 => self.net.cut(&ids, &mut self.dice),
            3 => self.net.heal(),
            4 => self.net.loses = Some(2 + self.dice.below(10)),
            5 => self.net.doubles = Some(2 + self.dice.below(10)),
            6 => self.net.delays = Some(2 + self.dice.below(10)),
            7 => machine.world.lock().unwrap().stop_in = Some(self.dice.next() % 40),
            8 => {
                let mut world = machine.world.lock().unwrap();
                world.capacity = match world.capacity {
                    None => Some(world.used() + self.dice.below(6000)),
                    Some(_) => None,
                };
            }
            9 => machine.world.lock().unwrap().fail_sync = machine.running.is_some(),
            10 => {
                let (answer, _) = oneshot::channel();
                machine.asked.push(Request::HandOver { answer });
            }
            // A disk is lost, if the others can do without: never two at a time.
            _ => {
                // Who has come furthest knows how many there are.
                let running = self.machines.iter().filter_map(|machine| machine.running.as_ref());
                let furthest = running.max_by_key(|run| run.worker.standing().2);
                let votes = furthest.map(|run| run.shared.cluster().members);
                let voters = votes.map_or(0, |members| members.iter().filter(|member| member.votes).count());
                let gone = self.machines.iter().filter(|machine| machine.lost).count();
                if voters >= 4 && gone == self.removed.len() {
                    self.machines[index].lost = true;
                    self.machines[index].running = None;
                }
            }
        }
        for machine in &mut self.machines {
            if machine.running.is_none() {
                machine.asked.clear();
            }
        }
    }

    fn run(mut self) -> String {
        for step in 0..SAFETY {
            self.step();
            if let Some(index) = self.running() {
                if self.dice.once_in(3) {
                    self.ask(index);
                }
                // At first the cluster comes together, so that there is something to take apart.
                if step < 100 && step % 20 == 10 || self.dice.once_in(60) {
                    self.change_members(index);
                }
            }
            if step > 120 && self.dice.once_in(25) {
                self.fault();
            }
        }
        self.heal();
        self.transcript
    }

    /// One of two servers and a witness is lost, at any moment of a time in which all were well, though not the network: so
    /// what a leader has said is heard by one and not by the other.
    fn lose_one(mut self) -> String {
        let mut well = 0;
        for step in 0.. {
            assert!(step < 2000, "they have not come together: {}", self.standing());
            self.step();
            let Some(index) = self.running() else { continue };
            if self.machines.len() < 3 && step % 50 == 10 {
                self.change_members(index);
            }
            let votes = |machine: &Machine| {
                let members = machine.running.as_ref().map(|run| run.shared.cluster().members);
                members.is_some_and(|members| members.iter().filter(|member| member.votes).count() == 3)
            };
            well = if self.machines.len() == 3 && self.machines.iter().all(votes) { well + 1 } else { 0 };
            self.ask(index);
            // Some time after the last change, whoever leads knows that the others keep up.
            if well == 60 {
                self.net.loses = Some(4);
            }
            if well > 60 && self.dice.once_in(20) {
                break;
            }
        }
        let lost = self.dice.below(3);
        self.net.heal();
        self.machines[lost].running = None;
        self.machines[lost].lost = true;
        let mut waited = 0;
        let before = self.writes.answered;
        // What was under way may still be answered.
        while self.writes.answered < before + 20 {
            waited += 1;
            assert!(waited < 400, "nothing is written without {lost}: {}", self.standing());
            self.step();
            if let Some(index) = self.running() {
                self.ask(index);
            }
        }
        format!("{lost} lost, {waited} steps")
    }

    /// How the members stand, for who looks into a seed.
    fn standing(&self) -> String {
        let mut out = String::new();
        for machine in &self.machines {
            let standing = machine.running.as_ref().map(|run| (run.worker.standing(), run.shared.cluster()));
            writeln!(out, "{:x} lost {} {standing:?}", machine.identity.member, machine.lost).unwrap();
        }
        out
    }

    /// Nothing goes wrong any more: the cluster comes to itself, without those whose disks are lost.
    fn heal(&mut self) {
        self.net.heal();
        // Two that wait equally long stand for election at the same time, again and again; for real each wait is drawn anew.
        // So one of them begins again with a wait of its own.
        let mut waits = BTreeSet::new();
        for machine in &mut self.machines {
            machine.until = 0;
            let mut world = machine.world.lock().unwrap();
            (world.capacity, world.stop_in, world.fail_sync) = (None, None, false);
            drop(world);
            if !machine.lost && !waits.insert(machine.patience) {
                machine.patience = (21..).find(|wait| waits.insert(*wait)).unwrap();
                machine.stop(false, 0);
            }
        }
        let before = self.writes.answered;
        for step in 0..HEAL {
            self.step();
            if step % 50 == 49 && step < HEAL - 500 {
                let lost = self
                    .machines
                    .iter()
                    .find(|machine| machine.lost && !self.removed.contains(&machine.identity.member));
                if let (Some(id), Some(index)) = (lost.map(|machine| machine.identity.member), self.running()) {
                    self.dismiss(index, id);
                }
            }
            if step > HEAL - 450 && step < HEAL - 440 {
                // One server may be all that is left to be asked.
                for _ in 0..if self.witness { 4 } else { 1 } {
                    for index in 0..self.machines.len() {
                        self.ask(index);
                    }
                }
            }
        }
        // A lease may end in the last moment.
        for _ in 0..200 {
            let applied = |run: &machine::Running| run.worker.standing().2;
            let mut stands = self.machines.iter().filter_map(|machine| machine.running.as_ref().map(applied));
            let first = stands.next();
            if stands.all(|other| Some(other) == first) {
                break;
            }
            self.step();
        }
        assert!(
            self.writes.answered > before,
            "no write is acknowledged although nothing is wrong: {}",
            self.standing()
        );
        let waiting: Vec<&str> = self.asked.iter().map(Asked::name).collect();
        assert!(waiting.is_empty(), "{waiting:?} wait although nothing is wrong: {}", self.standing());
        let (mut stands, mut shown) = (None, None);
        let running = self.machines.iter().filter_map(|machine| machine.running.as_ref());
        let furthest = running.max_by_key(|run| run.worker.standing().2).map(|run| run.shared.cluster().members);
        let members: Vec<u64> = furthest.unwrap_or_default().iter().map(|member| member.id.0).collect();
        let is_running =
            |id| self.machines.iter().any(|machine| machine.identity.member == id && machine.running.is_some());
        for machine in &self.machines {
            let Some(run) = &machine.running else { continue };
            let cluster = run.shared.cluster();
            let (_, _, applied) = run.worker.standing();
            let found = (applied, cluster.leader, cluster.members.clone());
            let member = machine.identity.member;
            // Whoever it knew was gone before it heard that it had been removed, or that it belongs.
            let knows_nobody = cluster.members.iter().all(|known| known.id.0 == member || !is_running(known.id.0));
            if !members.contains(&member) && knows_nobody {
                continue;
            }
            assert!(
                cluster.members.iter().any(|other| other.id.0 == member),
                "member {member:x} waits to be told that it was removed: {}",
                self.standing()
            );
            assert!(cluster.leader.is_some(), "member {member:x} knows no leader: {}", self.standing());
            assert!(
                cluster.members.iter().any(|other| other.id.0 == member && other.votes),
                "member {member:x} has not become a voter: {cluster:?}"
            );
            let first = stands.get_or_insert_with(|| found.clone());
            assert_eq!(*first, found, "member {member:x} stands elsewhere than the others");
            if machine.identity.witness {
                continue;
            }
            reads::shows(&run.shared, &self.writes);
            let revision = run.shared.read().revision();
            assert_eq!(*shown.get_or_insert(revision), revision, "member {member:x} is at another revision");
        }
        let said = format!(
            "{} members, {} removed, {} terms, {} writes, {} reads, {} images, {} followers began anew",
            self.machines.len(),
            self.removed.len(),
            self.leaders.terms(),
            self.writes.answered,
            self.reads,
            self.images,
            self.followers.values().map(|follower| follower.anew.saturating_sub(1)).sum::<u64>(),
        );
        writeln!(self.transcript, "{said}").unwrap();
    }
}

fn simulate(seed: u64) -> String {
    let result = std::panic::catch_unwind(|| Simulation::new(seed).run());
    result.unwrap_or_else(|_| panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib a_cluster_keeps"))
}

fn simulate_witnessed(seed: u64) -> String {
    let most = if seed.is_multiple_of(3) { FEW } else { TWO };
    let result = std::panic::catch_unwind(|| Simulation::witnessed(seed, most).run());
    result.unwrap_or_else(|_| {
        panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib a_cluster_with_a_witness")
    })
}

/// Runs a simulation from so many seeds, or from the one that is asked for.
fn for_each_seed(count: u64, simulate: impl Fn(u64) -> String) {
    if let Some(seed) = number("CORACLE_SEED") {
        println!("{}", simulate(seed));
        return;
    }
    for seed in 0..number("CORACLE_SEEDS").unwrap_or(count) {
        simulate(seed);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn a_cluster_keeps_what_it_promised_whatever_happens() {
    for_each_seed(500, simulate);
}

#[test]
fn a_cluster_with_a_witness_keeps_what_it_promised_whatever_happens() {
    for_each_seed(200, simulate_witnessed);
}

/// The servers and the witness are well, and under load, when one of the three is gone for good. It fails if the witness is
/// told of anything before both servers have it.
#[test]
fn two_servers_and_a_witness_survive_the_loss_of_any_one() {
    for_each_seed(60, |seed| {
        let result = std::panic::catch_unwind(|| Simulation::witnessed(seed, TWO).lose_one());
        result.unwrap_or_else(|_| panic!("seed {seed}"))
    });
}

/// Each found something once: a write that was refused and whose copy was done all the same, a log that was cut where a
/// later segment had overwritten its end, reads that waited for peers that were members no more, a removed member that
/// left before those whose votes it was needed for had heard of it, an image that arrived when a later checkpoint was there, a
/// removed member that knew those who were left as learners, pieces of the image of a member's next life in that of the one
/// before.
#[test]
fn clusters_that_found_something_stay_found() {
    for seed in [116, 133, 151, 163, 221, 231, 243, 266, 290, 1067, 1702, 2802, 5007, 8949, 1894] {
        simulate(seed);
    }
}

/// Each did not come to itself once when nothing was wrong any more.
#[test]
fn clusters_with_a_witness_that_found_something_stay_found() {
    for seed in [377, 1136] {
        simulate_witnessed(seed);
    }
}

/// Who goes was needed to commit that it goes, and who stays may crash before it writes anything else.
#[test]
fn the_last_one_left_goes_on_after_a_crash() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(seed);
        let voters = |simulation: &Simulation| {
            let run = simulation.machines[0].running.as_ref()?;
            let members = run.shared.cluster().members;
            members.iter().all(|member| member.votes).then_some(members.len())
        };
        let steps_until = |simulation: &mut Simulation, is_so: &dyn Fn(&Simulation) -> bool| {
            for _ in 0..HEAL {
                simulation.step();
                if is_so(simulation) {
                    return;
                }
            }
            panic!("seed {seed}: {}", simulation.standing());
        };
        steps_until(&mut simulation, &|simulation| voters(simulation) == Some(1));
        simulation.admit(0, "other", false);
        steps_until(&mut simulation, &|simulation| voters(simulation) == Some(2));
        let other = simulation.machines[1].identity.member;
        simulation.dismiss(0, other);
        steps_until(&mut simulation, &|simulation| simulation.removed == [other]);
        simulation.machines[0].stop(true, 0);
        simulation.heal();
    }
}

#[test]
fn two_runs_of_a_cluster_are_the_same() {
    for seed in 1000..1005 {
        assert!(simulate(seed) == simulate(seed), "seed {seed}");
        assert!(simulate_witnessed(seed) == simulate_witnessed(seed), "seed {seed} with a witness");
    }
}

/// A cluster in which every other packet comes a second time with something in it changed. Such a cluster promises
/// nothing, but its members do not panic: at worst one stops and says why.
#[test]
fn no_packet_makes_a_member_panic() {
    for seed in 0..number("CORACLE_SEEDS").unwrap_or(100) {
        let result = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            for step in 0..500 {
                simulation.lies = step > 150;
                simulation.step();
                let Some(index) = simulation.running() else { continue };
                if simulation.dice.once_in(3) {
                    simulation.ask(index);
                }
                if step < 100 && step % 20 == 10 {
                    simulation.change_members(index);
                }
                let lied = simulation.lies;
                simulation.asked.retain(|_| !lied);
            }
        });
        assert!(result.is_ok(), "seed {seed}");
    }
}
