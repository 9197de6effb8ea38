//! The state machine against the model: every command, every kept revision, every event.

use std::time::Duration;

use proptest::prelude::*;

use crate::{
    command::{Answer, Command, Outcome, Proposal},
    entry::EventKind,
    error::Error,
    history::Retention,
    range::{Range, prefix_end},
    revision::Revision,
    state::State,
};

use super::{
    model::{Facts, Model, Told, any_command, fact},
    world::Dice,
};

/// What the state machine answered, in the model's words.
pub(crate) fn told(outcome: &Outcome, revision: u64) -> Told {
    match outcome {
        Ok(Answer::Txn(result)) => Told::Done { succeeded: result.succeeded, revision: result.revision.0 },
        Ok(Answer::Done) => Told::Done { succeeded: true, revision },
        Err(_) => Told::Refused,
    }
}

fn facts(state: &State, range: &Range) -> Facts {
    state.range(range).unwrap().entries.iter().map(|entry| fact(entry)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_machine_does_as_the_model(seed: u64) {
        let mut dice = Dice(seed);
        let mut state = State::new(Retention { bytes: if dice.once_in(2) { 8 << 10 } else { 8 << 20 }, ..Retention::default() });
        let mut model = Model::new();
        let mut followed = Facts::new();
        let mut heard = 1;
        for n in 0..200 {
            let command = any_command(&mut dice, n, model.revision(), 300);
            let outcome = state.apply(&command, Duration::from_secs(n)).outcome;
            let compacted = matches!(outcome, Err(Error::Compacted { .. }));
            let expected = model.apply(&command);
            if !compacted {
                prop_assert_eq!(told(&outcome, state.revision().0), expected, "{:?}", command);
            }
            prop_assert_eq!(state.revision().0, model.revision());
            prop_assert_eq!(&facts(&state, &Range::prefix("")), model.now());

            if state.history().compacted().0 > heard {
                heard = state.history().compacted().0;
                followed = model.at(heard).clone();
            }
            for batch in state.history().from(Revision(heard + 1)) {
                heard += 1;
                prop_assert_eq!(batch.revision, Revision(heard), "no revision is left out");
                for event in batch.events.iter() {
                    let (key, new) = fact(&event.entry);
                    let old = event.previous.as_ref().map(|entry| fact(entry).1);
                    prop_assert_eq!(followed.get(&key), old.as_ref());
                    match event.kind {
                        EventKind::Put => drop(followed.insert(key, new)),
                        EventKind::Delete => drop(followed.remove(&key)),
                    }
                }
                prop_assert_eq!(&followed, model.at(heard));
            }
            prop_assert_eq!(heard, model.revision());

            let oldest = state.history().compacted().0.max(1);
            let at = oldest + dice.next() % (model.revision() - oldest + 1);
            let (start, limit) = (["", "a/", "a/3", "b/"][dice.below(4)], dice.below(4));
            let range = Range { end: Some(prefix_end(b"b/")), limit, ..Range::key(start) }.at(Revision(at));
            let read = state.range(&range).unwrap();
            let whole: Vec<_> = model.at(at).range(bytes::Bytes::from(start)..).collect();
            prop_assert_eq!(read.count, whole.len());
            let cut = if limit == 0 { whole.len() } else { limit.min(whole.len()) };
            prop_assert_eq!(read.more, cut < whole.len());
            prop_assert_eq!(read.entries.len(), cut);
            for (entry, (key, expected)) in read.entries.iter().zip(whole) {
                prop_assert_eq!(&fact(entry), &(key.clone(), expected.clone()));
            }
        }
    }

    #[test]
    fn a_proposal_is_read_back_as_it_was_written(seed: u64) {
        let mut dice = Dice(seed);
        let command = any_command(&mut dice, seed, 50, 200);
        let proposal = Proposal { member: 1, life: dice.next(), number: 7, time: dice.next(), forwarded: dice.once_in(2), command };
        let bytes = proposal.encode();
        prop_assert!(bytes.len() <= proposal.command.size());
        prop_assert_eq!(Proposal::decode(&bytes), Ok(proposal));
        for len in 0..bytes.len() {
            prop_assert!(Proposal::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_reading_a_proposal_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed: u64) {
        let _ = Proposal::decode(&bytes);
        let mut dice = Dice(seed);
        let mut valid = Proposal { member: 1, life: 1, number: 1, time: 1, forwarded: false, command: any_command(&mut dice, 1, 50, 100) }.encode();
        let at = dice.below(valid.len());
        valid[at] = valid[at].wrapping_add(1 + bytes.first().copied().unwrap_or(0) % 255);
        if let Ok(Proposal { command: Command::Txn(txn), .. }) = Proposal::decode(&valid) {
            let _ = txn.validate();
        }
    }
}
