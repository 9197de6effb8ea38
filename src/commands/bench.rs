//! `coracle bench`: measure, and print the figures.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Subcommand;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::bench::{
    self,
    load::{Load, seconds},
    process::Subject,
    report::Report,
};

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
const SETTLE: Duration = Duration::from_secs(15);
const WATCHED: Duration = Duration::from_secs(60);
const STORE: Duration = Duration::from_secs(5);
const OBJECTS: u64 = 10_000;
const DEFINITIONS: u64 = 200;
const PODS: usize = 20;
const WATCHERS: usize = 100;

/// The cluster to measure.
#[derive(clap::Args, Default)]
struct Cluster {
    /// The cluster to measure; without it one is started for the purpose.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Cluster {
    /// Has `measure` look at the cluster; one that was started for it is stopped and purged whatever happens.
    async fn measured(
        self,
        flags: &'static [&'static str],
        measure: impl AsyncFnOnce(kube::Config, Option<Arc<Subject>>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if let Some(file) = self.kubeconfig {
            return measure(config(&file).await?, None).await;
        }
        let port = bench::process::free_port()?;
        let subject = Arc::new(tokio::task::spawn_blocking(move || Subject::start(port, flags)).await??);
        let measured = async { measure(config(&subject.kubeconfig()).await?, Some(Arc::clone(&subject))).await }.await;
        tokio::task::spawn_blocking(move || drop(subject)).await?;
        measured
    }
}

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
        #[arg(long, default_value = "15", value_parser = seconds, value_name = "SECONDS")]
        settle: Duration,
        /// Seconds to look at it.
        #[arg(long, default_value = "60", value_parser = seconds, value_name = "SECONDS")]
        seconds: Duration,
    },
    /// Durable creates, reads and lists under load. Works against any Kubernetes API.
    Api {
        #[command(flatten)]
        cluster: Cluster,
        #[command(flatten)]
        load: Load,
    },
    /// Reads, lists, creates and watches as a user whose permissions come from RBAC, with many pods in place.
    Scale {
        #[command(flatten)]
        cluster: Cluster,
        /// How many pods are there first.
        #[arg(long, default_value_t = OBJECTS)]
        objects: u64,
        #[command(flatten)]
        load: Load,
    },
    /// Events handed out to many watchers while objects are written. Works against any Kubernetes API.
    Watch {
        #[command(flatten)]
        cluster: Cluster,
        /// How many watch.
        #[arg(long, default_value_t = WATCHERS)]
        watchers: usize,
        #[command(flatten)]
        load: Load,
    },
    /// The store alone: durable small writes, syncs per write, reads, ranges, events to many watchers, start.
    Store {
        /// Where to write, on the disk that is of interest; the system's temporary directory by default.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Seconds for each row.
        #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
        seconds: Duration,
    },
    /// Server-side apply, creates that webhooks are asked about, definitions of new kinds. Works against any Kubernetes API
    /// that reaches this machine's loopback.
    Writes {
        #[command(flatten)]
        cluster: Cluster,
        #[command(flatten)]
        load: Load,
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
            Self::Api { cluster: Cluster::default(), load: Load::USUAL },
            Self::Watch { cluster: Cluster::default(), watchers: WATCHERS, load: Load::USUAL },
            Self::Scale { cluster: Cluster::default(), objects: OBJECTS, load: Load::USUAL },
            Self::Store { dir: None, seconds: STORE },
            Self::Writes { cluster: Cluster::default(), load: Load::USUAL, definitions: DEFINITIONS },
            Self::Pods { kubeconfig: None, image: None, count: PODS },
            Self::Size,
        ]
    }

    async fn measure(self, report: &mut Report) -> anyhow::Result<()> {
        const NO_AGENT: &[&str] = &["--no-agent"];
        match self {
            Self::Boot { rounds } => bench::boot::run(rounds, report).await,
            Self::Idle { settle, seconds } => bench::idle::run(settle, seconds, report).await,
            Self::Api { cluster, load } => {
                cluster.measured(NO_AGENT, async |config, _| bench::api::run(&config, load, report).await).await
            }
            Self::Watch { cluster, watchers, load } => {
                let measure = async |config, _| bench::watch::run(&config, watchers, load, report).await;
                cluster.measured(NO_AGENT, measure).await
            }
            Self::Scale { cluster, objects, load } => {
                let measure = async |config, subject: Option<Arc<Subject>>| {
                    bench::scale::run(&config, load, objects, subject.as_deref(), report).await
                };
                cluster.measured(NO_AGENT, measure).await
            }
            Self::Store { dir, seconds } => bench::store::run(dir, seconds, report).await,
            Self::Writes { cluster, load, definitions } => {
                let measure = async |config, subject: Option<Arc<Subject>>| {
                    bench::writes::run(&config, load, definitions, subject.as_deref(), report).await
                };
                cluster.measured(NO_AGENT, measure).await
            }
            Self::Pods { kubeconfig, image, count } => {
                let measure = async |config, subject: Option<Arc<Subject>>| {
                    let image = match (image, subject) {
                        (Some(image), _) => image,
                        (None, Some(subject)) => {
                            let import = move || bench::process::import_busybox(&subject.data_dir());
                            tokio::task::spawn_blocking(import).await??.to_owned()
                        }
                        (None, None) => bail!("--kubeconfig needs --image"),
                    };
                    let client = kube::Client::try_from(config)?;
                    bench::pods::run(client.clone(), &image, count, report).await?;
                    bench::exec::run(client, &image, report).await
                };
                Cluster { kubeconfig }.measured(&[], measure).await
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
