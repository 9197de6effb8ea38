//! `coracle snapshot`: everything a cluster is, in one file, and back. `coracle fork`: the same without the file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use age::Encryptor;
use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use coracle_apiserver::snapshot::{self, Decoder, Header, Summary};
use http::Method;
use k8s_openapi::jiff::Timestamp;

use self::encrypted::{Keys, Locks, Sealed};
use super::reach::{self, Reach};

mod encrypted;
#[cfg(test)]
mod tests;

/// Where a server gives a snapshot.
const PATH: &str = "/coracle/v1/snapshot";

/// Flags of `snapshot`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    reach: Reach,
}

/// What to do with snapshots.
#[derive(Subcommand)]
pub(crate) enum What {
    /// Save a running cluster: its state, keys, certificates and configuration. Whoever has the file has the cluster.
    Save {
        /// The file, which must not exist; "-" is standard output.
        file: PathBuf,
        #[command(flatten)]
        locks: Locks,
    },
    /// Make a data directory, which must be empty, of a snapshot. The server is then started as usual, also at other
    /// addresses.
    Restore {
        /// The file; "-" is standard input.
        file: PathBuf,
        #[command(flatten)]
        keys: Keys,
    },
    /// Check a snapshot, and show what is in it.
    Inspect {
        /// The file; "-" is standard input.
        file: PathBuf,
        /// How to show it.
        #[arg(long, short, value_enum, default_value = "text", value_name = "FORMAT")]
        output: Output,
        #[command(flatten)]
        keys: Keys,
    },
}

/// How a summary is shown.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Flags of `fork`.
#[derive(clap::Args)]
pub(crate) struct ForkArgs {
    /// The directory, which must not exist or be empty; a data directory to start a server with.
    dir: PathBuf,
    #[command(flatten)]
    reach: Reach,
}

/// Does what is asked.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Save { file, locks } => save(&args.reach, &file, &locks).await,
        What::Restore { file, keys } => {
            let dir = args.reach.data_dir;
            tokio::task::spawn_blocking(move || restore(&file, &keys, &dir)).await?
        }
        What::Inspect { file, keys, output } => {
            tokio::task::spawn_blocking(move || inspect(&file, &keys, output)).await?
        }
    }
}

fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

/// Takes a snapshot piece by piece and checks it on the way.
async fn take(reach: &Reach, out: &mut impl Write) -> anyhow::Result<Summary> {
    let client = reach.client().await?;
    let mut decoder = Decoder::default();
    reach::stream(&client, Method::GET, PATH, |bytes| {
        decoder.push::<snapshot::Error>(&bytes, |_| Ok(()))?;
        Ok(out.write_all(&bytes)?)
    })
    .await?;
    Ok(decoder.finish()?)
}

/// Takes a snapshot, and encrypts it if that is asked for: only a whole one gets an end.
async fn take_sealed(reach: &Reach, out: impl Write, encryptor: Option<Encryptor>) -> anyhow::Result<Summary> {
    let mut out = Sealed::new(out, encryptor)?;
    let summary = take(reach, &mut out).await?;
    out.finish()?;
    Ok(summary)
}

async fn save(reach: &Reach, file: &Path, locks: &Locks) -> anyhow::Result<()> {
    let encryptor = locks.encryptor()?;
    if is_standard(file) {
        let summary = take_sealed(reach, io::stdout().lock(), encryptor).await?;
        writeln!(io::stderr(), "{}", sentence(&summary, "standard output", locks))?;
        return Ok(());
    }
    if file.try_exists()? {
        bail!("{} is there already", file.display());
    }
    let mut name = file.file_name().context("this is no file's name")?.to_owned();
    name.push(".new");
    let beside = file.with_file_name(name);
    let saved = async {
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let mut out = open.with_context(|| beside.display().to_string())?;
        let summary = take_sealed(reach, &mut out, encryptor).await?;
        out.sync_all()?;
        // What was put there meanwhile is not overwritten.
        fs::hard_link(&beside, file).with_context(|| file.display().to_string())?;
        let parent = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
        anyhow::Ok(summary)
    };
    let saved = saved.await;
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    writeln!(io::stdout(), "{}", sentence(&saved?, &file.display().to_string(), locks))?;
    Ok(())
}

fn sentence(summary: &Summary, place: &str, locks: &Locks) -> String {
    let Header { entries, revision, .. } = &summary.header;
    let how = if locks.is_empty() { "" } else { ", encrypted" };
    format!("saved {entries} entries at revision {revision}, {} bytes, to {place}{how}", summary.bytes)
}

fn open(file: &Path, keys: &Keys) -> anyhow::Result<Box<dyn Read>> {
    if is_standard(file) {
        return keys.open(io::stdin().lock());
    }
    keys.open(File::open(file).with_context(|| file.display().to_string())?)
}

fn restore(file: &Path, keys: &Keys, dir: &Path) -> anyhow::Result<()> {
    let restored = snapshot::restore(open(file, keys)?, file, dir, Some(Timestamp::now()))?;
    let header = &restored.summary.header;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "restored {} entries of {} to {}: the cluster goes on at revision {}",
        header.entries,
        header.created,
        dir.display(),
        restored.revision
    )?;
    for file in restored.summary.files.iter().filter(|file| file.starts_with("config/")) {
        writeln!(out, "configuration of the server that was saved: {}", dir.join(file).display())?;
    }
    for (name, value) in &header.settings {
        writeln!(out, "it ran with --{name} {value}")?;
    }
    Ok(())
}

fn inspect(file: &Path, keys: &Keys, output: Output) -> anyhow::Result<()> {
    let (mut input, mut decoder) = (open(file, keys)?, Decoder::default());
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = input.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        decoder.push::<snapshot::Error>(buffer.get(..read).unwrap_or_default(), |_| Ok(()))?;
    }
    let summary = decoder.finish()?;
    let mut out = io::stdout().lock();
    if matches!(output, Output::Json) {
        serde_json::to_writer_pretty(&mut out, &summary)?;
        writeln!(out)?;
        return Ok(());
    }
    let header = &summary.header;
    writeln!(out, "format    {}, whole and unaltered, {} bytes", summary.format, summary.bytes)?;
    writeln!(out, "made by   {} at {}", header.program, header.created)?;
    writeln!(out, "revision  {}", header.revision)?;
    writeln!(out, "entries   {}, leases {}", header.entries, header.leases)?;
    for (name, value) in &header.settings {
        writeln!(out, "flag      --{name} {value}")?;
    }
    for file in &summary.files {
        writeln!(out, "file      {file}")?;
    }
    for (kind, count) in &summary.objects {
        writeln!(out, "objects   {count:>6} {kind}")?;
    }
    Ok(())
}

/// Makes an independent copy of a running cluster's data directory.
pub(crate) async fn fork(args: ForkArgs) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    take(&args.reach, &mut bytes).await?;
    let (dir, begun) = (args.dir, std::time::Instant::now());
    let restored = tokio::task::spawn_blocking(move || {
        // It stands where the original stands: nobody takes one for the other, as their servers' addresses differ.
        let restored = snapshot::restore(&bytes[..], Path::new("the running cluster"), &dir, None);
        restored.map(|restored| (restored, dir))
    });
    let (restored, dir) = restored.await??;
    writeln!(
        io::stdout(),
        "forked {} entries at revision {} to {} in {:.3} s",
        restored.summary.header.entries,
        restored.revision,
        dir.display(),
        begun.elapsed().as_secs_f64()
    )?;
    Ok(())
}
