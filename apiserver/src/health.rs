//! `/livez`, `/readyz`, `/healthz`.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{request::RequestInfo, server::Inner, servers::Server};

/// One thing that must be well.
type Check = fn(&Inner) -> Result<(), String>;

const LIVE: &[(&str, Check)] = &[("ping", |_| Ok(()))];

const READY: &[(&str, Check)] = &[
    ("ping", |_| Ok(())),
    // The store, by the name that whoever asks Kubernetes about it uses.
    ("etcd", |server| match (server.progress.is_running(), server.registry.store().status().refusing) {
        (true, None) => has_majority(server),
        (true, Some(why)) => Err(format!("the store refuses writes: {why}")),
        (false, _) => Err("the store does not take writes".to_owned()),
    }),
    ("bootstrap", |server| match server.progress.is_bootstrapped() {
        true => Ok(()),
        false => Err("the first objects are not there yet".to_owned()),
    }),
    ("shutdown", |server| match server.progress.is_stopping() {
        false => Ok(()),
        true => Err("the server is stopping".to_owned()),
    }),
];

/// Whether somebody leads: a server without a majority takes no writes. A lone one has nobody to wait for.
fn has_majority(server: &Inner) -> Result<(), String> {
    let servers = server.servers().servers;
    let voters: Vec<&Server> = servers.iter().filter(|server| server.votes).collect();
    if servers.iter().any(|server| server.leads) || voters.iter().all(|voter| voter.own) {
        return Ok(());
    }
    let (all, there) = (voters.len(), voters.iter().filter(|voter| voter.reached).count());
    Err(format!("no server leads: {there} of the {all} that vote are there, and {} have to agree", all / 2 + 1))
}

/// Answers a health path; none if it is not one.
pub(crate) fn answer(server: &Inner, info: &RequestInfo) -> Option<Response<Body>> {
    let mut parts = info.path.trim_matches('/').splitn(2, '/');
    let name = parts.next().unwrap_or_default();
    let single = parts.next();
    let checks = match name {
        "livez" => LIVE,
        "readyz" | "healthz" => READY,
        _ => return None,
    };
    if let Some(single) = single {
        let (_, check) = checks.iter().find(|(check, _)| *check == single)?;
        return Some(match check(server) {
            Ok(()) => text(StatusCode::OK, "ok".to_owned()),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}")),
        });
    }
    let mut excluded: BTreeSet<&str> = info.query.all("exclude").collect();
    let mut failed = false;
    let mut lines = String::new();
    for (check, run) in checks {
        if excluded.remove(check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
            continue;
        }
        match run(server) {
            Ok(()) => lines.push_str(&format!("[+]{check} ok\n")),
            Err(_) => {
                failed = true;
                lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
            }
        }
    }
    if !excluded.is_empty() {
        let unknown: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let unknown = unknown.join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown}\n"));
    }
    Some(match (failed, info.query.find("verbose").is_some()) {
        (true, _) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n")),
        (false, true) => text(StatusCode::OK, format!("{lines}{name} check passed\n")),
        (false, false) => text(StatusCode::OK, "ok".to_owned()),
    })
}

pub(crate) fn text(code: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
