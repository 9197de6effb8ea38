//! What every engine promises, as tests that every engine passes.

use crate::engine::{CHUNK, Change, Engine, sled::Sled};

use super::world::{SimEngine, World};

fn all<E: Engine>(engine: &mut E, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    engine
        .scan(prefix, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    found
}

fn put(key: &[u8], value: &[u8]) -> Change {
    (key.to_vec(), Some(value.to_vec()))
}

/// `make` opens the same engine again, as after a stop.
pub(crate) fn engine_suite<E: Engine>(mut make: impl FnMut() -> E) {
    let mut engine = make();
    assert_eq!(all(&mut engine, b""), [], "it begins empty");
    engine.rest();
    let long = vec![0xA5; CHUNK];
    engine.write(&[put(b"b/2", b"x"), put(b"a", b""), put(b"b/1", &long), put(&[b'c'; 1100], b"y")]).unwrap();
    let keys: Vec<_> = all(&mut engine, b"").into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [&b"a"[..], b"b/1", b"b/2", &[b'c'; 1100]], "keys are in order");
    assert_eq!(all(&mut engine, b"b/"), [(b"b/1".to_vec(), long.clone()), (b"b/2".to_vec(), b"x".to_vec())]);
    engine.write(&[put(b"b/2", b"later"), (b"a".to_vec(), None), (b"absent".to_vec(), None)]).unwrap();
    assert_eq!(all(&mut engine, b"a"), [], "what was removed is gone");
    assert_eq!(all(&mut engine, b"b/2"), [(b"b/2".to_vec(), b"later".to_vec())], "the last write counts");
    engine.sync().unwrap();
    engine.rest();
    assert_eq!(all(&mut engine, b"").len(), 3, "it goes on after a rest");
    drop(engine);

    let mut engine = make();
    assert_eq!(all(&mut engine, b"").len(), 3, "what was synced is there after a stop");
    for round in 0..50_u32 {
        let changes: Vec<_> = (0..40_u32).map(|n| put(&n.to_be_bytes(), &round.to_be_bytes().repeat(200))).collect();
        engine.write(&changes).unwrap();
        engine.sync().unwrap();
        engine.rest();
    }
    let found = all(&mut engine, &[0, 0]);
    assert_eq!(found.len(), 40);
    assert!(found.iter().all(|(_, value)| value[..4] == 49_u32.to_be_bytes()));

    let before = engine.size().unwrap();
    engine.begin_anew().unwrap();
    assert_eq!(all(&mut engine, b""), [], "one that is begun anew is empty");
    engine.write(&[put(b"new", b"1")]).unwrap();
    engine.sync().unwrap();
    engine.rest();
    assert_eq!(all(&mut engine, b"").len(), 43, "one that was given up was never there");
    engine.begin_anew().unwrap();
    assert_eq!(all(&mut engine, b""), [], "nor is anything of it in the next");
    engine.write(&[put(b"new", b"2"), put(b"gone", b"3")]).unwrap();
    engine.sync().unwrap();
    engine.write(&[(b"gone".to_vec(), None)]).unwrap();
    engine.sync().unwrap();
    engine.replace().unwrap();
    assert_eq!(all(&mut engine, b""), [(b"new".to_vec(), b"2".to_vec())]);
    engine.write(&[put(b"newer", b"3")]).unwrap();
    engine.sync().unwrap();
    engine.rest();
    assert!(engine.size().unwrap() < before, "{} of {before} bytes", engine.size().unwrap());
    drop(engine);
    assert_eq!(all(&mut make(), b"").len(), 2, "what has taken its place is there after a stop");
}

#[test]
fn sled_keeps_an_engines_promises() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::create_dir(&path).unwrap();
    engine_suite(|| Sled::new(path.clone()));
}

#[test]
fn the_simulated_engine_keeps_an_engines_promises() {
    let world = World::new(1);
    engine_suite(|| SimEngine(world.clone()));
}
