//! The default profile: what nearly every program needs and a kernel can bear, as Docker, containerd and CRI-O share it.

use super::{Action, Argument, Operator, Profile, Rule};
use crate::capability;

/// The profile for a container with these capabilities (a bit mask).
///
/// Everything not named is refused with EPERM; `clone3` is refused with ENOSYS, since a filter cannot look at flags behind a
/// pointer and C libraries then fall back to `clone`, whose flags it can see.
pub(super) fn profile(capabilities: u64) -> Profile {
    let has = |name: &str| capabilities & capability::bit(name) != 0;
    let mut rules = vec![allow(ALWAYS)];
    if cfg!(target_arch = "x86_64") {
        rules.push(allow(X86_64));
    }
    rules.push(allow_when("socket", Argument { index: 0, operator: Operator::NotEqual, value: AF_VSOCK, mask: 0 }));
    for persona in PERSONALITIES {
        rules.push(allow_when(
            "personality",
            Argument { index: 0, operator: Operator::Equal, value: *persona, mask: 0 },
        ));
    }
    if has("SYS_ADMIN") {
        rules.push(allow("clone"));
    } else {
        rules.push(allow_when(
            "clone",
            Argument { index: 0, operator: Operator::MaskedEqual, value: 0, mask: NEW_NAMESPACES },
        ));
        rules.push(Rule {
            names: vec!["clone3".to_owned()],
            action: Action::Errno(libc::ENOSYS),
            arguments: Vec::new(),
        });
    }
    for (capability, names) in WITH_CAPABILITY {
        if has(capability) {
            rules.push(allow(names));
        }
    }
    Profile { default_action: Action::Errno(libc::EPERM), rules }
}

fn allow(names: &str) -> Rule {
    Rule { names: names.split_whitespace().map(str::to_owned).collect(), action: Action::Allow, arguments: Vec::new() }
}

fn allow_when(name: &str, argument: Argument) -> Rule {
    Rule { names: vec![name.to_owned()], action: Action::Allow, arguments: vec![argument] }
}

/// Sockets to the hypervisor would pass by every network policy.
const AF_VSOCK: u64 = 40;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Linux, Linux with 32-bit uname, both without address randomisation being touched, and asking.
const PERSONALITIES: &[u64] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const ALWAYS: &str = "\
    accept accept4 adjtimex bind brk cachestat capget capset chdir clock_adjtime clock_getres clock_gettime \
    clock_nanosleep close close_range connect copy_file_range dup dup3 epoll_create1 epoll_ctl epoll_pwait \
    epoll_pwait2 eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr \
    fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake getcpu getcwd \
    getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpid getppid getpriority getrandom \
    getresgid getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt gettid gettimeofday \
    getuid getxattr getxattrat inotify_add_watch inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy \
    io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lgetxattr linkat listen listmount listxattr listxattrat \
    llistxattr lremovexattr lseek lsetxattr madvise map_shadow_stack membarrier memfd_create memfd_secret mincore \
    mkdirat mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
    mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat openat openat2 pidfd_open pidfd_send_signal pipe2 pkey_alloc pkey_free \
    pkey_mprotect ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev \
    pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlinkat readv recvfrom recvmmsg recvmsg \
    remap_file_pages removexattr removexattrat renameat renameat2 restart_syscall rseq rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity \
    sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
    sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp \
    semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer \
    setpgid setpriority setregid setresgid setresuid setreuid setrlimit set_robust_list setsid setsockopt \
    set_tid_address setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd4 socketpair \
    splice statfs statmount statx symlinkat sync sync_file_range syncfs sysinfo tee tgkill timer_create \
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times \
    tkill truncate umask uname unlinkat utimensat vmsplice wait4 waitid write writev";

/// Older calls that newer architectures do not have.
const X86_64: &str = "\
    access alarm arch_prctl chmod chown creat dup2 epoll_create epoll_ctl_old epoll_wait epoll_wait_old eventfd \
    fork futimesat getdents getpgrp get_thread_area inotify_init lchown link lstat mkdir mknod modify_ldt open \
    pause pipe poll readlink rename rmdir select set_thread_area signalfd stat symlink time uretprobe unlink utime \
    utimes vfork";

/// What a capability would be worth nothing without.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "clock_settime settimeofday"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];
