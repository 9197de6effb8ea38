//! One machine: its disk, and the member that runs on it now.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::net::Way;
use crate::{
    checkpoint::{Checkpoints, Job},
    datadir::Identity,
    error::{Error, Result},
    history::Retention,
    queue::Request,
    shared::Shared,
    store::{Config, Opened, Start, open},
    testing::world::{SimDisk, SimEngine, World},
    worker::{Now, Worker},
};

/// A member that runs.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) worker: Worker<SimDisk>,
    pub(super) checkpoints: Checkpoints<SimEngine>,
    pub(super) job: Option<Job>,
    pub(super) room: Arc<Semaphore>,
}

/// See the module.
pub(super) struct Machine {
    pub(super) identity: Identity,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) patience: usize,
    /// Bytes of log between two checkpoints.
    pub(super) interval: u64,
    pub(super) life: u64,
    pub(super) running: Option<Running>,
    /// When it starts again, or goes on.
    pub(super) until: u64,
    /// Its disk is lost: it never comes back.
    pub(super) lost: bool,
    /// What its clients ask next.
    pub(super) asked: Vec<Request>,
}

impl Machine {
    pub(super) fn new(identity: Identity, seed: u64, patience: usize) -> Self {
        Self {
            identity,
            world: World::new(seed),
            patience,
            interval: 8 << 10,
            life: 0,
            running: None,
            until: 0,
            lost: false,
            asked: Vec::new(),
        }
    }

    /// Opens what the disk holds.
    pub(super) fn open(&mut self, way: &Way, now: Now) -> Result<Running> {
        self.life += 1;
        let checkpoint_bytes = self.interval;
        let config = Config { dir: "".into(), retention: Retention::default(), checkpoint_bytes, joining: None };
        let transport = Arc::new(Way { own: way.own, sent: Arc::clone(&way.sent) });
        let patience = self.patience..self.patience + 1;
        let start = Start { identity: self.identity.clone(), life: self.life, patience, transport };
        let mut checkpoints = Checkpoints::new(SimEngine(Arc::clone(&self.world)));
        let opened = open(SimDisk(Arc::clone(&self.world)), &mut checkpoints, start, &config, |_| now);
        let room = Arc::new(Semaphore::new(10_000));
        opened.map(|Opened { shared, worker, .. }| Running { shared, worker, checkpoints, job: None, room })
    }

    /// Starts the member from what the disk holds.
    pub(super) fn start(&mut self, way: &Way, now: Now) {
        let mut attempts = 0;
        loop {
            let opened = self.open(way, now);
            let stopped = self.world.lock().unwrap().stopped;
            match opened {
                Ok(running) if !stopped => {
                    self.running = Some(running);
                    return;
                }
                other => {
                    // It may stop while it starts, or find no room for a first segment.
                    let mut world = self.world.lock().unwrap();
                    let excused = world.stopped || world.capacity.is_some();
                    assert!(excused, "member {:x} does not start: {:?}", self.identity.member, other.err());
                    world.cut_power();
                    world.capacity = None;
                    attempts += 1;
                    assert!(attempts < 3);
                }
            }
        }
    }

    /// The process is killed, or the power goes.
    pub(super) fn stop(&mut self, power: bool, until: u64) {
        self.running = None;
        self.asked.clear();
        self.until = until;
        let mut world = self.world.lock().unwrap();
        if power {
            world.cut_power();
        } else {
            world.kill();
        }
    }
}

/// The time in milliseconds, as a member's clocks say it.
pub(super) const fn at(millis: u64, wall: u64) -> Now {
    Now { steady: Duration::from_millis(millis), wall }
}

/// Whether a member is broken for good, and not by what was done to it.
pub(super) fn is_excused(error: &Error) -> bool {
    matches!(error, Error::Failed { .. } | Error::Removed)
}
