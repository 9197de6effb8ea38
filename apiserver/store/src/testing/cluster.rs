//! A whole cluster on one thread from one seed: members that come, go, are killed, stall and lose their disks, a network
//! that does what networks do, clients that write and read anywhere; judged by one file per invariant.
//!
//! First everything may go wrong (safety); then nothing does any more, and the cluster must come to itself (liveness).
//! Which seeds is asked for as `super::seeds` says.

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
use super::{
    model::Told,
    oracle::{Changes, Oracle},
    state::told,
    world::Dice,
};
use crate::{
    check,
    command::Outcome,
    datadir::Identity,
    error::{Error, Result},
    packet::Packet,
    peer::MemberId,
    queue::Request,
    revision::Revision,
};

mod agreement;
mod asking;
mod clocks;
mod fault;
mod handing_over;
mod heal;
mod leaders;
mod lies;
mod machine;
mod monotonic;
mod net;
mod reads;
mod removing;
mod rot;
mod rounds;
mod seeds;
mod slow;
mod ties;
mod turns;
mod watches;
mod witness;
mod writes;

const CLUSTER: [u8; 16] = [7; 16];
const FOUNDER: u64 = 1 << 50;
/// Milliseconds of a step, and steps of the two phases.
const STEP: u64 = 20;
/// What wall clocks say at first, and by how much they jump, in milliseconds.
const NOON: u64 = 1_000_000_000;
const HOUR: u64 = 3_600_000;
/// Steps of a simulated minute.
const MINUTE: u64 = 60_000 / STEP;
const SAFETY: u64 = 700;
const HEAL: u64 = 900;
const MOST: usize = 6;
/// Servers beside a witness.
const TWO: usize = 2;

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
    oracle: Oracle,
    removed: Vec<u64>,
    /// Who was asked to be removed, and when last.
    dismissed: BTreeMap<u64, u64>,
    reads: u64,
    images: u64,
    /// Members say what no correct member says: nothing is promised then but that nobody panics.
    lies: bool,
    /// How many servers there are, and whether a witness is to be beside them.
    most: usize,
    witness: bool,
    witnesses: BTreeSet<u64>,
    clocks_jump: bool,
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
            oracle: Oracle::default(),
            removed: Vec::new(),
            dismissed: BTreeMap::new(),
            reads: 0,
            images: 0,
            lies: false,
            most: MOST,
            witness: false,
            witnesses: BTreeSet::new(),
            clocks_jump: true,
        }
    }

    /// Two servers, or some more, and a witness.
    fn witnessed(seed: u64, most: usize) -> Self {
        Self { most, witness: true, ..Self::new(seed) }
    }

    /// Wall clocks jump by an hour and back; nothing may depend on them.
    fn wall(&mut self) -> u64 {
        NOON + self.now + [0, HOUR][self.dice.below(2)] * u64::from(self.clocks_jump)
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
            machine.start(&way, now);
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
                        self.oracle.writes.refused(number);
                    }
                    Ok(Err(Error::OutcomeUnknown)) | Err(TryRecvError::Closed) => {}
                    Ok(outcome) => {
                        let told = told(&outcome, 0);
                        match &told {
                            Told::Done { revision, .. } => self.oracle.writes.done(number, *revision),
                            Told::Refused => self.oracle.writes.refused(number),
                        }
                        self.writes.answered(number, told);
                    }
                    Err(TryRecvError::Empty) => self.asked.push(Asked::Write(number, answer)),
                },
                Asked::Read(began, index, mut answer) => match answer.try_recv() {
                    Ok(Ok(revision)) => {
                        self.reads += 1;
                        reads::waited(began, revision.0);
                        if let Some(run) = &self.machines[index].running {
                            reads::shows(&run.shared, &self.writes);
                            reads::judged(&run.shared, began, &mut self.oracle);
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
            self.monotonic.stands(member, machine.life, applied);
            let who = (member, machine.life);
            let before = self.oracle.monotonic.ask(who);
            self.oracle.monotonic.tell(who, before, revision);
            (member, term, leads, applied, revision, machine.world.lock().unwrap().steps).hash(&mut hasher);
            if machine.identity.witness {
                assert!(!leads, "a witness leads");
                assert_eq!(run.shared.read().index().len(), 0, "a witness keeps what is stored");
                continue;
            }
            let follower = self.followers.entry(who).or_default();
            follower.follow(who, &run.shared, &self.writes, &mut self.oracle);
        }
        writeln!(self.transcript, "{} {:x}", self.now, hasher.finish()).unwrap();
    }

    fn run(mut self) -> String {
        self.endure(|_| ());
        self.heal();
        self.transcript
    }

    /// The time in which everything may go wrong; `more` after each step.
    fn endure(&mut self, mut more: impl FnMut(&mut Self)) {
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
            if step > 60 {
                more(self);
            }
        }
    }

    /// What clients were told is compared with what happened: with what those who followed heard of it, and the log says.
    fn judge_clients(&mut self) {
        let model = &self.writes.model;
        let the_log = (0, 0);
        self.oracle.watches.follow(the_log, 1);
        for revision in 2..=model.revision() {
            let (before, after) = (model.at(revision - 1), model.at(revision));
            let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            let set = after.iter().filter(|(key, fact)| before.get(*key) != Some(*fact));
            let set = set.map(|(key, fact)| (text(key), Some(watches::shown(&fact.0))));
            let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (text(key), None));
            let changes: Changes = set.chain(gone).collect();
            self.oracle.watches.hear(the_log, revision, changes);
        }
        self.oracle.judge(model.revision());
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
}
