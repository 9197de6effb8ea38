//! Machines' networks: a namespace for each, a cable (veth(4)) from each to a switch (a bridge in a namespace of its own).

use std::{path::Path, process::Command};

/// See the module; removed when dropped.
pub(super) struct Cables {
    machines: usize,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn switch() -> String {
    format!("coracle-switch-{}", std::process::id())
}

fn machine(at: usize) -> String {
    format!("coracle-machine-{}-{at}", std::process::id())
}

impl Cables {
    pub(super) fn new(machines: usize) -> Result<Self, String> {
        ip(&format!("netns add {}", switch()))?;
        let cables = Self { machines };
        let switch = switch();
        ip(&format!("-n {switch} link add bridge type bridge"))?;
        ip(&format!("-n {switch} link set bridge up"))?;
        for at in 0..machines {
            let machine = machine(at);
            ip(&format!("netns add {machine}"))?;
            ip(&format!("link add port{at} netns {switch} type veth peer name cable netns {machine}"))?;
            ip(&format!("-n {switch} link set port{at} master bridge up"))?;
            ip(&format!("-n {machine} address add {}/24 dev cable", Self::address(at)))?;
            ip(&format!("-n {machine} link set cable up"))?;
            ip(&format!("-n {machine} link set lo up"))?;
        }
        Ok(cables)
    }

    pub(super) fn address(at: usize) -> String {
        format!("10.199.0.{}", at + 1)
    }

    /// A program on a machine.
    pub(super) fn command(&self, at: usize, program: &Path) -> Command {
        assert!(at < self.machines);
        // It becomes the program: who kills the one kills the other.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", machine(at))).arg(program);
        command
    }

    pub(super) fn unplug(&self, at: usize) {
        assert!(at < self.machines);
        ip(&format!("-n {} link set port{at} down", switch())).unwrap();
    }

    pub(super) fn plug(&self, at: usize) {
        assert!(at < self.machines);
        ip(&format!("-n {} link set port{at} up", switch())).unwrap();
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        // Of some there may be nothing, if they could not be made.
        let machines = (0..self.machines).map(machine);
        for name in machines.chain([switch()]) {
            ip(&format!("netns delete {name}")).unwrap_or_else(|why| println!("{why}"));
        }
    }
}
