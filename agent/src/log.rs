//! Container logs: lines as the CRI writes them (`<time> <stream> <P|F> <text>`), read from the end, since a time, or
//! followed while the container runs.
//!
//! A follower sleeps on inotify for the one file it follows and for its directory (a rotated log begins a new file); it
//! never polls.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coracle_process::FileChanges;
use jiff::Timestamp;
use tokio::sync::mpsc;

/// The longest line that is held at once; the runtime cuts longer ones into parts before they get here.
const LINE: u64 = 64 << 10;
/// Bytes put together before they are sent on.
const CHUNK: usize = 32 << 10;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Go on while the container runs.
    pub(crate) follow: bool,
    /// Put each line's time before it.
    pub(crate) timestamps: bool,
    /// Only lines of this time and later.
    pub(crate) since: Option<Timestamp>,
    /// Only so many lines from the end.
    pub(crate) tail: Option<u64>,
    /// Only so many bytes.
    pub(crate) limit: Option<u64>,
}

/// One line, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// When it was written, as it stands in the file.
    pub(crate) time: &'a str,
    /// `stdout` or `stderr`.
    pub(crate) stream: &'a str,
    /// It ends here; otherwise the next part belongs to it.
    pub(crate) whole: bool,
    /// Its text, without the line feed.
    pub(crate) text: &'a [u8],
}

/// Reads a line of the file; `None` for one that is not of the format (cut by a crash).
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok().filter(|s| matches!(*s, "stdout" | "stderr"))?;
    // Tags may carry more, separated by colons; the first is the one that counts.
    let whole = match parts.next()?.split(|b| *b == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Line { time, stream, whole, text: parts.next().unwrap_or_default() })
}

/// Turns lines of the file into what is asked for.
#[derive(Debug)]
struct Filter {
    options: Options,
    at_line_start: bool,
    left: Option<u64>,
}

impl Filter {
    fn new(options: Options) -> Self {
        Self { left: options.limit, options, at_line_start: true }
    }

    /// Adds the line to `out`; answers whether more is wanted.
    fn add(&mut self, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = parse(raw) else { return true };
        if let Some(since) = self.options.since
            && line.time.parse::<Timestamp>().is_ok_and(|at| at < since)
        {
            return true;
        }
        let mut piece = Vec::with_capacity(line.text.len() + 40);
        if self.options.timestamps && self.at_line_start {
            piece.extend_from_slice(line.time.as_bytes());
            piece.push(b' ');
        }
        piece.extend_from_slice(line.text);
        if line.whole {
            piece.push(b'\n');
        }
        self.at_line_start = line.whole;
        if let Some(left) = &mut self.left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            piece.truncate(most);
            *left = left.saturating_sub(piece.len() as u64);
        }
        out.extend_from_slice(&piece);
        self.left != Some(0)
    }
}

/// Where the last `lines` lines begin.
fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 8192;
    let mut end = file.metadata()?.len();
    if lines == 0 {
        return Ok(end);
    }
    let total = end;
    let mut found = 0;
    let mut buffer = vec![0; 8192];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        let part = buffer.get_mut(..usize::try_from(end - start).unwrap_or(0)).unwrap_or_default();
        file.read_exact(part)?;
        for (i, byte) in part.iter().enumerate().rev() {
            let at = start + i as u64;
            // The line feed at the very end closes the last line.
            if *byte == b'\n' && at + 1 != total {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// The end of a log as text: at most so many lines and bytes; `None` if it cannot be read.
pub(crate) fn tail_text(path: &Path, lines: usize, bytes: usize) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let start = tail_start(&mut file, lines as u64).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut filter = Filter::new(Options::default());
    let mut out = Vec::new();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line).ok()? {
        filter.add(&line, &mut out);
        line.clear();
        if out.len() > 2 * bytes {
            out.drain(..out.len() - bytes);
        }
    }
    let from = out.len().saturating_sub(bytes);
    Some(String::from_utf8_lossy(out.get(from..)?).into_owned())
}

/// Reads to the next line feed; answers whether a whole line is in `line`. An unfinished one stays for the next call.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<bool> {
    let room = LINE.saturating_sub(line.len() as u64);
    let read = reader.by_ref().take(room).read_until(b'\n', line)?;
    Ok(line.last() == Some(&b'\n') || (read > 0 && line.len() as u64 >= LINE))
}

/// A log that is open.
struct Open {
    path: PathBuf,
    reader: BufReader<File>,
    inode: u64,
    line: Vec<u8>,
}

impl Open {
    fn new(path: &Path, tail: Option<u64>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if let Some(lines) = tail {
            let start = tail_start(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        let inode = file.metadata()?.ino();
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), inode, line: Vec::new() })
    }

    /// The file that was begun when `self` was full: a rotated one that is still there, or the one at `path` being written.
    fn after(&self, path: &Path) -> io::Result<Self> {
        loop {
            // The current one first: if it is rotated meanwhile, the rotated ones tell.
            let current = std::fs::metadata(path).map(|current| (path.to_owned(), current.ino()));
            let files: Vec<_> = rotated(path)?.into_iter().chain(current.ok()).collect();
            // One that was removed to make room was older than all that are there.
            let own = files.iter().position(|(_, inode)| *inode == self.inode);
            let Some((next, inode)) = files.get(own.map_or(0, |own| own + 1)) else {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the log was removed while it was read"));
            };
            match Self::new(next, None) {
                Ok(open) if open.inode == *inode => return Ok(open),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // Renamed or removed since it was listed.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// The files that were `path` once and their inodes, the oldest first: the times in their names sort.
fn rotated(path: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix)
            && let Ok(meta) = entry.metadata()
        {
            files.push((entry.path(), meta.ino()));
        }
    }
    files.sort();
    Ok(files)
}

/// What a reader came to.
enum Reached {
    /// All that is there was read.
    End,
    /// Nobody wants more.
    Enough,
}

/// Sends the log at `path` in pieces; with `follow`, until `ended` is ready and all was read.
///
/// # Errors
/// When the log cannot be opened or read.
///
/// # Cancel safety
/// Dropping it stops the reading at the next piece.
pub(crate) async fn send(
    path: PathBuf,
    options: Options,
    ended: impl Future<Output = ()>,
    pieces: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let follow = options.follow;
    // The watch is there before the first read, so that nothing falls between.
    let watch = if follow { Some(watch(&path)?) } else { None };
    let tail = options.tail;
    let first = path.clone();
    let mut open = blocking(move || Open::new(&first, tail)).await?;
    let mut filter = Filter::new(options);
    tokio::pin!(ended);
    let mut over = false;
    loop {
        // Asked before reading: whoever rotates writes no more to the old file, so what is read of it then is all of it.
        let replaced = tokio::fs::metadata(&path).await.is_ok_and(|current| current.ino() != open.inode);
        let pieces_here = pieces.clone();
        let (back, filter_back, reached) = blocking(move || {
            let reached = drain(&mut open, &mut filter, &pieces_here)?;
            Ok((open, filter, reached))
        })
        .await?;
        open = back;
        filter = filter_back;
        let Some(watch) = &watch else { return Ok(()) };
        if matches!(reached, Reached::Enough) {
            return Ok(());
        }
        if replaced {
            let path = path.clone();
            open = blocking(move || Open::after(&open, &path)).await?;
            look_at(watch, &open.path)?;
            continue;
        }
        if over {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = pieces.closed() => return Ok(()),
            result = watch.next() => result?,
            // What was written before the end is read once more.
            () = &mut ended => over = true,
        }
    }
}

fn drain(open: &mut Open, filter: &mut Filter, pieces: &mpsc::Sender<Bytes>) -> io::Result<Reached> {
    let mut out = Vec::new();
    loop {
        let whole = read_line(&mut open.reader, &mut open.line)?;
        let more = if whole {
            let more = filter.add(&open.line, &mut out);
            open.line.clear();
            more
        } else {
            true
        };
        if (out.len() >= CHUNK || !whole || !more) && !out.is_empty() {
            let piece = Bytes::from(std::mem::take(&mut out));
            if pieces.blocking_send(piece).is_err() {
                return Ok(Reached::Enough);
            }
        }
        if !more {
            return Ok(Reached::Enough);
        }
        if !whole {
            return Ok(Reached::End);
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Wakes when a log grows or is replaced.
fn watch(path: &Path) -> io::Result<FileChanges> {
    let changes = FileChanges::new()?;
    if let Some(parent) = path.parent() {
        changes.of_directory(parent)?;
    }
    look_at(&changes, path)?;
    Ok(changes)
}

/// Wakes when the file grows, too. One that is gone by now grows no more; the directory tells what has come instead.
fn look_at(changes: &FileChanges, path: &Path) -> io::Result<()> {
    match changes.of_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    fn line(second: u32, tag: &str, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000001Z stdout {tag} {text}\n")
    }

    async fn read(path: &Path, options: Options) -> String {
        let (tx, mut rx) = mpsc::channel(4);
        let path = path.to_owned();
        let (result, text) = tokio::join!(send(path, options, std::future::pending(), tx), async {
            let mut text = Vec::new();
            while let Some(piece) = rx.recv().await {
                text.extend_from_slice(&piece);
            }
            String::from_utf8(text).unwrap()
        });
        result.unwrap();
        text
    }

    fn log(lines: &[String]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, lines.concat()).unwrap();
        (dir, path)
    }

    #[test]
    fn lines_that_are_not_of_the_format_are_left_out() {
        let raw = line(1, "F", "hello world");
        let parsed = parse(raw.as_bytes()).unwrap();
        assert_eq!((parsed.stream, parsed.whole, parsed.text), ("stdout", true, &b"hello world"[..]));
        assert_eq!(parse(b"2026 stdout F\n").unwrap().text, b"");
        for wrong in [&b"x\n"[..], b"a b c d\n", b"t stdout X y\n", b"\xff stdout F x\n", b""] {
            assert_eq!(parse(wrong), None);
        }
    }

    #[tokio::test]
    async fn lines_are_chosen_by_number_time_and_bytes() {
        let (_dir, path) = log(&[line(1, "F", "one"), line(2, "P", "tw"), line(2, "F", "o"), line(3, "F", "three")]);
        assert_eq!(read(&path, Options::default()).await, "one\ntwo\nthree\n");
        assert_eq!(read(&path, Options { tail: Some(1), ..Options::default() }).await, "three\n");
        assert_eq!(read(&path, Options { tail: Some(0), ..Options::default() }).await, "");
        assert_eq!(read(&path, Options { tail: Some(99), ..Options::default() }).await, "one\ntwo\nthree\n");
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        assert_eq!(read(&path, Options { since, ..Options::default() }).await, "three\n");
        assert_eq!(read(&path, Options { limit: Some(5), ..Options::default() }).await, "one\nt");
        assert_eq!(
            read(&path, Options { timestamps: true, tail: Some(3), ..Options::default() }).await,
            "2026-01-01T00:00:02.000000001Z two\n2026-01-01T00:00:03.000000001Z three\n"
        );
    }

    #[tokio::test]
    async fn a_follower_sees_what_is_added_over_a_rotation_and_ends_with_the_container() {
        let (dir, path) = log(&[line(1, "F", "one")]);
        let (tx, mut rx) = mpsc::channel(4);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let follow = Options { follow: true, ..Options::default() };
        let follower = send(path.clone(), follow, async move { drop(ended.await) }, tx);
        let story = async {
            assert_eq!(rx.recv().await.unwrap(), "one\n");
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(line(2, "F", "two").as_bytes()).unwrap();
            assert_eq!(rx.recv().await.unwrap(), "two\n");
            std::fs::rename(&path, dir.path().join("0.log.old")).unwrap();
            std::fs::write(&path, line(3, "F", "three")).unwrap();
            assert_eq!(rx.recv().await.unwrap(), "three\n");
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(line(4, "F", "last").as_bytes()).unwrap();
            end.send(()).unwrap();
            assert_eq!(rx.recv().await.unwrap(), "last\n");
            assert_eq!(rx.recv().await, None);
        };
        let (result, ()) = tokio::join!(follower, story);
        result.unwrap();
    }

    #[tokio::test]
    async fn a_follower_that_is_slow_misses_no_file() {
        let full = |second: u32| line(second, "F", &"x".repeat(CHUNK));
        let (dir, path) = log(&[full(1), full(2)]);
        let rotate = |time: &str, text: String| {
            std::fs::rename(&path, dir.path().join(format!("0.log.{time}"))).unwrap();
            std::fs::write(&path, text).unwrap();
        };
        let (tx, mut rx) = mpsc::channel(1);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let follow = Options { follow: true, timestamps: true, ..Options::default() };
        let follower = send(path.clone(), follow, async move { drop(ended.await) }, tx);
        let story = async {
            let mut seconds = Vec::new();
            let mut next = async || {
                let piece = rx.recv().await?;
                let text = String::from_utf8(piece.to_vec()).unwrap();
                seconds.extend(text.lines().map(|line| line[17..19].parse::<u32>().unwrap()));
                Some(())
            };
            next().await.unwrap();
            // It is in the middle of the first file, which goes on and is full.
            OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(line(3, "F", "the end of the first").as_bytes())
                .unwrap();
            rotate("20260101-000003", line(4, "F", "all of the second"));
            rotate("20260101-000004", full(5));
            rotate("20260101-000005", line(6, "F", "the last"));
            end.send(()).unwrap();
            while next().await.is_some() {}
            assert_eq!(seconds, [1, 2, 3, 4, 5, 6]);
        };
        let (result, ()) = tokio::join!(follower, story);
        result.unwrap();
    }

    #[tokio::test]
    async fn a_follower_goes_on_with_the_oldest_file_when_its_own_was_removed() {
        let (dir, path) = log(&[line(1, "F", "one")]);
        let open = Open::new(&path, None).unwrap();
        std::fs::rename(&path, dir.path().join("0.log.20260101-000001")).unwrap();
        std::fs::write(&path, line(2, "F", "two")).unwrap();
        assert_eq!(open.after(&path).unwrap().path, path);
        std::fs::remove_file(dir.path().join("0.log.20260101-000001")).unwrap();
        std::fs::write(dir.path().join("0.log.20260101-000002"), line(2, "F", "older")).unwrap();
        std::fs::write(dir.path().join("another"), "").unwrap();
        assert_eq!(open.after(&path).unwrap().path, dir.path().join("0.log.20260101-000002"));
    }

    #[test]
    fn the_end_of_a_log_can_stand_for_a_message() {
        let (_dir, path) = log(&(1..50).map(|i| line(i, "F", &format!("line {i}"))).collect::<Vec<_>>());
        assert_eq!(tail_text(&path, 2, 100).unwrap(), "line 48\nline 49\n");
        assert_eq!(tail_text(&path, 80, 6).unwrap(), "ne 49\n");
    }
}
