//! What is stored, as a database of etcd's own: a file of bbolt, as `etcdctl snapshot save` writes it and `etcdctl snapshot
//! status|restore` read it.
//!
//! ```text
//!   page 0, 1   meta: where the root is, how many pages there are, a checksum
//!   page 2      which pages are free: none
//!   pages ...   a B+ tree for each bucket that is not small: its leaves, then what leads to them
//!   last page   the root: the buckets by name, the small ones within it
//!   32 bytes    SHA-256 of all that, which etcdctl looks for behind the last page
//! ```
//!
//! Sources: `page.go`, `db.go` and `bucket.go` of bbolt; `mvcc/kvstore.go` and `lease/lessor.go` of etcd 3.4, for what is in
//! the buckets. Everything is laid out before the first byte is written, so the whole is sent page by page and lies nowhere.
//! What is in it is the present, as if all that was before had been compacted: etcd keeps a version of a key under the
//! revision that made it.

use std::sync::Arc;

use coracle_store::{Contents, Entry, Lease};
use prost::Message as _;

use super::{
    kv::{number, shown},
    messages::KeptLease,
};

/// Bytes of a page; bbolt reads from the file how many they are.
const PAGE: usize = 4096;
/// Bytes before the elements of a page, and of an element, of a leaf as of a branch.
const HEAD: usize = 16;
const ELEMENT: usize = 16;
/// Kinds of pages.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const META: u16 = 4;
const FREE: u16 = 16;
/// What an element of a leaf is: an item, or a bucket.
const ITEM: u32 = 0;
const BUCKET: u32 = 1;
/// Where the page is that says which are free, and the first page of a tree.
const FREE_PAGE: u64 = 2;
const FIRST: u64 = 3;
/// What begins and ends a meta page's words.
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Items that stand on a page, and how many pages that takes: one, or more for a single one that is longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The first of what stands there, of the level below or of the items, and how many.
    from: usize,
    count: usize,
    /// The first item below it: its key is what leads here.
    first: usize,
    page: u64,
    pages: u64,
}

/// Fills one page after the other with elements of these lengths.
fn pack(lengths: impl Iterator<Item = usize>, next: &mut u64) -> Vec<Run> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (at, length) in lengths.enumerate() {
        let length = ELEMENT + length;
        match runs.last_mut() {
            Some((_, count, bytes)) if *bytes + length <= PAGE => {
                *count += 1;
                *bytes += length;
            }
            _ => runs.push((at, 1, HEAD + length)),
        }
    }
    let placed = runs.into_iter().map(|(from, count, bytes)| {
        let (page, pages) = (*next, bytes.div_ceil(PAGE) as u64);
        *next += pages;
        Run { from, count, first: from, page, pages }
    });
    placed.collect()
}

/// A bucket's items in the order of their keys, which are all of one length.
trait Items {
    const KEY: usize;
    fn key(&self, at: usize) -> Vec<u8>;
    fn value(&self, at: usize) -> Vec<u8>;
    /// How long each value is.
    fn lengths(&self) -> impl Iterator<Item = usize>;
}

/// The entries in the order of the changes that made them, each with its number among those of its revision.
struct Versions(Vec<(Arc<Entry>, u64)>);

impl Items for Versions {
    const KEY: usize = 17;

    fn key(&self, at: usize) -> Vec<u8> {
        self.0.get(at).map(|(entry, sub)| revision(entry.mod_revision.0, *sub)).unwrap_or_default()
    }

    fn value(&self, at: usize) -> Vec<u8> {
        self.0.get(at).map(|(entry, _)| shown(entry).encode_to_vec()).unwrap_or_default()
    }

    fn lengths(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(entry, _)| shown(entry).encoded_len())
    }
}

/// The leases in the order of their ids.
struct Leases(Vec<Lease>);

fn kept(lease: &Lease) -> KeptLease {
    KeptLease { id: number(lease.id.0), ttl: number(lease.ttl.as_secs()) }
}

impl Items for Leases {
    const KEY: usize = 8;

    fn key(&self, at: usize) -> Vec<u8> {
        self.0.get(at).map(|lease| lease.id.0.to_be_bytes().to_vec()).unwrap_or_default()
    }

    fn value(&self, at: usize) -> Vec<u8> {
        self.0.get(at).map(|lease| kept(lease).encode_to_vec()).unwrap_or_default()
    }

    fn lengths(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|lease| kept(lease).encoded_len())
    }
}

/// Where a bucket's pages are: its leaves, then each level above them, of which the last is one page. None without items.
struct Tree(Vec<Vec<Run>>);

impl Tree {
    fn lay_out<I: Items>(items: &I, next: &mut u64) -> Self {
        let mut levels = vec![pack(items.lengths().map(|value| I::KEY + value), next)];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let mut level = pack(std::iter::repeat_n(I::KEY, below.len()), next);
            for run in &mut level {
                run.first = below.get(run.from).map_or(0, |run| run.first);
            }
            levels.push(level);
        }
        Self(levels)
    }

    /// The page that leads to all others.
    fn root(&self) -> Option<u64> {
        self.0.last().and_then(|level| level.first()).map(|run| run.page)
    }

    /// Its pages in their order.
    fn pages<'a, I: Items>(&'a self, items: &'a I) -> impl Iterator<Item = Vec<u8>> + 'a {
        let below = std::iter::once(None).chain(self.0.iter().map(Some));
        self.0.iter().zip(below).flat_map(move |(level, below)| {
            level.iter().map(move |run| match below {
                None => leaf(run, items),
                Some(below) => branch(run, below.get(run.from..run.from + run.count).unwrap_or_default(), items),
            })
        })
    }
}

/// A length as bbolt writes it. What is stored is shorter by far.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn head(page: u64, kind: u16, count: usize, pages: u64) -> Vec<u8> {
    let mut out = page.to_le_bytes().to_vec();
    out.extend(kind.to_le_bytes());
    out.extend(u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(u32::try_from(pages.saturating_sub(1)).unwrap_or(u32::MAX).to_le_bytes());
    out
}

/// Fills up the last page.
fn whole(mut out: Vec<u8>) -> Vec<u8> {
    out.resize(out.len().next_multiple_of(PAGE), 0);
    out
}

/// A leaf of a bucket of any kind, without what fills up its last page.
fn leaf_of(page: u64, pages: u64, items: &[(u32, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = head(page, LEAF, items.len(), pages);
    // From where an element stands to its key, behind all elements.
    let mut to_key = items.len() * ELEMENT;
    for (kind, key, value) in items {
        out.extend(kind.to_le_bytes());
        out.extend(length(to_key));
        out.extend(length(key.len()));
        out.extend(length(value.len()));
        to_key = (to_key + key.len() + value.len()).saturating_sub(ELEMENT);
    }
    for (_, key, value) in items {
        out.extend(key);
        out.extend(value);
    }
    out
}

fn leaf<I: Items>(run: &Run, items: &I) -> Vec<u8> {
    let items: Vec<_> = (run.from..run.from + run.count).map(|at| (ITEM, items.key(at), items.value(at))).collect();
    whole(leaf_of(run.page, run.pages, &items))
}

fn branch<I: Items>(run: &Run, children: &[Run], items: &I) -> Vec<u8> {
    let mut out = head(run.page, BRANCH, children.len(), run.pages);
    let mut to_key = children.len() * ELEMENT;
    for child in children {
        out.extend(length(to_key));
        out.extend(length(I::KEY));
        out.extend(child.page.to_le_bytes());
        to_key = (to_key + I::KEY).saturating_sub(ELEMENT);
    }
    for child in children {
        out.extend(items.key(child.first));
    }
    whole(out)
}

/// One of the two pages that say where everything is.
fn meta(page: u64, root: u64, pages: u64) -> Vec<u8> {
    let mut words: Vec<u8> = [MAGIC, VERSION].iter().flat_map(|word| word.to_le_bytes()).collect();
    words.extend(length(PAGE));
    words.extend(0_u32.to_le_bytes());
    // The root bucket and its sequence, which pages are free, how many there are, which transaction wrote this.
    words.extend([root, 0, FREE_PAGE, pages, page].iter().flat_map(|word| word.to_le_bytes()));
    // FNV-1a of 64 bits.
    let checksum = words
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut out = head(page, META, 0, 1);
    out.extend(words);
    out.extend(checksum.to_le_bytes());
    whole(out)
}

/// A revision as etcd's keys have it: the main one, and the how manieth change of it.
fn revision(main: u64, sub: u64) -> Vec<u8> {
    let mut key = main.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(sub.to_be_bytes());
    key
}

/// The database of a store.
pub(super) struct Database {
    versions: Versions,
    keys: Tree,
    leases: Leases,
    kept_leases: Tree,
    /// The buckets by name.
    buckets: Vec<(u32, Vec<u8>, Vec<u8>)>,
    /// Where the root is: the last page.
    root: u64,
}

impl Database {
    /// Lays out a store's contents; `applied` is the last entry of the log that is in them.
    pub(super) fn of(contents: Contents, applied: u64) -> Self {
        let Contents { revision: now, entries, mut leases } = contents;
        let mut versions: Vec<(Arc<Entry>, u64)> = entries.into_iter().map(|entry| (entry, 0)).collect();
        versions.sort_by_key(|(entry, _)| entry.mod_revision);
        let mut before = None;
        for (entry, sub) in &mut versions {
            let at = entry.mod_revision;
            *sub = before.filter(|(revision, _)| *revision == at).map_or(0, |(_, sub)| sub + 1);
            before = Some((at, *sub));
        }
        leases.sort_by_key(|lease| lease.id);
        let (versions, leases) = (Versions(versions), Leases(leases));
        let mut root = FIRST;
        let keys = Tree::lay_out(&versions, &mut root);
        let kept_leases = Tree::lay_out(&leases, &mut root);
        // As of now all that was before is forgotten, and so etcd begins where this store stands.
        let compacted = revision(now.0, 0);
        let meta = [
            (ITEM, b"consistent_index".to_vec(), applied.to_be_bytes().to_vec()),
            (ITEM, b"finishedCompactRev".to_vec(), compacted.clone()),
            (ITEM, b"scheduledCompactRev".to_vec(), compacted),
        ];
        let empty = ["alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"];
        let mut buckets: Vec<_> = empty.map(|name| bucket(name, None, &[])).into();
        buckets.push(bucket("key", keys.root(), &[]));
        buckets.push(bucket("lease", kept_leases.root(), &[]));
        buckets.push(bucket("meta", None, &meta));
        buckets.sort();
        Self { versions, keys, leases, kept_leases, buckets, root }
    }

    /// How many bytes it has.
    pub(super) const fn len(&self) -> u64 {
        (self.root + 1) * PAGE as u64
    }

    /// All of it, some pages at a time.
    pub(super) fn pages(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let first = (0..FREE_PAGE).map(|page| meta(page, self.root, self.root + 1));
        let free = std::iter::once_with(|| whole(head(FREE_PAGE, FREE, 0, 1)));
        let last = std::iter::once_with(|| whole(leaf_of(self.root, 1, &self.buckets)));
        let trees = self.keys.pages(&self.versions).chain(self.kept_leases.pages(&self.leases));
        first.chain(free).chain(trees).chain(last)
    }
}

/// A bucket as the root has it: its tree's first page, or, if it has none, its items on a page that stands within the root.
fn bucket(name: &str, tree: Option<u64>, items: &[(u32, Vec<u8>, Vec<u8>)]) -> (u32, Vec<u8>, Vec<u8>) {
    // Its sequence follows, which etcd does not use.
    let mut value: Vec<u8> = [tree.unwrap_or(0), 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    if tree.is_none() {
        value.extend(leaf_of(0, 1, items));
    }
    (BUCKET, name.as_bytes().to_vec(), value)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use bytes::Bytes;
    use coracle_store::{Derived, LeaseId, Revision};

    use super::*;

    /// A file read as bbolt's documentation says it is to be read, each page once.
    struct File {
        bytes: Vec<u8>,
        seen: std::collections::BTreeSet<u64>,
    }

    fn number_at(bytes: &[u8], at: usize, len: usize) -> u64 {
        let mut word = [0; 8];
        word[..len].copy_from_slice(&bytes[at..at + len]);
        u64::from_le_bytes(word)
    }

    impl File {
        /// The items at and below a page.
        fn below(&mut self, page: u64) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
            let from = usize::try_from(page).unwrap() * PAGE;
            let pages = number_at(&self.bytes, from + 12, 4) + 1;
            assert_eq!(number_at(&self.bytes, from, 8), page);
            (page..page + pages).for_each(|page| assert!(self.seen.insert(page), "page {page} is in two places"));
            let bytes = self.bytes[from..from + usize::try_from(pages).unwrap() * PAGE].to_vec();
            if number_at(&bytes, 8, 2) == u64::from(LEAF) {
                return items(&bytes);
            }
            assert_eq!(number_at(&bytes, 8, 2), u64::from(BRANCH));
            let mut found = Vec::new();
            for element in (0..number_at(&bytes, 10, 2)).map(|at| HEAD + usize::try_from(at).unwrap() * ELEMENT) {
                let key = element + usize::try_from(number_at(&bytes, element, 4)).unwrap();
                let key = &bytes[key..key + usize::try_from(number_at(&bytes, element + 4, 4)).unwrap()];
                let below = self.below(number_at(&bytes, element + 8, 8));
                assert_eq!(below[0].1, key, "a branch leads to what is there");
                found.extend(below);
            }
            found
        }
    }

    fn items(leaf: &[u8]) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
        let word = |at| usize::try_from(number_at(leaf, at, 4)).unwrap();
        let elements = (0..number_at(leaf, 10, 2)).map(|at| HEAD + usize::try_from(at).unwrap() * ELEMENT);
        let item = |at: usize| {
            let key = at + word(at + 4);
            let value = key + word(at + 8);
            (number_at(leaf, at, 4), leaf[key..value].to_vec(), leaf[value..value + word(at + 12)].to_vec())
        };
        elements.map(item).collect()
    }

    /// The buckets of a database and what is in them.
    fn read(database: &Database) -> BTreeMap<String, Vec<(Bytes, Bytes)>> {
        let bytes: Vec<u8> = database.pages().flatten().collect();
        assert_eq!(bytes.len() as u64, database.len());
        let last = number_at(&bytes, PAGE + HEAD + 16, 8);
        assert_eq!(
            (number_at(&bytes, PAGE + HEAD + 40, 8), last + 1),
            (database.len() / PAGE as u64, database.len() / PAGE as u64)
        );
        let mut file = File { bytes, seen: [0, 1, 2].into() };
        let mut buckets = BTreeMap::new();
        for (kind, name, value) in file.below(last) {
            assert_eq!(kind, u64::from(BUCKET));
            let found = match number_at(&value, 0, 8) {
                0 => items(&value[HEAD..]),
                root => file.below(root),
            };
            assert!(found.is_sorted_by(|one, other| one.1 < other.1), "keys are in their order");
            let found = found.into_iter().map(|(kind, key, value)| {
                assert_eq!(kind, u64::from(ITEM));
                (Bytes::from(key), Bytes::from(value))
            });
            buckets.insert(String::from_utf8(name).unwrap(), found.collect());
        }
        assert_eq!(file.seen.len() as u64, database.len() / PAGE as u64, "every page is in some place");
        buckets
    }

    fn contents(count: u64) -> Contents {
        // Small ones and long ones, some of one revision.
        let entry = |at: u64| Entry {
            key: format!("key-{:05}", count - at).into(),
            value: Bytes::from(vec![
                7;
                usize::try_from(if at % 100 == 50 { at % 400 * 300 } else { at % 50 }).unwrap()
            ]),
            create_revision: Revision(2),
            mod_revision: Revision(2 + at / 3),
            version: 1 + at,
            lease: at.is_multiple_of(2).then_some(LeaseId(9)),
            derived: Derived::default(),
        };
        let mut entries: Vec<_> = (0..count).map(|at| Arc::new(entry(at))).collect();
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        let leases = (0..count / 2).map(|at| Lease { id: LeaseId(count - at), ttl: Duration::from_secs(60 + at) });
        Contents { revision: Revision(10 + count), entries, leases: leases.collect() }
    }

    #[test]
    fn everything_is_found_again_where_etcd_looks_for_it() {
        for count in [0, 1, 2, 3, 100, 150, 400, 20_000] {
            let contents = contents(count);
            let found = read(&Database::of(contents.clone(), 77));
            let keys: BTreeMap<Bytes, Bytes> =
                found["key"].iter().map(|(_, value)| (value_key(value), value.clone())).collect();
            assert_eq!(
                (found["key"].len(), keys.len(), found.len()),
                (contents.entries.len(), contents.entries.len(), 10)
            );
            for entry in &contents.entries {
                assert_eq!(keys[&entry.key], shown(entry).encode_to_vec(), "{count}");
            }
            for ((key, value), at) in found["key"].iter().zip(0..) {
                let (main, sub) = (2 + at / 3, at % 3);
                assert_eq!(key, &revision(main, sub), "{count}");
                assert_eq!(super::super::messages::KeyValue::decode(&value[..]).unwrap().mod_revision, number(main));
            }
            for ((key, value), lease) in found["lease"].iter().zip(contents.leases.iter().rev()) {
                let read = KeptLease::decode(&value[..]).unwrap();
                assert_eq!((&key[..], read), (&lease.id.0.to_be_bytes()[..], kept(lease)));
            }
            assert_eq!(found["lease"].len(), contents.leases.len());
            assert_eq!(
                (&found["meta"][0].0[..], &found["meta"][0].1[..]),
                (&b"consistent_index"[..], &77_u64.to_be_bytes()[..])
            );
            assert_eq!(found["meta"][1].1, revision(contents.revision.0, 0));
        }
    }

    fn value_key(value: &[u8]) -> Bytes {
        super::super::messages::KeyValue::decode(value).unwrap().key
    }
}
