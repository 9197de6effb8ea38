//! Checkpoints in turn: while one member is slow for one, the others are quick.

use std::collections::BTreeSet;

use super::{MINUTE, Simulation};

#[test]
fn members_take_their_checkpoints_in_turn() {
    for seed in 0..3 {
        let mut simulation = Simulation::together(seed, 3);
        // Long beside what is applied at once.
        for machine in &mut simulation.machines {
            machine.interval = 96 << 10;
            machine.stop(false, 0);
        }
        let writes = |simulation: &mut Simulation, count: u64| {
            let before = simulation.writes.answered;
            simulation.asking_until(MINUTE, |simulation| simulation.writes.answered >= before + count);
        };
        // The first are where each happened to be.
        (0..16).for_each(|_| writes(&mut simulation, 50));
        // The index of the last entry in each, and whose it is.
        let mut taken: BTreeSet<(u64, usize)> = BTreeSet::new();
        let mut last = [0; 3];
        while taken.len() < 20 {
            writes(&mut simulation, 1);
            for (index, machine) in simulation.machines.iter().enumerate() {
                let mark = machine.running.as_ref().unwrap().worker.marked();
                if mark > last[index] && last[index] > 0 {
                    taken.insert((mark, index));
                }
                last[index] = mark;
            }
        }
        let order: Vec<(u64, usize)> = taken.into_iter().collect();
        let whose = |three: &[(u64, usize)]| three.iter().map(|(_, index)| *index).collect::<BTreeSet<usize>>();
        assert!(order.windows(3).all(|three| whose(three).len() == 3), "seed {seed}: one twice: {order:?}");
        // Twenty a third of an interval apart: none comes in less than a third of that.
        let all = order[order.len() - 1].0 - order[0].0;
        let is_apart = |two: &[(u64, usize)]| two[1].0 - two[0].0 > all / 60;
        assert!(order.windows(2).all(is_apart), "seed {seed}: one right after the other: {order:?}");
    }
}
