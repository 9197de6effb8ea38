//! `coracle image`: the images of this node.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Subcommand;
use coracle_runtime::image::{
    Execution, ImageConfig, ImageStore, ImportSource, Limits, Platform, PullRequest, Reference, StoreConfig, Timeouts,
};

use crate::instance::Instance;

/// Flags of `image`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// The instance's data directory.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle", global = true)]
    data_dir: PathBuf,
    /// A store that instances share; by default the one the instance's node used last.
    #[arg(long, env = "CORACLE_IMAGE_STORE", value_name = "DIR", global = true)]
    image_store: Option<PathBuf>,
    /// Mirrors, plain-http hosts and credentials of registries.
    #[arg(long, env = "CORACLE_REGISTRIES", value_name = "FILE", global = true)]
    registries: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Take in an image: a `docker save` archive, an OCI archive, or a folder in OCI image layout.
    ///
    /// With --rootfs the archive is a plain tar of a root directory, which becomes an image of one layer.
    Import {
        /// The archive or folder; - is standard input.
        file: PathBuf,
        /// What to call the image, if it does not say or to call it otherwise.
        #[arg(long)]
        name: Option<String>,
        /// The archive is a tar of a root directory.
        #[arg(long, requires = "name")]
        rootfs: bool,
        /// With --rootfs: the program the image runs, and its arguments.
        #[arg(long, requires = "rootfs", num_args = 1.., value_name = "WORD")]
        cmd: Vec<String>,
        /// With --rootfs: environment, NAME=value.
        #[arg(long, requires = "rootfs", value_name = "NAME=VALUE")]
        env: Vec<String>,
    },
    /// Pull an image from its registry.
    Pull {
        /// The image: nginx, registry.example/team/app:1.2, app@sha256:…
        reference: String,
    },
    /// List the images that are here.
    List,
    /// Remove an image's name, and the image with its last name.
    Remove {
        /// The image's name, or the id `list` shows.
        reference: String,
    },
    /// Remove layers and images that no name refers to.
    Prune,
}

/// Does what is asked.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let config = StoreConfig {
        root: match &args.image_store {
            Some(dir) => coracle_agent::image_store(dir)?,
            None => Instance::new(&args.data_dir)?.images_dir(),
        },
        registries: coracle_agent::registries(args.registries.as_deref())?,
        timeouts: Timeouts::default(),
        limits: Limits::default(),
    };
    let store = ImageStore::open(config).await.context("opening the image store")?;
    let mut out = std::io::stdout().lock();
    match args.what {
        What::Import { file, name, rootfs, cmd, env } => {
            let source = if file == Path::new("-") { ImportSource::Stdin } else { ImportSource::Path(file) };
            let name = name.map(|name| parse(&name)).transpose()?;
            let images = match (rootfs, name) {
                (true, Some(name)) => vec![store.import_rootfs(source, name, image_config(cmd, env)).await?],
                (_, name) => store.import(source, name).await?,
            };
            for image in images {
                writeln!(out, "{} {}", image.repo_tags.join(" "), image.id)?;
            }
        }
        What::Pull { reference } => {
            let image = store.pull(PullRequest::new(parse(&reference)?)).await?;
            writeln!(out, "{} {}", reference, image.image_id())?;
        }
        What::List => {
            writeln!(out, "{:<60} {:<20} {:>9}", "IMAGE", "ID", "SIZE")?;
            for image in store.list() {
                let id: String = image.id.hex().chars().take(12).collect();
                let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
                for name in names {
                    writeln!(out, "{name:<60} {id:<20} {:>6} MB", image.size / 1_000_000)?;
                }
            }
        }
        What::Remove { reference } => {
            store.remove(&reference, &BTreeSet::new()).await?;
        }
        What::Prune => {
            let collected = store.collect_garbage(&BTreeSet::new(), false).await?;
            let (images, layers, bytes) = (collected.images.len(), collected.layers.len(), collected.bytes);
            writeln!(out, "removed {images} images and {layers} layers, {} MB", bytes / 1_000_000)?;
        }
    }
    Ok(())
}

fn parse(name: &str) -> anyhow::Result<Reference> {
    name.parse().with_context(|| format!("{name:?} is no image name"))
}

fn image_config(cmd: Vec<String>, env: Vec<String>) -> ImageConfig {
    let host = Platform::host();
    ImageConfig {
        architecture: host.architecture,
        os: host.os,
        config: Execution { cmd, env, ..Execution::default() },
        ..ImageConfig::default()
    }
}
