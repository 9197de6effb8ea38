//! Checkpoints on an engine that stops anywhere: what is valid is found again, and nothing that came to nothing.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::world::{SimEngine, World};
use crate::{
    checkpoint::{Checkpoints, Job, Mark},
    engine::Engine,
    entry::{Derived, Entry},
    revision::Revision,
};

fn entry(key: &str, index: u64) -> Arc<Entry> {
    Arc::new(Entry {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from_static(b"value"),
        create_revision: Revision(index),
        mod_revision: Revision(index),
        version: 1,
        lease: None,
        derived: Derived::default(),
    })
}

/// A checkpoint at `index`: of keys that the one before may have, with whether they are there still, and of new ones.
fn job(index: u64, changed: &[(&str, bool)], fresh: &[&str]) -> Job {
    let held =
        |(key, is_there): &(&str, bool)| (Bytes::copy_from_slice(key.as_bytes()), is_there.then(|| entry(key, index)));
    let mark = Mark { index, term: 1, revision: Revision(index), ..Mark::default() };
    let fresh = fresh.iter().map(|key| entry(key, index)).collect();
    Job { mark, entries: changed.iter().map(held).collect(), fresh, ..Job::default() }
}

/// The keys of the valid checkpoint, as the next process reads them.
fn found(world: &Arc<Mutex<World>>) -> Vec<String> {
    world.lock().unwrap().cut_power();
    let loaded = Checkpoints::new(SimEngine(Arc::clone(world))).load().unwrap();
    loaded.entries.iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned()).collect()
}

/// Records and marks, and the index of the checkpoint that is marked.
fn stored(world: &Arc<Mutex<World>>) -> (usize, u64) {
    let (mut records, mut marked) = (0, 0);
    let mut engine = SimEngine(Arc::clone(world));
    engine
        .scan(b"", &mut |key, value| {
            records += 1;
            if key == b"m" {
                marked = Mark::decode(value).unwrap().index;
            }
            Ok(())
        })
        .unwrap();
    (records, marked)
}

#[test]
fn of_what_came_and_went_nothing_is_left() {
    let world = World::new(1);
    let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(&world)));
    for (index, changed, fresh) in [
        (1, &[][..], &["kept", "goes"][..]),
        (2, &[("goes", true)], &["other"]),
        (3, &[("goes", false)], &[]),
        // It comes again while its grave is there, and when it is not.
        (4, &[], &["goes"]),
        (5, &[("goes", false)], &[]),
        (6, &[], &[]),
        (7, &[], &["goes"]),
        (8, &[("goes", false), ("other", false)], &[]),
        (9, &[], &[]),
        (10, &[], &[]),
    ] {
        checkpoints.save(&job(index, changed, fresh)).unwrap();
    }
    assert_eq!(stored(&world), (2, 10), "one record and the mark");
    assert_eq!(found(&world), ["kept"]);
}

/// The process goes on, as it does when the disk was full.
#[test]
fn what_came_to_nothing_never_becomes_valid() {
    let mut stops = BTreeSet::new();
    for is_whole in [false, true] {
        for step in 0..20 {
            let world = World::new(step);
            let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(&world)));
            checkpoints.save(&job(1, &[], &["kept"])).unwrap();
            world.lock().unwrap().stop_in = Some(step);
            let mut lost = job(5, &[("kept", true)], &["lost", "more"]);
            lost.whole = is_whole;
            let saved = checkpoints.save(&lost);
            world.lock().unwrap().kill();
            if saved.is_ok() {
                break;
            }
            let (_, marked) = stored(&world);
            stops.insert((is_whole, marked));
            if is_whole && marked != 1 {
                continue;
            }
            // What has changed is in the next one again; what came from another member is not.
            let changed: &[_] = if is_whole { &[] } else { &[("kept", true), ("lost", false), ("more", false)] };
            checkpoints.save(&job(7, changed, &["next"])).unwrap();
            assert_eq!(found(&world), ["kept", "next"], "whole: {is_whole}, stopped at step {step}");
        }
    }
    assert_eq!(stops, BTreeSet::from([(false, 1), (false, 5), (true, 1), (true, 5)]), "before the mark and behind it");
}
