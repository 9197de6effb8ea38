//! The verbs: one file each.

pub(crate) mod agent;
pub(crate) mod bench;
pub(crate) mod down;
pub(crate) mod encryption;
pub(crate) mod get;
pub(crate) mod image;
mod reach;
pub(crate) mod server;
pub(crate) mod snapshot;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod why;
pub(crate) mod witness;

use coracle_process::logging;

use crate::cli::{Cli, Verb};

/// Runs a verb to its end.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    logging::install(&cli.logging)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if matches!(cli.command, Verb::Witness(_)) {
        // It has next to nothing to do, on a machine that has little memory: each thread has some for itself.
        builder.worker_threads(1);
    }
    let runtime = builder.enable_all().thread_name("coracle").build()?;
    // TLS of clients and servers alike; a second provider never gets in.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = runtime.block_on(async {
        match cli.command {
            Verb::Up(mut args) => {
                args.server.config_file = cli.config;
                up::run(args).await
            }
            Verb::Server(mut args) => {
                args.server.config_file = cli.config;
                server::run(args).await
            }
            Verb::Witness(args) => witness::run(args).await,
            Verb::Agent(args) => agent::run(args).await,
            Verb::Down(args) => down::run(args).await,
            Verb::Token(args) => token::run(args).await,
            Verb::Why(args) => why::run(args).await,
            Verb::Snapshot(args) => snapshot::run(args).await,
            Verb::Get(args) => get::run(args).await,
            Verb::Fork(args) => snapshot::fork(args).await,
            Verb::Encryption(args) => encryption::run(args).await,
            Verb::Image(args) => image::run(args).await,
            Verb::Bench(args) => bench::run(args).await,
        }
    });
    // Threads that still read or sync files have had their time; what they hold is safe to lose by now.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}
