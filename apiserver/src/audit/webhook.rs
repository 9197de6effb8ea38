//! The audit webhook: events in batches, posted to a server that a kubeconfig file names.
//!
//! A batch that cannot be delivered is tried again a few times, longer and longer apart; meanwhile events wait in a queue
//! of fixed length, and what does not fit there is lost and counted. Requests never wait.

use std::{fs, path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use rustls::{
    client::ResolvesClientCert,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde::Deserialize;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Way,
    config::{Error, WebhookConfig},
};
use crate::upstream::{
    connect::{Connector, Pool, Protection, Reached, Tasks, Trusted, pool, tls},
    root,
};

/// How long one delivery may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long it may take when the server stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// How often a batch is sent before it is given up, as in Kubernetes.
const ATTEMPTS: u32 = 5;

/// As much of an answer as is read; nothing of it is used.
const MAX_ANSWER: usize = 64 * 1024;

/// How many bytes of events are sent at once, however many they are.
const MAX_BATCH: usize = 10 * 1024 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").finish_non_exhaustive()
    }
}

/// What is given as text in the file, or as the name of another file beside it.
fn content(data: &str, file: &str, beside: &Path) -> Result<Option<Vec<u8>>, String> {
    if !data.is_empty() {
        return STANDARD.decode(data).map(Some).map_err(|error| format!("what is given in base64 is not: {error}"));
    }
    if file.is_empty() {
        return Ok(None);
    }
    let path = beside.parent().unwrap_or(Path::new("")).join(file);
    fs::read(&path).map(Some).map_err(|error| format!("read {}: {error}", path.display()))
}

/// The certificate to show, and its key.
fn identity(certificates: &[u8], key: &[u8]) -> Result<Arc<dyn ResolvesClientCert>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
    let chain = chain.map_err(|error| format!("client-certificate: {error:?}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("client-key: {error:?}"))?;
    let key = any_supported_type(&key).map_err(|error| format!("client-key: {error}"))?;
    Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
}

fn authorization(user: &User, beside: &Path) -> Result<Option<HeaderValue>, String> {
    let token = match content("", &user.token_file, beside)? {
        Some(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        None => user.token.clone(),
    };
    let text = if !token.is_empty() {
        format!("Bearer {token}")
    } else if !user.username.is_empty() {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", user.username, user.password)))
    } else {
        return Ok(None);
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| "the token is no text for a header".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// See the module.
pub(super) struct Webhook {
    config: WebhookConfig,
    url: String,
    authorization: Option<HeaderValue>,
    http: Pool<Full<Bytes>>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

/// How a delivery failed.
enum Failure {
    /// Another try may do.
    Passing(String),
    /// It is not wanted.
    Refused(String),
}

impl Webhook {
    /// The webhook that the kubeconfig file names.
    ///
    /// # Errors
    /// The file cannot be read or used.
    pub(super) fn open(config: &WebhookConfig, tasks: &Tasks) -> Result<Self, Error> {
        let file = config.kubeconfig.clone();
        let text = fs::read_to_string(&file).map_err(|source| Error::Read { file: file.clone(), source })?;
        Self::of(config, &text, tasks).map_err(|why| Error::Webhook { file, why })
    }

    fn of(config: &WebhookConfig, text: &str, tasks: &Tasks) -> Result<Self, String> {
        let parsed: Kubeconfig = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let wanted = parsed.contexts.into_iter().find(|context| context.name == parsed.current_context);
        let context = wanted.ok_or_else(|| format!("there is no context {:?}", parsed.current_context))?.context;
        let cluster = parsed.clusters.into_iter().find(|cluster| cluster.name == context.cluster);
        let cluster = cluster.ok_or_else(|| format!("there is no cluster {:?}", context.cluster))?.cluster;
        let user = parsed.users.into_iter().find(|user| user.name == context.user);
        let user = user.map(|user| user.user).unwrap_or_default();
        let uri: Uri = cluster.server.parse().map_err(|error| format!("server {:?}: {error}", cluster.server))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(format!("server {:?} must begin with https:// or http://", cluster.server));
        }
        let beside = &config.kubeconfig;
        let bundle = content(&cluster.certificate_authority_data, &cluster.certificate_authority, beside)?;
        let bundle = bundle.unwrap_or_default();
        let trusted = if cluster.insecure_skip_tls_verify { Trusted::Anybody } else { Trusted::Bundle(&bundle) };
        let certificate = content(&user.client_certificate_data, &user.client_certificate, beside)?;
        let key = content(&user.client_key_data, &user.client_key, beside)?;
        let own = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(identity(&certificate, &key)?),
            (None, None) => None,
            _ => return Err("a client certificate needs its key, and a key its certificate".to_owned()),
        };
        let protection = Protection::Scheme(tls(&trusted, own)?);
        Ok(Self {
            config: config.clone(),
            url: cluster.server,
            authorization: authorization(&user, beside)?,
            http: pool(tasks, Connector { place: Reached::Uri, protection }),
        })
    }

    /// Sends what comes until `shutdown`, then once what is there.
    pub(super) async fn run(self, mut events: mpsc::Receiver<Bytes>, way: &Way, shutdown: &CancellationToken) {
        loop {
            let Some(first) = next(&mut events, None, shutdown).await else { return };
            let mut batch = vec![first];
            let mut size = batch.iter().map(Bytes::len).sum::<usize>();
            let until = Instant::now() + self.config.batch_wait;
            while batch.len() < self.config.batch_size && size < MAX_BATCH {
                let Some(event) = next(&mut events, Some(until), shutdown).await else { break };
                size += event.len();
                batch.push(event);
            }
            let count = batch.len();
            if !self.deliver(&batch, shutdown).await {
                way.lose(u64::try_from(count).unwrap_or(u64::MAX));
                if shutdown.is_cancelled() {
                    // Nobody waits for a server that does not answer.
                    events.close();
                    way.lose(u64::try_from(events.len()).unwrap_or(u64::MAX));
                    return;
                }
            }
        }
    }

    /// Whether the batch has arrived, after a few tries.
    async fn deliver(&self, batch: &[Bytes], shutdown: &CancellationToken) -> bool {
        let body = list(batch);
        let mut backoff = self.config.initial_backoff;
        for attempt in 1..=ATTEMPTS {
            let posted = tokio::select! {
                posted = self.post(body.clone()) => posted,
                () = async {
                    shutdown.cancelled().await;
                    tokio::time::sleep(GOODBYE).await;
                } => return false,
            };
            let why = match posted {
                Ok(()) => return true,
                Err(Failure::Refused(why)) => {
                    tracing::debug!(reason = why, server = self.url, "audit events are refused");
                    return false;
                }
                Err(Failure::Passing(why)) => why,
            };
            tracing::debug!(reason = why, attempt, server = self.url, "audit events could not be sent");
            if attempt == ATTEMPTS || shutdown.is_cancelled() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                // One more try at the end.
                () = shutdown.cancelled() => {}
            }
            backoff = backoff.mul_f64(1.5);
        }
        false
    }

    async fn post(&self, body: Bytes) -> Result<(), Failure> {
        let mut request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "kube-apiserver-audit");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| Failure::Refused(error.to_string()))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| Failure::Passing(root(&error)))?;
            let code = response.status();
            // Read, so that the connection can be used again; what it says does not matter.
            let _ = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            match code.as_u16() {
                200..=299 => Ok(()),
                429 | 500..=599 => Err(Failure::Passing(format!("the server answered {code}"))),
                _ => Err(Failure::Refused(format!("the server answered {code}"))),
            }
        };
        let late = |_| Err(Failure::Passing("no answer in time".to_owned()));
        tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(late)
    }
}

/// The next event; none when there is none until then, or when all is over.
async fn next(events: &mut mpsc::Receiver<Bytes>, until: Option<Instant>, end: &CancellationToken) -> Option<Bytes> {
    let late = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        event = events.recv() => event,
        () = end.cancelled() => {
            events.close();
            events.recv().await
        }
        () = late => None,
    }
}

/// Lines of events as an `EventList`.
fn list(batch: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (at, line) in batch.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(line.trim_ascii_end());
    }
    out.put_slice(b"]}");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<Webhook, String> {
        let config = WebhookConfig {
            kubeconfig: "/nowhere/kubeconfig".into(),
            buffer_size: 1,
            batch_size: 1,
            batch_wait: Duration::ZERO,
            initial_backoff: Duration::ZERO,
        };
        Webhook::of(&config, text, &Tasks::new())
    }

    #[tokio::test]
    async fn the_current_context_says_where_and_who() {
        let file = |server: &str, user: &str| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                 clusters: [{{name: k, cluster: {{server: '{server}'}}}}]\n\
                 users: [{{name: u, user: {{{user}}}}}]\n\
                 contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n"
            )
        };
        let found = open(&file("https://audit.example.com/k8s", "token: abc")).unwrap();
        assert_eq!(found.url, "https://audit.example.com/k8s");
        assert_eq!(found.authorization.unwrap(), "Bearer abc");
        let basic = open(&file("http://127.0.0.1:9", "username: a, password: b")).unwrap();
        assert_eq!(basic.authorization.unwrap(), "Basic YTpi");
        for (text, words) in [
            (file("ftp://x", ""), "must begin with https://"),
            (file("https://x", "client-key-data: YQ=="), "needs its key"),
            (file("https://x", "tokenFile: missing"), "read /nowhere/missing"),
            ("current-context: other".to_owned(), "no context \"other\""),
            ("[".to_owned(), ""),
        ] {
            let why = open(&text).unwrap_err();
            assert!(why.contains(words), "{text}\n{why}");
        }
    }

    #[test]
    fn a_batch_is_one_list() {
        let list = list(&[Bytes::from_static(b"{\"a\":1}\n"), Bytes::from_static(b"{\"b\":2}\n")]);
        let value: serde_json::Value = serde_json::from_slice(&list).unwrap();
        assert_eq!(value["items"], serde_json::json!([{"a": 1}, {"b": 2}]));
        assert_eq!(value["kind"], "EventList");
    }
}
