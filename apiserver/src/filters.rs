//! The way of a request through the server, as one list.

use std::{
    net::{IpAddr, Ipv4Addr},
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Body;
use coracle_proto::status::Status;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Body as _;
use rustls::pki_types::CertificateDer;
use tracing::Instrument as _;

use crate::{
    admission::Notes,
    answer::{self, Liking},
    audit::{self, Audit, Recording},
    authn::{Credentials, is_open},
    authz::{Attributes, MASTERS},
    body, compression,
    flow::Schema,
    held, impersonation,
    metrics::{Answered, InFlight, Running},
    request::RequestInfo,
    seldom::Seldom,
    server::Inner,
    status_of::Result,
    user::User,
    verbs, websocket,
};

/// As long as a request's path and query may be.
const MAX_URI: usize = 64 * 1024;

/// As long as an id that a client brings may be, as in Kubernetes.
const MAX_ID: usize = 64;

/// As many places that a request claims to come from are recorded.
const MAX_SOURCES: usize = 16;

/// Panics can be brought about by whoever knows how, as often as he likes.
static PANICS: Seldom = Seldom::new();

/// Whether each `%` begins an escape, as in RFC 3986, section 2.1.
fn is_escaped_well(path: &str) -> bool {
    let is_code = |after: &str| after.as_bytes().get(..2).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit));
    path.split('%').skip(1).all(is_code)
}

/// Whether a patch is a server-side apply, which is counted as such.
fn is_apply(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    media.starts_with(b"application/apply-patch")
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A client on a connection.
    Remote {
        /// The certificates it showed.
        certificates: Arc<[CertificateDer<'static>]>,
        /// Where it is.
        address: IpAddr,
    },
    /// A component of this process, which is who it says.
    InProcess(Arc<User>),
}

/// Takes a request through all filters, in this order:
///
/// 1. the log span and the figures of `/metrics`, so that all that follows is told by its request id and counted;
/// 2. panics, which answer this request alone;
/// 3. the bound on the URI (bodies are bounded where they are read);
/// 4. authentication: whose request is it?
/// 5. the audit, if there is one: what is recorded of it?
/// 6. impersonation: as whom does he want it done, and may he?
/// 7. priority and fairness: whose turn is it? (sessions and logs that are followed have no turns);
/// 8. authorization: may that one?
/// 9. the timeout, which long-running requests do not have;
/// 10. dispatch, and the encoding the client likes, of answers that are not written in it yet;
/// 11. compression of a large answer for who takes it.
pub(crate) async fn handle(server: Arc<Inner>, peer: Peer, request: Request<Body>) -> Response<Body> {
    let info = Arc::new(RequestInfo::new(request.method(), request.uri()));
    let id = audit_id(request.headers());
    let span = tracing::debug_span!(
        "request",
        request_id = %id,
        verb = %info.verb,
        resource = %info.resource,
        subresource = %info.subresource,
        namespace = %info.namespace,
        name = %info.name,
        path = %info.path,
    );
    let begun = Instant::now();
    let metrics = Arc::clone(&server.metrics);
    let sort = metrics.sort(&info, is_apply(request.headers()));
    let running = info.is_long_running().then(|| Running::new(Arc::clone(&metrics), sort));
    let in_flight = running.is_none().then(|| InFlight::new(&metrics, sort));
    let guarded = AssertUnwindSafe(answer_to(server, peer, Arc::clone(&info), request, &id)).catch_unwind();
    let mut response = guarded.instrument(span.clone()).await.unwrap_or_else(|_| {
        if let Some(before) = PANICS.next(Instant::now()) {
            tracing::error!(parent: &span, before, "a request ended in a panic");
        }
        answer::status(&Status::internal("the server could not handle this request"))
    });
    let told = response.extensions_mut().remove::<Told>().unwrap_or_default();
    let answered = Answered {
        code: response.status(),
        took: in_flight.is_some().then(|| begun.elapsed()),
        waited: told.waited,
        is_given_up: told.is_given_up,
        size: response.body().size_hint().exact(),
    };
    metrics.answered(sort, answered);
    drop(in_flight);
    if let Some(running) = running {
        response = held::by(response, running);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(id) {
        headers.insert("audit-id", value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    tracing::debug!(parent: &span, status = response.status().as_u16(), duration = ?begun.elapsed(), "answered");
    response
}

/// The id that logs, the audit and the client tell the request by: the client's own, if it brings one.
fn audit_id(headers: &HeaderMap) -> String {
    let brought = headers.get("audit-id").and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    match brought {
        Some(text) => text.chars().take(MAX_ID).collect(),
        // It tells requests apart and protects nothing, so the thread's own generator will do; it asks no kernel.
        None => uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
    }
}

/// What is found out about a request on its way.
struct Way<'a> {
    id: &'a str,
    /// By whose rules it had its turn.
    schema: OnceLock<Arc<Schema>>,
    /// How long it waited for that.
    waited: OnceLock<Duration>,
    /// What the client is to hear beside the answer.
    notes: OnceLock<Arc<Notes>>,
    /// It was given up because there is too much to do, or because it took too long.
    is_given_up: AtomicBool,
}

/// What of that the figures of `/metrics` are interested in.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    waited: Duration,
    is_given_up: bool,
}

async fn answer_to(
    server: Arc<Inner>,
    peer: Peer,
    info: Arc<RequestInfo>,
    request: Request<Body>,
    id: &str,
) -> Response<Body> {
    let way = Way {
        id,
        schema: OnceLock::new(),
        waited: OnceLock::new(),
        notes: OnceLock::new(),
        is_given_up: AtomicBool::new(false),
    };
    let liking = Liking::of(&info, request.headers());
    let response = try_answer(server, peer, info, request, &way).await.unwrap_or_else(|status| answer::status(&status));
    let mut response = answer::settle(response, liking).await;
    if let Some(schema) = way.schema.get() {
        schema.mark(response.headers_mut());
    }
    if let Some(notes) = way.notes.get() {
        answer::warn(&mut response, &notes.warnings());
    }
    let waited = way.waited.get().copied().unwrap_or_default();
    let asked = way.notes.get().map(|notes| notes.waited_for()).unwrap_or_default();
    let told = Told { waited: waited + asked, is_given_up: way.is_given_up.load(Ordering::Relaxed) };
    if told.is_given_up || !told.waited.is_zero() {
        response.extensions_mut().insert(told);
    }
    response
}

async fn try_answer(
    server: Arc<Inner>,
    peer: Peer,
    info: Arc<RequestInfo>,
    mut request: Request<Body>,
    way: &Way<'_>,
) -> Result<Response<Body>> {
    let length = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if length > MAX_URI {
        return Err(Box::new(Status::failure(414, "", "the request's URI is too long")));
    }
    if !is_escaped_well(request.uri().path()) {
        return Err(Box::new(Status::bad_request(
            "the request's path has a % that two hexadecimal digits do not follow",
        )));
    }
    let (user, address) = match peer {
        Peer::InProcess(user) => (Ok(user), IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Peer::Remote { certificates, address } => {
            (authenticate(&server, certificates, &info.path, request.headers()).await, address)
        }
    };
    match server.audit.clone() {
        None => {
            note(way, &mut request, Arc::default);
            in_turn(server, user?, info, request, way, None).await
        }
        Some(audit) => audited(&audit, server, user, address, info, request, way).await,
    }
}

/// Has whoever works on the request tell here what its client should hear, whatever becomes of it.
fn note(way: &Way<'_>, request: &mut Request<Body>, notes: impl FnOnce() -> Arc<Notes>) {
    request.extensions_mut().insert(Arc::clone(way.notes.get_or_init(notes)));
}

/// Answers a request and records that.
async fn audited(
    audit: &Arc<Audit>,
    server: Arc<Inner>,
    user: Result<Arc<User>>,
    address: IpAddr,
    info: Arc<RequestInfo>,
    mut request: Request<Body>,
    way: &Way<'_>,
) -> Result<Response<Body>> {
    let nobody = User::default();
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or_default().to_owned();
    let seen = audit::Request {
        id: way.id,
        uri: request.uri().path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default(),
        agent: &agent,
        sources: sources(request.headers(), address),
        user: user.as_deref().unwrap_or(&nobody),
        info: &info,
        received: jiff::Timestamp::now(),
    };
    let recording = audit.begin(seen).await;
    let user = match (user, &recording) {
        (Ok(user), _) => user,
        (Err(status), recording) => {
            recording.iter().for_each(|recording| recording.refused(&status));
            return Err(status);
        }
    };
    let Some(recording) = recording else {
        note(way, &mut request, Arc::default);
        return in_turn(server, user, info, request, way, None).await;
    };
    note(way, &mut request, || Arc::clone(recording.notes()));
    let goes_on = info.is_long_running();
    match in_turn(server, user, info, request, way, Some(&recording)).await {
        Ok(response) if goes_on => Ok(recording.goes_on(response)),
        Ok(response) => Ok(response),
        Err(status) => {
            recording.refused(&status);
            Err(status)
        }
    }
}

/// Where a request comes from: as proxies say, and last the one that is connected.
fn sources(headers: &HeaderMap, address: IpAddr) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let said = text("x-forwarded-for").split(',').chain([text("x-real-ip")]);
    let mut sources: Vec<IpAddr> = said.filter_map(|text| text.trim().parse().ok()).take(MAX_SOURCES).collect();
    sources.push(address.to_canonical());
    sources.dedup();
    sources.iter().map(IpAddr::to_string).collect()
}

/// Answers a request when it is its turn.
async fn in_turn(
    server: Arc<Inner>,
    user: Arc<User>,
    info: Arc<RequestInfo>,
    request: Request<Body>,
    way: &Way<'_>,
    recording: Option<&Recording>,
) -> Result<Response<Body>> {
    let user = match impersonation::wanted(request.headers())? {
        Some(wanted) => {
            let other = Arc::new(impersonate(&server, &user, wanted)?);
            recording.iter().for_each(|recording| recording.impersonates(&other));
            other
        }
        None => user,
    };
    // Of what goes on for long, only a watch has a beginning that is work.
    let has_turn = !info.is_long_running() || info.verb == "watch";
    let Some(schema) = has_turn.then(|| server.flow.classify(&user, &info)).flatten() else {
        return admitted(server, user, info, request, way, recording).await;
    };
    let schema = way.schema.get_or_init(|| schema);
    let begun = Instant::now();
    let taken = server.flow.take(schema, &user, &info, &server.registry).await;
    // Nothing can have set it before.
    let _ = way.waited.set(begun.elapsed());
    let _seat = taken.inspect_err(|_| way.is_given_up.store(true, Ordering::Relaxed))?;
    admitted(server, user, info, request, way, recording).await
}

/// Answers a request whose turn it is.
async fn admitted(
    server: Arc<Inner>,
    user: Arc<User>,
    info: Arc<RequestInfo>,
    mut request: Request<Body>,
    way: &Way<'_>,
    recording: Option<&Recording>,
) -> Result<Response<Body>> {
    let allowed = authorize(&server, &user, &info);
    if let Some(recording) = recording {
        let decision = if allowed.is_ok() { "allow" } else { "forbid" };
        recording.annotate("authorization.k8s.io/decision", decision);
        let authorizer = server.registry.authorizer();
        let reason = authorizer.map(|authorizer| authorizer.reason(&Attributes::of(&user, &info)));
        recording.annotate("authorization.k8s.io/reason", &reason.unwrap_or_default());
    }
    allowed?;
    if info.is_long_running() {
        let (socket, is_watch) = (websocket::begin(&info, &mut request)?, info.verb == "watch");
        let response = verbs::dispatch(Arc::clone(&server), user, info, request).await?;
        return Ok(match socket {
            Some(socket) => socket.carry(is_watch, response, &server.sockets),
            None => response,
        });
    }
    let limit = time_limit(&info, server.config.request_timeout)?;
    let compresses = request.method() == http::Method::GET && compression::is_taken(request.headers());
    let liking = Liking::of(&info, request.headers());
    let handled = async {
        let request = match recording {
            Some(recording) if info.is_resource => sent(recording, request).await?,
            _ => request,
        };
        let mut response = verbs::dispatch(server, user, info, request).await?;
        if let Some(recording) = recording {
            response = recording.answered(response).await;
        }
        let response = answer::settle(response, liking).await;
        Ok(if compresses { compression::compress(response).await } else { response })
    };
    tokio::time::timeout(limit, handled).await.unwrap_or_else(|_| {
        way.is_given_up.store(true, Ordering::Relaxed);
        let message = "request did not complete within requested timeout - context deadline exceeded";
        Err(Box::new(Status::timeout(message)))
    })
}

/// Records what a request brings with it.
async fn sent(recording: &Recording, request: Request<Body>) -> Result<Request<Body>> {
    if request.method() == http::Method::GET || request.method() == http::Method::HEAD {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let bytes = body::read(Request::new(body)).await?;
    recording.sent(&body::media_type(&parts.headers), &bytes);
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// The query's `timeout`, as long as the server gives that much.
fn time_limit(info: &RequestInfo, most: Duration) -> Result<Duration> {
    let text = info.query.get("timeout");
    if text.is_empty() {
        return Ok(most);
    }
    match go_duration(text) {
        Some(Duration::ZERO) => Ok(most),
        Some(asked) => Ok(asked.min(most)),
        None => Err(Box::new(Status::bad_request("invalid timeout specified in the request URL"))),
    }
}

/// A duration as Go's `time.ParseDuration` reads it, as far as it is none below zero: `1m30s`, `1.5h`, `500ms`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = tail;
    }
    Some(sum)
}

/// The user whom a request is to be done as, if this one may act as him.
fn impersonate(server: &Inner, user: &User, wanted: impersonation::Wanted) -> Result<User> {
    match server.registry.authorizer() {
        Some(authorizer) => wanted.become_by(|asked| authorizer.check_asked(asked), user),
        None if user.is_in(MASTERS) => wanted.become_by(|_| Ok(()), user),
        None => Err(Box::new(Status::unavailable("the server has not read its rules yet"))),
    }
}

async fn authenticate(
    server: &Inner,
    certificates: Arc<[CertificateDer<'static>]>,
    path: &str,
    headers: &HeaderMap,
) -> Result<Arc<User>> {
    let value = headers.get(header::AUTHORIZATION);
    let bearer = value.and_then(|value| value.to_str().ok()).and_then(|text| {
        let (scheme, token) = text.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let credentials = Credentials { certificates, bearer };
    match server.authenticator.authenticate(&credentials).await? {
        Some(user) => Ok(user),
        None if server.authenticator.takes_anonymous(path) => Ok(Arc::new(User::anonymous())),
        None => Err(Box::new(Status::unauthorized())),
    }
}

/// Whether the user may do it. Before RBAC's objects are read only the superuser's group may do anything.
fn authorize(server: &Inner, user: &User, info: &RequestInfo) -> Result<()> {
    if !info.is_resource && is_open(&info.path) {
        return Ok(());
    }
    match server.registry.authorizer() {
        Some(authorizer) => authorizer.check(user, info),
        None if user.is_in(MASTERS) => Ok(()),
        None => Err(Box::new(Status::unavailable("the server has not read its rules yet"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_go_reads_durations_and_never_exceeds_the_servers() {
        for (text, expected) in [
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1500)),
            ("0", Some(0)),
            ("2h", Some(7_200_000)),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
            ("1e400s", None),
        ] {
            assert_eq!(go_duration(text).map(|d| d.as_millis()), expected, "{text}");
        }
        let limit = |query: &str| {
            let uri = format!("/api/v1/pods?{query}").parse().unwrap();
            time_limit(&RequestInfo::new(&http::Method::GET, &uri), Duration::from_secs(60)).map_err(|s| s.code)
        };
        assert_eq!(limit("timeout=5s"), Ok(Duration::from_secs(5)));
        assert_eq!(limit("timeout=2h"), Ok(Duration::from_secs(60)));
        assert_eq!(limit("timeout=x"), Err(400));
    }
}
