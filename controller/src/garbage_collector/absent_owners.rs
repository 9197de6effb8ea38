//! Owners that a live look has shown not to be: a thousand dependents of one owner cost one look.

use std::collections::{HashSet, VecDeque};

use super::shadow::Owner;

/// As many as Kubernetes remembers.
const REMEMBERED: usize = 500;

/// The last of them. A uid never comes back, so what is in here stays true.
#[derive(Debug, Default)]
pub(crate) struct AbsentOwners {
    known: HashSet<(String, Owner)>,
    order: VecDeque<(String, Owner)>,
}

fn entry(namespace: &str, owner: &Owner) -> (String, Owner) {
    (namespace.to_owned(), Owner { blocks: false, ..owner.clone() })
}

impl AbsentOwners {
    /// Whether the owner, as named by a dependent in `namespace`, is known not to be there.
    pub(crate) fn contains(&self, namespace: &str, owner: &Owner) -> bool {
        self.known.contains(&entry(namespace, owner))
    }

    /// Remembers it, and forgets the oldest when there are too many.
    pub(crate) fn insert(&mut self, namespace: &str, owner: &Owner) {
        let entry = entry(namespace, owner);
        if self.known.insert(entry.clone()) {
            self.order.push_back(entry);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::graph::tests::object, *};

    #[test]
    fn remembers_the_last_few_as_named_from_their_namespace() {
        let owner = |name: &str| object("kid", &[name]).owners.remove(0);
        let mut absent = AbsentOwners::default();
        absent.insert("d", &owner("first!"));
        assert!(absent.contains("d", &owner("first")) && !absent.contains("e", &owner("first")));
        for number in 0..REMEMBERED {
            absent.insert("d", &owner(&number.to_string()));
        }
        assert!(!absent.contains("d", &owner("first")) && absent.contains("d", &owner("0")));
        assert_eq!((absent.known.len(), absent.order.len()), (REMEMBERED, REMEMBERED));
    }
}
