//! `coracle-apiserver`: the API server as a process of its own.

use std::process::ExitCode;

use coracle_apiserver::{config::Args, server::ApiServer};
use coracle_process::Program;

fn main() -> ExitCode {
    let about = "The Kubernetes API over Coracle's store";
    let program = Program { name: "coracle-apiserver", version: env!("CARGO_PKG_VERSION"), about };
    coracle_process::run(program, |args: Args, shutdown| async move {
        let mut config = args.config()?;
        config.hostname = nix::unistd::gethostname()?.to_string_lossy().to_lowercase();
        let (_, runner) = ApiServer::open(config).await?;
        Ok(runner.run(shutdown).await?)
    })
}
