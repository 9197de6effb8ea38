//! The figures in Prometheus' text format, version 0.0.4.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
    sync::{PoisonError, atomic::Ordering},
};

use axum::body::Body;
use coracle_process::metrics::{MEDIA, Page};
use coracle_proto::resource::RESOURCES;
use coracle_store::Range;
use http::{HeaderValue, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::{CODES, Cell, Histogram, MANNERS, Metrics, Target, admission, flow};
use crate::{audit::Audit, documents::VERSION, health, server::Inner, servers::Server, stored};

/// Answers `/metrics`.
pub(crate) fn answer(server: &Inner) -> Response<Body> {
    let mut out = Page::default();
    requests(&server.metrics, &mut out);
    server.metrics.clients.write(&server.address.to_string(), &mut out);
    flow::write(&server.flow, &mut out);
    admission::write(server.registry.figures(), &mut out);
    if let Some(audit) = &server.audit {
        events(audit, &mut out);
    }
    authentication(server, &mut out);
    objects(server, &mut out);
    store(server, &mut out);
    aggregation(server, &mut out);
    out.process();
    out.head("kubernetes_build_info", "gauge", "[ALPHA] The version that runs.");
    out.line("kubernetes_build_info", format_args!("{{git_version=\"{VERSION}\",major=\"1\",minor=\"36\"}}"), 1);
    for page in server.pages.read().unwrap_or_else(PoisonError::into_inner).iter() {
        out.0.push_str(&page());
    }
    let mut response = health::text(StatusCode::OK, out.0);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA));
    response
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
    type Read = fn(&Cell) -> &Histogram;
    let durations: [(&str, &str, Read); 2] = [
        (
            "apiserver_request_duration_seconds",
            "[STABLE] Response latency distribution in seconds of requests that do not run for long.",
            |cell| &cell.took,
        ),
        (
            "apiserver_request_sli_duration_seconds",
            "[BETA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds of requests that do not run for long.",
            |cell| &cell.own,
        ),
    ];
    for (name, help, histogram) in durations {
        out.head(name, "histogram", help);
        for (labels, cell) in cells(metrics) {
            // The objective is told without whether nothing was stored.
            let dry_run = if name.contains("_sli_") { "" } else { "dry_run=\"\"," };
            histogram(cell).write(out, name, &format!("{dry_run}{labels}"));
        }
    }
    let name = "apiserver_response_sizes";
    out.head(
        name,
        "histogram",
        "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
    );
    for (labels, cell) in cells(metrics) {
        cell.sizes.write(out, name, &labels.to_string());
    }
    let name = "apiserver_request_terminations_total";
    out.head(name, "counter", "[ALPHA] Number of requests which apiserver terminated in self-defense.");
    for (labels, cell) in cells(metrics) {
        for (code, count) in CODES.iter().zip(&cell.given_up) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                out.line(name, format_args!("{{code=\"{code}\",{labels}}}"), count);
            }
        }
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

/// What came of reading the file again that says whose tokens are taken, if there is one.
fn authentication(server: &Inner, out: &mut Page) {
    if server.config.authentication.file.is_none() {
        return;
    }
    let reloads = server.reloads();
    let id = hex::encode(Sha256::digest(server.config.hostname.as_bytes()));
    let outcomes = [("failure", reloads.bad.told()), ("success", reloads.good.told())];
    let name = "apiserver_authentication_config_controller_automatic_reloads_total";
    out.head(name, "counter", "[BETA] Total number of automatic reloads of authentication configuration split by status and apiserver identity.");
    for (status, (count, _)) in outcomes {
        out.line(name, format_args!("{{apiserver_id_hash=\"sha256:{id}\",status=\"{status}\"}}"), count);
    }
    let name = "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds";
    out.head(name, "gauge", "[BETA] Timestamp of the last automatic reload of authentication configuration split by status and apiserver identity.");
    for (status, (_, last)) in outcomes.into_iter().filter(|(_, (count, _))| *count > 0) {
        out.line(name, format_args!("{{apiserver_id_hash=\"sha256:{id}\",status=\"{status}\"}}"), last);
    }
}

/// How many objects there are of each resource. Two resources that show the same objects are counted once.
fn objects(server: &Inner, out: &mut Page) {
    let mut counted = BTreeSet::new();
    let stored = RESOURCES.iter().filter(|resource| resource.is_stored() && counted.insert(resource.storage));
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
    for (remote, is_available, _) in &remotes {
        // A name is a group and version as objects may have them, so it needs no escape.
        out.line(name, format_args!("{{name=\"{remote}\"}}"), u8::from(!is_available));
    }
    let name = "aggregator_unavailable_apiservice_total";
    out.head(
        name,
        "counter",
        "[ALPHA] Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
    );
    for (remote, _, losses) in &remotes {
        for (reason, count) in losses {
            out.line(name, format_args!("{{name=\"{remote}\",reason=\"{reason}\"}}"), count);
        }
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
    let help = "What these syncs took together.";
    out.one("coracle_store_sync_seconds_total", "counter", help, work.sync_time.as_secs_f64());
    let help = "How long the slowest sync took within the last minute, or the one under way takes already.";
    out.one("coracle_store_slowest_sync_seconds", "gauge", help, status.slowest_sync.as_secs_f64());
    let help = "1 while the disk is slow: a sync took half a second or more within the last minute.";
    out.one("coracle_store_disk_slow", "gauge", help, u8::from(status.is_disk_slow()));
    let list = server.servers();
    let count = |is: fn(&Server) -> bool| list.servers.iter().filter(|server| is(server)).count();
    out.one("coracle_store_members", "gauge", "Servers of the cluster.", list.servers.len());
    out.one("coracle_store_voters", "gauge", "Those that vote.", count(|server| server.votes));
    let reached = "Those that this server reaches, itself among them.";
    out.one("coracle_store_members_reached", "gauge", reached, count(|server| server.reached));
    let has_leader = "1 while this server knows who leads: without one nothing is written.";
    out.one("coracle_store_has_leader", "gauge", has_leader, count(|server| server.leads));
    out.one("coracle_store_leads", "gauge", "1 while this server leads.", count(|server| server.leads && server.own));
}
