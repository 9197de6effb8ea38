//! A container's log file, in the format of the Container Runtime Interface: time, stream, `F` for a whole line or `P` for a
//! part of one, text.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::spec::LogLimits;

/// Longest text of one record; a longer line is cut into parts.
pub(super) const MAX_TEXT: usize = 16 << 10;

/// A file being written, renamed when it has grown.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: fs::File,
    size: u64,
    limits: LogLimits,
}

impl Log {
    /// Opens the file and makes the directories above it.
    pub(super) fn open(path: &Path, limits: LogLimits) -> io::Result<Log> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Log { path: path.to_owned(), file, size, limits })
    }

    /// Writes records. A disk that is full costs the records, not the container: whoever writes must be read, or it stops.
    pub(super) fn write(&mut self, mut records: &[u8]) {
        while !records.is_empty() {
            let room = usize::try_from(self.limits.max_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let (now, later) = records.split_at(fitting(records, room));
            if now.is_empty() && self.size > 0 && self.rotate().is_ok() {
                continue;
            }
            // A record that fits no file goes into one all the same, and without a new file the old one goes on: too long
            // is better than lost.
            let (now, later) = if now.is_empty() { (records, &[][..]) } else { (now, later) };
            if self.file.write_all(now).is_ok() {
                self.size += now.len() as u64;
            }
            records = later;
        }
    }

    /// Goes on in a new file of the same name: somebody has renamed or removed the one it was.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = jiff::Timestamp::now();
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", now.strftime("%Y%m%d-%H%M%S.%9f")));
        fs::rename(&self.path, name)?;
        self.file = open(&self.path)?;
        self.size = 0;
        self.prune()
    }

    /// Removes the oldest: their names sort by time.
    fn prune(&self) -> io::Result<()> {
        let (Some(directory), Some(name)) = (self.path.parent(), self.path.file_name()) else { return Ok(()) };
        let prefix = format!("{}.", name.to_string_lossy());
        let mut old: Vec<PathBuf> = fs::read_dir(directory)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
            .collect();
        old.sort();
        let keep = self.limits.max_files.max(2) as usize - 1;
        let remove = old.len().saturating_sub(keep);
        old.iter().take(remove).try_for_each(fs::remove_file)
    }
}

/// The length of the whole records that fit into `room`.
fn fitting(records: &[u8], room: usize) -> usize {
    if records.len() <= room {
        return records.len();
    }
    let first = records.get(..room).unwrap_or(records);
    first.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().create(true).append(true).open(path)
}

/// Cuts a stream into records. Keeps the beginning of a line until its end comes or it is too long.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Adds the records of what was read to `records`.
    pub(super) fn feed(&mut self, stream: &str, time: &str, mut bytes: &[u8], records: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = MAX_TEXT - self.partial.len();
            let (text, rest, tag) = match bytes.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    let (text, rest) = bytes.split_at(end);
                    (text, rest.get(1..).unwrap_or_default(), Some("F"))
                }
                None if bytes.len() > room => {
                    let (text, rest) = bytes.split_at(room);
                    (text, rest, Some("P"))
                }
                None => (bytes, &[][..], None),
            };
            bytes = rest;
            match tag {
                None => self.partial.extend_from_slice(text),
                Some(tag) => {
                    record(stream, time, tag, &[&self.partial, text], records);
                    // Most streams are silent most of the time; what they keep meanwhile is nothing.
                    self.partial = Vec::new();
                }
            }
        }
    }

    /// Adds what is left at the end as a line that did not end.
    pub(super) fn finish(&mut self, stream: &str, time: &str, records: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            record(stream, time, "P", &[&self.partial], records);
            self.partial = Vec::new();
        }
    }
}

fn record(stream: &str, time: &str, tag: &str, text: &[&[u8]], records: &mut Vec<u8>) {
    for word in [time, stream, tag] {
        records.extend_from_slice(word.as_bytes());
        records.push(b' ');
    }
    for part in text {
        records.extend_from_slice(part);
    }
    records.push(b'\n');
}

/// Now, in nanoseconds, as RFC 3339.
pub(super) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut records = Vec::new();
        for chunk in chunks {
            lines.feed("stdout", "T", chunk, &mut records);
        }
        lines.finish("stdout", "T", &mut records);
        String::from_utf8(records).unwrap().lines().map(|line| line.replace("T stdout ", "")).collect()
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(check(&[b"a\nb\n"]), ["F a", "F b"]);
        assert_eq!(check(&[b"a", b"b", b"\nc"]), ["F ab", "P c"]);
        assert_eq!(check(&[b"\n\n"]), ["F ", "F "]);
        assert_eq!(check(&[b"a", b"\n"]), ["F a"]);
    }

    #[test]
    fn a_line_longer_than_a_record_is_cut_into_parts_and_ends_in_a_whole() {
        let long = vec![b'x'; 2 * MAX_TEXT + 5];
        let records = check(&[&long, b"\n"]);
        assert_eq!(records.iter().map(|record| record.len() - 2).collect::<Vec<_>>(), [MAX_TEXT, MAX_TEXT, 5]);
        assert_eq!(records.iter().map(|record| &record[..1]).collect::<String>(), "PPF");
        let exact = vec![b'x'; MAX_TEXT];
        assert_eq!(check(&[&exact, b"\n"]).len(), 1);
    }

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c").join("0.log");
        let mut log = Log::open(&path, LogLimits { max_size: 100, max_files: 3 }).unwrap();
        for _ in 0..20 {
            log.write(&[b'y'; 60]);
        }
        let mut sizes: Vec<u64> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [60, 60, 60]);

        log.write(b"0123456789012345678901234567890123456789\n".repeat(5).as_slice());
        assert_eq!(fs::read(&path).unwrap().len(), 41);
        log.write(&[b'z'; 300]);
        assert_eq!(fs::read(&path).unwrap().len(), 300);
    }
}
