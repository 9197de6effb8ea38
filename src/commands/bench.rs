//! `coracle bench`: measure, and print the figures.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Subcommand;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::bench::{self, load::Target, process::Subject, report::Report};

/// Flags of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Start times, each with an empty data directory.
    Boot {
        /// How many starts to take the median of.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Memory, processor and disk of a cluster that has nothing to do.
    Idle {
        /// Seconds to let it come to rest before looking.
        #[arg(long, default_value_t = 15, value_name = "SECONDS")]
        settle: u64,
        /// Seconds to look at it.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        seconds: u64,
    },
    /// Durable creates, reads and lists under load. Works against any Kubernetes API.
    Api {
        /// The cluster to measure; without it one is started for the purpose.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// Connections at once.
        #[arg(long, default_value_t = 32)]
        clients: usize,
        /// Seconds each kind of request is sent.
        #[arg(long, default_value_t = 10, value_name = "SECONDS")]
        seconds: u64,
    },
    /// From being bound to running, image present. Works against any Kubernetes API.
    Pods {
        /// The cluster to measure.
        #[arg(long, value_name = "FILE")]
        kubeconfig: PathBuf,
        /// An image with `sleep` in it that is on the node already.
        #[arg(long)]
        image: String,
        /// How many pods.
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// Size of this binary.
    Size,
}

/// Measures.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::default();
    match args.what {
        What::Boot { rounds } => bench::boot::run(rounds, &mut report).await?,
        What::Idle { settle, seconds } => {
            bench::idle::run(Duration::from_secs(settle), Duration::from_secs(seconds), &mut report).await?;
        }
        What::Api { kubeconfig, clients, seconds } => {
            let plan = bench::api::Plan { clients, length: Duration::from_secs(seconds) };
            if let Some(file) = kubeconfig {
                bench::api::run(&Target::new(&config(&file).await?)?, &plan, &mut report).await?;
            } else {
                let port = bench::process::free_port()?;
                let subject = tokio::task::spawn_blocking(move || Subject::start(port, &["--no-agent"])).await??;
                let target = Target::new(&config(&subject.kubeconfig()).await?)?;
                let measured = bench::api::run(&target, &plan, &mut report).await;
                tokio::task::spawn_blocking(move || drop(subject)).await?;
                measured?;
            }
        }
        What::Pods { kubeconfig, image, count } => {
            let client = kube::Client::try_from(config(&kubeconfig).await?)?;
            bench::pods::run(client, &image, count, &mut report).await?;
        }
        What::Size => {
            let exe = std::env::current_exe()?;
            #[expect(clippy::cast_precision_loss, reason = "a file's size is far below 2^52")]
            let size = std::fs::metadata(&exe).with_context(|| exe.display().to_string())?.len() as f64 / 1e6;
            report.promised("this binary", size, "MB", 40.0);
        }
    }
    report.print(args.json)
}

async fn config(file: &std::path::Path) -> anyhow::Result<kube::Config> {
    let kubeconfig = Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?;
    Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}
