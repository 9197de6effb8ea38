//! Following the changes of a kind's objects.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use coracle_proto::status::Status;
use coracle_store::{Buffer, Entry, Error, Event, EventKind, Revision, WatchRequest, Watcher};

use super::{
    ListOptions, Registry, Selection, Wanted,
    read::{validate, version_of},
    versions::seen_as,
};
use crate::{
    accept::Encoding,
    answer,
    ops::KindOps,
    request::RequestInfo,
    status_of::{self, Result},
    stored,
};

/// What may wait for a slow watcher before it is told to begin anew: a burst of a whole deployment's pods.
const BUFFER: Buffer = Buffer { events: 10_000, bytes: 32 << 20 };

/// A watch request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// Where to begin; none: with what is there now.
    pub after: Option<u64>,
    /// Whether what is there is sent first.
    pub sends_initial: bool,
    /// Whether a bookmark says when that is done.
    pub marks_initial: bool,
    /// Whether bookmarks are wanted.
    pub bookmarks: bool,
}

impl WatchOptions {
    /// Reads a watch request's query.
    ///
    /// # Errors
    /// 422 for what Kubernetes refuses.
    pub fn of(info: &RequestInfo) -> Result<Self> {
        validate(info, true)?;
        let version = version_of(info.query.get("resourceVersion"))?;
        let bookmarks = info.query.flag("allowWatchBookmarks");
        let asked = info.query.find("sendInitialEvents").filter(|value| !value.is_empty());
        let marks_initial = asked.is_some() && info.query.flag("sendInitialEvents");
        let from_now = version.unwrap_or(0) == 0;
        let sends_initial = marks_initial || (from_now && asked.is_none());
        Ok(Self { after: version.filter(|version| *version != 0), sends_initial, marks_initial, bookmarks })
    }
}

/// What a watcher is told of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is there, or selected now.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or no longer selected.
    Deleted,
}

impl Kind {
    /// As it stands in the event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One thing a watcher is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// About an object: what happened, the version to show, and the resourceVersion to show it with.
    Object(Kind, Arc<Entry>, Revision, Option<Arc<Event>>),
    /// Everything up to the revision was told; true once what was there at the beginning was.
    Bookmark(Revision, bool),
}

/// A watch under way.
pub struct Watch {
    watcher: Watcher,
    selection: Selection,
    /// What came and is not told yet: it may have to be converted first.
    came: Option<Arc<[Arc<Event>]>>,
    waiting: VecDeque<Told>,
}

/// An event as every watcher of the same encoding has it, while one of them does: kept as long as the event, lines would
/// double what the history weighs.
#[derive(Default)]
struct Lines {
    json: Line,
    lean: Line,
    protobuf: Line,
}

#[derive(Default)]
struct Line(Mutex<Weak<Vec<u8>>>);

impl Line {
    fn get_or_make(&self, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Bytes> {
        struct Held(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        // Whoever panicked while he wrote a line has left no line.
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = match line.upgrade() {
            Some(held) => held,
            None => {
                let made = Arc::new(make()?);
                *line = Arc::downgrade(&made);
                made
            }
        };
        Ok(Bytes::from_owner(Held(held)))
    }
}

/// How much of objects a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// All of them.
    Whole,
    /// All but who owns which fields.
    WithoutOwners,
}

impl Watch {
    /// What is next; an error is the last.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Result<Told, Box<Status>> {
        loop {
            if let Some(told) = self.waiting.pop_front() {
                return Ok(told);
            }
            if let Some(events) = self.came.clone() {
                // Whoever is cancelled here finds the batch again.
                let told = told(&events, &self.selection).await?;
                self.waiting.extend(told);
                self.came = None;
                continue;
            }
            match self.watcher.next().await {
                Some(Ok(batch)) => self.came = Some(batch.events),
                Some(Err(Error::SlowWatcher { .. } | Error::Compacted { .. })) => {
                    let version = self.watcher.progress();
                    return Err(Box::new(Status::expired(format!("too old resource version: {version}"))));
                }
                Some(Err(error)) => return Err(status_of::store(&error)),
                None => return Err(Box::new(Status::unavailable("the server is stopping"))),
            }
        }
    }

    /// What can be told without waiting.
    pub fn ready(&mut self) -> Option<Told> {
        self.waiting.pop_front()
    }

    /// Up to where everything was told.
    #[must_use]
    pub fn progress(&self) -> Revision {
        self.watcher.progress()
    }
}

/// What a batch is to one who sees only what is selected, in one version.
async fn told(events: &[Arc<Event>], selection: &Selection) -> Result<Vec<Told>> {
    let kind = selection.kind();
    if kind.converter().is_none() {
        return Ok(events
            .iter()
            .filter_map(|event| tell(event, &event.entry, event.previous.as_ref(), selection))
            .collect());
    }
    let all = events.iter().flat_map(|event| [Some(&event.entry), event.previous.as_ref()]).flatten();
    let mut seen = seen_as(kind, all.map(Arc::clone).collect()).await?.into_iter();
    let mut told = Vec::new();
    for event in events {
        let entry = seen.next();
        let previous = event.previous.as_ref().and_then(|_| seen.next());
        told.extend(entry.and_then(|entry| tell(event, &entry, previous.as_ref(), selection)));
    }
    Ok(told)
}

/// What an event is to one who sees only what is selected.
fn tell(event: &Arc<Event>, entry: &Arc<Entry>, previous: Option<&Arc<Entry>>, selection: &Selection) -> Option<Told> {
    let revision = entry.mod_revision;
    let before = previous.filter(|previous| selection.takes(previous));
    let told = |kind, entry: &Arc<Entry>| Told::Object(kind, Arc::clone(entry), revision, Some(Arc::clone(event)));
    match event.kind {
        EventKind::Delete => before.map(|previous| told(Kind::Deleted, previous)),
        EventKind::Put => match (before, selection.takes(entry)) {
            (Some(_), true) => Some(told(Kind::Modified, entry)),
            (None, true) => Some(told(Kind::Added, entry)),
            (Some(previous), false) => Some(told(Kind::Deleted, previous)),
            (None, false) => None,
        },
    }
}

fn line(kind: Kind, entry: &Entry, revision: Revision, encoding: Encoding, share: Share) -> Result<Vec<u8>> {
    let mut object = Vec::with_capacity(entry.value.len() + 48);
    match share {
        Share::Whole => stored::write_at(entry, revision, &mut object),
        Share::WithoutOwners => stored::write_lean_at(entry, revision, &mut object),
    }
    let mut out = Vec::new();
    answer::write_event(kind.as_str(), &object, encoding, &mut out)?;
    Ok(out)
}

/// What a watch says of an object whose stored bytes are shown as they are. What most watchers see of an event at
/// about the same time is encoded once.
///
/// # Errors
/// 500 when the object cannot be written in the encoding.
pub(crate) fn shared_line(
    kind: Kind,
    entry: &Arc<Entry>,
    revision: Revision,
    event: Option<&Arc<Event>>,
    encoding: Encoding,
    share: Share,
) -> Result<Bytes> {
    let usual = event.map(|event| match event.kind {
        EventKind::Delete => Kind::Deleted,
        EventKind::Put if event.previous.is_none() => Kind::Added,
        EventKind::Put => Kind::Modified,
    });
    let Some(event) = event.filter(|_| usual == Some(kind)) else {
        return line(kind, entry, revision, encoding, share).map(Bytes::from);
    };
    let lines = event.derived(|_| Lines::default());
    let slot = match (encoding, share) {
        (Encoding::Json | Encoding::Yaml, Share::Whole) => &lines.json,
        (Encoding::Json | Encoding::Yaml, Share::WithoutOwners) => &lines.lean,
        (Encoding::Protobuf, Share::Whole) => &lines.protobuf,
        (Encoding::Protobuf, Share::WithoutOwners) => {
            return line(kind, entry, revision, encoding, share).map(Bytes::from);
        }
    };
    slot.get_or_make(|| line(kind, entry, revision, encoding, share))
}

impl Registry {
    /// Begins to follow a kind's objects in a namespace (in all, when it is empty).
    ///
    /// # Errors
    /// 410 when the history since the wanted version is gone, 504 when what is there shall be sent as of a version that
    /// does not come. A watch alone simply waits for such a version.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn watch(
        &self,
        namespace: &str,
        selection: &Selection,
        kind: &dyn KindOps,
        options: WatchOptions,
    ) -> Result<Watch> {
        let mut waiting = VecDeque::new();
        let mut after = options.after;
        if options.sends_initial || after.is_none() {
            self.settle(after.map_or(Wanted::Newest, Wanted::NotOlderThan)).await?;
            let wanted =
                ListOptions { wanted: Wanted::Newest, limit: usize::from(!options.sends_initial), after: None };
            let listed = self.list(namespace, selection, kind, &wanted).await?;
            if options.sends_initial {
                let initial = listed.entries.into_iter();
                waiting.extend(initial.map(|e| {
                    let revision = e.mod_revision;
                    Told::Object(Kind::Added, e, revision, None)
                }));
            }
            if options.marks_initial && options.bookmarks {
                waiting.push_back(Told::Bookmark(listed.revision, true));
            }
            after = Some(listed.revision.0);
        }
        let from = Revision(after.unwrap_or(0)).next();
        let prefix = stored::prefix(kind.resource().storage, namespace);
        let request = WatchRequest { buffer: BUFFER, ..WatchRequest::prefix(prefix, from) };
        let watcher = self.store.watch(request).map_err(|error| match error {
            Error::Compacted { compacted } => {
                let asked = from.previous();
                Box::new(Status::expired(format!("too old resource version: {asked} ({compacted})")))
            }
            other => status_of::store(&other),
        })?;
        Ok(Watch { watcher, selection: selection.clone(), came: None, waiting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<WatchOptions> {
        let uri = format!("/api/v1/pods?watch=1&{query}").parse().unwrap();
        WatchOptions::of(&RequestInfo::new(&http::Method::GET, &uri))
    }

    #[test]
    fn a_line_is_made_once_for_all_who_hold_it_and_goes_with_the_last() {
        let line = Line::default();
        let first = line.get_or_make(|| Ok(b"one".to_vec())).unwrap();
        let second = line.get_or_make(|| unreachable!("it is there")).unwrap();
        assert_eq!((&first[..], first.as_ptr()), (&b"one"[..], second.as_ptr()));
        drop((first, second));
        assert_eq!(line.get_or_make(|| Ok(b"two".to_vec())).unwrap(), "two");
        let refused = Line::default().get_or_make(|| Err(Box::new(Status::bad_request("no"))));
        assert_eq!(refused.unwrap_err().code, 400);
    }

    #[test]
    fn a_query_says_where_a_watch_begins() {
        let begins = |query| {
            let o = options(query).unwrap();
            (o.after, o.sends_initial, o.marks_initial)
        };
        assert_eq!(begins(""), (None, true, false));
        assert_eq!(begins("resourceVersion=0"), (None, true, false));
        assert_eq!(begins("resourceVersion=7"), (Some(7), false, false));
        assert_eq!(begins("sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), (None, true, true));
        assert_eq!(begins("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"), (None, false, false));
        assert_eq!(options("sendInitialEvents=true").unwrap_err().code, 422);
        assert_eq!(options("resourceVersionMatch=Exact").unwrap_err().code, 422);
    }
}
