//! These tests once more on a machine that has cgroup v2 alone, and AppArmor: a virtual one.

use std::{path::Path, time::Duration};

use coracle_test_machine::{Memory, kernel};

/// What the machine does.
const SCRIPT: &str = "
mount -t securityfs securityfs /sys/kernel/security
/it --test-threads=2 limits:: cleanup:: security:: lifecycle:: restart:: \
    --skip a_supervisor_does_not_listen_to_anybody_but_root --skip a_hundred_starts_and_removals_leak_no_descriptor
echo \"verdict: $?\"
";

/// Longer than the machine needs by far where every instruction is emulated and others compute beside it.
const PATIENCE: Duration = Duration::from_secs(400);

#[test]
fn a_machine_with_cgroup_v2_alone_passes_these_tests_too() {
    let Some(kernel) = kernel() else { return };
    let mut memory = Memory::new(&["sleep", "head", "cat"]);
    memory.modules(&kernel, &["overlay"]);
    memory.program("/it", &std::env::current_exe().unwrap());
    memory.program("/bin/apparmor_parser", &kernel.join("apparmor_parser"));
    let supervisor = Path::new(env!("CARGO_BIN_EXE_coracle-runtime-supervisor"));
    memory.program(supervisor, supervisor);
    let said = memory.run(&kernel, SCRIPT, 1536, PATIENCE);
    assert!(said.contains("test result: ok. ") && said.contains("verdict: 0\n"), "the machine said:\n{said}");
    assert!(!said.contains("Skipped"), "a test had nothing to run on:\n{said}");
    assert!(!said.contains("test result: ok. 0 passed"), "nothing was run:\n{said}");
}
