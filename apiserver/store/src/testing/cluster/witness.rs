//! Two servers, or some more, and a witness beside them.

use super::{Simulation, TWO, machine::Machine};
use crate::testing::seeds::for_each_seed;

/// How many servers there may be in some seeds.
const FEW: usize = 4;

impl Simulation {
    /// One of two servers and a witness is lost, at any moment of a time in which all were well, though not the network: so
    /// what a leader has said is heard by one and not by the other.
    fn lose_one(mut self) -> String {
        let mut well = 0;
        for step in 0.. {
            assert!(step < 2000, "they have not come together: {}", self.standing());
            self.step();
            let Some(index) = self.running() else { continue };
            if self.machines.len() < 3 && step % 50 == 10 {
                self.change_members(index);
            }
            let votes = |machine: &Machine| {
                let members = machine.running.as_ref().map(|run| run.shared.cluster().members);
                members.is_some_and(|members| members.iter().filter(|member| member.votes).count() == 3)
            };
            well = if self.machines.len() == 3 && self.machines.iter().all(votes) { well + 1 } else { 0 };
            self.ask(index);
            // Some time after the last change, whoever leads knows that the others keep up.
            if well == 60 {
                self.net.loses = Some(4);
            }
            if well > 60 && self.dice.once_in(20) {
                break;
            }
        }
        let lost = self.dice.below(3);
        self.net.heal();
        self.machines[lost].running = None;
        self.machines[lost].lost = true;
        let mut waited = 0;
        let before = self.writes.answered;
        // What was under way may still be answered.
        while self.writes.answered < before + 20 {
            waited += 1;
            assert!(waited < 400, "nothing is written without {lost}: {}", self.standing());
            self.step();
            if let Some(index) = self.running() {
                self.ask(index);
            }
        }
        format!("{lost} lost, {waited} steps")
    }
}

pub(super) fn simulate_witnessed(seed: u64) -> String {
    let most = if seed.is_multiple_of(3) { FEW } else { TWO };
    let result = std::panic::catch_unwind(|| Simulation::witnessed(seed, most).run());
    result.unwrap_or_else(|_| {
        panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib a_cluster_with_a_witness")
    })
}

#[test]
fn a_cluster_with_a_witness_keeps_what_it_promised_whatever_happens() {
    for_each_seed(200, simulate_witnessed);
}

/// The servers and the witness are well, and under load, when one of the three is gone for good. It fails if the witness is
/// told of anything before both servers have it.
#[test]
fn two_servers_and_a_witness_survive_the_loss_of_any_one() {
    for_each_seed(60, |seed| {
        let result = std::panic::catch_unwind(|| Simulation::witnessed(seed, TWO).lose_one());
        result
            .unwrap_or_else(|_| panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib loss_of_any_one"))
    });
}

/// Each found something once: two that did not come to themselves when nothing was wrong any more, a removal that was
/// forgotten on a full disk, a write that was refused by who had just become the only one, and was done, a server that had a
/// vote and had not heard of it, when nobody was left who would tell, a removal that was asked for when the last other one
/// went, a lead that was handed over by who had lost it, a sync that failed when room was made for a promotion.
#[test]
fn clusters_with_a_witness_that_found_something_stay_found() {
    for seed in [377, 1136, 7967, 12_412, 301_479, 420_218, 518_193, 603_524] {
        simulate_witnessed(seed);
    }
}
