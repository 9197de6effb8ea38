//! An object in another of its kind's versions, for the fields of who wrote in that one.
//!
//! Few built-in kinds have more than one version that is served under a name of its own: Events and autoscalers. They
//! convert by way of what is stored, as they do for every answer. Where a definition's webhook converts, somebody must be
//! waited for, which the algebra of ownership does not do: it is done with what is there, and once more when what it asked
//! for has come, until nothing is missing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use coracle_proto::{
    apply::{BuiltIn, Convert},
    status::Status,
};
use serde_json::Value;

use crate::{
    kind::Strategy,
    kinds,
    ops::{KindOps, Typed},
    status_of::{self, Result},
};

/// Objects in other versions: those that are there, and those that were asked for and are not, by version and JSON.
#[derive(Debug, Default)]
struct Table {
    known: HashMap<(String, String), Value>,
    wanted: BTreeMap<String, Vec<String>>,
}

/// What of a kind whose webhook converts is known in other versions.
#[derive(Debug, Default)]
pub struct Versions(Mutex<Table>);

impl Versions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object in the version; none as long as it has not come.
    pub(crate) fn get(&self, object: &Value, version: &str) -> Option<Value> {
        let mut table = self.table();
        let key = (version.to_owned(), object.to_string());
        if let Some(known) = table.known.get(&key) {
            return Some(known.clone());
        }
        let (version, json) = key;
        let wanted = table.wanted.entry(version).or_default();
        if !wanted.contains(&json) {
            wanted.push(json);
        }
        None
    }

    /// Whether something was asked for that has not come.
    pub(crate) fn is_lacking(&self) -> bool {
        !self.table().wanted.is_empty()
    }

    /// Has the kind's webhook convert what was asked for.
    ///
    /// # Errors
    /// 500 with the webhook's own words, or why it has none.
    pub(crate) async fn fetch(&self, kind: &dyn KindOps) -> Result<()> {
        let wanted = std::mem::take(&mut self.table().wanted);
        let Some(converter) = kind.converter() else { return Ok(()) };
        for (version, objects) in wanted {
            let bytes: Vec<&[u8]> = objects.iter().map(String::as_bytes).collect();
            let converted = converter.convert(&version, &bytes).await.map_err(|error| status_of::conversion(&error))?;
            let mut table = self.table();
            for (json, object) in objects.into_iter().zip(converted) {
                let object = serde_json::from_slice(&object)
                    .map_err(|error| status_of::broken("a converted object cannot be read", &error))?;
                table.known.insert((version.clone(), json), object);
            }
        }
        Ok(())
    }
}

/// What says that something must be fetched first; no client sees it.
pub(super) fn lacking() -> Box<Status> {
    Box::new(Status::internal("the object is not known in all versions yet"))
}

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
