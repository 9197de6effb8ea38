//! Liveness: what must come about once nothing goes wrong any more.

use std::fmt::Write as _;

use super::{Asked, HEAL, Simulation, machine, reads};

impl Simulation {
    /// Nothing goes wrong any more: the cluster comes to itself, without those whose disks are lost.
    pub(super) fn heal(&mut self) {
        self.net.heal();
        for machine in &mut self.machines {
            machine.until = 0;
            let mut world = machine.world.lock().unwrap();
            (world.capacity, world.stop_in, world.fail_sync) = (None, None, false);
            drop(world);
        }
        let before = self.writes.answered;
        for step in 0..HEAL {
            self.step();
            if step % 50 == 49 && step < HEAL - 500 {
                let lost = self
                    .machines
                    .iter()
                    .find(|machine| machine.lost && !self.removed.contains(&machine.identity.member));
                if let (Some(id), Some(index)) = (lost.map(|machine| machine.identity.member), self.running()) {
                    self.dismiss(index, id);
                }
            }
            if step > HEAL - 450 && step < HEAL - 440 {
                // One server may be all that is left to be asked.
                for _ in 0..if self.witness { 4 } else { 1 } {
                    for index in 0..self.machines.len() {
                        self.ask(index);
                    }
                }
            }
        }
        // A lease may end in the last moment.
        for _ in 0..200 {
            let applied = |run: &machine::Running| run.worker.standing().2;
            let mut stands = self.machines.iter().filter_map(|machine| machine.running.as_ref().map(applied));
            let first = stands.next();
            if stands.all(|other| Some(other) == first) {
                break;
            }
            self.step();
        }
        assert!(
            self.writes.answered > before,
            "no write is acknowledged although nothing is wrong: {}",
            self.standing()
        );
        let waiting: Vec<&str> = self.asked.iter().map(Asked::name).collect();
        assert!(waiting.is_empty(), "{waiting:?} wait although nothing is wrong: {}", self.standing());
        let (mut stands, mut shown) = (None, None);
        let running = self.machines.iter().filter_map(|machine| machine.running.as_ref());
        let furthest = running.max_by_key(|run| run.worker.standing().2).map(|run| run.shared.cluster().members);
        let members: Vec<u64> = furthest.unwrap_or_default().iter().map(|member| member.id.0).collect();
        let is_running =
            |id| self.machines.iter().any(|machine| machine.identity.member == id && machine.running.is_some());
        for machine in &self.machines {
            let Some(run) = &machine.running else { continue };
            let cluster = run.shared.cluster();
            let (_, _, applied) = run.worker.standing();
            let found = (applied, cluster.leader, cluster.members.clone());
            let member = machine.identity.member;
            // Whoever it knew was gone before it heard that it had been removed, or that it belongs.
            let knows_nobody = cluster.members.iter().all(|known| known.id.0 == member || !is_running(known.id.0));
            if !members.contains(&member) && knows_nobody {
                continue;
            }
            assert!(
                cluster.members.iter().any(|other| other.id.0 == member),
                "member {member:x} waits to be told that it was removed: {}",
                self.standing()
            );
            assert!(cluster.leader.is_some(), "member {member:x} knows no leader: {}", self.standing());
            assert!(
                cluster.members.iter().any(|other| other.id.0 == member && other.votes),
                "member {member:x} has not become a voter: {cluster:?}"
            );
            let first = stands.get_or_insert_with(|| found.clone());
            assert_eq!(*first, found, "member {member:x} stands elsewhere than the others");
            if machine.identity.witness {
                continue;
            }
            reads::shows(&run.shared, &self.writes);
            let revision = run.shared.read().revision();
            assert_eq!(*shown.get_or_insert(revision), revision, "member {member:x} is at another revision");
        }
        self.judge_clients();
        let said = format!(
            "{} members, {} removed, {} terms, {} writes, {} reads, {} images, {} followers began anew",
            self.machines.len(),
            self.removed.len(),
            self.leaders.terms(),
            self.writes.answered,
            self.reads,
            self.images,
            self.followers.values().map(|follower| follower.anew.saturating_sub(1)).sum::<u64>(),
        );
        writeln!(self.transcript, "{said}").unwrap();
    }
}
