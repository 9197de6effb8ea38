//! The power goes: what a disk holds at some instant, while writes are acknowledged, is looked at as the next start would.
//!
//! The store lies on a file system of its own, whose disk is a file. At a random instant nothing reaches that disk any
//! more: the file system *it* lies on is frozen (fsfreeze(8)), and the file is copied meanwhile. So the copy is what the
//! disk held at one instant: what was written, and nothing of what the kernel had not got to. Everything acknowledged before
//! that must be in it. `CORACLE_POWER_CUTS=n` does so often.

use std::{
    fmt::Display,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::kill::{Told, hear, judge, victim};

/// How long anything may take when nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

fn run(program: &str, arguments: &[&dyn Display]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments.iter().map(ToString::to_string));
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A file that is mounted as a disk; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Makes a file system of so many MB.
    fn make(file: &Path, place: &Path, megabytes: u64) -> Result<Self, String> {
        std::fs::File::create(file)
            .and_then(|file| file.set_len(megabytes << 20))
            .map_err(|error| error.to_string())?;
        run("mkfs.ext4", &[&"-q", &"-F", &file.display()])?;
        Self::mount(file, place)
    }

    fn mount(file: &Path, place: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(place).map_err(|error| error.to_string())?;
        run("mount", &[&"-o", &"loop,noatime", &file.display(), &place.display()])?;
        Ok(Self(place.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What the judge has only just closed may be busy for a moment longer.
        let unmounted = run("umount", &[&self.0.display()]).or_else(|_| run("umount", &[&"-l", &self.0.display()]));
        unmounted.unwrap_or_else(|error| println!("{error}"));
    }
}

/// Nothing is written to a file system as long as this is held.
struct Frozen<'a>(&'a Disk);

impl<'a> Frozen<'a> {
    fn new(disk: &'a Disk) -> Self {
        run("fsfreeze", &[&"--freeze", &disk.0.display()]).unwrap();
        Self(disk)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &[&"--unfreeze", &self.0.0.display()]).unwrap();
    }
}

/// Ended when dropped, so that its disk can be unmounted.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The disk below, and the disk on it.
fn disks(dir: &Path) -> Result<(Disk, Disk), String> {
    let below = Disk::make(&dir.join("below.img"), &dir.join("below"), 256)?;
    let disk = Disk::make(&dir.join("below/disk.img"), &dir.join("disk"), 160)?;
    drop(Frozen::new(&below));
    Ok((below, disk))
}

#[test]
fn what_was_acknowledged_is_on_the_disk_at_any_instant() {
    let cuts = std::env::var("CORACLE_POWER_CUTS").map_or(10, |cuts| cuts.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let (below, disk) = match disks(dir.path()) {
        Ok(disks) => disks,
        Err(why) => {
            println!("Skipped: a disk made of a file needs CAP_SYS_ADMIN and a loop device: {why}");
            return;
        }
    };
    let mut victim = Victim(victim(&disk.0.join("store")));
    let told = Arc::new(Mutex::new(Told::new()));
    let lines = BufReader::new(victim.0.stdout.take().unwrap()).lines();
    let hearing = {
        let told = Arc::clone(&told);
        thread::spawn(move || {
            for line in lines {
                hear(&mut told.lock().unwrap(), &line.unwrap_or_default());
            }
        })
    };
    let sum = || told.lock().unwrap().values().sum::<u64>();
    let (mut torn, image) = (0, dir.path().join("copy.img"));
    for cut in 0..cuts {
        // Between two looks it writes some more: now a little, now through a few checkpoints.
        let (enough, end) = (sum() + 1 + cut * 7919 % 1500, Instant::now() + PATIENCE);
        while sum() < enough {
            assert!(Instant::now() < end, "cut {cut}: nothing is written any more: {:?}", victim.0.try_wait());
            thread::sleep(Duration::from_millis(1));
        }
        let before = told.lock().unwrap().clone();
        let frozen = Frozen::new(&below);
        run("cp", &[&"--sparse=always", &below.0.join("disk.img").display(), &image.display()]).unwrap();
        drop(frozen);
        let copy = Disk::mount(&image, &dir.path().join("copy")).unwrap();
        torn += u64::from(judge(&copy.0.join("store"), &before, &format!("cut {cut}")));
    }
    drop(victim);
    hearing.join().unwrap();
    println!("{cuts} cuts, {} acknowledged writes, {torn} torn tails", sum());
    // The disk goes before the one it lies on.
    drop(disk);
    drop(below);
}
