//! The seeds a cluster is simulated from: so many, and each that found something.

use super::{Simulation, witness::simulate_witnessed};
use crate::testing::seeds::for_each_seed;

fn simulate(seed: u64) -> String {
    let result = std::panic::catch_unwind(|| Simulation::new(seed).run());
    result.unwrap_or_else(|_| panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib a_cluster_keeps"))
}

#[test]
fn a_cluster_keeps_what_it_promised_whatever_happens() {
    for_each_seed(500, simulate);
}

/// Each found something once: a write that was refused and whose copy was done all the same, a log that was cut where a
/// later segment had overwritten its end, reads that waited for peers that were members no more, an image that arrived when
/// a later checkpoint was there, a removed member that knew those who were left as learners, pieces of the image of a
/// member's next life in that of the one before, an image on a disk without room for the log behind it, an image that came
/// when the log had brought its member further, writes that a leader of late had passed on and refused itself.
#[test]
fn clusters_that_found_something_stay_found() {
    for seed in
        [116, 133, 151, 163, 221, 231, 266, 290, 1067, 1702, 5007, 8949, 1894, 402_781, 413_654, 502_152, 510_604]
    {
        simulate(seed);
    }
}

#[test]
fn two_runs_of_a_cluster_are_the_same() {
    for seed in 1000..1005 {
        assert!(simulate(seed) == simulate(seed), "seed {seed}");
        assert!(simulate_witnessed(seed) == simulate_witnessed(seed), "seed {seed} with a witness");
    }
}

/// A cluster in which every other packet comes a second time with something in it changed. Such a cluster promises
/// nothing, but its members do not panic: at worst one stops and says why.
#[test]
fn no_packet_makes_a_member_panic() {
    for_each_seed(100, |seed| {
        let result = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            for step in 0..500 {
                simulation.lies = step > 150;
                simulation.step();
                let Some(index) = simulation.running() else { continue };
                if simulation.dice.once_in(3) {
                    simulation.ask(index);
                }
                if step < 100 && step % 20 == 10 {
                    simulation.change_members(index);
                }
                let lied = simulation.lies;
                simulation.asked.retain(|_| !lied);
            }
        });
        result.unwrap_or_else(|_| panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib no_packet"));
        String::new()
    });
}
