//! Images: pulled from registries or imported from files, unpacked into layers that containers share.
//!
//! ```text
//!  Reference ──► registry (HTTP, tokens, mirrors) ─┐
//!                                                  ├─► unpack (one stream: count, digest, decompress, digest, tar) ─► layers/<diff id>/fs
//!  archive or directory ──► import ────────────────┘                                                     index.json, configs/<id>.json
//! ```
//!
//! A layer is unpacked while it arrives, and its compressed form is not kept: a card or a small disk holds and writes every
//! byte once. What cannot be checked before it was read (both digests) is checked before the layer gets its name.
//!
//! Entry points: [`ImageStore::open`], [`ImageStore::pull`], [`ImageStore::import`], [`Image`].
//!
//! **Invariant:** a directory below `layers/` is complete, on stable storage, and what its name's digest says.
//!
//! **Invariant:** unpacking writes nothing outside the layer's own directory, whatever the archive says.
//!
//! **Invariant:** a store that was cut at any instant opens again, without what was not finished.
//!
//! **Invariant:** any number of processes share one store. None holds a lock while it waits for a network or an archive, and none
//! removes what another uses ([`ImageStore::claim`]) or is making.

mod archive;
mod beneath;
mod config;
mod credentials;
mod decompress;
mod digest;
mod error;
mod import;
mod index;
mod manifest;
mod pull;
mod reference;
mod registries;
mod registry;
mod store;
#[cfg(test)]
mod testing;
mod unpack;
mod user;

pub use config::{Execution, ImageConfig, RootFs};
pub use credentials::{Credential, Keyring, KeyringError};
pub use digest::{Digest, InvalidDigest};
pub use error::Error;
pub use import::ImportSource;
pub use manifest::Platform;
pub use reference::{InvalidReference, Reference};
pub use registries::{Auth, HostConfig, Mirror, Registries, TlsConfig};
pub use registry::{RegistryError, Timeouts};
pub use store::{Collected, Image, ImageStore, LayerRecord, PullEvent, PullRequest, StoreConfig, Usage};
pub use unpack::{Limits, UnpackError};
pub use user::{Identity, UserError};
