//! `coracle bench`: measure, and print the figures.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Subcommand;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::bench::{self, load::Target, process::Subject, report::Report};

/// Flags of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure; everything when nothing is said.
    #[command(subcommand)]
    what: Option<What>,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

const ROUNDS: usize = 5;
const SETTLE: u64 = 15;
const WATCHED: u64 = 60;
const CLIENTS: usize = 32;
const LOADED: u64 = 10;
const OBJECTS: u64 = 10_000;
const DEFINITIONS: u64 = 200;
const PODS: usize = 20;

#[derive(Subcommand)]
enum What {
    /// Start times, each with an empty data directory.
    Boot {
        /// How many starts to take the median of.
        #[arg(long, default_value_t = ROUNDS)]
        rounds: usize,
    },
    /// Memory, processor and disk of a cluster that has nothing to do.
    Idle {
        /// Seconds to let it come to rest before looking.
        #[arg(long, default_value_t = SETTLE, value_name = "SECONDS")]
        settle: u64,
        /// Seconds to look at it.
        #[arg(long, default_value_t = WATCHED, value_name = "SECONDS")]
        seconds: u64,
    },
    /// Durable creates, reads and lists under load. Works against any Kubernetes API.
    Api {
        /// The cluster to measure; without it one is started for the purpose.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// Connections at once.
        #[arg(long, default_value_t = CLIENTS)]
        clients: usize,
        /// Seconds each kind of request is sent.
        #[arg(long, default_value_t = LOADED, value_name = "SECONDS")]
        seconds: u64,
    },
    /// Reads, lists, creates and watches as a user whose permissions come from RBAC, with many pods in place.
    Scale {
        /// The cluster to measure; without it one is started for the purpose.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// How many pods are there first.
        #[arg(long, default_value_t = OBJECTS)]
        objects: u64,
        /// Connections at once.
        #[arg(long, default_value_t = CLIENTS)]
        clients: usize,
        /// Seconds each kind of request is sent.
        #[arg(long, default_value_t = LOADED, value_name = "SECONDS")]
        seconds: u64,
    },
    /// Server-side apply, creates that webhooks are asked about, definitions of new kinds. Works against any Kubernetes API
    /// that reaches this machine's loopback.
    Writes {
        /// The cluster to measure; without it one is started for the purpose.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// Connections at once.
        #[arg(long, default_value_t = CLIENTS)]
        clients: usize,
        /// Seconds each kind of request is sent.
        #[arg(long, default_value_t = LOADED, value_name = "SECONDS")]
        seconds: u64,
        /// How many definitions are made.
        #[arg(long, default_value_t = DEFINITIONS)]
        definitions: u64,
    },
    /// From being bound to running, image present, and commands in a running pod. Works against any Kubernetes API.
    Pods {
        /// The cluster to measure; without it one is started, with an image made of this machine's static busybox.
        #[arg(long, value_name = "FILE", requires = "image")]
        kubeconfig: Option<PathBuf>,
        /// An image with `sleep` in it that is on that cluster's node already.
        #[arg(long, requires = "kubeconfig")]
        image: Option<String>,
        /// How many pods.
        #[arg(long, default_value_t = PODS)]
        count: usize,
    },
    /// Size of this binary.
    Size,
}

impl What {
    /// Everything there is to measure, as usual.
    fn all() -> Vec<Self> {
        vec![
            Self::Boot { rounds: ROUNDS },
            Self::Idle { settle: SETTLE, seconds: WATCHED },
            Self::Api { kubeconfig: None, clients: CLIENTS, seconds: LOADED },
            Self::Scale { kubeconfig: None, objects: OBJECTS, clients: CLIENTS, seconds: LOADED },
            Self::Writes { kubeconfig: None, clients: CLIENTS, seconds: LOADED, definitions: DEFINITIONS },
            Self::Pods { kubeconfig: None, image: None, count: PODS },
            Self::Size,
        ]
    }

    async fn measure(self, report: &mut Report) -> anyhow::Result<()> {
        match self {
            Self::Boot { rounds } => bench::boot::run(rounds, report).await,
            Self::Idle { settle, seconds } => {
                bench::idle::run(Duration::from_secs(settle), Duration::from_secs(seconds), report).await
            }
            Self::Api { kubeconfig, clients, seconds } => {
                let plan = bench::api::Plan { clients, length: Duration::from_secs(seconds) };
                if let Some(file) = kubeconfig {
                    return bench::api::run(&Target::new(&config(&file).await?)?, &plan, report).await;
                }
                let subject = start(&["--no-agent"]).await?;
                let target = Target::new(&config(&subject.kubeconfig()).await?)?;
                let measured = bench::api::run(&target, &plan, report).await;
                end(subject).await?;
                measured
            }
            Self::Scale { kubeconfig, objects, clients, seconds } => {
                let load = bench::api::Plan { clients, length: Duration::from_secs(seconds) };
                let plan = bench::scale::Plan { load, objects };
                if let Some(file) = kubeconfig {
                    return bench::scale::run(&config(&file).await?, &plan, None, report).await;
                }
                let subject = start(&["--no-agent"]).await?;
                let measured = async {
                    bench::scale::run(&config(&subject.kubeconfig()).await?, &plan, Some(&subject), report).await
                };
                let measured = measured.await;
                end(subject).await?;
                measured
            }
            Self::Writes { kubeconfig, clients, seconds, definitions } => {
                let plan = bench::writes::Plan { clients, length: Duration::from_secs(seconds), definitions };
                if let Some(file) = kubeconfig {
                    return bench::writes::run(&config(&file).await?, &plan, None, report).await;
                }
                let subject = start(&["--no-agent"]).await?;
                let measured = async {
                    bench::writes::run(&config(&subject.kubeconfig()).await?, &plan, Some(&subject), report).await
                };
                let measured = measured.await;
                end(subject).await?;
                measured
            }
            Self::Pods { kubeconfig: Some(file), image: Some(image), count } => {
                let client = kube::Client::try_from(config(&file).await?)?;
                bench::pods::run(client.clone(), &image, count, report).await?;
                bench::exec::run(client, &image, report).await
            }
            Self::Pods { count, .. } => {
                let subject = start(&[]).await?;
                let measured = async {
                    let folder = subject.data_dir();
                    let image = tokio::task::spawn_blocking(move || bench::process::import_busybox(&folder)).await??;
                    let client = kube::Client::try_from(config(&subject.kubeconfig()).await?)?;
                    bench::pods::run(client.clone(), image, count, report).await?;
                    bench::exec::run(client, image, report).await
                };
                let measured = measured.await;
                end(subject).await?;
                measured
            }
            Self::Size => {
                let exe = std::env::current_exe()?;
                #[expect(clippy::cast_precision_loss, reason = "a file's size is far below 2^52")]
                let size = std::fs::metadata(&exe).with_context(|| exe.display().to_string())?.len() as f64 / 1e6;
                if cfg!(debug_assertions) {
                    report.add("size of this binary, which is no release", size, "MB");
                } else {
                    report.promised("size of this binary", size, "MB", 40.0);
                }
                Ok(())
            }
        }
    }
}

/// Starts a cluster to be measured.
async fn start(flags: &'static [&'static str]) -> anyhow::Result<Subject> {
    let port = bench::process::free_port()?;
    tokio::task::spawn_blocking(move || Subject::start(port, flags)).await?
}

/// Stops and purges it.
async fn end(subject: Subject) -> anyhow::Result<()> {
    Ok(tokio::task::spawn_blocking(move || drop(subject)).await?)
}

/// Measures.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::default();
    let mut measured = Ok(());
    for what in args.what.map_or_else(What::all, |what| vec![what]) {
        measured = what.measure(&mut report).await;
        if measured.is_err() {
            break;
        }
    }
    // What was measured before something failed is worth seeing all the same.
    report.print(args.json)?;
    measured
}

async fn config(file: &std::path::Path) -> anyhow::Result<kube::Config> {
    let kubeconfig = Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?;
    Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}
