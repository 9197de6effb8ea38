//! Server-side apply: who owns which field of an object, and what becomes of the fields when somebody applies.
//!
//! Every writer of an object is a *manager*; `metadata.managedFields` says for each manager which fields it has set. A
//! plain write (create, update, patch) takes the fields it changes from whoever had them. An *apply* names all fields its
//! manager cares about: what others own and it would change is a conflict, what it named last time and no longer names
//! goes, unless somebody else wants it too (KEP-555).
//!
//! ```text
//!  managedFields ──► Managed ─┐                                   ┌─► managedFields
//!  stored object ──► compare ─┴─► update (a plain write) ─────────┤
//!  applied object ─► validate ─► merge ─► prune ─► apply ─────────┴─► the new object, or Conflicts
//! ```
//!
//! [`Place`] is what the algorithms know of a kind: built-in kinds implement it by the tables of [`crate::schema`]
//! ([`BuiltIn`]), custom resources by their definitions' schemas. The algebra of field sets is [`Set`]'s.

mod compare;
mod element;
mod fresh;
mod managers;
mod merge;
mod place;
mod reconcile;
mod remove;
mod set;
mod updater;
mod validate;

#[cfg(test)]
mod tests;

pub use self::{
    compare::{Comparison, compare},
    element::{Element, Path},
    fresh::fresh_fields,
    managers::{Managed, Manager, Operation, Owned, Who},
    merge::merge,
    place::{BuiltIn, Is, ListIs, Place, Scalar, empty},
    remove::remove,
    set::Set,
    updater::{Applied, ApplyError, Conflict, Conflicts, Convert, Updater, replicas},
    validate::{Duplicates, Problems, field_set, validate},
};
