//! What clients and administrators ask the machines for.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Asked, MINUTE, Simulation, TWO, machine::Machine, writes::OWN};
use crate::{
    command::Command,
    peer::{MemberId, MemberInfo},
    queue::Request,
    testing::model::command,
};

impl Simulation {
    /// So many servers, all of them voters and well.
    pub(super) fn together(seed: u64, count: usize) -> Self {
        let mut simulation = Self::new(seed);
        let knows_all = |machine: &Machine| {
            let members = machine.running.as_ref().map(|run| run.shared.cluster().members).unwrap_or_default();
            members.iter().filter(|member| member.votes).count() == count
        };
        for step in 0..MINUTE {
            simulation.step();
            let machines = &simulation.machines;
            if machines.len() == count && machines.iter().all(knows_all) && simulation.asked.is_empty() {
                return simulation;
            }
            if step % 20 == 10 && machines.len() < count && simulation.asked.is_empty() {
                simulation.admit(0, &format!("machine {step}"), false);
            }
        }
        panic!("seed {seed}: {}", simulation.standing());
    }

    /// A client asks some machine for something.
    pub(super) fn ask(&mut self, index: usize) {
        self.unique += 1;
        let drawn = command(&mut self.dice, self.unique, self.writes.model.revision(), 3000);
        let machine = &mut self.machines[index];
        let Some(run) = machine.running.as_ref().filter(|_| !machine.identity.witness) else { return };
        if self.dice.once_in(4) {
            let (answer, answered) = oneshot::channel();
            machine.asked.push(Request::Barrier { answer });
            self.asked.push(Asked::Read(self.oracle.begin_read(), index, answered));
            return;
        }
        let Ok(room) = Arc::clone(&run.room).try_acquire_owned() else { return };
        let (answer, answered) = oneshot::channel();
        let (asked, command) = match drawn {
            Command::Txn(txn) => {
                let (number, command) = self.writes.begin(txn);
                assert_eq!(self.oracle.writes.begin(OWN, &number.to_string()), number);
                (Asked::Write(number, answered), command)
            }
            other => (Asked::Other(answered), other),
        };
        machine.asked.push(Request::Propose { command, answer, room });
        self.asked.push(asked);
    }

    pub(super) fn change_members(&mut self, index: usize) {
        let there = self.machines.iter().filter(|machine| !machine.lost && !machine.identity.witness).count();
        let witness = self.machines.iter().any(|machine| !machine.lost && machine.identity.witness);
        let is_next = self.witness && !witness && there >= TWO;
        if is_next || there < self.most.min(3) || (there < self.most && self.dice.once_in(2)) {
            self.admit(index, &format!("machine {there}"), is_next);
        } else if self.most > TWO || self.dice.once_in(4) {
            let ids: Vec<u64> = self.machines.iter().map(|machine| machine.identity.member).collect();
            let id = ids[self.dice.below(ids.len())];
            self.dismiss(index, id);
        }
    }

    pub(super) fn admit(&mut self, index: usize, name: &str, witness: bool) {
        let (answer, answered) = oneshot::channel();
        let info = MemberInfo { name: name.to_owned(), addresses: Vec::new(), witness };
        self.machines[index].asked.push(Request::Admit { info, answer });
        self.asked.push(Asked::Admit(witness, answered));
    }

    pub(super) fn dismiss(&mut self, index: usize, id: u64) {
        self.dismissed.insert(id, self.now);
        let (answer, answered) = oneshot::channel();
        self.machines[index].asked.push(Request::Dismiss { id: MemberId(id), answer });
        self.asked.push(Asked::Dismiss(id, answered));
    }
}
