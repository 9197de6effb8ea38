//! Layers' archives become directories.

use std::io;

/// How large one layer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Files, directories, links.
    pub entries: u64,
    /// How many times larger than its compressed form a layer may grow, once it is larger than 64 MiB.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, ratio: 1_000 }
    }
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The disk refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}
