//! Kinds that are known only at run time: what CustomResourceDefinitions make of the API.
//!
//! ```text
//! CustomResourceDefinition ──follow──▶ Catalog ──▶ routes, discovery, OpenAPI
//!   (a built-in kind)          │         one CustomKind a served version: schema, columns, subresources
//!                              └──▶ status: names accepted? established? instances deleted?
//! ```
//!
//! A [`CustomKind`] is to the shared code what a built-in kind is ([`crate::ops::KindOps`]), over JSON and a
//! [`schema::Schema`]. The [`Catalog`] is replaced as a whole with every change of a definition; requests hold what they
//! began with. Built-in kinds are found without looking here.

mod catalog;
mod checks;
mod conversion;
mod defaults;
mod follow;
pub(crate) mod formats;
mod kind;
mod made;
mod names;
mod object;
mod path;
mod place;
mod prune;
pub(crate) mod publish;
mod removal;
mod rules;
pub(crate) mod schema;
pub(crate) mod structural;

pub(crate) use self::{catalog::version_order, follow::Follower, path::SimplePath};
pub use self::{
    catalog::{Catalog, Catalogs},
    conversion::{ConversionError, Converter},
    kind::CustomKind,
    object::Custom,
};
