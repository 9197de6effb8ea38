//! Runs one decoder over many broken inputs, and tells which one broke it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use super::dice::{Dice, peak, setting};

/// Inputs each decoder gets in a usual run; `CORACLE_FUZZ_ROUNDS` sets another number.
const ROUNDS: u64 = 2_000;

/// A single input is worked on for at most this long, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process may grow by so much while a decoder is tried, with all the tests that run beside.
const GROWTH: u64 = 1 << 30;

/// Runs `check` over inputs made of the corpus. It has to return whatever it is given, and panics only where what it read
/// does not come back the same.
///
/// Every run takes the same inputs; `CORACLE_FUZZ_SEED` is where they begin. What fails is told with the seed that brings it
/// at once.
pub(super) fn drive(name: &'static str, corpus: Vec<Vec<u8>>, check: fn(&[u8])) {
    let (seed, rounds) = (setting("CORACLE_FUZZ_SEED", 1), setting("CORACLE_FUZZ_ROUNDS", ROUNDS));
    for input in &corpus {
        check(input);
    }
    let before = peak();
    let current = std::sync::Arc::new(Mutex::new((seed, Vec::new())));
    let shown = std::sync::Arc::clone(&current);
    let (tell, told) = sync_channel::<bool>(64);
    // The stack is as large as those of the server's threads; frames that are not optimised take several times as much. Were
    // it not enough, Rust names the thread as it aborts.
    let stack = if cfg!(debug_assertions) { 16 << 20 } else { 2 << 20 };
    let worker = thread::Builder::new().name(format!("fuzz {name}")).stack_size(stack).spawn(move || {
        for seed in seed..seed.saturating_add(rounds) {
            let input = Dice::new(seed).mutate(&corpus);
            *current.lock().unwrap_or_else(PoisonError::into_inner) = (seed, input.clone());
            let is_well = catch_unwind(AssertUnwindSafe(|| check(&input))).is_ok();
            if tell.send(is_well).is_err() || !is_well {
                return;
            }
        }
    });
    let failed = |what: &str| -> ! {
        let (seed, input) = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        panic!(
            "{name}: {what} by \"{}\"\nagain: CORACLE_FUZZ_SEED={seed} CORACLE_FUZZ_ROUNDS=1 cargo test --workspace --lib fuzz::{name}",
            input.escape_ascii()
        )
    };
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(true) => {}
            Ok(false) => failed("a panic"),
            Err(RecvTimeoutError::Timeout) => failed("held up for a minute"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    worker.unwrap().join().unwrap();
    let grown = peak().saturating_sub(before);
    assert!(grown < GROWTH, "{name}: {grown} bytes more than before");
}
