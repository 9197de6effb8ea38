//! `coracle-controller`: the controllers as a process of their own.

use std::{path::PathBuf, process::ExitCode};

use coracle_process::{Program, with_kubeconfig};

#[derive(clap::Args)]
struct Flags {
    /// How to reach the API server; read again when it changes.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: PathBuf,
    #[command(flatten)]
    controller: coracle_controller::Args,
}

fn main() -> ExitCode {
    let about = "Makes the cluster what its objects ask for";
    let program = Program { name: "coracle-controller", version: env!("CARGO_PKG_VERSION"), about };
    coracle_process::run(program, |flags: Flags, shutdown| async move {
        let config = flags.controller.config()?;
        with_kubeconfig(&flags.kubeconfig, |client| async move {
            Ok(coracle_controller::run(config, client, shutdown).await?)
        })
        .await
    })
}
