//! A leader that hands the lead over, because it goes or because somebody wants it to.

use tokio::sync::oneshot;

use super::Simulation;
use crate::{
    error::{Error, Result},
    peer::MemberId,
    queue::Request,
};

impl Simulation {
    fn ask_to_hand_over(&mut self, index: usize, to: Option<MemberId>) -> oneshot::Receiver<Result<()>> {
        let (answer, answered) = oneshot::channel();
        self.machines[index].asked.push(Request::HandOver { to, answer });
        answered
    }
}

/// A process that ends waits for this answer: by then another leads, and so nobody has to miss this one first.
#[test]
fn when_it_is_said_to_be_handed_over_another_leads() {
    for seed in 0..30 {
        let mut simulation = Simulation::together(seed, 3);
        let leader = simulation.leader().unwrap();
        let wanted = (leader + 1 + usize::from(seed % 2 > 0)) % 3;
        let to = (seed % 3 > 0).then(|| MemberId(simulation.id(wanted)));
        let mut answered = simulation.ask_to_hand_over(leader, to);
        let mut answer = None;
        // Less than any election takes that somebody begins because he misses the leader.
        let is_answered = (0..20).any(|_| {
            simulation.step();
            answer = answered.try_recv().ok();
            answer.is_some()
        });
        assert!(is_answered && matches!(answer, Some(Ok(()))), "seed {seed}: {answer:?}: {}", simulation.standing());
        let leads = simulation.leader().unwrap();
        assert!(leads != leader && (to.is_none() || leads == wanted), "seed {seed}: {}", simulation.standing());
        simulation.machines[leader].stop(false, u64::MAX);
        let (terms, before) = (simulation.leaders.terms(), simulation.writes.answered);
        simulation.asking_until(200, |simulation| simulation.writes.answered > before + 5);
        assert_eq!(simulation.leaders.terms(), terms, "seed {seed}: there was no election");
    }
}

#[test]
fn nobody_leads_who_has_no_vote_and_nobody_gives_away_what_is_not_his() {
    let mut simulation = Simulation::together(7, 3);
    let leader = simulation.leader().unwrap();
    for (index, to) in [(leader, Some(MemberId(12345))), ((leader + 1) % 3, None)] {
        let mut answered = simulation.ask_to_hand_over(index, to);
        simulation.step();
        let refused = answered.try_recv().expect("it is answered at once");
        match to {
            Some(_) => assert!(matches!(refused, Err(Error::MemberNotFound { .. })), "{refused:?}"),
            None => assert!(matches!(refused, Err(Error::Unavailable)), "{refused:?}"),
        }
    }
    assert_eq!(simulation.leader(), Some(leader));
}
