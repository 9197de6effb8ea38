//! Getting and listing: which version, which objects, how many at a time.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use coracle_proto::{
    field::{self, Path},
    meta,
    status::Status,
};
use coracle_store::{Buffer, Entry, Range, Revision, WatchRequest, What, prefix_end};
use serde::{Deserialize, Serialize};

use super::{
    Registry, Selection,
    versions::{one_seen_as, seen_as},
};
use crate::{
    ops::KindOps,
    request::RequestInfo,
    status_of::{self, Result},
    stored,
};

/// How many entries are looked at in one go when a selector leaves some out of a page.
const STRIDE: usize = 500;

/// How long a read waits for the version it wants to come: as long as Kubernetes' watch cache does.
const PATIENCE: Duration = Duration::from_secs(3);

/// Changes that may pass while they are counted up to a version that is waited for.
const PASSING: usize = 10_000;

/// Which version a list shall show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest.
    Newest,
    /// Any there is.
    Any,
    /// At least that of this revision.
    NotOlderThan(u64),
    /// Exactly that of this revision.
    Exact(u64),
}

/// A list request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOptions {
    /// Which version.
    pub wanted: Wanted,
    /// At most so many objects; 0: all.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<(Revision, String)>,
}

/// A list's answer.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The revision the list is of.
    pub revision: Revision,
    /// The objects' stored versions.
    pub entries: Vec<Arc<Entry>>,
    /// The token for the next page; empty when there is none.
    pub next: String,
    /// How many objects are left after this page, where that is known.
    pub remaining: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: u64,
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

fn invalid(errors: &[field::Error]) -> Box<Status> {
    Box::new(Status::invalid("meta.k8s.io", "ListOptions", "", errors))
}

/// Refuses combinations of parameters as Kubernetes' `ValidateListOptions` does.
pub(super) fn validate(info: &RequestInfo, is_watch: bool) -> Result<()> {
    let query = &info.query;
    let (version, matching) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    let sends_initial = query.find("sendInitialEvents").filter(|value| !value.is_empty());
    let mut errors = Vec::new();
    let path = Path::new("resourceVersionMatch");
    if is_watch {
        if sends_initial.is_some() && matching != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(field::Error::forbidden(&path, why));
        }
        if !matching.is_empty() {
            if sends_initial.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(field::Error::forbidden(&path, why));
            }
            if matching != "NotOlderThan" {
                errors.push(field::Error::not_supported(&path, matching, &["NotOlderThan"]));
            }
        }
    } else {
        if !matching.is_empty() {
            if version.is_empty() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(field::Error::forbidden(&path, why));
            }
            if !query.get("continue").is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(field::Error::forbidden(&path, why));
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                errors.push(field::Error::not_supported(&path, matching, &["Exact", "NotOlderThan", ""]));
            }
            if matching == "Exact" && version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(field::Error::forbidden(&path, why));
            }
        }
        if sends_initial.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            errors.push(field::Error::forbidden(&Path::new("sendInitialEvents"), why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid(&errors)) }
}

/// The resourceVersion of a query.
pub(super) fn version_of(text: &str) -> Result<Option<u64>> {
    meta::parse_resource_version(text)
        .map_err(|why| invalid(&[field::Error::invalid(&Path::new("resourceVersion"), text, &why)]))
}

/// A number of a query; Kubernetes takes what it cannot read as an error of the whole query.
pub(super) fn number(info: &RequestInfo, name: &str) -> Result<Option<i64>> {
    let text = info.query.get(name);
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| Box::new(Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))))
}

impl ListOptions {
    /// Reads a list request's query.
    ///
    /// # Errors
    /// 400 and 422 for what Kubernetes refuses.
    pub fn of(info: &RequestInfo) -> Result<Self> {
        validate(info, false)?;
        let query = &info.query;
        let limit = usize::try_from(number(info, "limit")?.unwrap_or(0)).unwrap_or(0);
        let version = version_of(query.get("resourceVersion"))?;
        let after = match query.get("continue") {
            "" => None,
            token => Some(read_token(token)?),
        };
        if after.is_some() && version.is_some_and(|version| version != 0) {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Box::new(Status::bad_request(why)));
        }
        let wanted = match (version, query.get("resourceVersionMatch")) {
            (None, _) => Wanted::Newest,
            (Some(0), _) => Wanted::Any,
            (Some(version), "Exact") => Wanted::Exact(version),
            // A page of a version without saying how exact was always exact.
            (Some(version), "") if limit > 0 => Wanted::Exact(version),
            (Some(version), _) => Wanted::NotOlderThan(version),
        };
        Ok(Self { wanted, limit, after })
    }

    /// What must have come before the list can be read: a page goes on at the version of the one before.
    #[must_use]
    pub fn settled(&self) -> Wanted {
        match &self.after {
            Some((revision, _)) if *revision != Revision::NONE => Wanted::Exact(revision.0),
            _ => self.wanted,
        }
    }

    /// The newest of everything.
    #[must_use]
    pub const fn newest() -> Self {
        Self { wanted: Wanted::Newest, limit: 0, after: None }
    }
}

fn read_token(text: &str) -> Result<(Revision, String)> {
    let bad = |why: &str| Box::new(Status::bad_request(format!("continue key is not valid: {why}")));
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad("illegal base64 data"))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
    if token.v != TOKEN_VERSION {
        return Err(bad(&format!("server does not recognize this encoded version \"{}\"", token.v)));
    }
    if token.start.is_empty() || token.start.contains("..") {
        return Err(bad(&format!("encoded start key empty or out of bounds ({TOKEN_VERSION})")));
    }
    Ok((Revision(token.rv), token.start))
}

fn write_token(revision: Revision, start: &str) -> String {
    let token = Token { v: TOKEN_VERSION.to_owned(), rv: revision.0, start: start.to_owned() };
    serde_json::to_vec(&token).map(|json| URL_SAFE_NO_PAD.encode(json)).unwrap_or_default()
}

impl Registry {
    /// Waits until this member can show what is wanted; a version that is still to come is given three seconds.
    ///
    /// # Errors
    /// 504 for a version that did not come, 503 when no leader can say what is newest.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn settle(&self, wanted: Wanted) -> Result<()> {
        match wanted {
            Wanted::Any => Ok(()),
            Wanted::Newest => self.store.barrier().await.map(drop).map_err(|error| status_of::store(&error)),
            Wanted::NotOlderThan(version) | Wanted::Exact(version) => self.reach(version).await,
        }
    }

    async fn reach(&self, version: u64) -> Result<()> {
        let current = self.store.revision();
        if version <= current.0 {
            return Ok(());
        }
        let everything = WatchRequest {
            buffer: Buffer { events: PASSING, ..Buffer::default() },
            ..WatchRequest::prefix(Bytes::new(), current.next())
        };
        let mut watcher = self.store.watch(everything).map_err(|error| status_of::store(&error))?;
        let passing = async {
            while let Some(Ok(batch)) = watcher.next().await {
                if batch.revision.0 >= version {
                    break;
                }
            }
        };
        // Whatever ends the wait, what counts is how far the store is now.
        let _ = tokio::time::timeout(PATIENCE, passing).await;
        self.check_not_ahead(version)
    }

    /// One object's stored version, as a GET with this resourceVersion wants it.
    ///
    /// # Errors
    /// 404 when it is not there, 504 for a version that does not come.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn get(&self, kind: &dyn KindOps, namespace: &str, name: &str, version: &str) -> Result<Arc<Entry>> {
        self.settle(match version_of(version)? {
            None => Wanted::Newest,
            Some(0) => Wanted::Any,
            Some(version) => Wanted::NotOlderThan(version),
        })
        .await?;
        let resource = kind.resource();
        let entry = self.entry(resource, namespace, name);
        let entry = entry.ok_or_else(|| Box::new(Status::not_found(resource.group, resource.plural, name)))?;
        if crate::encryption::is_sealed(&entry.value) {
            let why = "there is no key for it".into();
            return Err(status_of::store(&coracle_store::Error::Sealed { key: entry.key.clone(), why }));
        }
        one_seen_as(kind, entry).await
    }

    fn check_not_ahead(&self, version: u64) -> Result<()> {
        let current = self.store.revision().0;
        if version > current {
            return Err(Box::new(status_of::too_large_version(version, current)));
        }
        Ok(())
    }

    /// Lists a kind's objects in a namespace (in all, when it is empty).
    ///
    /// # Errors
    /// 410 for a version (or a page's) that is no longer kept, 504 for one to come; 500 when a webhook does not convert.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn list(
        &self,
        namespace: &str,
        selection: &Selection,
        kind: &dyn KindOps,
        options: &ListOptions,
    ) -> Result<Listed> {
        let prefix = stored::prefix(kind.resource().storage, namespace);
        let end = prefix_end(&prefix);
        let (at, mut start) = match (&options.after, options.wanted) {
            (Some((revision, after)), _) => {
                let mut start = prefix.to_vec();
                start.extend_from_slice(after.as_bytes());
                ((*revision != Revision::NONE).then_some(*revision), Bytes::from(start))
            }
            (None, Wanted::Exact(version)) => (Some(Revision(version)), prefix.clone()),
            (None, Wanted::NotOlderThan(version)) => {
                self.check_not_ahead(version)?;
                (None, prefix.clone())
            }
            (None, Wanted::Newest | Wanted::Any) => (None, prefix.clone()),
        };
        if options.after.is_some()
            && let (Some(at), Ok(compacted)) = (at, self.store.revision_ago(self.facts.pages))
            && at < compacted
        {
            return Err(expired(&coracle_store::Error::Compacted { compacted }, options.after.as_ref()));
        }
        let mut at = at.filter(|revision| *revision != self.store.revision());
        let mut entries = Vec::new();
        let mut shown = None;
        loop {
            let take = match options.limit {
                0 => 0,
                limit if selection.is_everything() => limit,
                limit => limit.max(STRIDE),
            };
            let range = Range { start, end: Some(end.clone()), at, limit: take, what: What::Entries };
            let found = self.store.range(&range).map_err(|error| expired(&error, options.after.as_ref()))?;
            let revision = *shown.get_or_insert(at.unwrap_or(found.revision));
            let total = found.entries.len();
            let mut looked = 0;
            let mut last: Option<Arc<Entry>> = None;
            // Selectors look at objects as they are shown.
            for entry in seen_as(kind, found.entries).await? {
                looked += 1;
                last = Some(Arc::clone(&entry));
                if selection.takes(&entry) {
                    entries.push(entry);
                    if options.limit != 0 && entries.len() == options.limit {
                        break;
                    }
                }
            }
            let last = last.filter(|_| found.more || looked < total);
            let Some(last) = last else {
                return Ok(Listed { revision, entries, next: String::new(), remaining: None });
            };
            if entries.len() == options.limit {
                let rest = last.key.get(prefix.len()..).unwrap_or_default();
                let next = write_token(revision, &(String::from_utf8_lossy(rest).into_owned() + "\0"));
                let remaining = selection.is_everything().then(|| found.count.saturating_sub(looked));
                return Ok(Listed { revision, entries, next, remaining });
            }
            // The rest of the page is of the same version as its beginning.
            at = Some(revision);
            start = [&last.key[..], b"\0"].concat().into();
        }
    }
}

/// A page's version that is gone says so in words of its own, with a token for going on with the newest.
fn expired(error: &coracle_store::Error, after: Option<&(Revision, String)>) -> Box<Status> {
    match (error, after) {
        (coracle_store::Error::Compacted { .. }, Some((_, start))) => {
            let mut status = Status::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter, or use the continue token in this response to retrieve the \
                 remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
                 that were created, modified, or deleted between the time the first chunk was returned and now may show \
                 up in the list.",
            );
            status.set_continue(&write_token(Revision::NONE, start));
            Box::new(status)
        }
        (coracle_store::Error::Compacted { .. }, None) => {
            Box::new(Status::expired("The resourceVersion for the provided list is too old."))
        }
        _ => status_of::store(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<ListOptions> {
        ListOptions::of(&RequestInfo::new(&http::Method::GET, &format!("/api/v1/pods?{query}").parse().unwrap()))
    }

    #[test]
    fn a_query_says_which_version_is_wanted() {
        for (query, wanted) in [
            ("", Wanted::Newest),
            ("limit=5", Wanted::Newest),
            ("resourceVersion=0&limit=5", Wanted::Any),
            ("resourceVersion=7", Wanted::NotOlderThan(7)),
            ("resourceVersion=7&limit=5", Wanted::Exact(7)),
            ("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan", Wanted::NotOlderThan(7)),
            ("resourceVersion=7&resourceVersionMatch=Exact", Wanted::Exact(7)),
        ] {
            assert_eq!(options(query).unwrap().wanted, wanted, "{query}");
        }
    }

    #[test]
    fn queries_that_make_no_sense_are_refused() {
        for (query, code) in [
            ("resourceVersion=x", 422),
            ("resourceVersionMatch=Exact", 422),
            ("resourceVersion=0&resourceVersionMatch=Exact", 422),
            ("resourceVersion=1&resourceVersionMatch=Newest", 422),
            ("sendInitialEvents=true", 422),
            ("limit=x", 400),
            ("continue=x", 400),
        ] {
            assert_eq!(options(query).unwrap_err().code, code, "{query}");
        }
    }

    #[test]
    fn a_token_is_read_back() {
        assert_eq!(read_token(&write_token(Revision(5), "a/b\0")).unwrap(), (Revision(5), "a/b\0".to_owned()));
        assert_eq!(read_token(&write_token(Revision(5), "../x")).unwrap_err().code, 400);
    }
}
