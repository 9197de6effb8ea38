//! The built-in kinds, found by what requests and objects call them.

use std::{collections::HashMap, slice, sync::Arc};

use crate::ops::KindOps;

/// Places in the list of all kinds, by plural or by kind: the same one may be served in several groups and versions.
type Places = HashMap<&'static str, Vec<usize>>;

/// All of them.
pub(super) struct BuiltIns {
    all: Vec<Arc<dyn KindOps>>,
    plurals: Places,
    kinds: Places,
}

impl BuiltIns {
    pub(super) fn new(all: Vec<Arc<dyn KindOps>>) -> Self {
        let (mut plurals, mut kinds) = (Places::new(), Places::new());
        for (place, kind) in all.iter().enumerate() {
            plurals.entry(kind.resource().plural).or_default().push(place);
            kinds.entry(kind.resource().kind).or_default().push(place);
        }
        Self { all, plurals, kinds }
    }

    pub(super) fn iter(&self) -> slice::Iter<'_, Arc<dyn KindOps>> {
        self.all.iter()
    }

    fn at(&self, places: Option<&Vec<usize>>, group: &str, version: &str) -> Option<&Arc<dyn KindOps>> {
        let is_it = |kind: &&Arc<dyn KindOps>| {
            let resource = kind.resource();
            resource.group == group && resource.version == version
        };
        places?.iter().filter_map(|place| self.all.get(*place)).find(is_it)
    }

    /// The kind served at `group`, `version` and `plural`.
    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<dyn KindOps>> {
        self.at(self.plurals.get(plural), group, version)
    }

    /// The kind of `group`, `version` and `kind`.
    pub(super) fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<dyn KindOps>> {
        self.at(self.kinds.get(kind), group, version)
    }
}
