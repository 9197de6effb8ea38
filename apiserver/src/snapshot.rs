//! Snapshots: everything a cluster is, in one file.
//!
//! ```text
//!   a running server ──GET /coracle/v1/snapshot──▶ FILE ──restore──▶ an empty data directory, elsewhere
//!    store as of one revision        (save)          │               store, begun anew above all revisions known of it
//!    keys, certificates                              └─inspect──▶    keys, certificates
//!    configuration files                                             configuration files
//! ```
//!
//! A snapshot holds the store's entries as they are kept, so Secrets are sealed in it; but it holds their key as well, and
//! the authority's: whoever has the file has the cluster.
//!
//! - `format` is the file: parts with checksums, read and written piece by piece.
//! - `save` makes one of a running server.
//! - `restore` makes a data directory of one.

mod format;
mod restore;
mod save;

pub(crate) use self::save::{Source, stream};
pub use self::{
    format::{Decoder, Error, Header, Part, Summary},
    restore::{RestoreError, Restored, UNFINISHED, restore},
};
