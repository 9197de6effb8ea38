//! What goes wrong.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::Simulation;
use crate::queue::Request;

/// Milliseconds in which what was asked is mostly answered.
const ASKED: u64 = 6000;

impl Simulation {
    /// Something goes wrong.
    pub(super) fn fault(&mut self) {
        let index = self.dice.below(self.machines.len());
        let ids: Vec<u64> = self.machines.iter().map(|machine| machine.identity.member).collect();
        let until = self.now + self.dice.next() % 4000;
        let fate = self.dice.below(12);
        let machine = &mut self.machines[index];
        match fate {
            0 => machine.stop(self.dice.once_in(2), until),
            // It stalls, and goes on as if nothing had been.
            1 => machine.until = until,
            2 => self.net.cut(&ids, &mut self.dice),
            3 => self.net.heal(),
            4 => self.net.loses = Some(2 + self.dice.below(10)),
            5 => self.net.doubles = Some(2 + self.dice.below(10)),
            6 => self.net.delays = Some(2 + self.dice.below(10)),
            7 => machine.world.lock().unwrap().stop_in = Some(self.dice.next() % 40),
            8 => {
                let mut world = machine.world.lock().unwrap();
                world.capacity = match world.capacity {
                    None => Some(world.used() + self.dice.below(6000)),
                    Some(_) => None,
                };
            }
            9 => machine.world.lock().unwrap().fail_sync = machine.running.is_some(),
            10 => {
                let (answer, _) = oneshot::channel();
                machine.asked.push(Request::HandOver { to: None, answer });
            }
            _ => self.lose_disk(index),
        }
        for machine in &mut self.machines {
            if machine.running.is_none() {
                machine.asked.clear();
            }
        }
    }

    /// A disk is lost, if the others can do without: never two at a time, and those who are asked to go are not there for it.
    fn lose_disk(&mut self, index: usize) {
        if self.can_lose_disk(index) {
            self.machines[index].lost = true;
            self.machines[index].running = None;
        }
    }

    /// That another has become a voter is not known to be so by those who are left, if nobody but this one has applied it; a
    /// witness may be all that has it besides a server that is to become one.
    pub(super) fn can_lose_disk(&self, index: usize) -> bool {
        let gone = self.machines.iter().filter(|machine| machine.lost).count();
        let mut leaving = self.leaving();
        // Whoever knows of their removal may not run just now.
        leaving.extend(&self.removed);
        let are_enough = |voters: BTreeSet<u64>| voters.difference(&leaving).count() >= 4;
        are_enough(self.voters(|_| true)) && are_enough(self.voters(|at| at != index)) && gone == self.removed.len()
    }

    /// The voters, as who has come furthest of these knows them.
    fn voters(&self, among: impl Fn(usize) -> bool) -> BTreeSet<u64> {
        let machines = self.machines.iter().enumerate().filter(|(at, _)| among(*at));
        let running = machines.filter_map(|(_, machine)| machine.running.as_ref());
        let furthest = running.max_by_key(|run| run.worker.standing().2);
        let members = furthest.map(|run| run.shared.cluster().members).unwrap_or_default();
        members.iter().filter(|member| member.votes).map(|member| member.id.0).collect()
    }

    /// Whose removal may be under way, though nobody has applied it yet.
    fn leaving(&self) -> BTreeSet<u64> {
        let lately = |asked: u64| self.now < asked + ASKED;
        self.dismissed.iter().filter(|(_, asked)| lately(**asked)).map(|(id, _)| *id).collect()
    }
}
