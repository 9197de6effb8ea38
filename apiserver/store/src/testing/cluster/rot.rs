//! Disks on which a bit changes that had been synced: who has one says where, does not start, and is done without.

use super::{Simulation, machine::at};
use crate::{
    error::Error,
    testing::{seeds::number, world::Dice},
};

impl Simulation {
    /// A bit rots on a disk, if the others can do without; whether that was so.
    fn rot(&mut self, dice: &mut Dice) -> bool {
        let index = dice.below(self.machines.len());
        let machine = &self.machines[index];
        let is_well = {
            let world = machine.world.lock().unwrap();
            !world.stopped && world.capacity.is_none() && world.stop_in.is_none() && !world.fail_sync
        };
        if machine.lost || machine.running.is_none() || !is_well || !self.can_lose_disk(index) {
            return false;
        }
        let way = self.way(machine.identity.member);
        let now = at(self.now, super::NOON + self.now);
        let machine = &mut self.machines[index];
        // Started anew, so that nothing on it is torn; what is torn may be cut off.
        machine.stop(false, 0);
        machine.start(&way, now);
        machine.stop(false, 0);
        let flipped = machine.world.lock().unwrap().flip_bit_by(dice);
        let (name, byte, _) = flipped.expect("there are files");
        match machine.open(&way, now).err() {
            Some(Error::Corrupt { file, .. }) => assert_eq!(file, name),
            other => panic!("a flipped bit of {name} at {byte} is not called by its name: {other:?}"),
        }
        machine.lost = true;
        true
    }
}

fn simulate_rot(seed: u64) -> bool {
    let result = std::panic::catch_unwind(|| {
        let mut simulation = Simulation::new(seed);
        let (mut dice, mut rotten) = (Dice(seed ^ 0xB17), false);
        simulation.endure(|simulation| {
            if dice.once_in(40) {
                rotten |= simulation.rot(&mut dice);
            }
        });
        simulation.heal();
        rotten
    });
    result.unwrap_or_else(|_| panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib bits_rot"))
}

#[test]
fn a_cluster_on_whose_disks_bits_rot_keeps_what_it_promised_too() {
    if let Some(seed) = number("CORACLE_SEED") {
        simulate_rot(seed);
        return;
    }
    let count = number("CORACLE_SEEDS").map_or(60, |seeds| seeds / 10);
    let rotten = (0..count).filter(|seed| simulate_rot(*seed)).count() as u64;
    assert!(rotten * 2 > count, "{rotten} of {count} runs met a rotten bit");
}
