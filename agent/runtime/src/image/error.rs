//! What can go wrong with images. The words are containerd's where a person would look them up: they end in pods' events.

use std::{ffi::OsString, io, path::PathBuf, time::Duration};

use super::{Digest, InvalidReference, Reference, registry::RegistryError, unpack::UnpackError};

/// Why the image store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is no image reference.
    #[error("failed to parse reference {text:?}: {source}")]
    Reference {
        /// What was given.
        text: String,
        /// Why it is none.
        source: InvalidReference,
    },
    /// The registry does not have it, does not give it, or does not answer.
    #[error("failed to pull and unpack image \"{reference}\": failed to resolve reference \"{reference}\": {source}")]
    Resolve {
        /// What was asked for.
        reference: Reference,
        /// The registry's reason.
        source: Box<RegistryError>,
    },
    /// A manifest, configuration or layer could not be fetched whole.
    #[error("failed to pull and unpack image \"{reference}\": failed to copy: {source}")]
    Fetch {
        /// What was asked for.
        reference: Reference,
        /// The registry's reason.
        source: Box<RegistryError>,
    },
    /// A manifest or configuration is not what it must be.
    #[error("failed to pull and unpack image \"{image}\": {reason}")]
    Content {
        /// The image, or the file it came from.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// No manifest of the index is for this machine.
    #[error(
        "failed to pull and unpack image \"{image}\": no match for platform in manifest: not found (wanted {wanted}, found {found})"
    )]
    Platform {
        /// The image.
        image: String,
        /// This machine's platform.
        wanted: String,
        /// What the index has.
        found: String,
    },
    /// A layer could not be unpacked.
    #[error("failed to pull and unpack image \"{image}\": failed to extract layer {layer}: {source}")]
    Unpack {
        /// The image.
        image: String,
        /// The layer's digest.
        layer: Digest,
        /// What is wrong with it, or with the disk.
        source: Box<UnpackError>,
    },
    /// No such image is in the store.
    #[error("image \"{0}\": not found")]
    NotFound(String),
    /// The image belongs to a container.
    #[error("image \"{image}\" is in use{}", owner.as_ref().map(|owner| format!(" by {owner}")).unwrap_or_default())]
    InUse {
        /// The name that was given.
        image: String,
        /// Whose claim it is, when it is a lasting one.
        owner: Option<String>,
    },
    /// Claims cannot be kept under this name.
    #[error(
        "{0:?} cannot own claims on images: at most 200 letters, digits, \"-\", \"_\" and \".\", not beginning with \".\""
    )]
    Owner(String),
    /// Another process was changing the store for as long as this one waits.
    #[error(
        "image store {} is being changed by {}, and still was after {} s",
        path.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")),
        waited.as_secs_f32()
    )]
    Locked {
        /// The store.
        path: PathBuf,
        /// The process that has the lock, by its own count of pids.
        holder: Option<u32>,
        /// How long was waited.
        waited: Duration,
    },
    /// The directory is somebody else's.
    #[error("{} holds {entry:?}, which no image store has", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is in it.
        entry: OsString,
    },
    /// The store was written by another version.
    #[error("image store {} has format {found}, this program reads {known}", path.display())]
    Format {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// What this program knows.
        known: u64,
    },
    /// An archive holds no image, or one that is not whole.
    #[error("import {origin}: {reason}")]
    Import {
        /// The file or directory.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// A file of the store could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pull this one waited for was dropped, or the program is ending.
    #[error("image work was interrupted")]
    Interrupted,
}

impl Error {
    /// Whether the image does not exist, as far as the registry or the store says.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound(_) | Self::Platform { .. } => true,
            Self::Resolve { source, .. } | Self::Fetch { source, .. } => source.is_not_found(),
            Self::Reference { .. }
            | Self::Content { .. }
            | Self::Unpack { .. }
            | Self::InUse { .. }
            | Self::Owner(_)
            | Self::Locked { .. }
            | Self::NotAStore { .. }
            | Self::Format { .. }
            | Self::Import { .. }
            | Self::Io { .. }
            | Self::Interrupted => false,
        }
    }

    /// Whether the name itself is wrong (a pod's `InvalidImageName`), so that no retry can help.
    pub fn is_invalid_name(&self) -> bool {
        matches!(self, Self::Reference { .. })
    }
}
