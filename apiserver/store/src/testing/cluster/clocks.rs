//! Wall clocks that are wrong, or jump.

use super::Simulation;

/// Elections, leases, history, whatever may go wrong: with clocks that jump by an hour, forth and back, a run is the same to
/// the byte as with clocks that do not.
#[test]
fn clocks_that_jump_by_an_hour_both_ways_change_nothing() {
    for seed in 0..20 {
        let jumping = Simulation::new(seed).run();
        let steady = Simulation { clocks_jump: false, ..Simulation::new(seed) }.run();
        assert!(jumping == steady, "seed {seed}");
    }
}
