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
    let images = instance.images_dir();
    let images = images.canonicalize().unwrap_or(images);
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
    let data_dir = instance.data_dir();
    let shown = images.display();
    if !images.starts_with(data_dir) {
        remove(data_dir)?;
        writeln!(
            out,
            "nothing of {} is left on this host; the images in {shown} are not only its own",
            data_dir.display()
        )?;
    } else if coracle_agent::images_are_wanted(&images).await.context("looking for other users of the images")? {
        remove_but(data_dir, &images)?;
        writeln!(out, "of {} only the images in {shown} are left: another instance uses them", data_dir.display())?;
    } else {
        remove(data_dir)?;
        writeln!(out, "nothing of {} is left on this host", data_dir.display())?;
    }
    Ok(())
}

/// Stops pods, and removes what they hold of the host.
pub(super) async fn clear(instance: &Instance) -> anyhow::Result<()> {
    coracle_agent::clear(&instance.place().agent_dir()).await.context("clearing the node")?;
    remove(&instance.place().run_dir())
}

/// Removes everything in a folder but one folder below it.
fn remove_but(folder: &Path, kept: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        match kept.starts_with(&path) {
            true if path == kept => {}
            true => remove_but(&path, kept)?,
            false => remove(&path)?,
        }
    }
    Ok(())
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
