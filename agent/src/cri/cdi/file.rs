//! One specification: what its file says, and what a container gets of it.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use coracle_process::grpc::Result;
use coracle_proto::yaml;
use coracle_runtime::{MountKind, Propagation};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::invalid;
use super::super::sandbox_spec::unsupported;
use super::Given;

/// Versions whose every field is known here.
const VERSIONS: [&str; 10] = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// Why a file is no specification.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The kernel does not give it.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is neither JSON nor YAML.
    #[error("it is neither JSON nor YAML")]
    Syntax(#[source] yaml::Error),
    /// A field is missing, unknown or of another type.
    #[error("it is not of the form of a specification")]
    Form(#[source] serde_json::Error),
    /// A field has a value it may not have.
    #[error("{field}: {why}")]
    Field { field: String, why: String },
}

fn field(field: impl Into<String>, why: impl Into<String>) -> Fault {
    Fault::Field { field: field.into(), why: why.into() }
}

/// The file's top.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    cdi_version: String,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    devices: Vec<Device>,
    /// Of whoever has any of the devices.
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Device {
    name: String,
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    container_edits: Edits,
}

/// What is changed of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    net_devices: Vec<IgnoredAny>,
    mounts: Vec<Mount>,
    hooks: Vec<IgnoredAny>,
    intel_rdt: Option<IgnoredAny>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: String,
    /// As `path` when it is empty.
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    major: Option<u64>,
    minor: Option<u64>,
    file_mode: Option<u32>,
    #[serde(default)]
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    options: Vec<String>,
}

/// Letters, digits and some signs between: a letter first where `letter`, a letter or digit else, and at the end.
fn is_name(text: &str, letter: bool, between: &str) -> bool {
    let begins = text.starts_with(|c: char| if letter { c.is_ascii_alphabetic() } else { c.is_ascii_alphanumeric() });
    begins
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || between.contains(c))
}

fn is_kind(text: &str) -> bool {
    text.split_once('/').is_some_and(|(vendor, class)| is_name(vendor, true, "-_.") && is_name(class, true, "-_."))
}

fn is_device(text: &str) -> bool {
    is_name(text, false, "-_.:")
}

/// The kind and the device of a full name, `vendor/class=device`.
pub(super) fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('=').filter(|(kind, device)| is_kind(kind) && is_device(device))
}

impl File {
    /// Reads a file, and checks it.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) fn read(path: &Path) -> std::result::Result<Self, Fault> {
        let most = u64::try_from(yaml::MAX_BYTES).unwrap_or(u64::MAX);
        let mut text = String::new();
        // One byte more than may be, which is then too many.
        let read =
            std::fs::File::open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_string(&mut text));
        read.map_err(Fault::Read)?;
        let value = yaml::parse_json_or_yaml(&text).map_err(Fault::Syntax)?;
        let file: Self = serde_json::from_value(value).map_err(Fault::Form)?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> std::result::Result<(), Fault> {
        let version = self.cdi_version.trim_start_matches('v');
        if !VERSIONS.contains(&version) {
            return Err(field("cdiVersion", format!("{version:?} is unknown")));
        }
        if !is_kind(&self.kind) {
            return Err(field("kind", format!("{:?} is not of the form vendor/class", self.kind)));
        }
        if self.devices.is_empty() {
            return Err(field("devices", "there are none"));
        }
        let mut names = BTreeSet::new();
        for device in &self.devices {
            let at = format!("devices[{:?}]", device.name);
            if !is_device(&device.name) || !names.insert(&device.name) {
                return Err(field(at, "it is no name, or another has it"));
            }
            if device.container_edits.is_empty() {
                return Err(field(format!("{at}.containerEdits"), "there are none"));
            }
            device.container_edits.check(&at)?;
        }
        self.container_edits.check("containerEdits")
    }

    /// Whether it says what this device of this kind is.
    pub(super) fn tells(&self, kind: &str, device: &str) -> bool {
        self.kind == kind && self.devices.iter().any(|one| one.name == device)
    }

    /// Gives one of its devices, and what whoever has any of them gets if `whole`.
    ///
    /// # Errors
    /// It takes something that a container cannot have here, or what is not there on the host.
    pub(super) fn give(&self, device: &str, whole: bool, given: &mut Given) -> Result<()> {
        if whole {
            self.container_edits.give(given)?;
        }
        let device = self.devices.iter().find(|one| one.name == device);
        device.map_or(Ok(()), |device| device.container_edits.give(given))
    }
}

impl Edits {
    fn is_empty(&self) -> bool {
        let Self { env, device_nodes, net_devices, mounts, hooks, intel_rdt, additional_gids } = self;
        env.is_empty()
            && device_nodes.is_empty()
            && net_devices.is_empty()
            && mounts.is_empty()
            && hooks.is_empty()
            && intel_rdt.is_none()
            && additional_gids.is_empty()
    }

    fn check(&self, at: &str) -> std::result::Result<(), Fault> {
        if let Some(wrong) =
            self.env.iter().find(|line| line.find('=').is_none_or(|place| place == 0) || line.contains('\0'))
        {
            return Err(field(format!("{at}.env"), format!("{wrong:?} is not of the form NAME=VALUE")));
        }
        for node in &self.device_nodes {
            let at = format!("{at}.deviceNodes[{:?}]", node.path);
            if !node.path.starts_with('/') || !(node.host_path.is_empty() || node.host_path.starts_with('/')) {
                return Err(field(at, "its paths must be absolute"));
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                return Err(field(format!("{at}.type"), format!("{:?} is none", node.kind)));
            }
            if node.permissions != "none" && node.permissions.contains(|letter| !"rwm".contains(letter)) {
                return Err(field(
                    format!("{at}.permissions"),
                    format!("{:?} is not made of r, w and m", node.permissions),
                ));
            }
        }
        match self.mounts.iter().find(|mount| mount.host_path.is_empty() || !mount.container_path.starts_with('/')) {
            Some(wrong) => {
                Err(field(format!("{at}.mounts"), format!("{:?} is no place for one", wrong.container_path)))
            }
            None => Ok(()),
        }
    }

    fn give(&self, given: &mut Given) -> Result<()> {
        for (what, there) in [
            ("hooks", !self.hooks.is_empty()),
            ("netDevices", !self.net_devices.is_empty()),
            ("intelRdt", self.intel_rdt.is_some()),
        ] {
            if there {
                return Err(unsupported(&format!("{what} are not supported")));
            }
        }
        let variables = self.env.iter().filter_map(|line| line.split_once('='));
        given.env.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for node in &self.device_nodes {
            given.devices.push(node.on_host()?);
        }
        for mount in &self.mounts {
            given.mounts.push(mount.of_host()?);
        }
        given.gids.extend(self.additional_gids.iter().filter(|gid| **gid != 0));
        Ok(())
    }
}

impl Node {
    /// The host's node, which must be the one that is described.
    fn on_host(&self) -> Result<coracle_runtime::Device> {
        let path = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let there = std::fs::metadata(path).map_err(|error| invalid(format!("device node {path}: {error}")))?;
        let number = std::os::unix::fs::MetadataExt::rdev(&there);
        let kind = match there.file_type() {
            kind if kind.is_char_device() => "c",
            kind if kind.is_block_device() => "b",
            _ => return Err(unsupported(&format!("device node {path} is neither a character nor a block device"))),
        };
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        // `u` is another word for `c` (mknod(1)).
        let wanted = if self.kind == "u" { "c" } else { &self.kind };
        let is_wanted = (wanted.is_empty() || wanted == kind)
            && self.major.is_none_or(|wanted| wanted == major)
            && self.minor.is_none_or(|wanted| wanted == minor);
        if !is_wanted {
            let asked = |number: Option<u64>| number.map_or_else(|| "any".to_owned(), |number| number.to_string());
            let (asked_major, asked_minor) = (asked(self.major), asked(self.minor));
            let why = format!(
                "device node {path} is {kind} {major}:{minor} on the host, not {wanted} {asked_major}:{asked_minor}"
            );
            return Err(invalid(why));
        }
        let permissions = match self.permissions.as_str() {
            "" => "rwm",
            "none" => "",
            letters => letters,
        };
        Ok(coracle_runtime::Device {
            host_path: PathBuf::from(path),
            container_path: self.path.clone(),
            permissions: permissions.to_owned(),
            mode: self.file_mode.map(|mode| mode & 0o7777),
            uid: self.uid,
            gid: self.gid,
        })
    }
}

impl Mount {
    fn of_host(&self) -> Result<coracle_runtime::Mount> {
        let Self { host_path, container_path, kind, options } = self;
        let mut mount = coracle_runtime::Mount::bind("", container_path);
        for option in options {
            match option.as_str() {
                "ro" => mount.readonly = true,
                "rro" => (mount.readonly, mount.recursive_readonly) = (true, true),
                "nosuid" | "nodev" | "noexec" => mount.options.push(option.clone()),
                "private" | "rprivate" => mount.propagation = Propagation::Private,
                "slave" | "rslave" => mount.propagation = Propagation::HostToContainer,
                "shared" | "rshared" => mount.propagation = Propagation::Bidirectional,
                // What a mount is without a word.
                "rw" | "suid" | "dev" | "exec" | "bind" | "rbind" => {}
                other => {
                    return Err(unsupported(&format!("mount at {container_path}: option {other:?} is not supported")));
                }
            }
        }
        mount.kind = match kind.as_str() {
            "" | "bind" | "none" => {
                let source = Path::new(host_path);
                let found = std::fs::canonicalize(source).ok().filter(|_| source.is_absolute());
                MountKind::Bind {
                    source: found.ok_or_else(|| invalid(format!("mount of {host_path}: it is not there")))?,
                }
            }
            "tmpfs" => MountKind::Tmpfs { size: None, mode: None },
            other => return Err(unsupported(&format!("mount at {container_path}: type {other:?} is not supported"))),
        };
        Ok(mount)
    }
}
