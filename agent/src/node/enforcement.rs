//! What the node's reservations mean to the kernel: all pods together have no more memory and processes than what is not
//! reserved, and the CPU's weight of that (kubelet's `enforceNodeAllocatable: pods`).
//!
//! The scheduler and admission count what pods request; a pod without limits takes what it finds. Eviction counts what is left
//! of this limit like the machine's own memory (`eviction.rs`), so that pods go before the kernel kills in any of them.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::machine::Machine;
use crate::context::Context;
use crate::event::Kind;
use crate::pod::resources::{self, Amounts};
use crate::pod::start::chain;

/// How long pods that have more memory than they are to get have for giving some back, before it is tried again.
const PAUSE: Duration = Duration::from_secs(60);

/// What all pods together may take, in thousandths: everything but what is reserved. That is more than what they may request,
/// by the memory below which they are evicted.
fn absolute(machine: &Machine, reserved: &BTreeMap<String, i128>) -> Amounts {
    let cpus = u64::try_from(machine.cpus).unwrap_or(u64::MAX);
    let rest = |(name, has): (&str, u64)| {
        (name.to_owned(), (i128::from(has) * 1000 - reserved.get(name).copied().unwrap_or(0)).max(0))
    };
    [("cpu", cpus), ("memory", machine.memory), ("pid", machine.pids)].map(rest).into()
}

/// Limits all pods together, once; tries again as long as the kernel refuses, which it does (in cgroup v1) while they have
/// more memory than that.
pub(crate) async fn run(context: Arc<Context>, machine: Machine, shutdown: CancellationToken) {
    let limits = resources::of_all_pods(&absolute(&machine, &context.config.reserved));
    loop {
        let tell = |kind, reason, message| context.events.node(&context.node(), kind, reason, message);
        match context.runtime.limit_pods(&limits).await {
            Ok(()) => {
                let message = "Updated Node Allocatable limit across pods".to_owned();
                tell(Kind::Normal, "NodeAllocatableEnforced", message);
                return shutdown.cancelled().await;
            }
            Err(error) => {
                tracing::warn!(error = &error as &(dyn StdError + 'static), "pods are not kept from what is reserved");
                let message = format!("Failed to update Node Allocatable Limits \"kubepods\": {}", chain(&error));
                tell(Kind::Warning, "FailedNodeAllocatableEnforcement", message);
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pods_together_have_all_but_what_is_reserved() {
        let machine = Machine { cpus: 4, memory: 4 << 30, pids: 30_000, ..Machine::default() };
        let of = |reserved: &[(&str, i128)]| {
            let reserved = reserved.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
            let limits = resources::of_all_pods(&absolute(&machine, &reserved));
            (limits.cpu_shares.unwrap(), limits.memory_limit.unwrap(), limits.pids_limit.unwrap())
        };
        assert_eq!(of(&[]), (4096, 4 << 30, 30_000));
        assert_eq!(of(&[("cpu", 500), ("memory", 1000 << 30), ("pid", 1_000_000)]), (3584, 3 << 30, 29_000));
        assert_eq!(of(&[("cpu", 5000), ("memory", 5000 << 30)]), (2, 0, 30_000));
    }
}
