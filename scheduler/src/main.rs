//! `coracle-scheduler`: the scheduler as a process of its own.

use std::{path::PathBuf, process::ExitCode};

use coracle_process::{Program, while_elected, with_kubeconfig};

#[derive(clap::Args)]
struct Flags {
    /// How to reach the API server; read again when it changes.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Work only while holding the Lease kube-scheduler in kube-system, so that others may wait beside this one.
    #[arg(long, env = "CORACLE_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,
    #[command(flatten)]
    scheduler: coracle_scheduler::Args,
}

fn main() -> ExitCode {
    let about = "Decides which node each pod runs on";
    let program = Program { name: "coracle-scheduler", version: env!("CARGO_PKG_VERSION"), about };
    coracle_process::run(program, |flags: Flags, shutdown| async move {
        let config = flags.scheduler.config();
        with_kubeconfig(&flags.kubeconfig, |client| async move {
            let run = |own| coracle_scheduler::run(config.clone(), client.clone(), own);
            if !flags.leader_elect {
                return Ok(run(shutdown).await?);
            }
            Ok(while_elected(client.clone(), "kube-scheduler", shutdown, run).await?)
        })
        .await
    })
}
