//! Who owns whom, by uid: pure. Every change says which objects are worth another look.

use std::collections::{BTreeSet, HashMap};

use coracle_proto::resource::Resource;

use super::shadow::{Shadow, Uid};

/// See the module. Owners that were never seen have no node, but their dependents are known all the same: a dependent
/// may well be seen before its owner.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: HashMap<Uid, Shadow>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
}

impl Graph {
    /// The object with this uid.
    pub(crate) fn get(&self, uid: &Uid) -> Option<&Shadow> {
        self.nodes.get(uid)
    }

    /// The objects that name this one as an owner, by uid.
    pub(crate) fn dependents<'a>(&'a self, owner: &Uid) -> impl Iterator<Item = &'a Shadow> + use<'a> {
        self.dependents.get(owner).into_iter().flatten().filter_map(|uid| self.nodes.get(uid))
    }

    /// The uids of every known object of a resource.
    pub(crate) fn uids_of(&self, resource: &Resource) -> Vec<Uid> {
        self.nodes.values().filter(|node| node.resource == resource).map(|node| node.uid.clone()).collect()
    }

    /// Takes an object in as it is now, and says who is worth a look.
    pub(crate) fn set(&mut self, shadow: Shadow) -> BTreeSet<Uid> {
        let uid = shadow.uid.clone();
        let old = self.nodes.insert(uid.clone(), shadow.clone());
        let old_owners = old.map(|old| old.owners).unwrap_or_default();
        for owner in &old_owners {
            self.unlink(&owner.uid, &uid);
        }
        for owner in &shadow.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let mut look = BTreeSet::new();
        if shadow.deleting && (shadow.awaits_dependents || shadow.orphans_dependents) {
            look.insert(uid.clone());
        }
        if old_owners != shadow.owners {
            let waiting = |owner: &Uid| self.nodes.get(owner).is_some_and(Shadow::is_awaiting_dependents);
            let doubtful = |owner: &super::shadow::Owner| match self.nodes.get(&owner.uid) {
                Some(node) => !node.is_meant_by(owner, &shadow.namespace) || node.is_awaiting_dependents(),
                None => true,
            };
            if shadow.owners.iter().any(doubtful) {
                look.insert(uid);
            }
            // An owner that waits may have one dependent more, or one fewer, to wait for.
            let concerned = old_owners.iter().chain(&shadow.owners).map(|owner| &owner.uid);
            look.extend(concerned.filter(|owner| waiting(owner)).cloned());
        }
        look
    }

    /// Forgets an object, and says who is worth a look: whom it owned, and owners that waited for it.
    pub(crate) fn remove(&mut self, uid: &Uid) -> BTreeSet<Uid> {
        let Some(gone) = self.nodes.remove(uid) else { return BTreeSet::new() };
        let mut look: BTreeSet<Uid> = self.dependents.get(uid).cloned().unwrap_or_default();
        for owner in &gone.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(Shadow::is_awaiting_dependents) {
                look.insert(owner.uid.clone());
            }
        }
        look
    }

    fn unlink(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use coracle_proto::resource::find_kind;
    use proptest::prelude::*;

    use super::{super::shadow::Owner, *};

    pub(crate) fn uid(name: &str) -> Uid {
        Uid::new(name)
    }

    /// A ConfigMap in `d` whose name is its uid, with the owners given.
    pub(crate) fn object(name: &str, owners: &[&str]) -> Shadow {
        let owner = |name: &&str| Owner {
            uid: uid(name.trim_end_matches('!')),
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: name.trim_end_matches('!').to_owned(),
            blocks: name.ends_with('!'),
        };
        Shadow {
            resource: find_kind("", "v1", "ConfigMap").unwrap(),
            namespace: "d".to_owned(),
            name: name.to_owned(),
            uid: uid(name),
            owners: owners.iter().map(owner).collect(),
            deleting: false,
            awaits_dependents: false,
            orphans_dependents: false,
        }
    }

    pub(crate) fn foreground(shadow: Shadow) -> Shadow {
        Shadow { deleting: true, awaits_dependents: true, ..shadow }
    }

    fn names(look: &BTreeSet<Uid>) -> Vec<&str> {
        look.iter().map(Uid::as_str).collect()
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.set(object("owner", &[])).is_empty());
        assert!(graph.set(object("a", &["owner"])).is_empty());
        assert!(graph.set(object("b", &["owner"])).is_empty());
        assert_eq!(names(&graph.remove(&uid("owner"))), ["a", "b"]);
    }

    #[test]
    fn an_object_whose_owner_is_not_there_is_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(names(&graph.set(object("a", &["owner"]))), ["a"]);
        // Seen again unchanged, it is no news.
        assert!(graph.set(object("a", &["owner"])).is_empty());
    }

    #[test]
    fn an_object_that_names_another_than_its_uid_belongs_to_is_looked_at() {
        let mut graph = Graph::default();
        graph.set(object("owner", &[]));
        let mut other = object("a", &["owner"]);
        other.namespace = "elsewhere".to_owned();
        assert_eq!(names(&graph.set(other)), ["a"]);
        let mut wrong = object("b", &["owner"]);
        wrong.owners[0].kind = "Secret".to_owned();
        assert_eq!(names(&graph.set(wrong)), ["b"]);
    }

    #[test]
    fn an_owner_that_is_named_by_an_old_version_is_there() {
        let mut graph = Graph::default();
        let deployment = Shadow { resource: find_kind("apps", "v1", "Deployment").unwrap(), ..object("owner", &[]) };
        graph.set(deployment);
        let mut dependent = object("a", &["owner"]);
        dependent.owners[0].kind = "Deployment".to_owned();
        for (version, is_there) in [("extensions/v1beta1", true), ("apps/v1beta2", true), ("example.com/v1", false)] {
            dependent.name = version.to_owned();
            dependent.uid = uid(version);
            dependent.owners[0].api_version = version.to_owned();
            assert_eq!(graph.set(dependent.clone()).is_empty(), is_there, "{version}");
        }
    }

    #[test]
    fn an_owner_that_waits_hears_of_every_dependent_it_loses() {
        let mut graph = Graph::default();
        graph.set(object("a", &["owner!"]));
        graph.set(object("b", &["owner!"]));
        assert_eq!(names(&graph.set(foreground(object("owner", &[])))), ["owner"]);
        assert_eq!(names(&graph.remove(&uid("a"))), ["owner"]);
        assert_eq!(names(&graph.set(object("b", &[]))), ["owner"]);
    }

    proptest! {
        /// However objects come, change and go, the dependents found are those a full search finds.
        #[test]
        fn dependents_are_those_that_name_the_owner(
            steps in prop::collection::vec((0..6_u8, prop::option::of(prop::collection::btree_set(0..6_u8, 0..3))), 0..60)
        ) {
            let mut graph = Graph::default();
            let mut model: HashMap<String, Vec<String>> = HashMap::new();
            for (subject, owners) in steps {
                let name = subject.to_string();
                match owners {
                    Some(owners) => {
                        let owners: Vec<String> = owners.iter().map(u8::to_string).collect();
                        let refs: Vec<&str> = owners.iter().map(String::as_str).collect();
                        graph.set(object(&name, &refs));
                        model.insert(name, owners);
                    }
                    None => {
                        let look = graph.remove(&uid(&name));
                        if model.remove(&name).is_some() {
                            for (dependent, owners) in &model {
                                prop_assert_eq!(owners.contains(&name), look.contains(&uid(dependent)));
                            }
                        }
                    }
                }
                for owner in 0..6_u8 {
                    let owner = owner.to_string();
                    let found: BTreeSet<String> = graph.dependents(&uid(&owner)).map(|d| d.name.clone()).collect();
                    let wanted: BTreeSet<String> =
                        model.iter().filter(|(_, o)| o.contains(&owner)).map(|(n, _)| n.clone()).collect();
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }
}
