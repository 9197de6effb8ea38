//! A simulated machine: a disk and an engine that forget what was not synced, fill up, fail, and stop at any step.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    disk::Disk,
    engine::{Change, Engine, Visit},
    error::{Error, Result},
};

const SECTOR: usize = 512;

/// What an engine holds.
type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Random numbers from a seed (SplitMix64; Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }

    /// True once in `n`.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    current: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors the next sync will write.
    dirty: BTreeSet<usize>,
}

impl SimFile {
    /// How far it is more than zeros.
    fn written(&self) -> usize {
        self.current.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }

    fn room(&self, zeros_take_room: bool) -> usize {
        if zeros_take_room { self.current.len() } else { self.written() }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) dice: Dice,
    files: BTreeMap<String, SimFile>,
    /// The names as last synced.
    listed: BTreeSet<String>,
    /// Files removed since; as long as the list is not synced they may be there again.
    removed: BTreeMap<String, SimFile>,
    engine: Contents,
    engine_synced: Contents,
    engine_unsynced: Vec<Change>,
    /// What was begun anew: contents, and how much of it was written since it was synced.
    engine_anew: Option<(Contents, usize)>,
    /// Bytes written to the engine since it was begun anew: it never uses room again.
    engine_size: u64,
    /// Steps until the machine stops in the middle of one.
    pub(crate) stop_in: Option<u64>,
    /// It has stopped: nothing works until it is started again.
    pub(crate) stopped: bool,
    /// The disk holds no more than so many bytes.
    pub(crate) capacity: Option<usize>,
    /// Whether the file system keeps room for zeros; one that compresses does not.
    pub(crate) can_reserve: bool,
    /// The next sync of the log fails.
    pub(crate) fail_sync: bool,
    /// How long a sync of the log takes, and how long those did whose time nobody has spent yet.
    pub(crate) sync_takes: Duration,
    pub(crate) spent: Duration,
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            dice: Dice(seed),
            files: BTreeMap::new(),
            listed: BTreeSet::new(),
            removed: BTreeMap::new(),
            engine: BTreeMap::new(),
            engine_synced: BTreeMap::new(),
            engine_unsynced: Vec::new(),
            engine_anew: None,
            engine_size: 0,
            stop_in: None,
            stopped: false,
            capacity: None,
            can_reserve: true,
            fail_sync: false,
            sync_takes: Duration::ZERO,
            spent: Duration::ZERO,
            steps: 0,
        }))
    }

    /// Counts a step; true if the machine stops in it.
    fn step(&mut self) -> bool {
        self.steps += 1;
        match &mut self.stop_in {
            Some(0) => self.stopped = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.stopped
    }

    pub(crate) fn used(&self) -> usize {
        self.files.values().map(|file| file.room(self.can_reserve)).sum()
    }

    /// The process is killed: the kernel still has everything.
    pub(crate) fn kill(&mut self) {
        self.stopped = false;
        self.stop_in = None;
        self.fail_sync = false;
        self.engine_anew = None;
    }

    /// The power goes: of what was not synced anything may be lost.
    pub(crate) fn cut_power(&mut self) {
        self.kill();
        let removed = std::mem::take(&mut self.removed).into_iter();
        let mut files: BTreeMap<String, SimFile> = removed.filter(|_| self.dice.once_in(2)).collect();
        for (name, file) in std::mem::take(&mut self.files) {
            if self.listed.contains(&name) || self.dice.once_in(2) {
                files.insert(name, file);
            }
        }
        for file in files.values_mut() {
            let bytes = after_power_cut(file, &mut self.dice);
            *file = SimFile { current: bytes.clone(), synced: bytes, ..SimFile::default() };
        }
        self.listed = files.keys().cloned().collect();
        self.files = files;
        let mut engine = std::mem::take(&mut self.engine_synced);
        for (key, value) in std::mem::take(&mut self.engine_unsynced) {
            if self.dice.once_in(2) {
                set(&mut engine, key, value);
            }
        }
        self.engine = engine.clone();
        self.engine_synced = engine;
    }

    /// Changes one bit of the log that was synced; says how to change it back.
    pub(crate) fn flip_bit(&mut self) -> Option<(String, usize, u8)> {
        let mut dice = self.dice.clone();
        let flipped = self.flip_bit_by(&mut dice);
        self.dice = dice;
        flipped
    }

    /// Changes a bit of some file, drawn by other dice than this machine's.
    pub(crate) fn flip_bit_by(&mut self, dice: &mut Dice) -> Option<(String, usize, u8)> {
        let names: Vec<String> = self.files.keys().cloned().collect();
        let name = names.get(dice.below(names.len()))?.clone();
        // Behind that is nothing to be noticed.
        let len = self.files[&name].written();
        let (at, bit) = (dice.below(len), 1 << dice.below(8));
        self.flip(&name, at, bit).then_some((name, at, bit))
    }

    pub(crate) fn flip(&mut self, name: &str, at: usize, bit: u8) -> bool {
        let Some(file) = self.files.get_mut(name) else { return false };
        let Some(byte) = file.current.get_mut(at) else { return false };
        *byte ^= bit;
        if let Some(byte) = file.synced.get_mut(at) {
            *byte ^= bit;
        }
        true
    }
}

fn after_power_cut(file: &SimFile, dice: &mut Dice) -> Vec<u8> {
    let (short, long) = (file.synced.len().min(file.current.len()), file.synced.len().max(file.current.len()));
    let len = match dice.below(4) {
        0 => file.synced.len(),
        1 => short + dice.below(long - short + 1),
        _ => file.current.len(),
    };
    let len = if file.dirty.is_empty() { file.synced.len() } else { len };
    let mut bytes = file.synced.clone();
    bytes.resize(len, 0);
    for sector in &file.dirty {
        if dice.once_in(3) {
            continue;
        }
        let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(len).min(file.current.len()));
        if from < to {
            bytes[from..to].copy_from_slice(&file.current[from..to]);
        }
    }
    bytes
}

fn set(map: &mut Contents, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// The world's disk.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(pub(crate) Arc<Mutex<World>>);

impl SimDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world().files.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.world().files.get(name).map(|file| file.current.len() as u64).ok_or(io::ErrorKind::NotFound.into())
    }

    fn read(&self, name: &str, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let world = self.world();
        let file = world.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(at).unwrap().min(file.current.len());
        let to = from.saturating_add(len).min(file.current.len());
        Ok(file.current[from..to].to_vec())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        if world.step() {
            return Err(stopped());
        }
        if world.files.insert(name.to_owned(), SimFile::default()).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        let mut count = bytes.len();
        let stops = world.step();
        if stops {
            count = world.dice.below(bytes.len() + 1);
        }
        let at = usize::try_from(at).unwrap();
        let can_reserve = world.can_reserve;
        let room = world.capacity.map(|capacity| capacity.saturating_sub(world.used()));
        let file = world.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        assert!(at <= file.current.len(), "files grow at their end");
        let takes_room = can_reserve || bytes.iter().any(|byte| *byte != 0);
        let over = file.room(can_reserve).saturating_sub(at);
        let free = room.filter(|_| takes_room).map_or(usize::MAX, |room| room + over);
        let short = free < count;
        count = count.min(free);
        file.current.resize(file.current.len().max(at + count), 0);
        file.current[at..at + count].copy_from_slice(&bytes[..count]);
        if count > 0 {
            file.dirty.extend(at / SECTOR..=(at + count - 1) / SECTOR);
        }
        if stops {
            return Err(stopped());
        }
        if short { Err(full()) } else { Ok(()) }
    }

    fn sync(&mut self, name: &str) -> io::Result<Duration> {
        let mut world = self.world();
        let stops = world.step();
        let fails = std::mem::take(&mut world.fail_sync);
        let mut dice = world.dice.clone();
        let file = world.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        if stops {
            return Err(stopped());
        }
        let dirty = std::mem::take(&mut file.dirty);
        if !fails {
            file.synced.resize(file.current.len(), 0);
        }
        for sector in dirty {
            // A sync that fails has written some pages; the others are marked clean all the same.
            if fails && dice.once_in(2) {
                continue;
            }
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(file.current.len()));
            if from < to {
                file.synced.resize(file.synced.len().max(to), 0);
                file.synced[from..to].copy_from_slice(&file.current[from..to]);
            }
        }
        world.dice = dice;
        let took = world.sync_takes;
        world.spent += took;
        if fails { Err(io::Error::other("input/output error")) } else { Ok(took) }
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mut world = self.world();
        if world.step() {
            return Err(stopped());
        }
        let file = world.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        let len = usize::try_from(len).unwrap();
        file.current.truncate(len);
        file.dirty.insert(len / SECTOR);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        if world.step() {
            return Err(stopped());
        }
        let file = world.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        if world.listed.contains(name) {
            world.removed.insert(name.to_owned(), file);
        }
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut world = self.world();
        if world.step() {
            return Err(stopped());
        }
        world.listed = world.files.keys().cloned().collect();
        world.removed.clear();
        Ok(())
    }
}

/// The world's engine.
#[derive(Clone, Debug)]
pub(crate) struct SimEngine(pub(crate) Arc<Mutex<World>>);

fn engine_stopped() -> Error {
    Error::Engine { action: "go on", source: Arc::new(stopped()) }
}

impl Engine for SimEngine {
    fn scan(&mut self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let found: Vec<(Vec<u8>, Vec<u8>)> = {
            let world = self.0.lock().unwrap();
            let map = world.engine_anew.as_ref().map_or(&world.engine, |(map, _)| map);
            let from = map.range(prefix.to_vec()..);
            from.take_while(|(key, _)| key.starts_with(prefix))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        found.iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn write(&mut self, changes: &[Change]) -> Result<()> {
        let mut world = self.0.lock().unwrap();
        for (key, value) in changes {
            if world.step() {
                return Err(engine_stopped());
            }
            if let Some((map, unsynced)) = &mut world.engine_anew {
                set(map, key.clone(), value.clone());
                *unsynced += 1;
                continue;
            }
            world.engine_size += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
            set(&mut world.engine, key.clone(), value.clone());
            world.engine_unsynced.push((key.clone(), value.clone()));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let mut world = self.0.lock().unwrap();
        if world.step() {
            return Err(engine_stopped());
        }
        if let Some((_, unsynced)) = &mut world.engine_anew {
            *unsynced = 0;
            return Ok(());
        }
        world.engine_synced = world.engine.clone();
        world.engine_unsynced.clear();
        Ok(())
    }

    fn size(&mut self) -> Result<u64> {
        Ok(self.0.lock().unwrap().engine_size)
    }

    fn begin_anew(&mut self) -> Result<()> {
        let mut world = self.0.lock().unwrap();
        if world.step() {
            return Err(engine_stopped());
        }
        world.engine_anew = Some((BTreeMap::new(), 0));
        Ok(())
    }

    fn replace(&mut self) -> Result<()> {
        let mut world = self.0.lock().unwrap();
        let stops = world.step();
        // It happens at once; who stops in it finds that it has, or has not.
        if stops && world.dice.once_in(2) {
            return Err(engine_stopped());
        }
        let Some((map, unsynced)) = world.engine_anew.take() else { return Ok(()) };
        assert_eq!(unsynced, 0, "it is synced first");
        world.engine_size = map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        world.engine = map.clone();
        world.engine_synced = map;
        world.engine_unsynced.clear();
        if stops { Err(engine_stopped()) } else { Ok(()) }
    }

    fn rest(&mut self) {
        self.0.lock().unwrap().engine_anew = None;
    }
}
