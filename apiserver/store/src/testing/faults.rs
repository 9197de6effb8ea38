//! Single faults, one at a time, where the simulation has them all at once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use tokio::sync::{
    Semaphore,
    oneshot::{self, error::TryRecvError},
};

use crate::{
    checkpoint::Checkpoints,
    command::{Command, Outcome},
    datadir::Identity,
    disk::Disk,
    error::{Error, Result},
    history::Retention,
    queue::Request,
    range::Range,
    revision::Revision,
    store::{Config, Opened, Start, open},
    transport::Nowhere,
    txn::{Op, Txn},
    worker::{Now, longest},
};

use super::world::{Dice, SimDisk, SimEngine, World};

const CHECKPOINT: u64 = 1 << 20;
const NOW: Now = Now { steady: Duration::ZERO, wall: 0 };

fn start(world: &Arc<Mutex<World>>) -> Result<Opened<SimDisk>> {
    let config =
        Config { dir: "".into(), retention: Retention::default(), checkpoint_bytes: CHECKPOINT, joining: None };
    let identity = Identity { cluster: [7; 16], member: 1, founder: 1, witness: false };
    let begin = Start { identity, life: 1, patience: 10..11, transport: Arc::new(Nowhere) };
    let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(world)));
    open(SimDisk(Arc::clone(world)), &mut checkpoints, begin, &config, |_| NOW)
}

fn put(opened: &mut Opened<SimDisk>, key: &'static str, size: usize) -> Outcome {
    ask(opened, key, size, NOW).try_recv().unwrap()
}

fn ask(opened: &mut Opened<SimDisk>, key: &'static str, size: usize, now: Now) -> oneshot::Receiver<Outcome> {
    let (answer, answered) = oneshot::channel();
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let command = Command::Txn(Txn { then: vec![Op::put(key, vec![b'x'; size])], ..Txn::default() });
    opened.worker.serve([Request::Propose { command, answer, room }], now);
    answered
}

/// Writes until a write waits for a checkpoint; gives back that one.
fn write_until_held(opened: &mut Opened<SimDisk>) -> oneshot::Receiver<Outcome> {
    for _ in 0..1000 {
        let mut answered = ask(opened, "a", 10_000, NOW);
        match answered.try_recv() {
            Ok(done) => drop(done.unwrap()),
            Err(TryRecvError::Empty) => return answered,
            Err(TryRecvError::Closed) => panic!("a write is forgotten"),
        }
    }
    panic!("the log grows without end");
}

fn log_bytes(world: &Arc<Mutex<World>>) -> u64 {
    let disk = SimDisk(Arc::clone(world));
    disk.list().unwrap().iter().map(|name| disk.len(name).unwrap()).sum()
}

#[test]
fn however_slow_a_checkpoint_is_the_log_does_not_outgrow_it() {
    let world = World::new(1);
    let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(&world)));
    let mut opened = start(&world).unwrap();
    for round in 0..10 {
        let mut held = write_until_held(&mut opened);
        // However many more come.
        let mut more: Vec<_> = (0..50).map(|_| ask(&mut opened, "b", 5000, NOW)).collect();
        // With the room behind each segment's last frame.
        assert!(log_bytes(&world) <= longest(CHECKPOINT) / 8 * 9, "round {round}: {}", log_bytes(&world));
        assert!(held.try_recv().is_err() && more.iter_mut().all(|more| more.try_recv().is_err()), "they wait");
        let job = opened.worker.take_job().expect("for a checkpoint");
        let saved = checkpoints.save(&job);
        opened.worker.checkpointed(job, saved, NOW);
        assert!(held.try_recv().unwrap().is_ok());
        assert!(more.iter_mut().all(|more| more.try_recv().unwrap().is_ok()), "and are done when it is");
        // The next one is under way at once if it must be.
        if let Some(job) = opened.worker.take_job() {
            let saved = checkpoints.save(&job);
            opened.worker.checkpointed(job, saved, NOW);
        }
    }
    let revision = opened.shared.read().revision();
    drop(opened);
    world.lock().unwrap().cut_power();
    assert_eq!(start(&world).unwrap().shared.read().revision(), revision);
}

#[test]
fn what_waits_for_a_checkpoint_that_comes_to_nothing_is_refused_and_another_is_tried() {
    let world = World::new(1);
    let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(&world)));
    let mut opened = start(&world).unwrap();
    let mut held = write_until_held(&mut opened);
    let job = opened.worker.take_job().unwrap();
    opened.worker.checkpointed(job, Err(Error::DiskFull), NOW);
    assert!(matches!(held.try_recv(), Ok(Err(Error::DiskFull))), "it was not done");
    assert!(matches!(opened.shared.status().refusing, Some(Error::DiskFull)));
    assert!(matches!(put(&mut opened, "a", 10_000), Err(Error::DiskFull)), "nor is what comes at once");
    assert!(opened.worker.take_job().is_none(), "nor is a checkpoint tried for each");

    let later = Now { steady: Duration::from_secs(2), wall: 0 };
    let mut held = ask(&mut opened, "a", 10_000, later);
    let job = opened.worker.take_job().expect("it is tried again");
    let saved = checkpoints.save(&job);
    opened.worker.checkpointed(job, saved, later);
    assert!(held.try_recv().unwrap().is_ok());
    assert!(opened.shared.status().refusing.is_none());

    // A disk that failed leaves nobody waiting.
    let mut held = write_until_held(&mut opened);
    let job = opened.worker.take_job().unwrap();
    let broken = Err(Error::Engine { action: "write", source: Arc::new(std::io::Error::other("broken")) });
    opened.worker.checkpointed(job, broken, later);
    assert!(matches!(held.try_recv(), Ok(Err(Error::Failed { .. }))));
}

fn keys(opened: &Opened<SimDisk>) -> usize {
    opened.shared.read().range(&Range::prefix("").count()).unwrap().count
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more_and_reads_go_on() {
    let world = World::new(1);
    let mut opened = start(&world).unwrap();
    put(&mut opened, "a", 10).unwrap();
    world.lock().unwrap().fail_sync = true;
    assert!(matches!(put(&mut opened, "b", 10), Err(Error::OutcomeUnknown)), "it may or may not be on the disk");
    let steps = world.lock().unwrap().steps;
    let Err(error @ Error::Failed { .. }) = put(&mut opened, "c", 10) else { panic!("it writes on") };
    assert!(!error.is_retryable() && error.to_string().contains("input/output error"), "{error}");
    assert_eq!(world.lock().unwrap().steps, steps, "the sync is not tried again");
    assert!(matches!(opened.shared.status().refusing, Some(Error::Failed { .. })));
    assert_eq!(keys(&opened), 1);
    assert!(opened.worker.end().is_err());
}

#[test]
fn a_disk_that_turns_out_full_while_writing_takes_nothing_and_goes_on_later() {
    for can_reserve in [true, false] {
        let world = World::new(1);
        world.lock().unwrap().can_reserve = can_reserve;
        let mut opened = start(&world).unwrap();
        put(&mut opened, "a", 10).unwrap();
        let capacity = world.lock().unwrap().used() + 300;
        world.lock().unwrap().capacity = Some(capacity);
        assert!(matches!(put(&mut opened, "b", 1_500_000), Err(Error::DiskFull)));
        assert!(matches!(put(&mut opened, "b", 1_500_000), Err(Error::DiskFull)));
        assert_eq!((keys(&opened), opened.shared.read().revision()), (1, Revision(2)));
        world.lock().unwrap().capacity = None;
        put(&mut opened, "b", 1_500_000).unwrap();
        assert!(opened.shared.status().refusing.is_none());
        drop(opened);
        world.lock().unwrap().cut_power();
        assert_eq!(keys(&start(&world).unwrap()), 2);
    }
}

fn hundred() -> Vec<&'static str> {
    (0..100).map(|at| &*Box::leak(format!("key-{at}").into_boxed_str())).collect()
}

/// The simulated engine never uses room again: as sled may not.
#[test]
fn a_state_that_takes_far_more_room_than_what_is_live_is_written_anew() {
    let world = World::new(1);
    let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(&world)));
    let mut opened = start(&world).unwrap();
    put(&mut opened, "kept", 1000).unwrap();
    let (mut largest, mut anew) = (0, 0);
    let hundred = hundred();
    for turn in 0..3000 {
        put(&mut opened, hundred[turn % 100], 10_000).unwrap();
        if let Some(job) = opened.worker.take_job() {
            anew += u64::from(job.anew.is_some());
            let saved = checkpoints.save(&job);
            opened.worker.checkpointed(job, saved, NOW);
            largest = largest.max(opened.shared.status().work.state_bytes);
        }
    }
    assert!(anew > 0, "{largest} bytes at most");
    let jobs = opened.shared.status().work.checkpoints;
    assert!(anew < jobs / 2, "{anew} of {jobs} checkpoints: it is rare");
    assert!(largest < 6 * CHECKPOINT, "{largest} bytes for one million");
    drop(opened);
    world.lock().unwrap().cut_power();
    assert_eq!(keys(&start(&world).unwrap()), 101);
}

/// Nothing that was deleted comes back, and nothing that was not changed is lost, whatever becomes of writing anew.
#[test]
fn writing_anew_that_comes_to_nothing_changes_nothing() {
    let world = World::new(1);
    let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(&world)));
    let mut opened = start(&world).unwrap();
    put(&mut opened, "kept", 1000).unwrap();
    put(&mut opened, "gone", 1000).unwrap();
    let mut refused = 0;
    let hundred = hundred();
    for round in 0..20_000 {
        put(&mut opened, hundred[round % 100], 10_000).unwrap();
        let Some(job) = opened.worker.take_job() else { continue };
        if job.anew.is_none() {
            let saved = checkpoints.save(&job);
            opened.worker.checkpointed(job, saved, NOW);
            continue;
        }
        if refused == 0 {
            let deleted = Command::Txn(Txn { then: vec![Op::delete("gone")], ..Txn::default() });
            let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            let (answer, _answered) = oneshot::channel();
            opened.worker.serve([Request::Propose { command: deleted, answer, room }], NOW);
        }
        refused += 1;
        if refused == 3 {
            let saved = checkpoints.save(&job);
            opened.worker.checkpointed(job, saved, NOW);
            break;
        }
        // There is no room for it, or the machine stops in the middle of it.
        if refused == 1 {
            opened.worker.checkpointed(job, Err(Error::DiskFull), NOW);
        } else {
            world.lock().unwrap().stop_in = Some(2);
            assert!(checkpoints.save(&job).is_err());
            drop(opened);
            world.lock().unwrap().cut_power();
            checkpoints = Checkpoints::new(SimEngine(Arc::clone(&world)));
            opened = start(&world).unwrap();
        }
        assert_eq!(keys(&opened), 101, "round {round}");
    }
    assert_eq!(refused, 3);
    drop(opened);
    world.lock().unwrap().cut_power();
    assert_eq!(keys(&start(&world).unwrap()), 101);
}

#[test]
fn damage_is_refused_with_its_place_and_the_way_out() {
    let world = World::new(1);
    let mut opened = start(&world).unwrap();
    for _ in 0..10 {
        put(&mut opened, "a", 1000).unwrap();
    }
    drop(opened);
    assert!(world.lock().unwrap().flip("0000000000000001.log", 2000, 1));
    let error = start(&world).err().unwrap();
    let Error::Corrupt { file, offset, .. } = &error else { panic!("{error:?}") };
    assert!(file == "0000000000000001.log" && (1000..2000).contains(offset), "{error}");
    assert!(error.to_string().contains("restore a snapshot"), "{error}");
}

#[test]
fn a_log_of_another_cluster_is_refused() {
    let world = World::new(1);
    drop(start(&world).unwrap());
    let identity = Identity { cluster: [8; 16], member: 1, founder: 1, witness: false };
    let begin = Start { identity, life: 1, patience: 10..11, transport: Arc::new(Nowhere) };
    let config =
        Config { dir: "".into(), retention: Retention::default(), checkpoint_bytes: CHECKPOINT, joining: None };
    let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(&world)));
    let opened = open(SimDisk(world), &mut checkpoints, begin, &config, |_| NOW);
    assert!(matches!(opened.err(), Some(Error::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_opening_panic_or_invent_anything(seed: u64) {
        let world = World::new(seed);
        let mut opened = start(&world).unwrap();
        for _ in 0..3 {
            put(&mut opened, "a", 700).unwrap();
        }
        drop(opened);
        let mut dice = Dice(seed);
        let name = "0000000000000001.log";
        let len = usize::try_from(SimDisk(Arc::clone(&world)).len(name).unwrap()).unwrap();
        if dice.once_in(2) {
            SimDisk(Arc::clone(&world)).truncate(name, dice.below(len) as u64).unwrap();
        }
        for _ in 0..dice.below(20) {
            let (at, bits) = (dice.below(len), u8::try_from(dice.below(256)).unwrap());
            world.lock().unwrap().flip(name, at, bits);
        }
        if let Ok(opened) = start(&world) {
            prop_assert!(opened.shared.read().revision() <= Revision(4));
        }
    }
}

#[test]
fn after_a_busy_time_the_past_goes_although_nothing_new_comes() {
    let world = World::new(1);
    let mut opened = start(&world).unwrap();
    for _ in 0..500 {
        put(&mut opened, "a", 10).unwrap();
    }
    let busy = opened.shared.read().revision();
    let deadline = |opened: &Opened<SimDisk>| opened.worker.next_deadline();
    let at = deadline(&opened).expect("it looks again when the first of them is too old");
    assert!(at > Retention::default().age);
    let kept = |opened: &Opened<SimDisk>| opened.shared.read().history().compacted() < busy;
    opened.worker.expire(Now { steady: at - Duration::from_millis(1), wall: 0 });
    assert!(kept(&opened) && deadline(&opened) == Some(at));
    let mut rounds = 0;
    while deadline(&opened).is_some_and(|due| due <= at) {
        opened.worker.expire(Now { steady: at, wall: 0 });
        rounds += 1;
    }
    assert!(!kept(&opened) && deadline(&opened).is_none(), "nothing is left to wait for");
    assert!(rounds > 1, "a write that comes meanwhile does not wait for all of it");
    assert_eq!(keys(&opened), 1);
}
