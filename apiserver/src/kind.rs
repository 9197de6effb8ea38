//! What is particular to a kind: defaults, validation, which changes are allowed, table columns.
//!
//! One [`Strategy`] a kind, one file a strategy in `kinds/`, one line each in the list in `kinds.rs`. Everything else
//! about serving a resource (decoding, storing, listing, watching, patching, deleting) is shared and lives elsewhere; it
//! calls the strategy at the points named here, always in this order:
//!
//! ```text
//! create:  decode → default → prepare_create → (mutating admission) → validate → store
//! update:  decode → default → prepare_update(new, old) → (admission) → validate_update(new, old) → store
//! status:  decode → default → prepare_status(new, old) → validate_status(new, old) → store
//! delete:  begin_deletion → store (marked) or removal
//! ```
//!
//! Strategies are pure: they see the objects and a [`Context`], and neither store nor clock.

use coracle_proto::{
    apply::Set,
    field,
    name::{NameRule, subdomain_rule},
    resource::Resource,
};
use jiff::Timestamp;
use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};

use crate::{ops::Part, ownership, user::User};

/// What every built-in object's Rust type can do.
pub trait Object: Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T> Object for T where T: Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

/// The circumstances of a write that a strategy may look at.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// Who writes.
    pub user: &'a User,
    /// The time of the request.
    pub now: Timestamp,
}

/// A column of `kubectl get`'s table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: &'static str,
    /// OpenAPI format: `name` for the name column, else mostly empty.
    pub format: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
    /// What it says.
    pub description: &'static str,
}

/// What a DELETE does to an object, finalizers aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is removed at once.
    Immediate,
    /// It is marked (`deletionTimestamp`, `deletionGracePeriodSeconds`) and somebody removes it later with grace 0.
    Graceful {
        /// Seconds until the marked time.
        seconds: i64,
    },
}

/// The particulars of one kind.
pub trait Strategy: Send + Sync + 'static {
    /// The object's type.
    type Object: Object;

    /// The kind's row in the table of resources; the row the objects are stored as, where several show the same ones.
    fn resource(&self) -> &'static Resource;

    /// The rule for the name (and the `generateName`) of an object.
    fn name_rule(&self) -> NameRule {
        subdomain_rule
    }

    /// Fills in what the writer left out, as Kubernetes' defaulting functions do; also run on what is read from clients
    /// as patches' results. Must be idempotent.
    fn default(&self, object: &mut Self::Object) {
        let _ = object;
    }

    /// Clears what a creator may not set (status) and sets what creation implies.
    fn prepare_create(&self, object: &mut Self::Object, context: &Context<'_>) {
        let _ = (object, context);
    }

    /// Everything wrong with the object (metadata is checked by the caller).
    fn validate(&self, object: &Self::Object) -> field::Errors {
        let _ = object;
        Vec::new()
    }

    /// Restores what an update through the main resource may not change (status).
    fn prepare_update(&self, new: &mut Self::Object, old: &Self::Object, context: &Context<'_>) {
        let _ = (new, old, context);
    }

    /// Everything wrong with the new object, and with changing the old one into it. The default is `validate(new)`.
    fn validate_update(&self, new: &Self::Object, old: &Self::Object) -> field::Errors {
        let _ = old;
        self.validate(new)
    }

    /// Restores all that an update through `/status` may not change: by default nothing is touched, so every kind with
    /// a status subresource must say what it keeps (mostly `new.spec = old.spec` and the metadata rules).
    fn prepare_status(&self, new: &mut Self::Object, old: &Self::Object, context: &Context<'_>) {
        let _ = (new, old, context);
    }

    /// Everything wrong with the new status.
    fn validate_status(&self, new: &Self::Object, old: &Self::Object) -> field::Errors {
        let _ = (new, old);
        Vec::new()
    }

    /// Whether `metadata.generation` counts changes of the spec; if so it is 1 on creation and grows by one whenever
    /// anything outside `metadata` and `status` changes.
    fn counts_generations(&self) -> bool {
        false
    }

    /// Whether a change of the annotations counts as well; so it is where they are handed on (Deployment).
    fn generation_counts_annotations(&self) -> bool {
        false
    }

    /// Restores all that an update through `/finalize` may not change.
    fn prepare_finalize(&self, new: &mut Self::Object, old: &Self::Object, context: &Context<'_>) {
        let _ = (new, old, context);
    }

    /// Everything wrong with an update through `/finalize`. The default is `validate_update`.
    fn validate_finalize(&self, new: &Self::Object, old: &Self::Object) -> field::Errors {
        self.validate_update(new, old)
    }

    /// Restores all that an update through `/approval` may not change.
    fn prepare_approval(&self, new: &mut Self::Object, old: &Self::Object, context: &Context<'_>) {
        let _ = (new, old, context);
    }

    /// Everything wrong with an update through `/approval`. The default is `validate_update`.
    fn validate_approval(&self, new: &Self::Object, old: &Self::Object) -> field::Errors {
        self.validate_update(new, old)
    }

    /// Restores all that an update through `/ephemeralcontainers` may not change.
    fn prepare_ephemeral_containers(&self, new: &mut Self::Object, old: &Self::Object, context: &Context<'_>) {
        let _ = (new, old, context);
    }

    /// Everything wrong with an update through `/ephemeralcontainers`.
    fn validate_ephemeral_containers(&self, new: &Self::Object, old: &Self::Object) -> field::Errors {
        self.validate_update(new, old)
    }

    /// Restores all that an update through `/resize` may not change.
    fn prepare_resize(&self, new: &mut Self::Object, old: &Self::Object, context: &Context<'_>) {
        let _ = (new, old, context);
    }

    /// Everything wrong with an update through `/resize`.
    fn validate_resize(&self, new: &Self::Object, old: &Self::Object) -> field::Errors {
        self.validate_update(new, old)
    }

    /// Whether nothing but `metadata.finalizers` and the grace period keeps a marked object; a namespace has finalizers
    /// in its spec as well. Asked after every write to a marked object, which is removed when all agree.
    fn is_finalized(&self, object: &Self::Object) -> bool {
        let _ = object;
        true
    }

    /// Whether objects are stored in this kind's own JSON shape, so that stored bytes are answers as they are. Where it
    /// is not so, `to_stored` and `from_stored` translate.
    fn is_stored_as_shown(&self) -> bool {
        true
    }

    /// The object in the JSON shape it is stored in.
    fn to_stored(&self, object: &Self::Object) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(object)
    }

    /// The object from the JSON shape it is stored in.
    #[expect(clippy::wrong_self_convention, reason = "it is from the store, and the strategy knows how")]
    fn from_stored(&self, stored: &[u8]) -> serde_json::Result<Self::Object> {
        serde_json::from_slice(stored)
    }

    /// Fields that a write of the part does not change whatever it says, and so does not come to own: what
    /// `prepare_update`, `prepare_status` and `prepare_finalize` restore. The default is the status, and through the
    /// status the specification.
    fn reset_fields(&self, part: Part) -> &'static Set {
        ownership::reset_by(self.resource(), part)
    }

    /// Whether an update may leave the resourceVersion out, and so change whatever version is stored.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// Whether a DELETE that says nothing of dependents leaves them behind; so it is with what is older than the garbage
    /// collector.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// What everybody is told who uses the kind, when something else has taken its place.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }

    /// Sentences for `Warning` headers about an object that is accepted all the same.
    fn warnings(&self, object: &Self::Object) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// What a DELETE with the given grace period (seconds, as asked) does. It may change the object, which is stored
    /// when the deletion is graceful.
    fn begin_deletion(&self, object: &mut Self::Object, grace: Option<i64>) -> Deletion {
        let _ = (object, grace);
        Deletion::Immediate
    }

    /// Fields beyond `metadata.name` and `metadata.namespace` that field selectors may use, with the object's values.
    /// The names must not depend on the object.
    fn fields(&self, object: &Self::Object) -> Vec<(&'static str, String)> {
        let _ = object;
        Vec::new()
    }

    /// The same of an object as it is stored, for kinds with so many objects and watchers that it pays to read no more of
    /// them than this takes.
    ///
    /// # Errors
    /// It cannot be read.
    fn fields_of_stored(&self, stored: &[u8]) -> serde_json::Result<Vec<(&'static str, String)>> {
        Ok(self.fields(&self.from_stored(stored)?))
    }

    /// The table's columns; the first is the name. The default is Name and Age.
    fn columns(&self) -> &'static [Column] {
        DEFAULT_COLUMNS
    }

    /// The object's cells, one a column. The default goes with the default columns.
    fn row(&self, object: &Self::Object, now: Timestamp) -> Vec<serde_json::Value> {
        let meta = object.metadata();
        vec![meta.name.clone().unwrap_or_default().into(), age(meta, now).into()]
    }

    /// The replica counts for the `scale` subresource, of kinds that have one.
    fn scale(&self, object: &Self::Object) -> Option<Scale> {
        let _ = object;
        None
    }

    /// Sets the wanted replicas through the `scale` subresource.
    fn set_scale(&self, object: &mut Self::Object, replicas: i32) {
        let _ = (object, replicas);
    }
}

/// What the `scale` subresource shows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Wanted.
    pub replicas: i32,
    /// There.
    pub current: i32,
    /// The label selector as text.
    pub selector: String,
}

/// The name column, the same for every kind.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources \
                  may allow a client to request the generation of an appropriate name automatically.",
};

/// The age column, the same for nearly every kind.
pub const AGE: Column = Column {
    name: "Age",
    kind: "string",
    format: "",
    priority: 0,
    description: "CreationTimestamp is a timestamp representing the server time when this object was created.",
};

const DEFAULT_COLUMNS: &[Column] = &[NAME, AGE];

/// The age of an object as the table shows it: `5m3s`, `<unknown>`.
#[must_use]
pub fn age(meta: &ObjectMeta, now: Timestamp) -> String {
    match &meta.creation_timestamp {
        Some(time) => human_duration(now.duration_since(time.0).as_secs()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in seconds as Kubernetes' `HumanDuration` shortens it: `2m5s`, `3h10m`, `4d`.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => two(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shortened_as_kubectl_shows_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (303, "5m3s"),
            (600, "10m"),
            (3 * 3600 + 600, "3h10m"),
            (9 * 3600, "9h"),
            (50 * 3600, "2d2h"),
            (9 * 86_400, "9d"),
            (800 * 86_400, "2y70d"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
