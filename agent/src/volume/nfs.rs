//! File systems of other machines, mounted by the kernel alone (nfs(5)): no helper program, so the address is looked up here
//! and the versions are tried here.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::Error;

/// The port of the protocol.
const PORT: u16 = 2049;
/// So long a server may take to answer at all. The kernel would wait for three minutes, and nobody can take that back: not
/// even who deletes the pod meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// The versions, the newest first. What locks in the oldest one needs a daemon that may not be here, so it has none.
const VERSIONS: [(&str, &str); 4] = [
    ("nfs4", "vers=4.2"),
    ("nfs4", "vers=4.1"),
    ("nfs4", "vers=4.0"),
    ("nfs", "vers=3,nolock,proto=tcp,mountproto=tcp"),
];

/// Mounts `export` of `server` at `target`.
///
/// # Errors
/// [`Error::Server`] when its name has no address; [`Error::Io`] when nothing answers there, with what the kernel said, or
/// that it knows no such file system.
pub(super) fn attach(server: &str, export: &str, read_only: bool, target: &Path) -> Result<(), Error> {
    let address = address(server).map_err(|source| Error::Server { server: server.to_owned(), source })?;
    let source = source(server, export);
    is_there(SocketAddr::new(address, PORT), PATIENCE)
        .map_err(|why| Error::io("mount nfs", Path::new(&source), why))?;
    let flags = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() } | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let mut last = Errno::ENODEV;
    for (kind, version) in VERSIONS {
        let options = options(version, address);
        match mount(Some(source.as_str()), target, Some(kind), flags, Some(options.as_str())) {
            Ok(()) => return Ok(()),
            // The server, or this kernel, does not know this version: an older one may do.
            Err(error @ (Errno::EPROTONOSUPPORT | Errno::ENODEV | Errno::EINVAL)) => last = error,
            Err(error) => return Err(failed(&source, error)),
        }
    }
    Err(failed(&source, last))
}

/// Whether anything answers there. A refusal is an answer: an old server may have another port, which the kernel asks for.
fn is_there(place: SocketAddr, patience: Duration) -> io::Result<()> {
    match TcpStream::connect_timeout(&place, patience) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let seconds = patience.as_secs();
            Err(io::Error::new(error.kind(), format!("{place} has not answered within {seconds} seconds")))
        }
        _ => Ok(()),
    }
}

fn failed(source: &str, error: Errno) -> Error {
    let why = match error {
        Errno::ENODEV => io::Error::other("this host's kernel has no NFS (its module nfs is not there or not loaded)"),
        other => other.into(),
    };
    Error::io("mount nfs", Path::new(source), why)
}

fn address(server: &str) -> io::Result<IpAddr> {
    let mut found = (server.trim_matches(['[', ']']), PORT).to_socket_addrs()?;
    found.next().map(|address| address.ip()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn source(server: &str, export: &str) -> String {
    if server.contains(':') && !server.starts_with('[') {
        return format!("[{server}]:{export}");
    }
    format!("{server}:{export}")
}

/// What a helper program would put together.
fn options(version: &str, address: IpAddr) -> String {
    let own = match address {
        IpAddr::V4(_) => "0.0.0.0",
        IpAddr::V6(_) => "::",
    };
    let client = if version.starts_with("vers=4") { format!(",clientaddr={own}") } else { String::new() };
    format!("{version},addr={address}{client}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_what_a_helper_would_tell_it() {
        let four: IpAddr = "192.0.2.7".parse().unwrap();
        let six: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(options("vers=4.2", four), "vers=4.2,addr=192.0.2.7,clientaddr=0.0.0.0");
        assert_eq!(options("vers=4.1", six), "vers=4.1,addr=2001:db8::7,clientaddr=::");
        assert_eq!(options("vers=3,nolock", four), "vers=3,nolock,addr=192.0.2.7");
        assert_eq!(source("nas.example", "/srv"), "nas.example:/srv");
        assert_eq!(source("2001:db8::7", "/srv"), "[2001:db8::7]:/srv");
        assert_eq!(address("192.0.2.7").unwrap(), four);
        assert_eq!(address("[2001:db8::7]").unwrap(), six);
    }

    #[test]
    fn what_the_kernel_cannot_is_said_in_words() {
        let said = crate::pod::start::chain(&failed("nas:/srv", Errno::ENODEV));
        assert_eq!(
            said,
            "mount nfs nas:/srv: this host's kernel has no NFS (its module nfs is not there or not loaded)"
        );
        let error = attach("no such host.invalid", "/srv", true, Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, Error::Server { .. }), "{error}");
    }
}
