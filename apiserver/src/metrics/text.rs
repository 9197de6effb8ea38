//! The figures in Prometheus' text format, version 0.0.4.

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Write},
    sync::{PoisonError, atomic::Ordering},
};

use axum::body::Body;
use coracle_proto::resource::RESOURCES;
use coracle_store::Range;
use http::{HeaderValue, Response, StatusCode, header};

use super::{BUCKETS, CODES, Cell, MANNERS, Metrics, Target, flow, process};
use crate::{audit::Audit, documents::VERSION, health, server::Inner, stored};

/// The media type of the format.
const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers `/metrics`.
pub(crate) fn answer(server: &Inner) -> Response<Body> {
    let mut out = Page::default();
    requests(&server.metrics, &mut out);
    flow::write(&server.flow, &mut out);
    if let Some(audit) = &server.audit {
        events(audit, &mut out);
    }
    objects(server, &mut out);
    store(server, &mut out);
    aggregation(server, &mut out);
    for (name, kind, help, value) in process::figures() {
        out.one(name, kind, help, value);
    }
    out.head("kubernetes_build_info", "gauge", "[ALPHA] The version that runs.");
    out.line("kubernetes_build_info", format_args!("{{git_version=\"{VERSION}\",major=\"1\",minor=\"36\"}}"), 1);
    for page in server.pages.read().unwrap_or_else(PoisonError::into_inner).iter() {
        out.0.push_str(&page());
    }
    let mut response = health::text(StatusCode::OK, out.0);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA));
    response
}

/// A page being written.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub(super) fn line(&mut self, name: &str, labels: impl Display, value: impl Display) {
        self.write(format_args!("{name}{labels} {value}\n"));
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

/// The labels of a kind of request, without braces. All values are the program's own, and none needs an escape.
struct Labels<'a>(&'a Target, (&'static str, &'static str));

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Target { group, version, resource, subresource }, (verb, scope)) = self;
        write!(
            f,
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

/// Every kind of request that has come.
fn cells(metrics: &Metrics) -> impl Iterator<Item = (Labels<'_>, &Cell)> {
    let rows = metrics.targets.iter().zip(&metrics.rows).filter_map(|(target, row)| Some((target, row.get()?)));
    rows.flat_map(|(target, row)| {
        let cells = MANNERS.iter().zip(row.iter());
        cells.filter_map(move |(manner, cell)| Some((Labels(target, *manner), &**cell.get()?)))
    })
}

fn requests(metrics: &Metrics, out: &mut Page) {
    let name = "apiserver_request_total";
    out.head(
        name,
        "counter",
        "[STABLE] Counter of apiserver requests broken out for each verb, resource and HTTP response code.",
    );
    for (labels, cell) in cells(metrics) {
        for (code, count) in CODES.iter().zip(&cell.codes) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                out.line(name, format_args!("{{code=\"{code}\",dry_run=\"\",{labels}}}"), count);
            }
        }
    }
    let name = "apiserver_request_duration_seconds";
    out.head(
        name,
        "histogram",
        "[STABLE] Response latency distribution in seconds of requests that do not run for long.",
    );
    for (labels, cell) in cells(metrics) {
        let counts: Vec<u64> = cell.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        if all == 0 {
            continue;
        }
        let mut sum = 0;
        for (end, count) in BUCKETS.iter().zip(&counts) {
            sum += count;
            let end = f64::from(*end) / 1000.0;
            out.line(&format!("{name}_bucket"), format_args!("{{dry_run=\"\",{labels},le=\"{end}\"}}"), sum);
        }
        out.line(&format!("{name}_bucket"), format_args!("{{dry_run=\"\",{labels},le=\"+Inf\"}}"), all);
        #[expect(clippy::cast_precision_loss, reason = "a sum of durations is told in digits enough")]
        let seconds = cell.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        out.line(&format!("{name}_sum"), format_args!("{{dry_run=\"\",{labels}}}"), seconds);
        out.line(&format!("{name}_count"), format_args!("{{dry_run=\"\",{labels}}}"), all);
    }
    let name = "apiserver_current_inflight_requests";
    out.head(name, "gauge", "[STABLE] Number of requests that are being handled, without long-running ones.");
    for (kind, gauge) in [("mutating", &metrics.mutating), ("readOnly", &metrics.read_only)] {
        out.line(name, format_args!("{{request_kind=\"{kind}\"}}"), gauge.load(Ordering::Relaxed));
    }
    let name = "apiserver_longrunning_requests";
    out.head(
        name,
        "gauge",
        "[STABLE] Gauge of all active long-running apiserver requests; of sessions, until they begin.",
    );
    for (labels, cell) in cells(metrics) {
        // Where there was one there is a figure for it, even if it is none any more.
        let is_long = labels.1.0 == "WATCH" || cell.running.load(Ordering::Relaxed) != 0;
        if is_long {
            out.line(name, format_args!("{{{labels}}}"), cell.running.load(Ordering::Relaxed));
        }
    }
}

fn events(audit: &Audit, out: &mut Page) {
    let help = "[ALPHA] Counter of audit events generated and sent to the audit backend.";
    out.one("apiserver_audit_event_total", "counter", help, audit.events());
    let name = "apiserver_audit_error_total";
    let help = "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.";
    out.head(name, "counter", help);
    for (way, lost) in audit.lost() {
        out.line(name, format_args!("{{plugin=\"{way}\"}}"), lost);
    }
    let name = "apiserver_audit_level_total";
    out.head(name, "counter", "[ALPHA] Counter of policy levels for audit events (1 per request).");
    for (level, requests) in audit.levels() {
        out.line(name, format_args!("{{level=\"{level}\"}}"), requests);
    }
}

/// How many objects there are of each resource. Two resources that show the same objects are counted once.
fn objects(server: &Inner, out: &mut Page) {
    let mut counted = BTreeSet::new();
    let stored = RESOURCES.iter().filter(|resource| !resource.list_kind.is_empty() && counted.insert(resource.storage));
    let counts: Vec<_> = stored
        .filter_map(|resource| {
            let range = Range::prefix(stored::prefix(resource.storage, "")).count();
            Some((resource, server.registry.store().range(&range).ok()?.count))
        })
        .collect();
    let name = "apiserver_storage_objects";
    out.head(name, "gauge", "[STABLE] Number of stored objects at the time of last check split by kind.");
    for (resource, count) in &counts {
        out.line(name, format_args!("{{resource=\"{}\"}}", resource.group_resource()), count);
    }
    let name = "apiserver_resource_objects";
    out.head(name, "gauge", "[ALPHA] Number of stored objects at the time of last check split by kind.");
    for (resource, count) in &counts {
        out.line(name, format_args!("{{group=\"{}\",resource=\"{}\"}}", resource.group, resource.plural), count);
    }
}

/// Which groups and versions of other API servers are not available.
fn aggregation(server: &Inner, out: &mut Page) {
    let remotes = server.aggregation.available();
    if remotes.is_empty() {
        return;
    }
    let name = "aggregator_unavailable_apiservice";
    out.head(
        name,
        "gauge",
        "[ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name.",
    );
    for (remote, is_available) in remotes {
        // A name is a group and version as objects may have them, so it needs no escape.
        out.line(name, format_args!("{{name=\"{remote}\"}}"), u8::from(!is_available));
    }
}

fn store(server: &Inner, out: &mut Page) {
    let status = server.registry.store().status();
    let work = status.work;
    let name = "coracle_store_bytes_written_total";
    out.head(name, "counter", "Bytes the store has written since it was opened.");
    out.line(name, "{to=\"log\"}", work.log_bytes);
    out.line(name, "{to=\"checkpoint\"}", work.checkpoint_bytes);
    out.one("coracle_store_syncs_total", "counter", "Group commits, each one sync of the log.", work.log_syncs);
    out.one("coracle_store_checkpoints_total", "counter", "Checkpoints written.", work.checkpoints);
    out.one("coracle_store_keys", "gauge", "Keys there are.", status.keys);
    out.one("coracle_store_revision", "counter", "Where the store stands.", status.revision.0);
    out.one("coracle_store_compacted_revision", "gauge", "Where the history that is kept begins.", status.compacted.0);
    let writable = u8::from(status.refusing.is_none());
    out.one(
        "coracle_store_writable",
        "gauge",
        "1 while writes are taken, 0 while the disk is full or has failed.",
        writable,
    );
}
