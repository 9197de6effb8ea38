//! An object in another of its kind's versions, for the fields of who wrote in that one.
//!
//! Few kinds have more than one version that is served under a name of its own: Events and autoscalers. They convert by way
//! of what is stored, as they do for every answer.

use std::sync::{Arc, LazyLock};

use coracle_proto::apply::{BuiltIn, Convert};
use serde_json::Value;

use crate::{
    kind::Strategy,
    kinds,
    ops::{KindOps, Typed},
};

#[derive(Default)]
struct Collect(Vec<Arc<dyn KindOps>>);

impl kinds::Visitor for Collect {
    fn visit<S: Strategy>(&mut self, strategy: S) {
        self.0.push(Typed::shared(strategy));
    }
}

/// The built-in kinds whose objects are stored with another one's.
static SEVERAL: LazyLock<Vec<Arc<dyn KindOps>>> = LazyLock::new(|| {
    let mut all = Collect::default();
    kinds::each(&mut all);
    let storages: Vec<&str> = all.0.iter().map(|kind| kind.resource().storage).collect();
    let many = |kind: &Arc<dyn KindOps>| storages.iter().filter(|s| **s == kind.resource().storage).count() > 1;
    all.0.into_iter().filter(many).collect()
});

/// Knows a built-in kind's objects in its other versions.
pub(crate) fn of_built_in<'k>(kind: &'k dyn KindOps) -> Box<Convert<'k, BuiltIn>> {
    Box::new(move |object, version| {
        let own = kind.resource();
        let mut others = SEVERAL.iter().filter(|other| other.resource().storage == own.storage);
        let other = others.find(|other| other.resource().api_version() == version)?;
        let resource = other.resource();
        let place = BuiltIn::of_kind(resource.group, resource.version, resource.kind)?;
        if object.as_object().is_none_or(serde_json::Map::is_empty) {
            return Some((place, object.clone()));
        }
        let decoded = kind.decode(&serde_json::to_vec(object).ok()?).ok()?;
        let stored = kind.to_stored(&*decoded.object).ok()?;
        let shown = other.to_shown(&*other.from_stored(&stored).ok()?).ok()?;
        Some((place, serde_json::from_slice::<Value>(&shown).ok()?))
    })
}
