//! `coracle-controller`: the controllers as a process of their own.

use std::{path::PathBuf, process::ExitCode};

use coracle_process::{Program, while_elected, with_kubeconfig};

#[derive(clap::Args)]
struct Flags {
    /// How to reach the API server; read again when it changes.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Work only while holding the Lease kube-controller-manager in kube-system, so that others may wait beside this one.
    #[arg(long, env = "CORACLE_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,
    #[command(flatten)]
    controller: coracle_controller::Args,
}

fn main() -> ExitCode {
    let about = "Makes the cluster what its objects ask for";
    let program = Program { name: "coracle-controller", version: env!("CARGO_PKG_VERSION"), about };
    coracle_process::run(program, |flags: Flags, shutdown| async move {
        let config = flags.controller.config()?;
        with_kubeconfig(&flags.kubeconfig, |client| async move {
            let run = |own| coracle_controller::run(config.clone(), client.clone(), own);
            if !flags.leader_elect {
                return Ok(run(shutdown).await?);
            }
            Ok(while_elected(client.clone(), "kube-controller-manager", shutdown, run).await?)
        })
        .await
    })
}
