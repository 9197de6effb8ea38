//! Disks that are slow: a sync takes seconds, and a member that waits for one sees and says nothing.

use std::time::Duration;

use super::{MINUTE, Simulation};
use crate::testing::{seeds::number, world::Dice};

impl Simulation {
    fn syncs_take(&self, index: usize, took: Duration) {
        self.machines[index].world.lock().unwrap().sync_takes = took;
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |machine: &super::Machine| machine.running.as_ref().is_some_and(|run| run.worker.standing().1);
        self.machines.iter().position(leads)
    }

    /// Clients ask all the time, until it is so.
    pub(super) fn asking_until(&mut self, steps: u64, is_so: impl Fn(&Self) -> bool) {
        for step in 0..steps {
            self.step();
            if is_so(self) {
                return;
            }
            if step % 10 == 0
                && let Some(index) = self.running()
            {
                self.ask(index);
            }
        }
        panic!("it did not come to that within {steps} steps: {}", self.standing());
    }
}

/// Votes take longer than an election may with quick disks: without more patience there would be one after the other.
#[test]
fn where_a_sync_takes_two_seconds_there_is_a_leader_and_it_stays() {
    for seed in 0..number("CORACLE_SEEDS").map_or(8, |seeds| seeds / 100) {
        let mut simulation = Simulation::together(seed, 3);
        (0..3).for_each(|index| simulation.syncs_take(index, Duration::from_secs(2)));
        simulation.asking_until(MINUTE, |simulation| simulation.writes.answered > 20);
        let slow = |machine: &super::Machine| machine.running.as_ref().is_some_and(|run| run.worker.is_disk_slow());
        assert!(simulation.machines.iter().any(slow), "seed {seed}: and it is said");
        let leader = simulation.leader().unwrap();
        let until = simulation.now + 30_000;
        simulation.machines[leader].stop(false, until);
        simulation.asking_until(3 * MINUTE, |simulation| simulation.leader().is_some());
        let (terms, before) = (simulation.leaders.terms(), simulation.writes.answered);
        simulation.asking_until(3 * MINUTE, |simulation| simulation.writes.answered > before + 100);
        assert_eq!(simulation.leaders.terms(), terms, "seed {seed}: nobody else has led meanwhile");
    }
}

#[test]
fn one_slow_disk_of_three_slows_down_nobody_else() {
    for seed in 0..number("CORACLE_SEEDS").map_or(8, |seeds| seeds / 100) {
        let mut simulation = Simulation::together(seed, 3);
        let slow = simulation.leader().unwrap();
        simulation.syncs_take(slow, Duration::from_secs(4));
        simulation.asking_until(MINUTE, |simulation| simulation.leader().is_some_and(|leader| leader != slow));
        // A third of them by way of the slow one.
        let (terms, before) = (simulation.leaders.terms(), simulation.writes.answered);
        simulation.asking_until(MINUTE, |simulation| simulation.writes.answered > before + 50);
        assert_eq!(simulation.leaders.terms(), terms, "seed {seed}");
    }
}

/// The same as without, and disks that become slow and quick again.
fn simulate_slow(seed: u64) {
    let result = std::panic::catch_unwind(|| {
        let mut simulation = Simulation::new(seed);
        let mut disks = Dice(seed ^ 0x510);
        simulation.endure(|simulation| {
            if disks.once_in(15) {
                let index = disks.below(simulation.machines.len());
                let millis = [0, 0, 20, 100, 400, 1500][disks.below(6)];
                simulation.syncs_take(index, Duration::from_millis(millis));
            }
        });
        simulation.net.heal();
        for machine in &mut simulation.machines {
            let mut world = machine.world.lock().unwrap();
            (world.capacity, world.stop_in, world.fail_sync) = (None, None, false);
            world.sync_takes = Duration::ZERO;
        }
        // Until it is forgotten how slow the disks were.
        for _ in 0..2 * MINUTE {
            simulation.step();
        }
        simulation.heal();
    });
    result.unwrap_or_else(|_| panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib slow"));
}

#[test]
fn a_cluster_with_slow_disks_keeps_what_it_promised_too() {
    if let Some(seed) = number("CORACLE_SEED") {
        simulate_slow(seed);
        return;
    }
    for seed in 0..number("CORACLE_SEEDS").map_or(60, |seeds| seeds / 10) {
        simulate_slow(seed);
    }
}
