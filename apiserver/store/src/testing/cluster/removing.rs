//! Members that are removed, and what becomes of those who are left.

use tokio::sync::oneshot;

use super::{HEAL, Simulation};
use crate::{
    error::{Error, Result},
    peer::MemberId,
    queue::Request,
};

impl Simulation {
    pub(super) fn id(&self, index: usize) -> u64 {
        self.machines[index].identity.member
    }

    /// Steps until it is so; whether it came to that.
    pub(super) fn steps_until(&mut self, steps: u64, is_so: impl Fn(&Self) -> bool) -> bool {
        (0..steps).any(|_| {
            self.step();
            is_so(self)
        })
    }

    /// Whether this machine's member knows of `id` as a member.
    fn knows(&self, index: usize, id: u64) -> bool {
        let run = self.machines[index].running.as_ref().expect("it runs");
        run.shared.cluster().members.iter().any(|member| member.id.0 == id)
    }

    /// Asks a machine that `id` goes; gives back what becomes of that.
    fn ask_to_dismiss(&mut self, index: usize, id: u64) -> oneshot::Receiver<Result<()>> {
        let (answer, answered) = oneshot::channel();
        self.machines[index].asked.push(Request::Dismiss { id: MemberId(id), answer });
        answered
    }
}

/// Who goes was needed to commit that it goes, and who stays may crash before it writes anything else.
#[test]
fn the_last_one_left_goes_on_after_a_crash() {
    for seed in 0..20 {
        let mut simulation = Simulation::together(seed, 2);
        let leader = simulation.leader().unwrap();
        let other = simulation.id(1 - leader);
        simulation.dismiss(leader, other);
        let is_gone = simulation.steps_until(HEAL, |simulation| simulation.removed == [other]);
        assert!(is_gone, "seed {seed}: {}", simulation.standing());
        simulation.machines[leader].stop(true, 0);
        simulation.heal();
    }
}

/// The same where there is room for the removal and no more, or not even for that: then both stay.
#[test]
fn the_last_one_left_goes_on_after_a_crash_though_its_disk_was_full() {
    let mut outcomes = [0; 3];
    for seed in 0..120 {
        let mut simulation = Simulation::together(seed, 2);
        let leader = simulation.leader().unwrap();
        let other = simulation.id(1 - leader);
        for _ in 0..simulation.dice.below(40) {
            simulation.ask(leader);
            simulation.step();
        }
        {
            let mut world = simulation.machines[leader].world.lock().unwrap();
            // Every other file system promises no room.
            world.can_reserve = seed % 2 == 0;
            world.capacity = Some(world.used() + usize::try_from(seed).unwrap() % 40 * 10);
        }
        let mut answered = simulation.ask_to_dismiss(leader, other);
        // What is written meanwhile is not refused if it was done, by whomever.
        for _ in 0..20 {
            simulation.ask(leader);
            simulation.step();
        }
        let is_gone = simulation.steps_until(HEAL, |simulation| simulation.removed == [other]);
        let outcome = answered.try_recv();
        // It is told so only if it will be so.
        assert!(is_gone || !matches!(outcome, Ok(Ok(()))), "seed {seed}: {}", simulation.standing());
        // Who tells others that something is committed knows it.
        let is_committed = is_gone || !simulation.knows(1 - leader, other);
        assert!(!is_committed || !simulation.knows(leader, other), "seed {seed}: {}", simulation.standing());
        let stays = !is_gone && !simulation.knows(leader, other);
        assert!(!stays || seed % 2 > 0, "seed {seed}: there was no room for what room had been promised for");
        outcomes[if is_gone { 0 } else { 1 + usize::from(!stays) }] += 1;
        simulation.machines[leader].stop(true, 0);
        simulation.steps_until(100, |_| false);
        simulation.heal();
    }
    assert!(outcomes.iter().all(|count| *count > 0), "gone, to stay, not to go: {outcomes:?}");
}

/// Four vote, and one of them is to go. The leader has told that one alone, and is gone for good: to the two who are left
/// it still is one of four, and without its vote they are too few.
#[test]
fn who_was_removed_votes_until_the_others_know() {
    for seed in 0..20 {
        let mut simulation = Simulation::together(seed, 4);
        let leader = simulation.leader().unwrap();
        let others: Vec<usize> = (0..4).filter(|index| *index != leader).collect();
        let goes = simulation.id(others[0]);
        simulation.dismiss(leader, goes);
        let is_applied = simulation.steps_until(HEAL, |simulation| !simulation.knows(leader, goes));
        assert!(is_applied, "seed {seed}: {}", simulation.standing());
        for other in &others[1..] {
            assert!(simulation.knows(*other, goes), "seed {seed}: that it is committed is still on its way");
            let way = (simulation.id(leader), simulation.id(*other));
            simulation.net.cuts.extend([way, (way.1, way.0)]);
        }
        let is_told =
            simulation.steps_until(20, |simulation| simulation.removed == [goes] || !simulation.knows(others[0], goes));
        assert!(is_told, "seed {seed}: {}", simulation.standing());
        simulation.machines[leader].lost = true;
        simulation.machines[leader].running = None;
        simulation.heal();
        assert!(simulation.removed.contains(&goes), "seed {seed}: {}", simulation.standing());
    }
}

/// Of three one is gone, and what it has said last is still on its way, or has only just been heard.
#[test]
fn who_only_was_there_lately_does_not_count_as_left() {
    for seed in 0..20 {
        let mut simulation = Simulation::together(seed, 3);
        simulation.net.delays = Some(2);
        simulation.steps_until(50, |_| false);
        let leader = simulation.leader().unwrap();
        let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        simulation.machines[others[0]].lost = true;
        simulation.machines[others[0]].running = None;
        let id = simulation.id(others[1]);
        let mut answered = simulation.ask_to_dismiss(leader, id);
        simulation.steps_until(HEAL, |_| false);
        let outcome = answered.try_recv();
        assert!(matches!(outcome, Ok(Err(Error::QuorumAtRisk | Error::Unavailable))), "seed {seed}: {outcome:?}");
        simulation.heal();
    }
}
