//! The wall clock while nobody looks at it: who sleeps until a time of day is woken when it is set.
//!
//! A machine without a battery for its clock starts in the past, and is told the time when it has a network. A monotonic sleep
//! does not see that; the kernel tells it (`TFD_TIMER_CANCEL_ON_SET`, timerfd_create(2)).

use std::{future, io, time::Duration};

use nix::sys::{
    time::{TimeSpec, TimeValLike as _},
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::net::unix::pipe::Receiver;

/// A time that does not come, in seconds since 1970.
const NEVER: i64 = 9_000_000_000;

/// Wakes when the wall clock is set, from when it was made on.
#[derive(Debug)]
pub struct WallClock {
    /// Readable, as tokio wants it, when the clock was set; none where the kernel does not tell.
    timer: Option<Receiver>,
}

impl WallClock {
    /// Must be called within a tokio runtime. Where the kernel does not tell, nobody is woken.
    #[must_use]
    pub fn watch() -> Self {
        let timer = Self::timer();
        if let Err(error) = &timer {
            tracing::debug!(error = error as &dyn std::error::Error, "the kernel does not tell when the clock is set");
        }
        Self { timer: timer.ok() }
    }

    fn timer() -> io::Result<Receiver> {
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let never = Expiration::OneShot(TimeSpec::seconds(NEVER));
        timer.set(never, TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET)?;
        Receiver::from_owned_fd_unchecked(timer.into())
    }

    /// Waits so long, or until the clock is set: then it is time to look at it again.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn sleep(&self, wait: Duration) {
        let set = async {
            match &self.timer {
                // What it says is that it was cancelled, or what is wrong with it: either way somebody has to look.
                Some(timer) => drop(timer.readable().await),
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = set => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::{
        errno::Errno,
        time::{clock_gettime, clock_settime},
    };
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_for_as_long_as_nobody_sets_the_clock() {
        let began = Instant::now();
        WallClock::watch().sleep(Duration::from_secs(3600)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(3600));
    }

    #[tokio::test]
    async fn it_wakes_when_the_clock_is_set() {
        let clock = WallClock::watch();
        // To what it says anyway.
        let realtime = nix::time::ClockId::CLOCK_REALTIME;
        match clock_settime(realtime, clock_gettime(realtime).unwrap()) {
            Ok(()) => {}
            Err(Errno::EPERM) => {
                eprintln!("Skipped: setting the clock needs CAP_SYS_TIME");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        let woken = tokio::time::timeout(Duration::from_secs(60), clock.sleep(Duration::from_secs(3600))).await;
        assert!(woken.is_ok(), "it sleeps on");
    }
}
