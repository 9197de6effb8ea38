//! Waiting for what must come true, with the last state seen in the failure.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// How often to look. This is the only pause in these tests: what is waited for happens in other processes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` says `Ok`, for at most `limit`; `Err` is the state seen, and the last one is in the panic.
#[track_caller]
pub(crate) fn wait_for<T, S: Debug>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, S>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(state) if start.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last seen: {state:#?}");
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
