//! Devices of the host that pods ask for by name, as for a USB stick, without being privileged.
//!
//! The node is told which files in `/dev` a name stands for (`--device home.example/zigbee=/dev/serial/by-id/usb-ITead*`). Each
//! of them that is there is one of an extended resource of that name, counted in the node's capacity. A container that
//! requests one gets the device at the same path in its own `/dev`, and nobody else has it as long as the pod is not over.
//!
//! Who has which is kept in a file beside the node's data, so that an agent that was killed gives nothing out twice.

pub(crate) mod class;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_process::FileChanges;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::pod::resources::{self, Amounts};
use crate::pod::{self, is_sidecar, spec};
use class::DeviceClass;

/// Devices in order, by the name of their class.
type Found = BTreeMap<String, Vec<PathBuf>>;

/// Why devices cannot be given out.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Others have them, or they are not plugged in.
    #[error("{class}: {wanted} requested, but of {present} plugged in only {free} are free")]
    Lack {
        /// Their class.
        class: String,
        /// How many the pod is to have.
        wanted: usize,
        /// How many there are.
        present: usize,
        /// How many of those it could have.
        free: usize,
    },
    /// It could not be noted who has them.
    #[error("note who has which device in {path}")]
    Note {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What outlives the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Classes the node has ever told of: those it has no more are told as none.
    told: BTreeSet<String>,
    /// Devices by class and by the uid of the pod that has them.
    held: BTreeMap<String, BTreeMap<String, Vec<PathBuf>>>,
}

/// The node's devices, and who has them.
pub(crate) struct Devices {
    classes: Vec<DeviceClass>,
    file: PathBuf,
    kept: Mutex<Kept>,
    found: watch::Sender<Found>,
}

impl Devices {
    /// Looks at what is plugged in, and reads who has what.
    ///
    /// # Errors
    /// [`DeviceError::Note`], if there are classes and the file cannot be written.
    pub(crate) fn open(classes: Vec<DeviceClass>, data_dir: &Path) -> Result<Self, DeviceError> {
        let file = data_dir.join("devices.json");
        let mut kept = match fs::read(&file) {
            // It is not forced to the disk: what a power cut spoils is of no use, for it ends all containers too.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(file = %file.display(), error = &error as &(dyn StdError + 'static), "note of devices not readable");
                Kept::default()
            }),
            Err(_) => Kept::default(),
        };
        let found = scan(&classes);
        let before = kept.told.len();
        kept.told.extend(found.keys().cloned());
        if kept.told.len() > before {
            note(&file, &kept)?;
        }
        Ok(Self { classes, file, kept: Mutex::new(kept), found: watch::Sender::new(found) })
    }

    /// How many are plugged in of each class, and none of those the node had before.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let gone = self.with(|kept| kept.told.iter().map(|class| (class.clone(), 0)).collect::<BTreeMap<_, _>>());
        let found = self.found.borrow();
        gone.into_iter().chain(found.iter().map(|(class, paths)| (class.clone(), paths.len()))).collect()
    }

    /// Changes when something is plugged in or out.
    pub(crate) fn changes(&self) -> watch::Receiver<Found> {
        self.found.subscribe()
    }

    /// The devices of one container of a pod, which become the pod's with its first container. One that was plugged out is
    /// replaced, if another one is free.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub(crate) fn of(&self, pod: &Pod, container: &Container) -> Result<Vec<PathBuf>, DeviceError> {
        let mut all = Vec::new();
        let found = self.found.borrow().clone();
        let wanted = resources::requests(container);
        for (class, present) in &found {
            let own = count(&wanted, class);
            if own == 0 {
                continue;
            }
            let held = self.hold(pod::uid(pod), class, count(&resources::pod_requests(pod), class), present)?;
            all.extend(held.into_iter().skip(before(pod, container, class)).take(own));
        }
        Ok(all)
    }

    /// Makes `wanted` devices of a class the pod's; those it has already stay its.
    fn hold(&self, uid: &str, class: &str, wanted: usize, present: &[PathBuf]) -> Result<Vec<PathBuf>, DeviceError> {
        self.with(|kept| {
            let holders = kept.held.get(class);
            let taken: BTreeSet<&PathBuf> = holders.into_iter().flat_map(BTreeMap::values).flatten().collect();
            let mut free = present.iter().filter(|path| !taken.contains(path)).cloned();
            let had = holders.and_then(|holders| holders.get(uid)).cloned().unwrap_or_default();
            let mut has = Vec::with_capacity(wanted);
            for place in 0..wanted {
                let old = had.get(place).filter(|path| present.contains(path)).cloned();
                match old.or_else(|| free.next()) {
                    Some(path) => has.push(path),
                    None => {
                        let (class, present) = (class.to_owned(), present.len());
                        let free = has.len();
                        return Err(DeviceError::Lack { class, wanted, present, free });
                    }
                }
            }
            if has != had {
                let mut next = kept.clone();
                next.held.entry(class.to_owned()).or_default().insert(uid.to_owned(), has.clone());
                note(&self.file, &next)?;
                *kept = next;
            }
            Ok(has)
        })
    }

    /// Nothing of the pod uses a device any more.
    pub(crate) fn release(&self, uid: &str) {
        self.keep(|holder| holder != uid);
    }

    /// Takes devices from all pods but those that `stays` says.
    pub(crate) fn keep(&self, stays: impl Fn(&str) -> bool) {
        self.with(|kept| {
            let mut next = kept.clone();
            for holders in next.held.values_mut() {
                holders.retain(|uid, _| stays(uid));
            }
            if next == *kept {
                return;
            }
            if let Err(error) = note(&self.file, &next) {
                // What is noted too much is taken away when the next agent has its list of pods.
                tracing::warn!(error = &error as &(dyn StdError + 'static), "devices given back, and not noted");
            }
            *kept = next;
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks again at what is plugged in.
    fn look(&self) {
        let now = scan(&self.classes);
        self.found.send_if_modified(|found| {
            let changed = *found != now;
            *found = now;
            changed
        });
    }
}

fn note(file: &Path, kept: &Kept) -> Result<(), DeviceError> {
    let new = file.with_extension("new");
    serde_json::to_vec(kept)
        .map_err(io::Error::from)
        .and_then(|bytes| fs::write(&new, bytes))
        .and_then(|()| fs::rename(&new, file))
        .map_err(|source| DeviceError::Note { path: file.to_owned(), source })
}

/// Follows what is plugged in and out until `shutdown`.
pub(crate) async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let devices = &context.devices;
    if devices.classes.is_empty() {
        return shutdown.cancelled().await;
    }
    loop {
        // Watched before it is looked at, so that no change falls between.
        let changes = watch_directories(&devices.classes);
        devices.look();
        let lost = |error: &(dyn StdError + 'static)| {
            tracing::error!(error, "devices not watched: what is plugged in from now on is not seen");
        };
        if !FileChanges::next_until(changes, &shutdown, lost).await {
            return;
        }
    }
}

/// Wakes when a name comes to one of the classes' directories or goes, or such a directory itself does: `/dev/serial` is there
/// only while something serial is.
fn watch_directories(classes: &[DeviceClass]) -> io::Result<FileChanges> {
    let changes = FileChanges::new()?;
    for class in classes {
        let below = class.directory.ancestors().take_while(|path| path.starts_with(class::ROOT)).collect::<Vec<_>>();
        for directory in below.into_iter().rev() {
            match changes.of_names(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            }
        }
    }
    Ok(changes)
}

/// The devices that are there. Two names of one device are one device, by the first name.
fn scan(classes: &[DeviceClass]) -> Found {
    let mut found = Found::new();
    let mut seen = BTreeSet::new();
    for class in classes {
        let paths = found.entry(class.name.clone()).or_default();
        // A directory that is not there has nothing in it.
        let entries = fs::read_dir(&class.directory).into_iter().flatten().flatten();
        let mut matching: Vec<PathBuf> =
            entries.filter(|entry| class.matches(&entry.file_name())).map(|entry| entry.path()).collect();
        matching.sort();
        for path in matching {
            let Ok(device) = fs::metadata(&path) else { continue };
            let kind = device.file_type();
            if (kind.is_char_device() || kind.is_block_device())
                && seen.insert((class.name.clone(), kind.is_block_device(), device.rdev()))
            {
                paths.push(path);
            }
        }
    }
    found
}

/// How many of a class are requested.
fn count(amounts: &Amounts, class: &str) -> usize {
    usize::try_from(resources::units(amounts.get(class).copied().unwrap_or(0))).unwrap_or(0)
}

/// How many of a pod's devices are those of containers that run beside this one and come before it. What an init container
/// has, those after it have, as with room in general.
fn before(pod: &Pod, container: &Container, class: &str) -> usize {
    let of = |other: &Container| count(&resources::requests(other), class);
    let mut sum = 0;
    for other in spec(pod).init_containers() {
        if other.name == container.name {
            return sum;
        }
        if is_sidecar(other) {
            sum += of(other);
        }
    }
    sum + spec(pod).containers().iter().take_while(|other| other.name != container.name).map(of).sum::<usize>()
}

#[cfg(test)]
mod tests;
