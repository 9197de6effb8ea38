//! Devices by the Container Device Interface (CDI): files in `/etc/cdi` and `/var/run/cdi` say what a container gets that asks
//! for a device by its name, as in `vendor.example/gpu=0`: device nodes, mounts, environment, groups.
//!
//! The rules are those of the specification (`SPEC.md` of github.com/cncf-tags/container-device-interface, version 1.1.0). Files
//! are read when a container asks: nothing is kept that could be out of date.

mod file;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use coracle_process::grpc::{Code, Refusal, Result};

use super::invalid;
use crate::pod::start::chain;
use file::{Fault, File};

/// Where the files are; what is in a later directory goes before the same of an earlier one.
pub(super) const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What a container gets by the devices it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) env: Vec<(String, String)>,
    pub(super) devices: Vec<coracle_runtime::Device>,
    pub(super) mounts: Vec<coracle_runtime::Mount>,
    pub(super) gids: Vec<u32>,
}

/// A file that was read, and which of the directories it is in.
struct Found {
    directory: usize,
    path: PathBuf,
    file: File,
}

/// What is in the directories, and what there is no device of.
#[derive(Default)]
struct Library {
    found: Vec<Found>,
    broken: Vec<(PathBuf, Fault)>,
}

impl Library {
    /// Reads all files. One that is no specification is as if it were not there, but is named when a device is missing.
    fn read(directories: &[PathBuf]) -> Self {
        let mut library = Self::default();
        for (directory, path) in directories.iter().enumerate() {
            let mut paths = match files(path) {
                Ok(paths) => paths,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    library.broken.push((path.clone(), Fault::Read(error)));
                    continue;
                }
            };
            paths.sort();
            for path in paths {
                match File::read(&path) {
                    Ok(file) => library.found.push(Found { directory, path, file }),
                    Err(fault) => library.broken.push((path, fault)),
                }
            }
        }
        library
    }

    /// The file that says what a device is; none when none does.
    ///
    /// # Errors
    /// Two of the same directory say it.
    fn of(&self, kind: &str, device: &str) -> Result<Option<&Found>> {
        let telling = || self.found.iter().filter(|found| found.file.tells(kind, device));
        let Some(last) = telling().map(|found| found.directory).max() else { return Ok(None) };
        let mut telling = telling().filter(|found| found.directory == last);
        match (telling.next(), telling.next()) {
            (Some(one), Some(other)) => {
                let (one, other) = (one.path.display(), other.path.display());
                Err(Refusal(Code::FailedPrecondition, format!("conflicting device {kind}={device} ({one}, {other})")))
            }
            (first, _) => Ok(first),
        }
    }
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json" || extension == "yaml");
    let entries = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    Ok(entries.collect::<io::Result<Vec<_>>>()?.into_iter().filter(is_one).collect())
}

/// What a container gets that asks for these devices. Reads files.
///
/// # Errors
/// A name is none or there is no such device, there are two of it, or it takes something a container cannot have here.
pub(super) fn find(names: &[String], directories: &[PathBuf]) -> Result<Given> {
    let mut given = Given::default();
    if names.is_empty() {
        return Ok(given);
    }
    let library = Library::read(directories);
    let (mut used, mut missing) = (BTreeSet::new(), Vec::new());
    for name in names {
        let (kind, device) = file::split(name)
            .ok_or_else(|| invalid(format!("CDI device {name:?} is not of the form vendor/class=device")))?;
        let Some(found) = library.of(kind, device)? else {
            missing.push(name.as_str());
            continue;
        };
        // What is of all devices of a file is given once.
        let whole = used.insert(&found.path);
        found.file.give(device, whole, &mut given).map_err(|Refusal(code, why)| {
            Refusal(code, format!("CDI device {name} of {}: {why}", found.path.display()))
        })?;
    }
    if missing.is_empty() {
        return Ok(given);
    }
    let broken = library.broken.iter().map(|(path, fault)| format!("; {}: {}", path.display(), chain(fault)));
    let why = format!("unresolvable CDI devices {}{}", missing.join(", "), broken.collect::<String>());
    Err(Refusal(Code::NotFound, why))
}

#[cfg(test)]
mod tests;
