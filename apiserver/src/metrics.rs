//! What the server counts of itself, for `/metrics`: requests, the store, the process.
//!
//! Names and labels are Kubernetes' own, so that dashboards made for it work. Nothing here waits or allocates on the way
//! of a request but the first time a kind of request comes: a request is one of a fixed number of kinds (which resource,
//! which verb and scope), and each kind has its counters in one place. A label never holds what a client made up.

mod admission;
mod clients;
mod flow;
mod running;
mod text;

use std::{
    array,
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use coracle_proto::resource::RESOURCES;
use http::StatusCode;

use crate::request::RequestInfo;

pub(crate) use coracle_process::metrics::{Histogram, Scale};

pub(crate) use self::{
    clients::Clients,
    running::{InFlight, Running},
    text::answer,
};

/// What requests are about; of paths that are no resource the path stands where subresources do, as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

/// Paths that are no resource and are told apart; a path below one is that one.
const PATHS: &[&str] =
    &["/healthz", "/livez", "/readyz", "/metrics", "/version", "/openapi/v2", "/openapi/v3", "/apis", "/api"];

/// Resources that are not built in, and what there is not.
const OTHER: &str = "other";

/// Verbs and scopes as Kubernetes labels them (`CleanVerb`, `CleanScope`), of the pairs that there are.
const MANNERS: &[(&str, &str)] = &[
    ("GET", "resource"),
    ("LIST", "resource"),
    ("LIST", "namespace"),
    ("LIST", "cluster"),
    ("WATCH", "resource"),
    ("WATCH", "namespace"),
    ("WATCH", "cluster"),
    ("POST", "resource"),
    ("PUT", "resource"),
    ("PATCH", "resource"),
    ("APPLY", "resource"),
    ("DELETE", "resource"),
    ("DELETECOLLECTION", "resource"),
    ("DELETECOLLECTION", "namespace"),
    ("DELETECOLLECTION", "cluster"),
    ("CONNECT", "resource"),
    ("GET", ""),
    ("POST", ""),
    ("other", ""),
];

/// Codes that answers have; one that is not here counts as the first of its hundred.
const CODES: &[u16] = &[
    100, 101, 200, 201, 202, 204, 300, 304, 400, 401, 403, 404, 405, 406, 409, 410, 413, 414, 415, 422, 429, 500, 501,
    503, 504,
];

/// How long requests take, as in Kubernetes.
static DURATIONS: Scale = Scale::durations(&[
    5, 25, 50, 100, 200, 400, 600, 800, 1000, 1250, 1500, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 15_000, 20_000,
    30_000, 45_000, 60_000,
]);

/// How large answers are in bytes, likewise.
static SIZES: Scale = Scale::numbers(&[1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000]);

/// The counters of one kind of request.
#[derive(Debug)]
struct Cell {
    codes: [AtomicU64; CODES.len()],
    took: Histogram,
    /// The same without what others are answerable for.
    own: Histogram,
    sizes: Histogram,
    /// Those that the server gave up to protect itself, by [`CODES`].
    given_up: [AtomicU64; CODES.len()],
    /// Long-running ones under way.
    running: AtomicI64,
}

impl Cell {
    fn new() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            codes: array::from_fn(zero),
            took: Histogram::new(&DURATIONS),
            own: Histogram::new(&DURATIONS),
            sizes: Histogram::new(&SIZES),
            given_up: array::from_fn(zero),
            running: AtomicI64::new(0),
        }
    }
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) code: StatusCode,
    /// How long that took, unless it goes on.
    pub(crate) took: Option<Duration>,
    /// How much of that was waiting: for its turn, and for webhooks.
    pub(crate) waited: Duration,
    /// Whether the server gave it up to protect itself.
    pub(crate) is_given_up: bool,
    /// How large the answer is, if that is known.
    pub(crate) size: Option<u64>,
}

/// Where a code is counted.
fn code_index(code: StatusCode) -> Option<usize> {
    let code = code.as_u16();
    CODES.binary_search(&code).or_else(|_| CODES.binary_search(&(code / 100 * 100))).ok()
}

type Row = [OnceLock<Box<Cell>>; MANNERS.len()];

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    target: usize,
    manner: usize,
    is_mutating: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Metrics {
    targets: Vec<Target>,
    /// Where a resource's own target is, by its plural; its subresources follow.
    places: HashMap<&'static str, Vec<usize>>,
    rows: Vec<OnceLock<Box<Row>>>,
    read_only: AtomicI64,
    mutating: AtomicI64,
    pub(crate) clients: Arc<Clients>,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        let nothing = Target { group: "", version: "", resource: "", subresource: "" };
        let mut targets = vec![nothing, Target { resource: OTHER, ..nothing }];
        targets.extend(PATHS.iter().map(|path| Target { subresource: path, ..nothing }));
        let mut places: HashMap<_, Vec<usize>> = HashMap::new();
        for resource in RESOURCES {
            places.entry(resource.plural).or_default().push(targets.len());
            let own =
                Target { group: resource.group, version: resource.version, resource: resource.plural, subresource: "" };
            targets.push(own);
            targets.extend(resource.subresources.iter().map(|sub| Target { subresource: sub.name, ..own }));
        }
        let rows = targets.iter().map(|_| OnceLock::new()).collect();
        let (read_only, mutating) = (AtomicI64::new(0), AtomicI64::new(0));
        Arc::new(Self { targets, places, rows, read_only, mutating, clients: Arc::new(Clients::new()) })
    }

    /// Which kind of request it is.
    pub(crate) fn sort(&self, info: &RequestInfo, is_apply: bool) -> Sort {
        let (verb, scope) = manner(info, is_apply);
        let manner = MANNERS.iter().position(|manner| *manner == (verb, scope)).unwrap_or(MANNERS.len() - 1);
        let is_mutating = !matches!(info.verb.as_str(), "get" | "list" | "watch" | "head");
        Sort { target: self.target(info), manner, is_mutating }
    }

    fn target(&self, info: &RequestInfo) -> usize {
        if !info.is_resource {
            let is_at = |path: &&str| {
                info.path.strip_prefix(*path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            return PATHS.iter().position(is_at).map_or(0, |at| at + 2);
        }
        let places = self.places.get(info.resource.as_str()).map(Vec::as_slice).unwrap_or_default();
        let is_it = |target: &Target| {
            (target.group, target.version, target.resource, target.subresource)
                == (info.group.as_str(), info.version.as_str(), info.resource.as_str(), info.subresource.as_str())
        };
        let found = places.iter().find_map(|place| {
            let (group, version) = self.targets.get(*place).map(|target| (target.group, target.version))?;
            let own = self.targets.get(*place..)?.iter();
            let own = own.take_while(|t| (t.group, t.version, t.resource) == (group, version, info.resource.as_str()));
            own.enumerate().find(|(_, target)| is_it(target)).map(|(at, _)| place + at)
        });
        found.unwrap_or(1)
    }

    fn cell(&self, sort: Sort) -> Option<&Cell> {
        let row = self.rows.get(sort.target)?.get_or_init(|| Box::new(array::from_fn(|_| OnceLock::new())));
        Some(row.get(sort.manner)?.get_or_init(|| Box::new(Cell::new())))
    }

    /// Counts an answered request, and how long it took unless it goes on.
    pub(crate) fn answered(&self, sort: Sort, answered: Answered) {
        let Some(cell) = self.cell(sort) else { return };
        let at = code_index(answered.code);
        let count = |counters: &[AtomicU64]| {
            if let Some(counter) = at.and_then(|at| counters.get(at)) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        count(&cell.codes);
        if answered.is_given_up {
            count(&cell.given_up);
        }
        let Some(took) = answered.took else { return };
        cell.took.took(took);
        cell.own.took(took.saturating_sub(answered.waited));
        let reads = MANNERS.get(sort.manner).is_some_and(|(verb, _)| matches!(*verb, "GET" | "LIST"));
        if let Some(size) = answered.size.filter(|_| reads) {
            cell.sizes.add(size);
        }
    }
}

/// Verb and scope as Kubernetes labels them.
fn manner(info: &RequestInfo, is_apply: bool) -> (&'static str, &'static str) {
    let is_session = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    let verb = match info.verb.as_str() {
        _ if info.is_resource && is_session => "CONNECT",
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if is_apply => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => return ("other", ""),
    };
    if !info.is_resource {
        return (verb, "");
    }
    let scope = match (info.name.as_str(), info.namespace.as_str()) {
        ("", "") if !matches!(verb, "POST" | "GET" | "CONNECT") => "cluster",
        ("", _) if !matches!(verb, "POST" | "GET" | "CONNECT") => "namespace",
        _ => "resource",
    };
    (verb, scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(method: &str, uri: &str) -> String {
        let metrics = Metrics::new();
        let info = RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap());
        let sort = metrics.sort(&info, false);
        let (target, (verb, scope)) = (metrics.targets[sort.target], MANNERS[sort.manner]);
        format!("{verb} {scope} {}/{}/{} {}", target.group, target.version, target.resource, target.subresource)
    }

    #[test]
    fn requests_are_sorted_as_kubernetes_labels_them() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/namespaces/a/pods/b", "GET resource /v1/pods "),
            ("GET", "/api/v1/namespaces/a/pods", "LIST namespace /v1/pods "),
            ("GET", "/api/v1/pods?watch=1", "WATCH cluster /v1/pods "),
            ("GET", "/api/v1/pods?watch=1&fieldSelector=metadata.name%3Db", "WATCH resource /v1/pods "),
            ("POST", "/api/v1/namespaces/a/pods", "POST resource /v1/pods "),
            ("PUT", "/apis/apps/v1/namespaces/a/deployments/b/status", "PUT resource apps/v1/deployments status"),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b/scale", "PATCH resource apps/v1/deployments scale"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "GET resource /v1/pods log"),
            ("POST", "/api/v1/namespaces/a/pods/b/exec", "CONNECT resource /v1/pods exec"),
            (
                "DELETE",
                "/apis/events.k8s.io/v1/namespaces/a/events",
                "DELETECOLLECTION namespace events.k8s.io/v1/events ",
            ),
            ("GET", "/apis/example.com/v1/widgets", "LIST cluster //other "),
            ("GET", "/api/v1/namespaces/a/pods/b/made-up", "GET resource //other "),
            ("GET", "/readyz/etcd", "GET  // /readyz"),
            ("GET", "/apis/apps/v1", "GET  // /apis"),
            ("GET", "/made-up", "GET  // "),
            ("BREW", "/api/v1/pods", "other  /v1/pods "),
        ] {
            assert_eq!(sorted(method, uri), expected, "{method} {uri}");
        }
    }

    #[test]
    fn codes_are_in_order() {
        assert!(CODES.is_sorted());
        assert!([100, 200, 300, 400, 500].iter().all(|hundred| CODES.contains(hundred)));
    }
}
