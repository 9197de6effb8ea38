//! `coracle down`: stop what `up` left on this host; with `--purge` remove every trace.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{instance::Instance, kubeconfig};

/// Flags of `down`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The instance's data directory.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle")]
    data_dir: PathBuf,
    /// Remove everything: data, images, certificates, the kubeconfig context.
    #[arg(long)]
    purge: bool,
    /// The kubeconfig file `up` was told to write.
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Stops pods, removes what they hold of the host, and with `--purge` the rest.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let instance = Instance::new(&args.data_dir)?;
    if let Some(pid) = coracle_store::holder(&instance.store_dir()) {
        let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
        bail!("{} is in use by {who}; stop that first", instance.data_dir().display());
    }
    clear(&instance).await?;
    let mut out = std::io::stdout().lock();
    if !args.purge {
        writeln!(out, "nothing of {} runs any more; its data is kept", instance.data_dir().display())?;
        return Ok(());
    }
    if let Some(file) = args.kubeconfig {
        // The file holds nothing but this cluster.
        remove(&file)?;
    } else if let Some(file) = kubeconfig::default_path()
        && let Some(server) = instance.server()
    {
        kubeconfig::remove_from(&file, &server)?;
    }
    remove(instance.data_dir())?;
    writeln!(out, "nothing of {} is left on this host", instance.data_dir().display())?;
    Ok(())
}

/// Stops pods, and removes what they hold of the host.
pub(super) async fn clear(instance: &Instance) -> anyhow::Result<()> {
    coracle_agent::clear(&instance.place().agent_dir()).await.context("clearing the node")?;
    remove(&instance.place().run_dir())
}

/// Removes a file or a folder with all in it; one that is not there is removed.
fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}
