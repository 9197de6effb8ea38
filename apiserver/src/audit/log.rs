//! The audit log: a file of one event a line, which is put aside when it has grown and removed when it is old.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Way, config::LogConfig};
use crate::seldom::Seldom;

/// As many events as are written in one go.
const BATCH: usize = 512;

/// The time in the name of a file that was put aside.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// A disk that is full fails every write.
static FAILED: Seldom = Seldom::new();

/// See the module.
#[derive(Debug)]
pub(super) struct Log {
    config: LogConfig,
    out: Out,
}

#[derive(Debug)]
enum Out {
    Standard,
    File { file: File, size: u64 },
}

impl Log {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(config: &LogConfig) -> io::Result<Self> {
        let out = if config.path.as_os_str() == "-" {
            Out::Standard
        } else {
            let (file, size) = open(&config.path)?;
            prune(config, Timestamp::now())?;
            Out::File { file, size }
        };
        Ok(Self { config: config.clone(), out })
    }

    /// Writes what comes until `shutdown`, then what is there.
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Bytes>, way: &Way, shutdown: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                count = events.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                }
                () = shutdown.cancelled(), if !events.is_closed() => {
                    // What was sent before is still written.
                    events.close();
                    continue;
                }
            }
            let lines = std::mem::take(&mut batch);
            let count = lines.len();
            let written = tokio::task::spawn_blocking(move || {
                let result = self.write(&lines);
                (self, result)
            });
            let Ok((log, result)) = written.await else { return };
            self = log;
            if let Err(error) = result {
                if let Some(before) = FAILED.next(std::time::Instant::now()) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, path = ?self.config.path, before, "the audit log cannot be written");
                }
                way.lose(u64::try_from(count).unwrap_or(u64::MAX));
            }
        }
    }

    fn write(&mut self, lines: &[Bytes]) -> io::Result<()> {
        let mut gathered = Vec::new();
        for line in lines {
            if let Out::File { size, .. } = &self.out {
                let pending = u64::try_from(gathered.len() + line.len()).unwrap_or(u64::MAX);
                if *size > 0 && size.saturating_add(pending) > self.config.max_size {
                    self.flush(&mut gathered)?;
                    self.rotate(Timestamp::now())?;
                }
            }
            gathered.extend_from_slice(line);
        }
        self.flush(&mut gathered)
    }

    fn flush(&mut self, gathered: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.out {
            Out::Standard => io::stdout().lock().write_all(gathered)?,
            Out::File { file, size } => {
                file.write_all(gathered)?;
                *size = size.saturating_add(u64::try_from(gathered.len()).unwrap_or(u64::MAX));
            }
        }
        gathered.clear();
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let (begin, end) = name_parts(&self.config.path);
        let aside = self.config.path.with_file_name(format!("{begin}{}{end}", now.strftime(STAMP)));
        fs::rename(&self.config.path, aside)?;
        let (file, size) = open(&self.config.path)?;
        self.out = Out::File { file, size };
        prune(&self.config, now)
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// What stands before and after the time in the names of files that were put aside: `audit-` and `.log`.
fn name_parts(path: &Path) -> (String, String) {
    let text =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let end = path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    (format!("{}-", text(path.file_stem())), end)
}

/// Removes files that were put aside and are too many or too old.
fn prune(config: &LogConfig, now: Timestamp) -> io::Result<()> {
    let (begin, end) = name_parts(&config.path);
    let dir = config.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut aside: Vec<(Timestamp, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stamp = name.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(&end));
        let time = stamp.and_then(|stamp| jiff::civil::DateTime::strptime(STAMP, stamp).ok());
        if let Some(time) = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
            aside.push((time.timestamp(), path));
        }
    }
    aside.sort_by(|a, b| b.cmp(a));
    let age = SignedDuration::from_hours(24 * i64::from(config.max_age_days));
    let oldest = (config.max_age_days > 0).then(|| now.checked_sub(age).ok()).flatten();
    let kept = usize::try_from(config.max_backups).unwrap_or(usize::MAX);
    for (at, (time, path)) in aside.iter().enumerate() {
        if (kept > 0 && at >= kept) || oldest.is_some_and(|oldest| *time < oldest) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, max_size: u64, max_backups: u32, max_age_days: u32) -> LogConfig {
        LogConfig { path: dir.join("sub/audit.log"), max_size, max_backups, max_age_days }
    }

    fn names(config: &LogConfig) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(config.path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn line(text: &str) -> Bytes {
        Bytes::from(format!("{text}\n"))
    }

    #[test]
    fn a_file_that_has_grown_is_put_aside_and_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 20, 0, 0);
        let mut log = Log::open(&config).unwrap();
        log.write(&[line("one"), line("two"), line("three")]).unwrap();
        assert_eq!(names(&config), ["audit.log"]);
        drop(log);
        let mut log = Log::open(&config).unwrap();
        log.write(&[line("fourth one")]).unwrap();
        let found = names(&config);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("audit-2") && found[0].ends_with(".log"), "{found:?}");
        let read = |name: &str| fs::read_to_string(config.path.with_file_name(name)).unwrap();
        assert_eq!(read(&found[0]), "one\ntwo\nthree\n");
        assert_eq!(read("audit.log"), "fourth one\n");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&config.path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_too_much_or_too_old_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 20, 2, 3);
        drop(Log::open(&config).unwrap());
        for name in [
            "audit-2026-01-01T00-00-00.000.log",
            "audit-2026-01-08T00-00-00.000.log",
            "audit-2026-01-09T00-00-00.000.log",
            "audit-2026-01-10T00-00-00.000.log",
            "audit-notes.log",
            "other-2026-01-01T00-00-00.000.log",
        ] {
            fs::write(config.path.with_file_name(name), "x").unwrap();
        }
        prune(&config, "2026-01-10T12:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(
            names(&config),
            [
                "audit-2026-01-09T00-00-00.000.log",
                "audit-2026-01-10T00-00-00.000.log",
                "audit-notes.log",
                "audit.log",
                "other-2026-01-01T00-00-00.000.log"
            ]
        );
        let aged = LogConfig { max_backups: 0, ..config };
        prune(&aged, "2026-01-12T12:00:00Z".parse().unwrap()).unwrap();
        assert!(!names(&aged).contains(&"audit-2026-01-09T00-00-00.000.log".to_owned()));
        assert!(names(&aged).contains(&"audit-2026-01-10T00-00-00.000.log".to_owned()));
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 1_000_000, 0, 0);
        let (way, events) = Way::new("log", 5000);
        for n in 0..3000 {
            way.send(line(&n.to_string()));
        }
        let end = CancellationToken::new();
        end.cancel();
        Log::open(&config).unwrap().run(events, &way, &end).await;
        let text = fs::read_to_string(&config.path).unwrap();
        assert_eq!((text.lines().count(), text.lines().last()), (3000, Some("2999")));
    }
}
