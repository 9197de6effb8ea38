//! Writes go in rounds: the busier a leader is, the less messages and syncs each takes; and one by itself waits for none.

use raft::eraftpb::MessageType;

use super::{MINUTE, STEP, Simulation};
use crate::{packet::Packet, worker::TICK};

const STEPS: u64 = 300;

impl Simulation {
    fn applied(&self) -> Vec<u64> {
        self.machines.iter().map(|machine| machine.running.as_ref().map_or(0, |run| run.worker.standing().2)).collect()
    }

    /// The last write is applied everywhere.
    fn settled(&mut self) {
        for _ in 0..MINUTE {
            self.step();
            let applied = self.applied();
            if self.asked.is_empty() && applied.iter().all(|index| *index == applied[0]) {
                return;
            }
        }
        panic!("it did not come to rest: {}", self.standing());
    }

    /// Messages with entries, or for them, that a member has sent in this step.
    fn appends(&self, from: u64) -> usize {
        let sent = self.net.sent_in_step.iter().filter(|(member, _, _)| *member == from);
        let is_append = |bytes: &[u8]| matches!(Packet::decode(bytes), Ok(Packet::Raft(message)) if message.msg_type == MessageType::MsgAppend);
        sent.filter(|(_, _, bytes)| is_append(bytes)).count()
    }
}

#[test]
fn writes_that_come_while_others_are_under_way_go_together() {
    for seed in 0..3 {
        let mut simulation = Simulation::together(seed, 3);
        // No checkpoint comes between, for which the log is cut.
        for machine in &mut simulation.machines {
            machine.interval = 1 << 20;
            machine.stop(false, 0);
        }
        simulation.asking_until(MINUTE, |simulation| simulation.leader().is_some());
        simulation.settled();
        let leader = simulation.leader().unwrap();
        let own = simulation.machines[leader].identity.member;
        let syncs = |simulation: &Simulation| {
            simulation.machines[leader].running.as_ref().unwrap().shared.status().work.log_syncs
        };
        let (applied, synced) = (simulation.applied()[leader], syncs(&simulation));
        let mut appends = 0;
        for _ in 0..STEPS {
            (0..4).for_each(|_| simulation.ask(leader));
            simulation.step();
            appends += simulation.appends(own);
        }
        let writes = simulation.applied()[leader] - applied;
        let rounds = syncs(&simulation) - synced;
        assert!(writes > 600, "seed {seed}: {writes} writes");
        // There and back takes two steps.
        assert!(rounds <= STEPS / 2 + 5, "seed {seed}: {writes} writes in {rounds} rounds");
        // To each peer one a round; who answers a heartbeat meanwhile is sent one more.
        let ticks = STEPS * STEP / u64::try_from(TICK.as_millis()).unwrap();
        assert!(appends as u64 <= 2 * (rounds + ticks), "seed {seed}: {appends} messages for {rounds} rounds");
    }
}

#[test]
fn a_write_by_itself_waits_for_no_other_anywhere() {
    for seed in 0..3 {
        let mut simulation = Simulation::together(seed, 3);
        for round in 0..20 {
            simulation.settled();
            let leader = simulation.leader().unwrap();
            let before = simulation.applied()[leader];
            simulation.ask(leader);
            // There, back, and there again: a tick, which would tell them too, may be longer away.
            (0..4).for_each(|_| simulation.step());
            let applied = simulation.applied();
            let same = applied.iter().all(|index| *index == applied[leader]);
            assert!(same, "seed {seed}, round {round}: {before} before, {applied:?}");
        }
    }
}
