//! Kernel settings below `/proc/sys`, which show and change the calling thread's network namespace.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::Error;

/// Whether the host forwards packets between its interfaces.
pub(crate) const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Writes a setting unless it has the value; answers what it was when it was changed.
pub(crate) fn set(path: &Path, value: &'static str) -> Result<Option<String>, Error> {
    let wrap = |source| Error::Sysctl { path: path.to_owned(), value, source };
    let before = fs::read_to_string(path).map_err(wrap)?.trim().to_owned();
    if before == value {
        return Ok(None);
    }
    fs::write(path, value).map_err(wrap)?;
    Ok(Some(before))
}

/// Writes a setting of one interface; a kernel without the setting's protocol is no error.
pub(crate) fn set_for_interface(protocol: &str, interface: &str, name: &str, value: &'static str) -> Result<(), Error> {
    let path: PathBuf = ["/proc/sys/net", protocol, "conf", interface, name].iter().collect();
    match set(&path, value) {
        Err(Error::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
