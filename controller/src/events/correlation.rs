//! Which tellings are one event: pure. The same note again counts up the event it made; many different ones of a kind
//! are combined (client-go's `EventCorrelator` does the same).

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// What is told after this counts as new.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// So many different notes about one object for one reason are told apart, as client-go does.
const TOLD_APART: usize = 10;
/// So many objects and reasons are remembered (client-go's cache size).
const REMEMBERED: usize = 4096;

/// The object (its uid) and the reason.
pub(super) type Subject = (String, String);

/// How something is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// As a new event.
    New {
        /// The event's name.
        name: String,
        /// What it says.
        note: String,
    },
    /// As one more of an event that is there. What an event says cannot be changed.
    Again {
        /// The event's name.
        name: String,
        /// How often it was told, this time included.
        count: u32,
    },
}

#[derive(Debug)]
struct Told {
    note: String,
    name: String,
    count: u32,
    at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Correlation {
    told: HashMap<Subject, Vec<Told>>,
    order: VecDeque<Subject>,
}

impl Correlation {
    /// How to tell this; `name` is used if it makes a new event.
    pub(super) fn tell(&mut self, subject: Subject, note: &str, name: String, now: Instant) -> Telling {
        if !self.told.contains_key(&subject) {
            self.order.push_back(subject.clone());
        }
        let told = self.told.entry(subject).or_default();
        told.retain(|told| told.at + REMEMBERED_FOR > now);
        // Beyond so many, one more stands for all that follow.
        let combined = told.len() > TOLD_APART;
        let known = told.iter().position(|told| told.note == note).or(combined.then(|| told.len() - 1));
        let telling = match known.and_then(|at| told.get_mut(at)) {
            Some(known) => {
                known.count += 1;
                known.at = now;
                Telling::Again { name: known.name.clone(), count: known.count }
            }
            None => {
                let first_combined = told.len() == TOLD_APART;
                told.push(Told { note: note.to_owned(), name: name.clone(), count: 1, at: now });
                let prefix = if first_combined { "(combined from similar events): " } else { "" };
                Telling::New { name, note: format!("{prefix}{note}") }
            }
        };
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.told.remove(&oldest);
            }
        }
        telling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(object: &str) -> Subject {
        (object.to_owned(), "Reason".to_owned())
    }

    fn again(name: &str, count: u32) -> Telling {
        Telling::Again { name: name.to_owned(), count }
    }

    fn new(name: &str, note: &str) -> Telling {
        Telling::New { name: name.to_owned(), note: note.to_owned() }
    }

    #[test]
    fn the_same_note_counts_up_and_another_is_another_event() {
        let (mut all, now) = (Correlation::default(), Instant::now());
        assert_eq!(all.tell(subject("o"), "made a", "1".to_owned(), now), new("1", "made a"));
        assert_eq!(all.tell(subject("o"), "made b", "2".to_owned(), now), new("2", "made b"));
        assert_eq!(all.tell(subject("o"), "made a", "3".to_owned(), now), again("1", 2));
        assert_eq!(all.tell(subject("p"), "made a", "4".to_owned(), now), new("4", "made a"));
        let later = now + REMEMBERED_FOR;
        assert_eq!(all.tell(subject("o"), "made a", "5".to_owned(), later), new("5", "made a"));
    }

    #[test]
    fn many_similar_ones_are_combined() {
        let (mut all, now) = (Correlation::default(), Instant::now());
        for number in 0..TOLD_APART {
            all.tell(subject("o"), &format!("made {number}"), number.to_string(), now);
        }
        let combined = "(combined from similar events): made more";
        assert_eq!(all.tell(subject("o"), "made more", "x".to_owned(), now), new("x", combined));
        assert_eq!(all.tell(subject("o"), "made yet more", "y".to_owned(), now), again("x", 2));
        assert_eq!(all.tell(subject("o"), "made 3", "z".to_owned(), now), again("3", 2));
    }

    #[test]
    fn only_so_much_is_remembered() {
        let (mut all, now) = (Correlation::default(), Instant::now());
        for number in 0..=REMEMBERED {
            all.tell(subject(&number.to_string()), "note", number.to_string(), now);
        }
        assert_eq!((all.told.len(), all.order.len()), (REMEMBERED, REMEMBERED));
    }
}
