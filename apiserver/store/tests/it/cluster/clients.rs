//! The clients: writers that each have a key of their own, readers of the newest and of whatever there is, and followers.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{PATIENCE, ask};
use crate::oracle::{Changes, Oracle};

pub(super) const WRITERS: usize = 6;
pub(super) const READERS: usize = 2;

/// What all clients know.
#[derive(Default)]
pub(super) struct Known {
    /// Where each member is asked, and which process of it that is.
    pub(super) sockets: Mutex<Vec<(PathBuf, u64)>>,
    oracle: Mutex<Oracle>,
    pub(super) writes: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) stop: AtomicBool,
    /// The last revision there is, when nobody writes any more.
    pub(super) last: AtomicU64,
    /// When a leader was killed, and how long after that a write was acknowledged that began later.
    pub(super) killed: Mutex<Option<(Instant, Option<Duration>)>>,
}

impl Known {
    /// A member's socket, and which process of which member that is.
    pub(super) fn socket(&self, at: u64) -> (PathBuf, (u64, u64)) {
        let sockets = self.sockets.lock().unwrap();
        let at = at % sockets.len() as u64;
        let (path, life) = sockets[usize::try_from(at).unwrap()].clone();
        (path, (at, life))
    }

    pub(super) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap()
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Asks a member for a key, with the newest value or with any; none if nobody can tell.
    fn read(&self, turn: u64, key: &str, is_newest: bool) -> Option<u64> {
        let (socket, who) = self.socket(turn);
        let (acknowledged, told) = {
            let oracle = self.oracle();
            (oracle.begin_read(), oracle.monotonic.ask(who))
        };
        let answer = ask(&socket, &format!("{} {key}", if is_newest { "read" } else { "peek" }))?;
        let (revision, value) = answer.split_once(' ')?;
        let (revision, value): (u64, u64) = (revision.parse().unwrap(), value.parse().unwrap());
        let shown = (value != 0).then(|| value.to_string());
        let mut oracle = self.oracle();
        oracle.monotonic.tell(who, told, revision);
        if is_newest {
            oracle.reads.newest(acknowledged, revision, key, shown);
        } else {
            oracle.reads.any(revision, key, shown);
        }
        Some(value)
    }
}

/// Writes one value after the other, each if the key still has the one before.
pub(super) fn write(known: &Known, writer: usize) {
    let key = format!("last/{writer}");
    let mut possible = BTreeSet::from([0]);
    let (mut value, mut attempt, mut turn) = (0, 0, writer as u64);
    let mut last = Instant::now();
    while known.goes_on() {
        assert!(last.elapsed() < PATIENCE, "no write of {writer} was acknowledged for a minute");
        attempt += 1;
        turn += 1;
        let began = Instant::now();
        let number = known.oracle().writes.begin(&key, &attempt.to_string());
        let answer = ask(&known.socket(turn).0, &format!("put {key} {value} {attempt}"));
        match answer.as_deref().map(|said| said.split_once(' ').unwrap_or((said, ""))) {
            Some(("done", revision)) => {
                known.oracle().writes.done(number, revision.parse().unwrap());
                value = attempt;
                possible = BTreeSet::from([value]);
                known.writes.fetch_add(1, Ordering::SeqCst);
                last = Instant::now();
                let mut killed = known.killed.lock().unwrap();
                if let Some((at, after @ None)) = &mut *killed
                    && began >= *at
                {
                    *after = Some(at.elapsed());
                }
                continue;
            }
            Some(("refused", _)) => {
                known.oracle().writes.refused(number);
                continue;
            }
            Some(("conflict", _)) => {
                known.oracle().writes.refused(number);
                assert!(possible.len() > 1, "a write met another value than the one acknowledged");
            }
            _ => {
                known.unknown.fetch_add(1, Ordering::SeqCst);
                possible.insert(attempt);
            }
        }
        // What it holds now is what to go on from.
        while known.goes_on() {
            turn += 1;
            if let Some(found) = known.read(turn, &key, true) {
                assert!(possible.contains(&found), "writer {writer} finds {found}, and knows of {possible:?}");
                value = found;
                break;
            }
        }
    }
}

/// Reads the keys in turn, of the members in turn.
pub(super) fn read(known: &Known, reader: u64) {
    let mut turn = reader;
    while known.goes_on() {
        turn += 1;
        let key = format!("last/{}", turn % WRITERS as u64);
        if known.read(turn, &key, !turn.is_multiple_of(3)).is_some() {
            known.reads.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Follows what a member tells, whichever process it is, until the last revision is heard.
pub(super) fn follow(known: &Known, at: u64) {
    let who = (at, 0);
    let mut behind = 1;
    known.oracle().watches.follow(who, behind);
    let is_over = |behind| {
        let last = known.last.load(Ordering::SeqCst);
        last > 0 && behind >= last
    };
    let mut since = Instant::now();
    while !is_over(behind) {
        assert!(since.elapsed() < PATIENCE, "who follows member {at} has heard nothing behind {behind} for a minute");
        let Ok(mut stream) = UnixStream::connect(known.socket(at).0) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        if stream.write_all(format!("watch {behind}\n").as_bytes()).is_err() {
            continue;
        }
        let (mut lines, mut line) = (BufReader::new(stream), Vec::new());
        while !is_over(behind) {
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) if line.ends_with(b"\n") => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                // It was killed in the middle of a line.
                Ok(_) | Err(_) => break,
            }
            let text = String::from_utf8(std::mem::take(&mut line)).unwrap();
            let mut words = text.trim_end().split(' ');
            let first = words.next().unwrap();
            if first == "compacted" {
                behind = words.next().unwrap().parse().unwrap();
                known.oracle().watches.follow(who, behind);
                break;
            }
            behind = first.parse().unwrap();
            let change = |word: &str| word.split_once('=').map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
            let changes: Changes = words.map(|word| change(word).unwrap()).collect();
            known.oracle().watches.hear(who, behind, changes);
            since = Instant::now();
        }
    }
}
