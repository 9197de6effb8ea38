//! What is to be done about one object: pure.

use kube::api::PropagationPolicy;

use super::{
    graph::Graph,
    shadow::{Shadow, Uid},
};

/// What the graph alone says of an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// It is going, its dependents stay: they lose it as an owner, then its `orphan` finalizer goes.
    Orphan(Vec<Shadow>),
    /// It is going and waits for dependents: these are to be looked at.
    Await(Vec<Uid>),
    /// It is going, and nothing it waited for is left: its `foregroundDeletion` finalizer goes.
    Finish,
    /// Its owners are to be looked at.
    Judge,
}

/// See [`Step`].
pub(crate) fn step(graph: &Graph, uid: &Uid) -> Step {
    let Some(node) = graph.get(uid) else { return Step::Nothing };
    if node.deleting && node.orphans_dependents {
        return Step::Orphan(graph.dependents(uid).cloned().collect());
    }
    if node.is_awaiting_dependents() {
        let blocks = |d: &&Shadow| d.owners.iter().any(|owner| owner.uid == *uid && owner.blocks);
        if graph.dependents(uid).any(|d| blocks(&d)) {
            let standing = graph.dependents(uid).filter(|d| !d.deleting);
            return Step::Await(standing.map(|d| d.uid.clone()).collect());
        }
        return Step::Finish;
    }
    if node.deleting || node.owners.is_empty() { Step::Nothing } else { Step::Judge }
}

/// What a live look at an owner showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerState {
    /// It is there.
    Living,
    /// It is not, or is another.
    Absent,
    /// It is going, and waits for its dependents.
    Awaiting,
}

/// What is to be done about an object with owners.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It stays as it is.
    Keep,
    /// It stays, and loses these owners.
    Detach(Vec<Uid>),
    /// It goes; first it stops blocking its owners if they wait for each other in a circle.
    Delete {
        /// How its own dependents go.
        propagation: PropagationPolicy,
        /// Its owner references must not block any longer.
        unblock: bool,
    },
}

/// Judges the object as it is now (`latest`) by the states of its owners, in the order it names them.
pub(crate) fn verdict(graph: &Graph, latest: &Shadow, owners: &[OwnerState]) -> Verdict {
    if owners.is_empty() {
        return Verdict::Keep;
    }
    if owners.contains(&OwnerState::Living) {
        let lost = latest.owners.iter().zip(owners).filter(|(_, state)| **state != OwnerState::Living);
        let lost: Vec<Uid> = lost.map(|(owner, _)| owner.uid.clone()).collect();
        return if lost.is_empty() { Verdict::Keep } else { Verdict::Detach(lost) };
    }
    let mut dependents = graph.dependents(&latest.uid).peekable();
    if owners.contains(&OwnerState::Awaiting) && dependents.peek().is_some() {
        let unblock = dependents.any(Shadow::is_awaiting_dependents);
        return Verdict::Delete { propagation: PropagationPolicy::Foreground, unblock };
    }
    let propagation = if latest.orphans_dependents {
        PropagationPolicy::Orphan
    } else if latest.awaits_dependents {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Verdict::Delete { propagation, unblock: false }
}

#[cfg(test)]
mod tests {
    use super::{
        super::graph::tests::{foreground, object, uid},
        *,
    };

    fn graph(objects: &[Shadow]) -> Graph {
        let mut graph = Graph::default();
        for object in objects {
            graph.set(object.clone());
        }
        graph
    }

    #[test]
    fn steps() {
        let going = |shadow: Shadow| Shadow { deleting: true, ..shadow };
        let orphaning = Shadow { orphans_dependents: true, ..going(object("o", &[])) };
        let kid = object("kid", &["o"]);
        let blocking = object("kid", &["o!"]);
        let cases: [(&str, Vec<Shadow>, Step); 9] = [
            ("unknown", vec![], Step::Nothing),
            ("without owners", vec![object("o", &[])], Step::Nothing),
            ("with an owner", vec![object("o", &["x"])], Step::Judge),
            ("going anyway", vec![going(object("o", &["x"]))], Step::Nothing),
            ("orphaning", vec![orphaning, kid.clone()], Step::Orphan(vec![kid.clone()])),
            ("alone", vec![foreground(object("o", &[]))], Step::Finish),
            ("nothing blocks", vec![foreground(object("o", &[])), kid], Step::Finish),
            ("blocked", vec![foreground(object("o", &[])), blocking.clone()], Step::Await(vec![uid("kid")])),
            ("blocked by one going", vec![foreground(object("o", &[])), going(blocking)], Step::Await(vec![])),
        ];
        for (name, objects, expected) in cases {
            assert_eq!(step(&graph(&objects), &uid("o")), expected, "{name}");
        }
    }

    #[test]
    fn verdicts() {
        use OwnerState::{Absent, Awaiting, Living};
        let delete = |propagation| Verdict::Delete { propagation, unblock: false };
        let cases: [(&str, &[OwnerState], Verdict); 7] = [
            ("no owners any more", &[], Verdict::Keep),
            ("both live", &[Living, Living], Verdict::Keep),
            ("one lives", &[Absent, Living], Verdict::Detach(vec![uid("x")])),
            ("one lives, one waits", &[Living, Awaiting], Verdict::Detach(vec![uid("y")])),
            ("none lives", &[Absent, Absent], delete(PropagationPolicy::Background)),
            ("one waits", &[Absent, Awaiting], delete(PropagationPolicy::Background)),
            ("both wait", &[Awaiting, Awaiting], delete(PropagationPolicy::Background)),
        ];
        let lone = graph(&[]);
        for (name, owners, expected) in cases {
            assert_eq!(verdict(&lone, &object("o", &["x", "y"]), owners), expected, "{name}");
        }
    }

    #[test]
    fn what_has_dependents_itself_goes_in_the_foreground_if_its_owner_waits() {
        let o = object("o", &["x!"]);
        let delete = |unblock| Verdict::Delete { propagation: PropagationPolicy::Foreground, unblock };
        let with_kid = graph(&[o.clone(), object("kid", &["o!"])]);
        assert_eq!(verdict(&with_kid, &o, &[OwnerState::Awaiting]), delete(false));
        // Its dependent waits for it, and it for its dependent.
        let circle = graph(&[o.clone(), foreground(object("x", &["o!"]))]);
        assert_eq!(verdict(&circle, &o, &[OwnerState::Awaiting]), delete(true));
    }

    #[test]
    fn its_own_finalizers_decide_how_its_dependents_go() {
        let propagation = |latest: Shadow| match verdict(&graph(&[]), &latest, &[OwnerState::Absent]) {
            Verdict::Delete { propagation, .. } => propagation,
            other => panic!("{other:?}"),
        };
        let o = object("o", &["x"]);
        assert_eq!(propagation(Shadow { orphans_dependents: true, ..o.clone() }), PropagationPolicy::Orphan);
        assert_eq!(propagation(Shadow { awaits_dependents: true, ..o }), PropagationPolicy::Foreground);
    }
}
