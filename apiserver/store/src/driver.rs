//! The shell around the deterministic core: the store's threads, its clocks, and the hand-out of changes.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    checkpoint::{Checkpoints, Job},
    datadir::DataDir,
    disk::RealDisk,
    engine::sled::Sled,
    error::{Error, Result},
    queue::{Request, Taken},
    shared::{Closing, Shared},
    worker::{Now, Worker},
};

/// How long a member that stops waits for another to lead.
pub(crate) const LEAVING: Duration = Duration::from_millis(1500);

/// Does a store's work; nothing is written and no live watch hears anything unless it runs.
#[must_use = "a store writes only while its driver runs"]
pub struct Driver {
    shared: Arc<Shared>,
    worker: Worker<RealDisk>,
    checkpoints: Checkpoints<Sled>,
    dir: DataDir,
    closing: Closing,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        worker: Worker<RealDisk>,
        checkpoints: Checkpoints<Sled>,
        dir: DataDir,
    ) -> Self {
        let closing = Closing(Arc::clone(&shared));
        Self { shared, worker, checkpoints, dir, closing }
    }

    /// Runs until `shutdown`; a member that leads then first lets another lead. Everything handed over before is then written and answered, watches end with
    /// [`Error::Closed`], the threads have ended, and the data directory is free.
    ///
    /// # Errors
    /// [`Error::Failed`] if the disk failed meanwhile. It does not end the run by itself: reads go on.
    ///
    /// # Cancel safety
    /// Dropping the future closes the store without waiting for its thread; so does dropping a driver that never ran.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        let (ended, mut end) = oneshot::channel();
        let Self { shared, worker, checkpoints, dir, closing } = self;
        let mut thread = Thread {
            shared: Arc::clone(&shared),
            worker,
            checkpoints: Some(checkpoints),
            running: None,
            written: Arc::default(),
        };
        let thread = thread::Builder::new().name("coracle-store".to_owned()).spawn(move || {
            thread.run();
            let result = thread.worker.end();
            drop(dir);
            // Nobody receives it if the run was dropped.
            drop(ended.send(result));
        });
        let thread = thread.map_err(Error::io("start the store's thread"))?;
        let mut leaving = pin!(async {
            shutdown.cancelled().await;
            hand_over(&shared).await;
            shared.queue.close();
        });
        let result = loop {
            tokio::select! {
                biased;
                result = &mut end => break result.unwrap_or(Err(Error::Closed)),
                () = &mut leaving, if !shared.queue.is_closed() => {}
                () = shared.grown.notified() => {
                    while shared.hand_out() {
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        while shared.hand_out() {}
        drop(closing);
        // It has sent its last word, so this does not wait.
        if thread.join().is_err() {
            return Err(Error::Closed);
        }
        result
    }
}

/// Has another member lead before this one goes, if it leads and there is one: the others need not miss it first.
async fn hand_over(shared: &Shared) {
    if shared.is_alone() {
        return;
    }
    let (answer, answered) = oneshot::channel();
    if shared.queue.push(Request::HandOver { to: None, answer }).is_ok() {
        // If nobody takes it they hold an election, as after a crash.
        drop(tokio::time::timeout(LEAVING, answered).await);
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What a thread that wrote a checkpoint leaves behind.
type Written = (Checkpoints<Sled>, Job, Result<u64>);

/// What a thread is started for.
type Work = Box<dyn FnOnce() + Send>;

struct Thread {
    shared: Arc<Shared>,
    worker: Worker<RealDisk>,
    /// None while a checkpoint is being written.
    checkpoints: Option<Checkpoints<Sled>>,
    running: Option<JoinHandle<()>>,
    written: Arc<Mutex<Option<Written>>>,
}

impl Thread {
    fn run(&mut self) {
        loop {
            let patience = self.worker.next_deadline().map(|next| next.saturating_sub(self.shared.now()));
            let requests = match self.shared.queue.take(patience) {
                Taken::Closed => break,
                Taken::Requests(requests) => requests,
            };
            self.shared.tell_busy(true);
            self.worker.serve(requests, now(&self.shared));
            self.worker.expire(now(&self.shared));
            self.collect();
            if let Some(job) = self.worker.take_job() {
                self.start(job);
            }
            self.shared.tell_busy(false);
            self.shared.grown.notify_one();
        }
        // What waited for a checkpoint may have to wait for one more.
        while let Some(running) = self.running.take() {
            // A panic in it has been reported; the checkpoint before is still valid.
            drop(running.join());
            self.collect();
            if self.worker.holds_back()
                && let Some(job) = self.worker.take_job()
            {
                self.start(job);
            }
        }
    }

    fn start(&mut self, job: Job) {
        self.write(job, |work| thread::Builder::new().name("coracle-ckpt".to_owned()).spawn(work));
    }

    /// Writes a checkpoint on a thread of its own, so that group commits go on meanwhile. There are minutes or days
    /// between two of them, so the thread is not kept.
    fn write(&mut self, job: Job, spawn: impl FnOnce(Work) -> io::Result<JoinHandle<()>>) {
        let Some(checkpoints) = self.checkpoints.take() else { return };
        // A thread that cannot be started takes what it was given with it, so it gets no more than a way to it.
        let given = Arc::new(Mutex::new(Some((checkpoints, job))));
        let (taken, shared, written) = (Arc::clone(&given), Arc::clone(&self.shared), Arc::clone(&self.written));
        let spawned = spawn(Box::new(move || {
            let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((mut checkpoints, job)) = taken else { return };
            let saved = checkpoints.save(&job);
            *written.lock().unwrap_or_else(PoisonError::into_inner) = Some((checkpoints, job, saved));
            // Refused only when the store is closing; the thread is then joined.
            drop(shared.queue.push(Request::Wake));
        }));
        match spawned {
            Ok(thread) => self.running = Some(thread),
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::error!(error, "no thread for a checkpoint: the log is kept until there is one");
                let given = given.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some((checkpoints, job)) = given {
                    self.checkpoints = Some(checkpoints);
                    self.worker.postpone(job, Error::Unavailable, now(&self.shared));
                }
            }
        }
    }

    fn collect(&mut self) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((checkpoints, job, saved)) = written {
            self.checkpoints = Some(checkpoints);
            let now = now(&self.shared);
            self.worker.checkpointed(job, saved, now);
        }
    }
}

/// The time by this machine's clocks.
pub(crate) fn now(shared: &Shared) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Now { steady: shared.now(), wall: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::Command,
        store::{Config, Store},
        txn::{Op, Txn},
    };

    /// Has so many KB written.
    async fn write(thread: &mut Thread, round: usize, count: usize) {
        for n in 0..count {
            let room = thread.shared.queue.room(0).await.unwrap();
            let (answer, answered) = oneshot::channel();
            let then = vec![Op::put(format!("{round}/{n}"), vec![b'x'; 1000])];
            let command = Command::Txn(Txn { then, ..Txn::default() });
            let now = now(&thread.shared);
            thread.worker.serve([Request::Propose { command, answer, room }], now);
            answered.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_checkpoint_without_a_thread_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { checkpoint_bytes: 64 << 10, ..Config::new(dir.path()) };
        let (store, driver) = Store::open(config.clone()).await.unwrap();
        let Driver { shared, worker, checkpoints, dir: held, closing } = driver;
        let mut thread =
            Thread { shared, worker, checkpoints: Some(checkpoints), running: None, written: Arc::default() };
        write(&mut thread, 0, 100).await;
        let job = thread.worker.take_job().expect("a checkpoint is due");
        thread.write(job, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(thread.worker.take_job().is_none(), "not before the log has grown");
        write(&mut thread, 1, 40).await;
        let job = thread.worker.take_job().expect("it is tried again");
        assert!(job.entries.len() + job.fresh.len() > 100, "what the first would have held is in the second");
        thread.write(job, |work| thread::Builder::new().spawn(work));
        thread.running.take().unwrap().join().unwrap();
        thread.collect();
        thread.worker.serve([], now(&thread.shared));
        assert_eq!(store.status().work.checkpoints, 1);
        drop((thread, closing, held, store));
        let (store, _driver) = Store::open(config).await.unwrap();
        assert_eq!(store.status().keys, 140);
    }
}
