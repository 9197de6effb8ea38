//! How far a pull has come, told now and then for as long as it takes: over a home's line a large image takes many minutes, and
//! whoever looks wants to know whether anything arrives.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_runtime::image::{Digest, PullEvent};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// When it is told first. Most images are here by then.
const FIRST: Duration = Duration::from_secs(10);
/// Then it is told after twice the time each, and after this at last: a pod is not to have hundreds of events.
const MOST: Duration = Duration::from_secs(300);

/// What has arrived.
#[derive(Debug, Default)]
struct Progress {
    total: u64,
    layers: BTreeMap<Digest, u64>,
}

impl Progress {
    fn note(&mut self, event: PullEvent) {
        match event {
            PullEvent::Layers { total } => self.total = total,
            PullEvent::LayerExists { diff_id, total: bytes }
            | PullEvent::LayerProgress { diff_id, received: bytes, .. } => drop(self.layers.insert(diff_id, bytes)),
            PullEvent::Resolved { .. } | PullEvent::LayerDone { .. } => {}
        }
    }

    /// As in `12.5 of 151.3 MB`; nothing before it is known how much there is.
    fn shown(&self) -> Option<String> {
        let tenths = |bytes: u64| format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000);
        let arrived = self.layers.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        (self.total > 0).then(|| format!("{} of {} MB", tenths(arrived), tenths(self.total)))
    }
}

/// Follows a pull until it ends, and tells how far it has come.
///
/// # Cancel safety
/// It may be dropped at any time.
pub(super) async fn follow(mut events: mpsc::Receiver<PullEvent>, tell: impl Fn(String)) {
    let mut progress = Progress::default();
    let mut pause = FIRST;
    let mut due = Instant::now() + pause;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => progress.note(event),
                None => return,
            },
            () = tokio::time::sleep_until(due) => {
                if let Some(shown) = progress.shown() {
                    tell(shown);
                }
                pause = (pause * 2).min(MOST);
                due += pause;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_pull_is_told_of_less_and_less_often() {
        let (send, events) = mpsc::channel(8);
        let told = Mutex::new(Vec::new());
        let begin = Instant::now();
        let following = follow(events, |shown| told.lock().unwrap().push((begin.elapsed().as_secs(), shown)));
        let layer = |name: &[u8]| Digest::of(name);
        let arrives =
            |name: &[u8], received| PullEvent::LayerProgress { diff_id: layer(name), received, total: 90_000_000 };
        let pull = async move {
            let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
            // It waits for its turn, or the registry is slow: there is nothing to tell.
            wait(15).await;
            for event in [
                PullEvent::Layers { total: 151_250_000 },
                PullEvent::LayerExists { diff_id: layer(b"a"), total: 50_000_000 },
                arrives(b"b", 1),
                arrives(b"b", 2_340_000),
            ] {
                send.send(event).await.unwrap();
            }
            wait(30).await;
            send.send(arrives(b"b", 90_000_000)).await.unwrap();
            wait(1000).await;
        };
        tokio::join!(following, pull);
        let told: Vec<String> =
            told.into_inner().unwrap().into_iter().map(|(at, shown)| format!("{at}: {shown}")).collect();
        assert_eq!(
            told,
            [
                "30: 52.3 of 151.2 MB",
                "70: 140.0 of 151.2 MB",
                "150: 140.0 of 151.2 MB",
                "310: 140.0 of 151.2 MB",
                "610: 140.0 of 151.2 MB",
                "910: 140.0 of 151.2 MB",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_pull_is_not_told_of() {
        let (send, events) = mpsc::channel(8);
        let following = follow(events, |shown| panic!("{shown}"));
        let pull = async move {
            send.send(PullEvent::Layers { total: 1000 }).await.unwrap();
            tokio::time::sleep(FIRST / 2).await;
        };
        tokio::join!(following, pull);
    }
}
