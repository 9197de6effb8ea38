//! Making a snapshot of a running server.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use coracle_store::{Contents, Store};
use futures::{Stream, stream};

use super::format::{Encoder, Header};

/// A file larger than this is no key, no certificate and no configuration.
const LARGEST_FILE: u64 = 4 << 20;

/// What a snapshot is made of.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The directory of the cluster's keys and certificates.
    pub(crate) pki: PathBuf,
    /// Configuration files by the names they shall have.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// How the server is configured.
    pub(crate) settings: BTreeMap<String, String>,
}

/// A snapshot on its way out.
enum Step {
    Files { encoder: Encoder, first: Bytes, files: Vec<(String, Vec<u8>)>, contents: Contents },
    Leases { encoder: Encoder, contents: Contents },
    Entries { encoder: Encoder, contents: Contents, from: usize },
    Ended,
}

/// A snapshot of the store as it is now, piece by piece as the reader takes it: whoever reads slowly keeps what was then
/// in memory, and holds up nobody. Reads files: call it where blocking is allowed.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn stream(
    source: &Source,
    store: &Store,
    now: jiff::Timestamp,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + use<>> {
    // The keys before the contents: what was sealed with a key that came in between could not be opened.
    let mut files = directory(&source.pki, "pki")?;
    for (name, path) in &source.files {
        files.push((name.clone(), read(path)?));
    }
    let contents = store.as_kept().contents();
    let header = Header {
        program: format!("coracle {}", env!("CARGO_PKG_VERSION")),
        created: now,
        revision: contents.revision.0,
        entries: contents.entries.len() as u64,
        leases: contents.leases.len() as u64,
        settings: source.settings.clone(),
    };
    let (encoder, first) = Encoder::begin(&header)?;
    let begin = Step::Files { encoder, first, files, contents };
    Ok(stream::unfold(begin, |step| async { step.next().map(|(bytes, step)| (Ok(bytes), step)) }))
}

impl Step {
    fn next(self) -> Option<(Bytes, Self)> {
        Some(match self {
            Self::Files { mut encoder, first, files, contents } => {
                let mut out = first.to_vec();
                files.iter().for_each(|(path, bytes)| out.extend(encoder.file(path, bytes)));
                (out.into(), Self::Leases { encoder, contents })
            }
            Self::Leases { mut encoder, contents } => {
                (encoder.leases(&contents.leases), Self::Entries { encoder, contents, from: 0 })
            }
            Self::Entries { mut encoder, contents, from } => match contents.entries.get(from..) {
                None | Some([]) => (encoder.end(), Self::Ended),
                Some(rest) => {
                    let (bytes, taken) = encoder.entries(rest);
                    (bytes, Self::Entries { encoder, contents, from: from + taken })
                }
            },
            Self::Ended => return None,
        })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let len = std::fs::metadata(path).map_err(named)?.len();
    if len > LARGEST_FILE {
        return Err(io::Error::other(format!("{} has {len} bytes: it is no key and no configuration", path.display())));
    }
    std::fs::read(path).map_err(named)
}

/// The files of a directory, by their paths below the one above it, but for what is not finished.
fn directory(dir: &Path, name: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let file = entry.file_name().into_string();
        let Some(file) = file.ok().filter(|file| !file.ends_with(".new")) else { continue };
        if entry.file_type()?.is_file() {
            files.push((format!("{name}/{file}"), read(&entry.path())?));
        }
    }
    files.sort();
    Ok(files)
}
