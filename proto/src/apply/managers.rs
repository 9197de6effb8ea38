//! `metadata.managedFields`: who owns which fields of an object.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde::Deserialize;

use super::set::Set;

/// As many managers by plain writes as are told apart; the oldest of more are put together.
const MAX_UPDATERS: usize = 10;

/// The name the oldest are put together under.
const ANCIENT: &str = "ancient-changes";

/// How a manager came by its fields. Sorted as entries are in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By applying.
    Apply,
    /// By a plain write.
    Update,
}

impl Operation {
    /// `Apply` or `Update`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// The name its writes come with.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// The version it writes in. Empty for who applies: that is the same manager in every version.
    pub version: String,
    /// The subresource it writes through; empty for the object itself.
    pub subresource: String,
}

/// How messages name a manager.
impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.version)?;
        }
        Ok(())
    }
}

/// Who writes now, and when.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The manager's name.
    pub name: &'a str,
    /// The subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// The time of the write.
    pub now: Timestamp,
}

impl Who<'_> {
    /// The manager this is when it writes with the operation in the version.
    #[must_use]
    pub fn manager(&self, operation: Operation, version: &str) -> Manager {
        Manager {
            name: if self.name.is_empty() { "unknown" } else { self.name }.to_owned(),
            operation,
            version: if operation == Operation::Apply { String::new() } else { version.to_owned() },
            subresource: self.subresource.to_owned(),
        }
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Its fields.
    pub set: Set,
    /// The version their names are of.
    pub version: String,
    /// When it last changed something.
    pub time: Option<Timestamp>,
}

/// All managers of an object with what each owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    pub(super) entries: BTreeMap<Manager, Owned>,
}

impl Managed {
    /// Whether nobody owns anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The managers and what they own.
    pub fn iter(&self) -> impl Iterator<Item = (&Manager, &Owned)> {
        self.entries.iter()
    }

    /// What a manager owns.
    #[must_use]
    pub fn get(&self, manager: &Manager) -> Option<&Owned> {
        self.entries.get(manager)
    }

    /// Sets what a manager owns; who owns nothing is forgotten.
    pub fn put(&mut self, manager: Manager, owned: Owned) {
        if owned.set.is_empty() {
            self.entries.remove(&manager);
        } else {
            self.entries.insert(manager, owned);
        }
    }

    /// Takes a manager out.
    pub fn take(&mut self, manager: &Manager) -> Option<Owned> {
        self.entries.remove(manager)
    }

    /// Reads an object's entries.
    ///
    /// # Errors
    /// An entry without version, with an unknown operation or type of fields, or whose fields cannot be read.
    pub fn decode(entries: &[ManagedFieldsEntry]) -> Result<Self, String> {
        let mut managed = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let operation = match entry.operation.as_deref() {
                Some("Apply") => Operation::Apply,
                Some("Update") => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let version = entry.api_version.clone().unwrap_or_default();
            if version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match entry.fields_type.as_deref().unwrap_or_default() {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
            }
            let set = match &entry.fields_v1 {
                Some(FieldsV1(fields)) => {
                    Set::deserialize(fields).map_err(|error| format!("error decoding set: {error}"))?
                }
                None => Set::default(),
            };
            let name = entry.manager.clone().unwrap_or_default();
            let subresource = entry.subresource.clone().unwrap_or_default();
            let in_name = if operation == Operation::Apply { String::new() } else { version.clone() };
            let manager = Manager { name, operation, version: in_name, subresource };
            let time = entry.time.as_ref().map(|time| time.0);
            managed.entries.insert(manager, Owned { set, version, time });
        }
        Ok(managed)
    }

    /// The entries as they stand in an object: appliers first, then by time.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<ManagedFieldsEntry>> {
        if self.entries.is_empty() {
            return None;
        }
        let seconds = |owned: &Owned| owned.time.map_or(0, Timestamp::as_second);
        let mut sorted: Vec<(&Manager, &Owned)> = self.entries.iter().collect();
        sorted.sort_by(|(a, x), (b, y)| {
            let of = |m: &Manager, o: &Owned| (m.operation, seconds(o));
            of(a, x)
                .cmp(&of(b, y))
                .then_with(|| a.name.cmp(&b.name))
                .then_with(|| x.version.cmp(&y.version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
        let entry = |(manager, owned): (&Manager, &Owned)| ManagedFieldsEntry {
            manager: (!manager.name.is_empty()).then(|| manager.name.clone()),
            operation: Some(manager.operation.as_str().to_owned()),
            api_version: Some(owned.version.clone()),
            time: owned.time.map(Time),
            fields_type: Some("FieldsV1".to_owned()),
            // A set always serializes: its keys are texts.
            fields_v1: serde_json::to_value(&owned.set).ok().map(FieldsV1),
            subresource: (!manager.subresource.is_empty()).then(|| manager.subresource.clone()),
        };
        Some(sorted.into_iter().map(entry).collect())
    }

    /// Puts the oldest plain writers together, one a version, until there are few enough.
    pub(super) fn cap(&mut self) {
        let mut oldest: Vec<(Manager, i64)> = self
            .entries
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update)
            .map(|(manager, owned)| (manager.clone(), owned.time.map_or(0, Timestamp::as_second)))
            .collect();
        let mut count = oldest.len();
        if count <= MAX_UPDATERS {
            return;
        }
        oldest.sort_by_key(|(_, seconds)| *seconds);
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for (manager, _) in oldest {
            if count <= MAX_UPDATERS {
                return;
            }
            let Some(version) = self.entries.get(&manager).map(|owned| owned.version.clone()) else { continue };
            let bucket = Manager {
                name: ANCIENT.to_owned(),
                operation: Operation::Update,
                version: version.clone(),
                subresource: String::new(),
            };
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, manager);
                continue;
            };
            if !self.entries.contains_key(&bucket)
                && let Some(owned) = self.entries.remove(first)
            {
                self.entries.insert(bucket.clone(), owned);
            }
            let Some(owned) = self.entries.remove(&manager) else { continue };
            if let Some(ancient) = self.entries.get_mut(&bucket) {
                ancient.set = std::mem::take(&mut ancient.set).union(owned.set);
                ancient.time = owned.time;
            }
            count -= 1;
        }
    }
}
