//! The way from a fork of the supervisor to the container's own program.
//!
//! Everything here runs in a process with one thread that ends in `execve` or in a report of the step that failed. Until the
//! end it is not dumpable, so that no process of a container can look into it (ptrace(2), "access mode checking"). One with
//! `CAP_SYS_PTRACE` can all the same, so what is privileged is done where no container sees it.

mod channel;
mod file;
mod identity;
mod pids;
mod process;
mod root;

pub(crate) use channel::{Report, Told, pair, receive, send, wait_for_go};
pub(crate) use pids::Pids;
use process::Birth;
pub(crate) use process::{Stdio, bounding};

use std::{
    fs,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::sched::CloneFlags;

use crate::{
    error::StartError,
    runtime::ExecSpec,
    spec::{ContainerSpec, IdMapping, SandboxSpec},
    step::AtStep,
    sys,
};

/// Users of a pod's own: the namespace, and their numbers on the host.
#[derive(Clone, Copy)]
pub(crate) struct Users<'a> {
    pub(crate) namespace: &'a OwnedFd,
    pub(crate) mapping: IdMapping,
}

impl<'a> Users<'a> {
    /// Both, or neither.
    pub(crate) fn of(namespace: Option<&'a OwnedFd>, mapping: Option<IdMapping>) -> Option<Users<'a>> {
        Some(Users { namespace: namespace?, mapping: mapping? })
    }

    /// What a user or group of the container is on the host. A number beyond those there are stays out of the way of all.
    fn on_host(users: Option<Users<'a>>, id: u32) -> u32 {
        match users {
            Some(users) if id < users.mapping.size => users.mapping.host.saturating_add(id),
            Some(users) => users.mapping.host,
            None => id,
        }
    }
}

/// Among which processes a container begins.
#[derive(Clone, Copy)]
pub(crate) enum Among<'a> {
    /// Its own, as their first.
    Own,
    /// The host's.
    Host,
    /// Those of other containers.
    Others(&'a Pids),
}

/// What a new container is made from.
pub(crate) struct Plan<'a> {
    /// The container.
    pub(crate) spec: &'a ContainerSpec,
    /// Its sandbox.
    pub(crate) sandbox: &'a SandboxSpec,
    /// Its own directory on the host, with `upper`, `work` and `merged`.
    pub(crate) directory: &'a Path,
    /// Its processes.
    pub(crate) among: Among<'a>,
    /// The pod's shared memory on the host.
    pub(crate) shm: &'a Path,
    /// Whether the cgroup keeps host devices away.
    pub(crate) devices_restricted: bool,
    /// The filter of system calls.
    pub(crate) filter: Option<&'a [libc::sock_filter]>,
    /// The pod's own users, if it has any.
    pub(crate) users: Option<Users<'a>>,
    /// The report's way.
    pub(crate) channel: OwnedFd,
    /// Its standard descriptors.
    pub(crate) stdio: Stdio,
}

/// Becomes a new container's first process, or has it born, if it begins among those of others. Called in the child of a
/// fork into new mount (and, for processes of its own, pid) namespaces.
pub(crate) fn container(plan: Plan<'_>) -> ! {
    let error = start_container(&plan).err();
    report_and_end(&plan.channel, error)
}

/// What a process in a running container is made from.
pub(crate) struct ExecPlan<'a> {
    /// The container.
    pub(crate) spec: &'a ContainerSpec,
    /// The process.
    pub(crate) exec: &'a ExecSpec,
    /// A descriptor of the container's first process.
    pub(crate) target: OwnedFd,
    /// Whether the cgroup keeps host devices away.
    pub(crate) devices_restricted: bool,
    /// The filter of system calls.
    pub(crate) filter: Option<&'a [libc::sock_filter]>,
    /// The pod's own users, if it has any.
    pub(crate) users: Option<Users<'a>>,
    /// The report's way.
    pub(crate) channel: OwnedFd,
    /// Its standard descriptors.
    pub(crate) stdio: Stdio,
}

/// Becomes another process of a running container. Called in the child of a fork: the container sees nothing of it before it
/// has no more rights than the container has.
pub(crate) fn exec(plan: ExecPlan<'_>) -> ! {
    let error = start_exec(&plan).err();
    report_and_end(&plan.channel, error)
}

fn report_and_end(channel: &OwnedFd, error: Option<StartError>) -> ! {
    if let Some(error) = error {
        let _ = send(channel.as_fd(), &Report::Failed(error), &[]);
    }
    sys::exit_now(1)
}

/// Waits until the supervisor has put us into our cgroup. Moving a process takes the kernel some ten milliseconds, most of
/// them waiting, so what needs no cgroup is done before.
fn join(channel: &OwnedFd) -> Result<(), StartError> {
    wait_for_go(channel.as_fd()).at("cgroup", || "wait for the supervisor".to_owned())
}

/// Before anything else: nobody may look in. What is written to `/proc` is written here, where it is the host's: in a
/// container's something else may lie in its place (CVE-2025-52881).
fn begin(oom_score_adj: Option<i32>, apparmor: Option<&str>) -> Result<(), StartError> {
    sys::reset_signals();
    sys::prctl(libc::PR_SET_DUMPABLE, 0).at("process", || "make the process undumpable".to_owned())?;
    match sys::new_session_keyring() {
        // A kernel without keys has none to hide.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
        result => result.at("process", || "make a session keyring".to_owned())?,
    }
    set_oom_score(oom_score_adj);
    if let Some(profile) = apparmor {
        confine(profile).at("apparmor", || "apparmor failed to apply profile".to_owned())?;
    }
    nix::unistd::setsid().at("process", || "begin a session".to_owned())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    Ok(())
}

/// Raising is always allowed; lowering below what we started with needs `CAP_SYS_RESOURCE`, and a host that does not give
/// it gets containers with the value they would have had.
fn set_oom_score(value: Option<i32>) {
    // Who does not say must not be spared as the supervisor is, whose child this is.
    let value = value.unwrap_or(0).to_string();
    let open = fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj");
    let _ = open.and_then(|mut file| file.write_all(value.as_bytes()));
}

/// What this process executes next is under an AppArmor profile (apparmor(7), `/proc/pid/attr/apparmor/exec`). Kernels with
/// one security module alone have the file a level higher.
fn confine(profile: &str) -> std::io::Result<()> {
    let places = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];
    let place = places.into_iter().find(|place| Path::new(place).exists());
    let place = place
        .filter(|_| crate::apparmor_enabled())
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::Unsupported, "AppArmor is not enabled on the host"))?;
    fs::OpenOptions::new().write(true).open(place)?.write_all(format!("exec {profile}").as_bytes())
}

fn start_container(plan: &Plan<'_>) -> Result<std::convert::Infallible, StartError> {
    let spec = plan.spec;
    begin(spec.oom_score_adj, spec.apparmor.as_deref())?;
    let memberships = root::memberships()?;
    let mounts = pids::own_mounts()?;
    let sources = root::open_sources(plan)?;
    root::enter(plan)?;
    let proc = match plan.among {
        Among::Own => pids::offer(&plan.channel).map(|()| None)?,
        Among::Host => None,
        Among::Others(pids) => {
            pids.choose()?;
            Some(pids.proc(&mounts)?)
        }
    };
    drop(mounts);
    if let Some(users) = plan.users {
        root::make_files_as(users.mapping.host)?;
    }
    let kernel = root::mount_kernel_file_systems(plan, proc)?;
    join(&plan.channel)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).at("cgroup", || "make a cgroup namespace".to_owned())?;
    root::mount_cgroups(spec, &memberships)?;
    root::mount_all(plan, sources, &kernel)?;
    let process = process::Process {
        argv: &spec.argv,
        null: Some(kernel.null.try_clone().at("stdio", || "open /dev/null".to_owned())?),
        env: spec.env.clone(),
        cwd: &spec.cwd,
        make_cwd: true,
        user: &spec.user,
        container: spec,
        devices_restricted: plan.devices_restricted,
        filter: plan.filter,
        users: plan.users,
        tty: spec.tty,
        size: None,
    };
    let birth = match plan.among {
        Among::Own | Among::Host => Birth::Here,
        Among::Others(_) => Birth::Last,
    };
    process::run(&process, birth, &plan.channel, &plan.stdio, || root::seal(spec, &kernel))
}

fn start_exec(plan: &ExecPlan<'_>) -> Result<std::convert::Infallible, StartError> {
    begin(plan.spec.oom_score_adj, plan.spec.apparmor.as_deref())?;
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWPID;
    nix::sched::setns(&plan.target, namespaces).at("namespace", || "enter the container".to_owned())?;
    let mut env = plan.spec.env.clone();
    env.extend(plan.exec.env.iter().cloned());
    let process = process::Process {
        argv: &plan.exec.argv,
        null: None,
        env,
        cwd: if plan.exec.cwd.is_empty() { &plan.spec.cwd } else { &plan.exec.cwd },
        make_cwd: false,
        user: plan.exec.user.as_ref().unwrap_or(&plan.spec.user),
        container: plan.spec,
        devices_restricted: plan.devices_restricted,
        filter: plan.filter,
        users: plan.users,
        tty: plan.exec.tty,
        size: plan.exec.size,
    };
    process::run(&process, Birth::Last, &plan.channel, &plan.stdio, || Ok(()))
}

/// Becomes process 1 of a pod's shared pid namespace: reaps what is left to it and nothing else. It sees an empty root, so
/// that `/proc/1/root` shows no host.
pub(crate) fn reaper(channel: OwnedFd) -> ! {
    let prepare = || -> Result<(), StartError> {
        // As likely a victim as the supervisor.
        begin(Some(-1000), None)?;
        join(&channel)?;
        root::enter_empty()?;
        pids::offer(&channel)?;
        sys::set_capabilities(0, 0, 0).at("capabilities", || "drop every capability".to_owned())?;
        sys::prctl(libc::PR_SET_PDEATHSIG, 9).at("process", || "end with the supervisor".to_owned())?;
        Ok(())
    };
    if let Err(error) = prepare() {
        report_and_end(&channel, Some(error));
    }
    drop(channel);
    sys::close_between(0, i32::MAX);
    // Children of a process that ignores their death leave no zombies (waitpid(2), "NOTES"), those left to it included.
    sys::ignore_children();
    loop {
        nix::unistd::pause();
    }
}
