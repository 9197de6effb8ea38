//! Some of these tests once more on a machine that has cgroup v2 alone: a virtual one.

use std::{path::Path, time::Duration};

use coracle_test_machine::{Memory, kernel};

use crate::{host, nfs};

/// What the machine does.
const SCRIPT: &str = "
/e2e --test-threads=2 limits:: usage::what_a_container_uses_is_told nfs::
echo \"verdict: $?\"
";

/// Longer than the machine needs by far where every instruction is emulated and others compute beside it.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the pod network is made of, each after what it needs itself.
const MODULES: &[&str] = &[
    "overlay",
    "veth",
    "llc",
    "stp",
    "bridge",
    "libcrc32c",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nf_nat",
    "nfnetlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_fib",
    "nft_fib_ipv4",
];

/// What volumes of other machines are made of, at both ends.
const NFS: &[&str] = &[
    "sunrpc",
    "grace",
    "lockd",
    "netfs",
    "fscache",
    "nfs",
    "nfs_acl",
    "nfsv3",
    "dns_resolver",
    "nfsv4",
    "auth_rpcgss",
    "nfsd",
];

/// What the programs of a server of those read: networks, ports, and the user that rpcbind(8) becomes.
const NFS_FILES: &[(&str, &str)] = &[
    (
        "/etc/netconfig",
        "udp tpi_clts v inet udp - -\ntcp tpi_cots_ord v inet tcp - -\nlocal tpi_cots_ord - loopback - - -\n",
    ),
    ("/etc/services", "sunrpc 111/tcp portmapper\nsunrpc 111/udp portmapper\nnfs 2049/tcp\n"),
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n_rpc:x:1:1:rpcbind:/run/rpcbind:/bin/false\n"),
];

#[test]
fn a_cluster_on_a_machine_with_cgroup_v2_alone_passes_these_tests_too() {
    let Some(kernel) = kernel() else { return };
    let mut memory = Memory::new(&["sleep", "cat"]);
    memory.modules(&kernel, MODULES);
    memory.modules(&kernel, NFS);
    memory.program("/e2e", &std::env::current_exe().unwrap());
    memory.program(env!("CARGO_BIN_EXE_coracle"), Path::new(env!("CARGO_BIN_EXE_coracle")));
    for program in ["kubectl", "nsenter", "unshare", "ip"] {
        let found = host::program(program).unwrap_or_else(|| panic!("{program} is nowhere in PATH"));
        memory.program(format!("/bin/{program}"), &found);
    }
    for program in nfs::SERVER {
        memory.program(format!("/bin/{program}"), &kernel.join(program));
    }
    for (path, content) in NFS_FILES {
        memory.file(path, content.as_bytes());
    }
    let said = memory.run(&kernel, SCRIPT, 3072, PATIENCE);
    assert!(said.contains("test result: ok. ") && said.contains("verdict: 0\n"), "the machine said:\n{said}");
    assert!(!said.contains("Skipped"), "a test had nothing to run on:\n{said}");
    assert!(!said.contains("test result: ok. 0 passed"), "nothing was run:\n{said}");
}
