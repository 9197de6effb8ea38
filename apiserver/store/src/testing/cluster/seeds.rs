//! The seeds a cluster is simulated from: so many, and each that found something.

use super::{HEAL, Simulation, witness::simulate_witnessed};

fn simulate(seed: u64) -> String {
    let result = std::panic::catch_unwind(|| Simulation::new(seed).run());
    result.unwrap_or_else(|_| panic!("repro: CORACLE_SEED={seed} cargo test -p coracle-store --lib a_cluster_keeps"))
}

/// Runs a simulation from so many seeds, or from the one that is asked for.
pub(super) fn for_each_seed(count: u64, simulate: impl Fn(u64) -> String) {
    if let Some(seed) = number("CORACLE_SEED") {
        println!("{}", simulate(seed));
        return;
    }
    for seed in 0..number("CORACLE_SEEDS").unwrap_or(count) {
        simulate(seed);
    }
}

pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn a_cluster_keeps_what_it_promised_whatever_happens() {
    for_each_seed(500, simulate);
}

/// Each found something once: a write that was refused and whose copy was done all the same, a log that was cut where a
/// later segment had overwritten its end, reads that waited for peers that were members no more, a removed member that
/// left before those whose votes it was needed for had heard of it, an image that arrived when a later checkpoint was there, a
/// removed member that knew those who were left as learners, pieces of the image of a member's next life in that of the one
/// before.
#[test]
fn clusters_that_found_something_stay_found() {
    for seed in [116, 133, 151, 163, 221, 231, 243, 266, 290, 1067, 1702, 2802, 5007, 8949, 1894] {
        simulate(seed);
    }
}

/// Who goes was needed to commit that it goes, and who stays may crash before it writes anything else.
#[test]
fn the_last_one_left_goes_on_after_a_crash() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(seed);
        let voters = |simulation: &Simulation| {
            let run = simulation.machines[0].running.as_ref()?;
            let members = run.shared.cluster().members;
            members.iter().all(|member| member.votes).then_some(members.len())
        };
        let steps_until = |simulation: &mut Simulation, is_so: &dyn Fn(&Simulation) -> bool| {
            for _ in 0..HEAL {
                simulation.step();
                if is_so(simulation) {
                    return;
                }
            }
            panic!("seed {seed}: {}", simulation.standing());
        };
        steps_until(&mut simulation, &|simulation| voters(simulation) == Some(1));
        simulation.admit(0, "other", false);
        steps_until(&mut simulation, &|simulation| voters(simulation) == Some(2));
        let other = simulation.machines[1].identity.member;
        simulation.dismiss(0, other);
        steps_until(&mut simulation, &|simulation| simulation.removed == [other]);
        simulation.machines[0].stop(true, 0);
        simulation.heal();
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
    for seed in 0..number("CORACLE_SEEDS").unwrap_or(100) {
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
        assert!(result.is_ok(), "seed {seed}");
    }
}
