//! AppArmor: whether this host confines programs by it, and the profile of containers that ask for the runtime's own.
//!
//! The kernel takes profiles compiled only (apparmor(7), `securityfs`). As other runtimes do, this one leaves that to the host's
//! `apparmor_parser`, which a host with AppArmor has.

use std::{
    fs,
    io::{self, Write},
    process::{Command, Stdio},
};

use crate::error::Error;

/// The name of the runtime's own profile. A container whose specification names it gets it, loaded or not.
pub const DEFAULT_APPARMOR_PROFILE: &str = "coracle-default";

/// Names of the profiles that are loaded, each with its mode.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// The runtime's own profile: it stands behind capabilities, mounts and the filter of system calls, which say what a container
/// may do. So it allows what those decide, and denies what an unprivileged container never needs: mounting, the kernel's
/// switches in `/proc` and `/sys`, and to reach by signals and ptrace(2) beyond its own kind. Whoever runs the container,
/// which nothing confines, signals it.
const PROFILE: &str = "profile coracle-default flags=(attach_disconnected, mediate_deleted) {
  capability,
  network,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=coracle-default,
  ptrace (trace, read, tracedby, readby) peer=coracle-default,

  deny mount,
  deny /proc/* w,
  deny /proc/sys/** w,
  deny /proc/{sysrq-trigger,kcore,mem,kmem} rwklx,
  deny /sys/{[^f],f[^s],fs/[^c],fs/c[^g]}** wklx,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
";

/// Whether this host confines programs by AppArmor, so that [`crate::ContainerSpec::apparmor`] can be carried out.
pub fn apparmor_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|answer| answer.starts_with(b"Y"))
}

/// Whether a profile of this name is loaded on the host.
///
/// # Errors
/// When the kernel does not tell: AppArmor is not enabled, or `securityfs` is not mounted.
pub fn apparmor_loaded(name: &str) -> io::Result<bool> {
    fs::read_to_string(LOADED).map(|profiles| names(&profiles).any(|loaded| loaded == name))
}

/// Lines are as `name (mode)`; a name may hold blanks.
fn names(profiles: &str) -> impl Iterator<Item = &str> {
    profiles.lines().filter_map(|line| line.rsplit_once(" (")).map(|(name, _)| name)
}

/// Loads the runtime's own profile, in place of that of another version. Reads files and waits for a program.
///
/// # Errors
/// [`Error::Unsupported`] when the host's parser is missing or fails.
pub(crate) fn load_default() -> Result<(), Error> {
    let paths = "/usr/sbin:/usr/bin:/sbin:/bin";
    load(Command::new("apparmor_parser").env("PATH", paths)).map_err(|why| Error::Unsupported {
        what: "the runtime's own AppArmor profile",
        why: format!("apparmor_parser: {why}"),
    })
}

fn load(parser: &mut Command) -> Result<(), String> {
    let parser = parser.args(["--replace", "--skip-cache"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut parser = parser.stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    // Who does not read it says why when it ends.
    let written = parser.stdin.take().map(|mut stdin| stdin.write_all(PROFILE.as_bytes()));
    let output = parser.wait_with_output().map_err(|error| error.to_string())?;
    match written {
        _ if !output.status.success() => {
            Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
        }
        Some(Err(error)) => Err(error.to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_given_the_profile_and_says_why_it_fails() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let shell = |line: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", line, "sh"]).env("KEPT", &kept);
            load(&mut shell)
        };
        assert_eq!(shell("echo $* > $KEPT; cat >> $KEPT"), Ok(()));
        assert_eq!(fs::read_to_string(&kept).unwrap(), format!("--replace --skip-cache\n{PROFILE}"));
        assert_eq!(shell("echo 'syntax error' >&2; exit 3"), Err("exit status: 3: syntax error".to_owned()));
        assert!(load(&mut Command::new("/no/such/parser")).unwrap_err().contains("No such file"));
    }

    #[test]
    fn the_profile_has_its_name_and_names_are_read_as_the_kernel_lists_them() {
        assert!(PROFILE.starts_with(&format!("profile {DEFAULT_APPARMOR_PROFILE} ")));
        let listed: Vec<_> = names("/usr/bin/man (enforce)\nmine (complain)\na b//c (enforce)\nnonsense\n").collect();
        assert_eq!(listed, ["/usr/bin/man", "mine", "a b//c"]);
    }
}
