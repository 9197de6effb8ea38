//! Images from files: archives and directories.

use std::path::PathBuf;

/// Where an image is imported from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportSource {
    /// A `docker save` archive or an OCI archive, plain or compressed; or a directory in OCI image layout.
    Path(PathBuf),
    /// An archive on standard input.
    Stdin,
}
