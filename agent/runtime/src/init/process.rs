//! The last steps, which a container's first process and one executed in it share: who it is, what it may, its program.

use std::{
    convert::Infallible,
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    unistd::{AccessFlags, Gid, Uid, access, fchdir, fchown, setgroups, setresgid, setresuid},
};

use super::{
    Users,
    channel::{Report, send, send_begun, take_terminal, wait_for_go},
    file,
    identity::{self, Identity},
    report_and_end,
};
use crate::{
    capability,
    error::StartError,
    runtime::WindowSize,
    spec::{ContainerSpec, User},
    step::{AtStep, refuse},
    sys,
};

/// Where the standard descriptors lead; with a terminal they are replaced by it.
pub(crate) struct Stdio {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// What is run.
pub(super) struct Process<'a> {
    pub(super) argv: &'a [String],
    /// The container's null device, for standard descriptors that lead nowhere; opened now, or before.
    pub(super) null: Option<OwnedFd>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: &'a str,
    pub(super) make_cwd: bool,
    pub(super) user: &'a User,
    pub(super) container: &'a ContainerSpec,
    pub(super) devices_restricted: bool,
    pub(super) filter: Option<&'a [libc::sock_filter]>,
    pub(super) users: Option<Users<'a>>,
    pub(super) tty: bool,
    pub(super) size: Option<WindowSize>,
}

/// What a program finds when an image names no path.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which process becomes the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Birth {
    /// This one: the first among its processes, or one that begins among the host's.
    Here,
    /// One that is born among a container's when it may no more than its own container. A process of the container's that may trace
    /// others (`CAP_SYS_PTRACE`) takes over any that it sees, with all that one may, dumpable or not.
    Last,
}

/// Becomes the program. `seal` is what must be done while still privileged but after the last change to the root.
pub(super) fn run(
    process: &Process<'_>,
    birth: Birth,
    channel: &OwnedFd,
    stdio: &Stdio,
    seal: impl FnOnce() -> Result<(), StartError>,
) -> Result<Infallible, StartError> {
    let container = process.container;
    let read = |path| file::read(path).at("user", || format!("read {path}"));
    let identity = identity::resolve(
        process.user,
        &container.additional_gids,
        container.strict_groups,
        &read("/etc/passwd")?,
        &read("/etc/group")?,
    )?;
    connect(process, channel, stdio, &identity)?;
    if birth == Birth::Here {
        control_terminal(process)?;
    }
    let cwd = open_cwd(process)?;
    seal()?;

    let bounding = bounding(container, process.devices_restricted)?;
    let env = environment(process, &identity);
    for limit in &container.rlimits {
        let number = sys::rlimit_number(&limit.name)
            .ok_or_else(|| refuse("rlimit", format!("unknown resource limit {}", limit.name)))?;
        sys::set_rlimit(number, limit.soft, limit.hard).at("rlimit", || format!("set {}", limit.name))?;
    }
    let report = Report::Identity { uid: identity.uid, gid: identity.gid, groups: identity.groups.clone() };
    send(channel.as_fd(), &report, &[]).at("process", || "report".to_owned())?;

    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let cwd = match process.users {
        Some(users) => enter_users(process, users, cwd)?,
        None => cwd,
    };
    become_user(&identity, bounding, container, process.filter)?;
    match cwd {
        Some(cwd) => fchdir(&cwd).at("cwd", || format!("chdir to cwd ({:?})", process.cwd))?,
        None => enter_cwd(process.cwd)?,
    }
    let program = || {
        // Set after the last change of identity, which clears it, and in the last process (prctl(2), PR_SET_PDEATHSIG).
        sys::prctl(libc::PR_SET_PDEATHSIG, 9).at("process", || "end with the supervisor".to_owned())?;
        if birth == Birth::Here {
            restrict(process)?;
        }
        sys::cloexec_from(3).at("process", || "close descriptors".to_owned())?;
        execute(process.argv, &env)
    };
    if birth == Birth::Here {
        return program();
    }
    restrict(process)?;
    let born = || {
        be_born(channel)?;
        control_terminal(process)?;
        program()
    };
    // Nothing that is open here may be closed a second time: whoever is born has closed it without asking who owns it.
    match born() {
        Ok(never) => match never {},
        Err(error) => report_and_end(channel, Some(error)),
    }
}

/// No more privileges from here on, for a container that is to have none.
fn restrict(process: &Process<'_>) -> Result<(), StartError> {
    if !process.container.no_new_privileges {
        return Ok(());
    }
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at("process", || "set no_new_privs".to_owned())?;
    match process.filter {
        Some(filter) => sys::install_filter(filter).at("seccomp", || "install the filter".to_owned()),
        None => Ok(()),
    }
}

/// Goes on as a child of the supervisor's in the container's pid namespace, with nothing open but the standard descriptors
/// and the way to the supervisor, which puts it into its cgroup. There it may be too many: being moved there it is not
/// counted against the limit of processes, so that one more can always look into a container that has reached it.
fn be_born(channel: &OwnedFd) -> Result<(), StartError> {
    let kept = channel.as_raw_fd();
    sys::close_between(3, kept - 1);
    sys::close_between(kept.max(2) + 1, i32::MAX);
    if sys::fork_beside().at("process", || "begin in the container".to_owned())?.is_some() {
        sys::exit_now(0);
    }
    nix::unistd::setsid().at("process", || "begin a session".to_owned())?;
    send_begun(channel.as_fd()).at("process", || "report".to_owned())?;
    wait_for_go(channel.as_fd()).at("cgroup", || "wait for the supervisor".to_owned())
}

/// The terminal or the pipes become the standard descriptors and belong to the user, so that `/dev/stdout` can be opened.
fn connect(process: &Process<'_>, channel: &OwnedFd, stdio: &Stdio, identity: &Identity) -> Result<(), StartError> {
    let place = |fd: &OwnedFd, number| sys::replace_fd(fd, number).at("stdio", || format!("set descriptor {number}"));
    let owner = Uid::from_raw(Users::on_host(process.users, identity.uid));
    if process.tty {
        let terminal = take_terminal(channel.as_fd()).at("terminal", || "make a terminal".to_owned())?;
        if let Some(size) = process.size {
            sys::set_window_size(&terminal, size.width, size.height).at("terminal", || "set its size".to_owned())?;
        }
        fchown(&terminal, Some(owner), None).at("terminal", || "give it away".to_owned())?;
        if process.make_cwd {
            show_console(&terminal);
        }
        return (0..3).try_for_each(|number| place(&terminal, number));
    }
    for (number, fd) in [(0, &stdio.stdin), (1, &stdio.stdout), (2, &stdio.stderr)] {
        if let Some(fd) = fd {
            fchown(fd, Some(owner), None).at("stdio", || "give pipes away".to_owned())?;
        }
        let opened = match (fd, &process.null) {
            (None, None) => Some(file::null().at("stdio", || "open /dev/null".to_owned())?),
            _ => None,
        };
        if let Some(fd) = fd.as_ref().or(process.null.as_ref()).or(opened.as_ref()) {
            place(fd, number)?;
        }
    }
    Ok(())
}

fn control_terminal(process: &Process<'_>) -> Result<(), StartError> {
    if !process.tty {
        return Ok(());
    }
    sys::set_controlling_terminal(io::stdin()).at("terminal", || "make it the controlling one".to_owned())
}

/// `/dev/console` is the terminal too. Programs that want it are rare, so a failure is no reason not to start.
fn show_console(terminal: &OwnedFd) {
    let show = || -> io::Result<()> {
        let console = file::open_or_make(Path::new("/dev/console"), file::Kind::File)?;
        sys::attach_mount(sys::clone_mount_of(terminal.as_fd(), false)?.as_fd(), console.as_fd())
    };
    let _ = show();
}

/// Opens the working directory while everything may be read; where even that is refused, the user enters it later.
fn open_cwd(process: &Process<'_>) -> Result<Option<OwnedFd>, StartError> {
    let path = Path::new(if process.cwd.is_empty() { "/" } else { process.cwd });
    let result = if process.make_cwd {
        file::open_or_make(path, file::Kind::Directory)
    } else {
        file::open(path, libc::O_PATH | libc::O_DIRECTORY)
    };
    match result {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error).at("cwd", || format!("chdir to cwd ({:?}) set in config.json failed", process.cwd)),
    }
}

fn enter_cwd(cwd: &str) -> Result<(), StartError> {
    let failed = || format!("chdir to cwd ({cwd:?}) set in config.json failed");
    let fd = file::open(Path::new(cwd), libc::O_PATH | libc::O_DIRECTORY).at("cwd", failed)?;
    fchdir(&fd).at("cwd", failed)
}

/// What the container may ever have. A set with `CAP_MKNOD` on a host whose cgroups keep no devices away would be a set
/// with every disk.
pub(crate) fn bounding(container: &ContainerSpec, devices_restricted: bool) -> Result<u64, StartError> {
    let mut set = capability::bounding(&container.capabilities, container.privileged)
        .map_err(|reason| refuse("capabilities", reason))?;
    if !devices_restricted && !container.privileged {
        set &= !capability::bit("MKNOD");
    }
    // What this process itself has not, nobody below it has.
    Ok(set & sys::permitted_capabilities().at("capabilities", || "read them".to_owned())?)
}

/// Enters the pod's own users, with every right among them. A container's first process takes its mounts along into a
/// namespace these users own: they may mount in it, and cannot take away what is mounted (mount_namespaces(7),
/// "Restrictions on mount namespaces"). Its working directory is looked up there again, so that it does not lead back.
fn enter_users(process: &Process<'_>, users: Users<'_>, cwd: Option<OwnedFd>) -> Result<Option<OwnedFd>, StartError> {
    let what = || "enter the user namespace".to_owned();
    nix::sched::setns(users.namespace, CloneFlags::CLONE_NEWUSER).at("namespace", what)?;
    if !process.make_cwd {
        return Ok(cwd);
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .at("namespace", || "make a mount namespace of their own".to_owned())?;
    open_cwd(process)
}

fn become_user(
    identity: &Identity,
    bounding: u64,
    container: &ContainerSpec,
    filter: Option<&[libc::sock_filter]>,
) -> Result<(), StartError> {
    let caps = |what: &'static str| move || what.to_owned();
    let own = sys::permitted_capabilities().at("capabilities", caps("read them"))?;
    for number in 0..64_u8 {
        if bounding & 1 << number == 0 {
            match sys::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number)) {
                // The kernel knows no such number, nor any above it.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                result => result.map(drop).at("capabilities", caps("drop one from the bounding set"))?,
            }
        }
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).at("capabilities", caps("keep them"))?;
    let groups: Vec<_> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).at("user", || "set supplementary groups".to_owned())?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid).at("user", || format!("become group {gid}"))?;
    setresuid(uid, uid, uid).at("user", || format!("become user {uid}"))?;
    sys::set_capabilities(own, own, 0).at("capabilities", caps("raise them again"))?;
    // Without no_new_privs a filter takes CAP_SYS_ADMIN, which most containers are about to lose.
    if let Some(filter) = filter
        && !container.no_new_privileges
    {
        sys::install_filter(filter).at("seccomp", || "install the filter".to_owned())?;
    }
    let ambient = capability::mask(&container.capabilities.ambient).map_err(|reason| refuse("capabilities", reason))?;
    let ambient = ambient & bounding;
    let root = identity.uid == 0;
    let permitted = if root { bounding } else { ambient };
    sys::set_capabilities(permitted, permitted, ambient).at("capabilities", caps("set them"))?;
    for number in (0..64).filter(|number| ambient & 1 << number != 0) {
        sys::raise_ambient(number).at("capabilities", caps("raise an ambient one"))?;
    }
    Ok(())
}

/// Of equal names the last counts; what a program cannot do without is added.
fn environment(process: &Process<'_>, identity: &Identity) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::with_capacity(process.env.len() + 4);
    for (name, value) in &process.env {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
    let mut add = |name: &str, value: &dyn Fn() -> String| {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value()));
        }
    };
    add("PATH", &|| DEFAULT_PATH.to_owned());
    add("HOME", &|| identity.home.clone().unwrap_or_else(|| "/".to_owned()));
    add("HOSTNAME", &|| nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned());
    if process.tty {
        add("TERM", &|| "xterm".to_owned());
    }
    env
}

fn execute(argv: &[String], env: &[(String, String)]) -> Result<Infallible, StartError> {
    let name = argv.first().ok_or_else(|| refuse("exec", "no command specified"))?;
    let path = find_program(name, env)?;
    let zero = |_| refuse("exec", format!("exec: {name:?}: an argument holds a zero byte"));
    let program = CString::new(path.as_str()).map_err(zero)?;
    let arguments = argv.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>().map_err(zero)?;
    let variables = env
        .iter()
        .map(|(name, value)| CString::new(format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()
        .map_err(zero)?;
    nix::unistd::execve(&program, &arguments, &variables).at("exec", || format!("exec {path}"))
}

/// The program's path, or why there is none, in the words of the other container runtimes.
fn find_program(name: &str, env: &[(String, String)]) -> Result<String, StartError> {
    let executable = |path: &str| -> nix::Result<()> {
        let found = nix::sys::stat::stat(path)?;
        if found.st_mode & libc::S_IFMT == libc::S_IFDIR {
            return Err(Errno::EISDIR);
        }
        access(path, AccessFlags::X_OK)
    };
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::ENOENT) => Err(Errno::ENOENT).at("exec", || format!("exec: {name:?}: stat {name}")),
            Err(error) => Err(error).at("exec", || format!("exec: {name:?}")),
        };
    }
    let path = env.iter().find(|(known, _)| known == "PATH").map_or("", |(_, value)| value);
    let mut denied = None;
    for directory in path.split(':') {
        let candidate = format!("{}/{name}", if directory.is_empty() { "." } else { directory });
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error @ (Errno::EACCES | Errno::EISDIR)) => denied = Some(error),
            Err(_) => {}
        }
    }
    match denied {
        Some(error) => Err(error).at("exec", || format!("exec: {name:?}")),
        None => Err(refuse("exec", format!("exec: {name:?}: executable file not found in $PATH"))),
    }
}
