//! System calls the libraries have no safe words for. Each function is one call; nothing here decides anything.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use libc::{c_int, c_long, c_uint, c_ulong};

/// Resolve inside the directory given, as if it were the root (openat2(2)).
pub(crate) const RESOLVE_IN_ROOT: u64 = 0x10;
/// Refuse links such as `/proc/self/fd/3`.
pub(crate) const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
/// Refuse symbolic links.
pub(crate) const RESOLVE_NO_SYMLINKS: u64 = 0x04;

/// mount_setattr(2) and fsmount(2).
pub(crate) const ATTR_RDONLY: u64 = 0x1;
/// No set-user-id.
pub(crate) const ATTR_NOSUID: u64 = 0x2;
/// No devices.
pub(crate) const ATTR_NODEV: u64 = 0x4;
/// No execution.
pub(crate) const ATTR_NOEXEC: u64 = 0x8;

const AT_EMPTY_PATH: c_int = 0x1000;
const AT_RECURSIVE: c_int = 0x8000;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn check(result: c_long) -> io::Result<c_int> {
    match c_int::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

fn owned(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the call succeeded and gave this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A path or name as the kernel takes it.
pub(crate) fn c_string(bytes: impl AsRef<[u8]>) -> io::Result<CString> {
    CString::new(bytes.as_ref()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "holds a zero byte"))
}

fn c_path(path: &Path) -> io::Result<CString> {
    c_string(path.as_os_str().as_bytes())
}

/// Opens a path below a directory, with the given restrictions on resolving it (openat2(2)).
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: &Path, flags: c_int, resolve: u64) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = u64::try_from(flags | libc::O_CLOEXEC).unwrap_or_default();
    let how = OpenHow { flags, mode: 0, resolve };
    // SAFETY: `path` ends in zero and `how` is of the size given; both outlive the call.
    owned(unsafe {
        libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<OpenHow>())
    })
}

/// A detached copy of the mount at a path (open_tree(2)), with those below it when `recursive`.
pub(crate) fn clone_mount(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = 1 | libc::O_CLOEXEC | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` ends in zero and outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// The same for what a descriptor stands for.
pub(crate) fn clone_mount_of(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let flags = 1 | libc::O_CLOEXEC | AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is the empty string, a constant.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, fd.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Attaches a detached mount on what `target` stands for (move_mount(2)).
pub(crate) fn attach_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const BOTH_EMPTY: c_uint = 0x04 | 0x40;
    // SAFETY: both paths are the empty string, a constant.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            BOTH_EMPTY,
        )
    };
    check(result).map(drop)
}

/// Changes a mount's flags or propagation (mount_setattr(2)).
pub(crate) fn change_mount(mount: BorrowedFd<'_>, recursive: bool, set: u64, propagation: u64) -> io::Result<()> {
    let attr = MountAttr { set, clear: 0, propagation, userns: 0 };
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant and `attr` is of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}

/// Shows the files of a detached mount as those of a user namespace's numbers (mount_setattr(2), "ID-mapped mounts").
pub(crate) fn map_mount(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    const ATTR_IDMAP: u64 = 0x0010_0000;
    let userns = u64::from(users.as_raw_fd().cast_unsigned());
    let attr = MountAttr { set: ATTR_IDMAP, clear: 0, propagation: 0, userns };
    // SAFETY: the path is a constant and `attr` is of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}

/// A new file system as a detached mount (fsopen(2), fsconfig(2), fsmount(2)). An option without value is a flag.
pub(crate) fn new_mount(kind: &CStr, options: &[(&str, Option<&str>)], attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: `kind` ends in zero.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })?;
    let configure = |command: c_uint, key: Option<&CStr>, value: Option<&CStr>| {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are null or end in zero, and outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, pointer(key), pointer(value), 0) };
        check(result).map(drop)
    };
    for (key, value) in options {
        let key = c_string(key)?;
        match value {
            None => configure(0, Some(&key), None)?,
            Some(value) => configure(1, Some(&key), Some(&c_string(value)?))?,
        }
    }
    configure(6, None, None)?;
    // SAFETY: no pointers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes) })
}

/// Forks into new namespaces (clone3(2)); `None` in the child. Handlers are reset in the child.
///
/// # Assumptions
/// The process has one thread, so that the child may go on as any program.
pub(crate) fn fork_into(namespaces: c_int) -> io::Result<Option<nix::unistd::Pid>> {
    const CLEAR_HANDLERS: u64 = 0x1_0000_0000;
    let mut args = CloneArgs {
        flags: u64::from(namespaces.cast_unsigned()) | CLEAR_HANDLERS,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    // SAFETY: without a stack and without CLONE_VM it is a fork; `args` is of the size given.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    let pid = check(result)?;
    Ok((pid != 0).then(|| nix::unistd::Pid::from_raw(pid)))
}

/// Forks a child of this process' own parent, into the pid namespace chosen for children (clone(2), `CLONE_PARENT`); `None`
/// in the child. An older call than [`fork_into`]'s: it is one that filters of system calls can look into, and let pass.
///
/// # Assumptions
/// The process has one thread, so that the child may go on as any program.
pub(crate) fn fork_beside() -> io::Result<Option<nix::unistd::Pid>> {
    let flags = c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without a stack and without CLONE_VM it is a fork, and no flag given has the kernel use the other arguments.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone, flags, 0 as c_long, 0 as c_long, 0 as c_long, 0 as c_long) })?;
    Ok((pid != 0).then(|| nix::unistd::Pid::from_raw(pid)))
}

/// A descriptor that stands for a process (pidfd_open(2)).
pub(crate) fn pidfd(pid: nix::unistd::Pid) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// Gives this process a new empty session keyring, so that it finds none of the host's keys (keyctl(2)).
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: without a name there is no pointer.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) }).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2)).
pub(crate) fn cloexec_from(first: c_uint) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 4) }).map(drop)
}

/// Closes every descriptor of a range (close_range(2)).
///
/// # Assumptions
/// Nobody owns one of them and uses it later.
pub(crate) fn close_between(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: no pointers; the caller says that none of them is used later.
        let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// prctl(2) with plain numbers.
pub(crate) fn prctl(option: c_int, argument: c_ulong) -> io::Result<c_int> {
    // SAFETY: only options whose arguments are numbers are passed by the callers in this crate.
    check(c_long::from(unsafe { libc::prctl(option, argument, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }))
}

/// Raises one capability in the ambient set (capabilities(7)).
pub(crate) fn raise_ambient(capability: u8) -> io::Result<()> {
    // SAFETY: no pointers.
    let result = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as c_ulong,
            c_ulong::from(capability),
            0 as c_ulong,
            0 as c_ulong,
        )
    };
    check(c_long::from(result)).map(drop)
}

/// Sets the three sets of capabilities as bit masks (capset(2)).
pub(crate) fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let half = |mask: u64, high: bool| u32::try_from(if high { mask >> 32 } else { mask & 0xffff_ffff }).unwrap_or(0);
    let data = [false, true].map(|high| CapData {
        effective: half(effective, high),
        permitted: half(permitted, high),
        inheritable: half(inheritable, high),
    });
    // SAFETY: version 3 takes two data structures.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// The permitted capabilities of this process as a bit mask (capget(2)).
pub(crate) fn permitted_capabilities() -> io::Result<u64> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two data structures.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let [low, high] = data;
    Ok(u64::from(low.permitted) | u64::from(high.permitted) << 32)
}

/// Installs a filter of system calls for this process for good (seccomp(2)).
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` describes a slice that outlives the call; the kernel copies it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, 1 as c_uint, 0 as c_uint, &raw const program) }).map(drop)
}

/// Every signal back to its default and none blocked, as a program expects to be started.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: resetting to the default installs no handler; the numbers that cannot be set are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Sets a terminal's size.
pub(crate) fn set_window_size(fd: impl AsFd, columns: u16, lines: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one `winsize`.
    check(c_long::from(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })).map(drop)
}

/// Makes a terminal the controlling one of this session (tty_ioctl(4)).
pub(crate) fn set_controlling_terminal(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check(c_long::from(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })).map(drop)
}

/// Unlocks the inner side of a terminal and opens it, without looking at any path (TIOCSPTLCK, TIOCGPTPEER).
pub(crate) fn open_terminal_peer(master: impl AsFd) -> io::Result<OwnedFd> {
    let unlock: c_int = 0;
    // SAFETY: TIOCSPTLCK reads one number.
    check(c_long::from(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags and gives a new descriptor.
    owned(c_long::from(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) }))
}

/// Brings a link up in the network namespace this process is in (SIOCSIFFLAGS, netdevice(7)).
pub(crate) fn link_up(name: &str) -> io::Result<()> {
    let socket = owned(c_long::from(
        // SAFETY: no pointers.
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) },
    ))?;
    // SAFETY: `ifreq` is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(libc::c_short::MAX);
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`.
    check(c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })).map(drop)
}

/// Sets one resource limit of this process (setrlimit(2)); the number comes from [`rlimit_number`].
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads one `rlimit64`, writes none.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null::<()>()) })
        .map(drop)
}

/// The kernel's number of a limit by name.
pub(crate) fn rlimit_number(name: &str) -> Option<u32> {
    Some(match name {
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        _ => return None,
    })
}

/// Puts a descriptor in the place of a standard one.
pub(crate) fn replace_fd(from: impl AsFd, to: RawFd) -> io::Result<()> {
    // SAFETY: `to` is a standard descriptor that no `OwnedFd` owns.
    check(c_long::from(unsafe { libc::dup2(from.as_fd().as_raw_fd(), to) })).map(drop)
}

/// Takes ownership of descriptors a peer has sent.
pub(crate) fn adopt(fds: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: the kernel has just made them for this process in recvmsg(2), and nobody else knows them.
    fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// Ends this process at once, running nothing that was registered to run at the end.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Sends a signal by number, real-time ones included.
pub(crate) fn send_signal(pid: nix::unistd::Pid, signal: c_int) -> nix::Result<()> {
    // SAFETY: no pointers.
    nix::errno::Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// How a child ended.
pub(crate) enum End {
    /// With this code.
    Exited(i32),
    /// By this signal, of which the real-time ones have no name.
    Signalled(i32),
}

/// Takes a dead child, if there is one (waitpid(2)).
pub(crate) fn reap_one() -> nix::Result<Option<(nix::unistd::Pid, End)>> {
    let mut status = 0;
    // SAFETY: writes one number.
    let pid = nix::errno::Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })?;
    let end = if libc::WIFSIGNALED(status) {
        End::Signalled(libc::WTERMSIG(status))
    } else {
        End::Exited(libc::WEXITSTATUS(status))
    };
    Ok((pid != 0).then(|| (nix::unistd::Pid::from_raw(pid), end)))
}

/// `union bpf_attr` of the two commands below, as far as they read it (bpf(2)).
#[repr(C)]
#[derive(Default)]
struct BpfLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct BpfAttach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a BPF program that decides on the use of devices.
pub(crate) fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    const PROG_LOAD: c_int = 5;
    const CGROUP_DEVICE: u32 = 15;
    let count = u32::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let attributes = BpfLoad {
        kind: CGROUP_DEVICE,
        count,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
        ..BpfLoad::default()
    };
    // SAFETY: the attributes are of the size given; what they point to outlives the call and is as long as they say.
    owned(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<BpfLoad>()) })
}

/// Attaches one to a cgroup, beside those it may have.
pub(crate) fn attach_device_program(program: BorrowedFd<'_>, group: BorrowedFd<'_>) -> io::Result<()> {
    const PROG_ATTACH: c_int = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let number = |fd: BorrowedFd<'_>| fd.as_raw_fd().cast_unsigned();
    let attributes =
        BpfAttach { target: number(group), program: number(program), kind: CGROUP_DEVICE, flags: ALLOW_MULTI };
    // SAFETY: the attributes are of the size given and hold no pointers.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<BpfAttach>()) }).map(drop)
}

/// Watches a descriptor for tokio.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open descriptor as long as it lives, and it is given away here.
    let registered = unsafe { tokio::io::unix::AsyncFd::register(fd) };
    Ok(registered?)
}

/// Lets children be reaped by the kernel.
pub(crate) fn ignore_children() {
    // SAFETY: ignoring installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
