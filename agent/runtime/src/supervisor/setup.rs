//! From the agent's child to a pod's parent: leaving the agent's session, making the pod's namespaces.

use std::{
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::Path,
    process::ExitCode,
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::CloneFlags,
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Gid, Pid, Uid},
};

use super::serve::Supervisor;
use crate::{
    cgroup,
    init::{self, Pids, Told},
    record::SandboxRecord,
    runtime::Readiness,
    spec::{IdMapping, IpcNamespace, NetworkNamespace, PidNamespace, UtsNamespace},
    step::{describe, refuse as refuse_step},
    sys,
};

/// Tells the agent why there will be no sandbox.
pub(super) fn refuse(reason: &str) -> ExitCode {
    let _ = tell(&Readiness::Failed(reason.to_owned()));
    ExitCode::FAILURE
}

/// Tells the agent that there is one, and lets go of the agent's descriptors.
pub(super) fn announce() -> io::Result<()> {
    tell(&Readiness::Ready { pid: std::process::id() })?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    (0..2).try_for_each(|number| sys::replace_fd(&null, number))
}

fn tell(readiness: &Readiness) -> io::Result<()> {
    let mut line = serde_json::to_vec(readiness)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

/// Becomes a process the agent is not the parent of; true in it, false in the one that ends.
pub(super) fn detach() -> io::Result<bool> {
    nix::unistd::setsid()?;
    Ok(sys::fork_into(0)?.is_none())
}

/// A step and what the kernel said, as a sentence.
fn step<T, E: Into<io::Error>>(result: Result<T, E>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {}", describe(&error.into())))
}

/// Makes everything of the sandbox but its containers.
pub(super) fn prepare(directory: &Path) -> Result<Supervisor, String> {
    sys::close_between(3, i32::MAX);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let record = step(SandboxRecord::read(directory), "read sandbox.json")?;
    let lock = step(fs::File::open(directory.join("sandbox.json")), "open sandbox.json")?;
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| format!("the sandbox has a supervisor: {}", describe(&error.into())))?;
    let errors = step(fs::File::create(directory.join("supervisor.log")), "create supervisor.log")?;
    step(sys::replace_fd(&errors, 2), "open supervisor.log")?;
    protect_from_oom();

    let tree = step(cgroup::open(), "find cgroups")?;
    step(tree.join(&record.supervisor_group(), Pid::this()), "join the pod's cgroup")?;
    let spec = &record.spec;
    let shm = directory.join("shm");
    if spec.ipc == IpcNamespace::Pod {
        make_shm(&shm, spec.shm_size, record.users.map_or(0, |users| users.host))?;
    }

    // Made before the namespaces, so that paths are those of the host, and short however long the directory's is.
    step(nix::unistd::chdir(directory), "enter the sandbox's directory")?;
    match fs::remove_file("sock") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return step(Err(error), "remove an old socket"),
        _ => {}
    }
    let listener = step(UnixListener::bind("sock"), "bind the socket")?;
    step(listener.set_nonblocking(true), "bind the socket")?;
    step(nix::unistd::chdir("/"), "leave the sandbox's directory")?;

    let users = match record.users {
        Some(users) => Some(make_owned_namespaces(&record, users)?),
        None => {
            make_namespaces(&record)?;
            None
        }
    };
    step(sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1), "become a reaper")?;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    step(mask.thread_block(), "block signals")?;
    let signals = step(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC), "watch signals")?;
    let pod_pids = match spec.pid {
        PidNamespace::Pod => Some(start_reaper(tree.as_ref(), &record)?),
        PidNamespace::Target(_) => return Err("a sandbox cannot share the processes of a container".to_owned()),
        PidNamespace::Container | PidNamespace::Host => None,
    };
    Ok(Supervisor::new(directory.to_owned(), record, tree, listener, signals, pod_pids, users, lock))
}

/// Never a victim: when all else in a pod without memory is dying already, the kernel would take the supervisor next, and
/// the pod with it. What it needs is small and bounded. Without `CAP_SYS_RESOURCE` it is as likely a victim as any process
/// of its size.
fn protect_from_oom() {
    let open = fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj");
    let _ = open.and_then(|mut file| file.write_all(b"-1000"));
}

/// The pod's shared memory is a mount of the host, because every container's own mount namespace takes it from there.
fn make_shm(shm: &Path, size: u64, owner: u32) -> Result<(), String> {
    const DEFAULT: u64 = 64 << 20;
    step(fs::create_dir_all(shm), "make the directory of shared memory")?;
    let size = if size == 0 { DEFAULT } else { size };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("mode=1777,size={size}");
    step(mount(Some("shm"), shm, Some("tmpfs"), flags, Some(options.as_str())), "mount shared memory")?;
    step(std::os::unix::fs::chown(shm, Some(owner), Some(owner)), "give shared memory away")?;
    step(fs::set_permissions(shm, fs::Permissions::from_mode(0o1777)), "open shared memory to all")
}

/// Makes a user namespace, and the others in it, so that its root may do in them what root may. A child makes them, because
/// whoever enters a user namespace does not come back; this process stays the host's and holds them.
fn make_owned_namespaces(record: &SandboxRecord, users: IdMapping) -> Result<OwnedFd, String> {
    let (ours, theirs) = step(init::pair(), "make a socket pair")?;
    let Some(pid) = step(sys::fork_into(CloneFlags::CLONE_NEWUSER.bits()), "make a user namespace")? else {
        drop(ours);
        let made = step(init::wait_for_go(theirs.as_fd()), "wait for the users' numbers")
            .and_then(|()| step(become_root(), "become root of the user namespace"))
            .and_then(|()| make_namespaces(record));
        let report = match made {
            Ok(()) => init::Report::Identity { uid: 0, gid: 0, groups: Vec::new() },
            Err(why) => init::Report::Failed(refuse_step("namespace", why)),
        };
        let _ = init::send(theirs.as_fd(), &report, &[]);
        // Until the namespaces are held by somebody else.
        let _ = init::wait_for_go(theirs.as_fd());
        sys::exit_now(0);
    };
    drop(theirs);
    let made = hold_namespaces(pid, &ours, record, users);
    drop(ours);
    let ended = step(nix::sys::wait::waitpid(pid, None), "wait for the maker of namespaces");
    let namespace = made?;
    ended?;
    Ok(namespace)
}

fn become_root() -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}

/// Enters what the child has made, and opens its user namespace.
fn hold_namespaces(pid: Pid, channel: &OwnedFd, record: &SandboxRecord, users: IdMapping) -> Result<OwnedFd, String> {
    let numbers = format!("0 {} {}\n", users.host, users.size);
    for file in ["uid_map", "gid_map"] {
        step(fs::write(format!("/proc/{pid}/{file}"), &numbers), &format!("write {file} of the user namespace"))?;
    }
    step(nix::unistd::write(channel, &[1]), "let the maker of namespaces go")?;
    let mut ready = [nix::poll::PollFd::new(channel.as_fd(), nix::poll::PollFlags::POLLIN)];
    step(nix::poll::poll(&mut ready, nix::poll::PollTimeout::NONE), "wait for the maker of namespaces")?;
    match step(init::receive(channel.as_fd()), "hear from the maker of namespaces")? {
        Some(Told { report: init::Report::Identity { .. }, .. }) => {}
        Some(Told { report: init::Report::Failed(error), .. }) => return Err(error.message),
        Some(_) | None => return Err("the maker of namespaces said nothing".to_owned()),
    }
    let open = |name: &str| step(fs::File::open(format!("/proc/{pid}/ns/{name}")), &format!("open namespace {name}"));
    let spec = &record.spec;
    let others = [
        ("net", CloneFlags::CLONE_NEWNET, spec.network == NetworkNamespace::Own),
        ("ipc", CloneFlags::CLONE_NEWIPC, spec.ipc == IpcNamespace::Pod),
        ("uts", CloneFlags::CLONE_NEWUTS, spec.uts == UtsNamespace::Pod),
    ];
    for (name, kind, own) in others {
        if own {
            step(nix::sched::setns(open(name)?, kind), &format!("enter namespace {name}"))?;
        }
    }
    Ok(open("user")?.into())
}

fn make_namespaces(record: &SandboxRecord) -> Result<(), String> {
    let spec = &record.spec;
    let mut flags = CloneFlags::empty();
    if spec.network == NetworkNamespace::Own {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if spec.ipc == IpcNamespace::Pod {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    if spec.uts == UtsNamespace::Pod {
        flags |= CloneFlags::CLONE_NEWUTS;
    }
    step(nix::sched::unshare(flags), "make namespaces")?;
    if spec.uts == UtsNamespace::Pod && !spec.hostname.is_empty() {
        step(nix::unistd::sethostname(&spec.hostname), "set the host name")?;
    }
    if spec.network == NetworkNamespace::Own {
        step(sys::link_up("lo"), "bring the loopback link up")?;
    }
    for (name, value) in &spec.sysctls {
        set_sysctl(record, name, value)?;
    }
    Ok(())
}

/// Sets a kernel parameter, only if it belongs to a namespace that is the pod's own (namespaces(7)).
fn set_sysctl(record: &SandboxRecord, name: &str, value: &str) -> Result<(), String> {
    let spec = &record.spec;
    let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    // A slash in a name stands for a dot in a file's name, as in that of an interface (sysctl(8)).
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = name.chars().map(swapped).collect();
    let own = (name.starts_with("net.") && spec.network == NetworkNamespace::Own)
        || (ipc.iter().any(|prefix| name.starts_with(prefix)) && spec.ipc == IpcNamespace::Pod);
    if !own || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("sysctl {name} is not in a namespace of the pod"));
    }
    let write = || fs::OpenOptions::new().write(true).open(format!("/proc/sys/{path}"))?.write_all(value.as_bytes());
    step(write(), &format!("set sysctl {name} to {value:?}"))
}

/// Starts process 1 of the pod's shared pid namespace, and takes that from it.
fn start_reaper(tree: &dyn cgroup::Tree, record: &SandboxRecord) -> Result<Pids, String> {
    let (ours, theirs) = step(init::pair(), "start the pod's first process")?;
    let flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    let Some(pid) = step(sys::fork_into(flags.bits()), "start the pod's first process")? else {
        drop(ours);
        init::reaper(theirs);
    };
    drop(theirs);
    step(tree.join(&record.supervisor_group(), pid), "put it into the pod's cgroup")?;
    step(nix::unistd::write(&ours, &[1]), "let it go")?;
    // When all is well it says nothing more, and closes.
    let mut pids = None;
    loop {
        let mut ready = [nix::poll::PollFd::new(ours.as_fd(), nix::poll::PollFlags::POLLIN)];
        step(nix::poll::poll(&mut ready, nix::poll::PollTimeout::NONE), "wait for the pod's first process")?;
        match step(init::receive(ours.as_fd()), "hear from the pod's first process")? {
            None => return pids.ok_or_else(|| "the pod's first process said nothing".to_owned()),
            Some(Told { report: init::Report::Pids, fds, .. }) => pids = Pids::of(fds),
            Some(Told { report: init::Report::Failed(error), .. }) => {
                return Err(format!("the pod's first process: {error}"));
            }
            Some(_) => return Err("the pod's first process said something else".to_owned()),
        }
    }
}
