//! Images that nobody uses go when the disk they lie on gets full: the ones used longest ago first, until there is room again.
//!
//! It is looked when that can have changed: an image was pulled, a pod gave its images back, or the disk was seen to be full
//! (`eviction.rs`); and once more when the youngest image that would go is old enough. Otherwise nobody looks.
//!
//! Images that were imported stay: no registry could give them again. Only a node that must send pods away for want of disk
//! removes them too.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::image::{Digest, Image};
use nix::sys::statvfs::statvfs;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::ImageLimits;
use crate::context::Context;
use crate::event::Kind;
use crate::pod::start::chain;

/// A disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// All of it.
    pub(crate) whole: u64,
    /// What of it may still be written.
    pub(crate) free: u64,
}

impl Disk {
    /// The one that images lie on, which may be another than the pods'.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(crate) async fn of_images(context: &Context) -> Result<Self, String> {
        let dir = context.config.images_dir.clone();
        let read = tokio::task::spawn_blocking(move || statvfs(&dir)).await;
        let space = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let unit = space.fragment_size();
        Ok(Self { whole: space.blocks() * unit, free: space.blocks_available() * unit })
    }

    /// How many hundredths of it are taken.
    fn taken(self) -> u64 {
        let free = u128::from(self.free) * 100 / u128::from(self.whole.max(1));
        100_u64.saturating_sub(u64::try_from(free).unwrap_or(100))
    }

    /// Whether images are to go.
    pub(crate) fn is_full(self, limits: ImageLimits) -> bool {
        self.whole > 0 && limits.high < 100 && self.taken() >= limits.high
    }

    /// How many bytes are to be freed; none below the high mark.
    fn excess(self, limits: ImageLimits) -> u64 {
        if !self.is_full(limits) {
            return 0;
        }
        let wanted = u128::from(self.whole) * u128::from(100_u64.saturating_sub(limits.low)) / 100;
        u64::try_from(wanted).unwrap_or(u64::MAX).saturating_sub(self.free)
    }
}

/// When an image was first and last seen in use.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Instant,
    used: Instant,
}

/// What is remembered of the images; those that are gone are forgotten.
#[derive(Debug, Default)]
struct Memory {
    seen: BTreeMap<Digest, Seen>,
    /// Those that were in use when it was looked last.
    in_use: BTreeSet<Digest>,
    /// That there was nothing to remove was told, and has not changed.
    told: bool,
}

/// Which images may go now, in their order, and when the next one may.
#[derive(Debug, Default, PartialEq, Eq)]
struct Candidates {
    now: Vec<Digest>,
    next: Option<Instant>,
}

impl Memory {
    /// Notes which images there are and which of them are in use, and says which may go at that age.
    fn note(&mut self, images: &[Image], in_use: BTreeSet<Digest>, age: Duration, now: Instant) -> Candidates {
        self.seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let seen = self.seen.entry(image.id.clone()).or_insert(Seen { first: now, used: now });
            if in_use.contains(&image.id) || self.in_use.contains(&image.id) {
                seen.used = now;
            }
        }
        let mut candidates = Candidates::default();
        let may_go = |image: &&Image| !in_use.contains(&image.id) && !image.repo_digests.is_empty();
        let mut unused: Vec<(&Digest, Seen)> =
            images.iter().filter(may_go).filter_map(|i| Some((&i.id, *self.seen.get(&i.id)?))).collect();
        unused.sort_by_key(|(_, seen)| (seen.used, seen.first));
        for (id, seen) in unused {
            let old = seen.first + age;
            if old <= now {
                candidates.now.push(id.clone());
            } else {
                candidates.next = Some(candidates.next.map_or(old, |next| next.min(old)));
            }
        }
        self.in_use = in_use;
        candidates
    }
}

/// Keeps room on the disk of images until `shutdown`.
pub(crate) async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut memory = Memory::default();
    loop {
        let again = look(&context, &mut memory).await;
        let wait = async {
            match again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = context.images_changed.notified() => {}
            () = wait => {}
        }
    }
}

/// Removes images if the disk is full; answers when it is to be looked again although nothing happens.
async fn look(context: &Context, memory: &mut Memory) -> Option<Instant> {
    let limits = context.config.image_limits;
    let in_use = match context.images.claims().await {
        Ok(claims) => claims.into_values().flatten().collect(),
        Err(error) => return failed(context, &chain(&error)),
    };
    let candidates = memory.note(&context.images.list(), in_use, limits.age, Instant::now());
    let disk = match Disk::of_images(context).await {
        Ok(disk) => disk,
        Err(why) => return failed(context, &why),
    };
    if disk.whole == 0 {
        let message = "invalid capacity 0 on image filesystem".to_owned();
        context.events.node(&context.node(), Kind::Warning, "InvalidDiskCapacity", message);
        return None;
    }
    let wanted = disk.excess(limits);
    if wanted == 0 {
        memory.told = false;
        return None;
    }
    let freed = free(context, candidates.now, wanted).await;
    if freed > 0 {
        tracing::info!(freed, wanted, "images that nobody uses were removed to make room");
        memory.told = false;
    }
    if freed < wanted && !memory.told {
        memory.told = true;
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} \
             bytes eligible to free."
        );
        context.events.node(&context.node(), Kind::Warning, "FreeDiskSpaceFailed", message);
    }
    candidates.next.filter(|_| freed < wanted)
}

/// Removes images one by one until so many bytes are free; answers how many are.
async fn free(context: &Context, images: Vec<Digest>, wanted: u64) -> u64 {
    let none = BTreeSet::new();
    let mut freed = 0;
    for id in images {
        if freed >= wanted {
            break;
        }
        let removed = async {
            context.images.remove(&id.to_string(), &none).await?;
            context.images.collect_garbage(&none, false).await
        };
        match removed.await {
            Ok(collected) => freed += collected.bytes,
            // Claimed or removed meanwhile.
            Err(error) => {
                tracing::debug!(image = %id, error = &error as &(dyn StdError + 'static), "image not removed");
            }
        }
    }
    freed
}

fn failed(context: &Context, why: &str) -> Option<Instant> {
    tracing::warn!(why, "disk of images not looked at");
    context.events.node(&context.node(), Kind::Warning, "ImageGCFailed", why.to_owned());
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ImageLimits = ImageLimits::USUAL;

    #[test]
    fn room_is_made_down_to_the_low_mark_and_only_above_the_high_one() {
        for (whole, free, full, excess) in [
            (1000, 160, false, 0),
            (1000, 150, true, 50),
            (1000, 0, true, 200),
            (1 << 50, 1 << 46, true, (1_u64 << 50) / 5 - (1 << 46)),
            (0, 0, false, 0),
        ] {
            let disk = Disk { whole, free };
            assert_eq!((disk.is_full(LIMITS), disk.excess(LIMITS)), (full, excess), "{disk:?}");
        }
        assert!(!Disk { whole: 1000, free: 1 }.is_full(ImageLimits { high: 100, ..LIMITS }), "a hundred is never");
    }

    fn image(name: &str, pulled: bool) -> Image {
        Image {
            id: Digest::of(name.as_bytes()),
            repo_tags: vec![name.to_owned()],
            repo_digests: if pulled { vec![format!("{name}@sha256:0")] } else { vec![] },
            size: 1,
            config: Arc::default(),
            layers: vec![],
        }
    }

    #[test]
    fn the_one_used_longest_ago_goes_first_and_neither_young_nor_imported_ones_do() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let set = |names: &[&str]| names.iter().map(|name| Digest::of(name.as_bytes())).collect::<BTreeSet<_>>();
        let list = |names: &[&str]| names.iter().map(|name| Digest::of(name.as_bytes())).collect::<Vec<_>>();
        let mut memory = Memory::default();
        let two = [image("a", true), image("b", true), image("own", false)];
        let first = memory.note(&two, set(&["a"]), LIMITS.age, at(0));
        assert_eq!(first, Candidates { now: vec![], next: Some(at(120)) });
        let all = [image("a", true), image("b", true), image("own", false), image("c", true)];
        assert_eq!(
            memory.note(&all, set(&["a"]), LIMITS.age, at(119)),
            Candidates { now: vec![], next: Some(at(120)) }
        );
        // Nobody uses the first any more; it was used until now.
        let later = memory.note(&all, set(&[]), LIMITS.age, at(130));
        assert_eq!(later, Candidates { now: list(&["b", "a"]), next: Some(at(239)) });
        assert_eq!(memory.note(&all, set(&["b"]), LIMITS.age, at(300)).now, list(&["c", "a"]));
        memory.note(&[], set(&[]), LIMITS.age, at(301));
        assert!(memory.seen.is_empty());
    }
}
