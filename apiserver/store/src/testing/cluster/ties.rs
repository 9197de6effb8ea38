//! Members that miss their leader at the same instant, each with a vote of its own.

use super::Simulation;

/// For real each draws its patience anew, so that this is rare; but then their ticks must not go on together.
#[test]
fn who_stands_for_election_at_the_same_instant_as_another_does_not_do_so_again_and_again() {
    for seed in 0..40 {
        let mut simulation = Simulation::together(seed, 3);
        for machine in &mut simulation.machines {
            machine.patience = 10;
            machine.stop(false, 0);
        }
        let is_led = simulation.steps_until(600, |simulation| simulation.leader().is_some());
        assert!(is_led, "seed {seed}: {}", simulation.standing());
    }
}
