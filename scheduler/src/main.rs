//! `coracle-scheduler`: the scheduler as a process of its own.

use std::{path::PathBuf, process::ExitCode};

use coracle_process::{Program, with_kubeconfig};

#[derive(clap::Args)]
struct Flags {
    /// How to reach the API server; read again when it changes.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: PathBuf,
    #[command(flatten)]
    scheduler: coracle_scheduler::Args,
}

fn main() -> ExitCode {
    let about = "Decides which node each pod runs on";
    let program = Program { name: "coracle-scheduler", version: env!("CARGO_PKG_VERSION"), about };
    coracle_process::run(program, |flags: Flags, shutdown| async move {
        let config = flags.scheduler.config();
        with_kubeconfig(&flags.kubeconfig, |client| async move {
            Ok(coracle_scheduler::run(config, client, shutdown).await?)
        })
        .await
    })
}
