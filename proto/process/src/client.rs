//! Clients of an API server whose credentials are exchanged while they are in use.
//!
//! A certificate is exchanged by exchanging the whole client beneath: new requests go over new connections, and those that
//! are under way (watches, mostly) end on the old ones, which the server closes within minutes.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context as Task, Poll},
    time::Duration,
};

use anyhow::Context;
use base64::Engine;
use http::{Request, Response};
use jiff::Timestamp;
use kube::{
    Client,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio_util::sync::CancellationToken;

use crate::WallClock;

/// A kubeconfig is looked at again at least this often: a monotonic sleep does not see a suspended machine, and twice a day
/// costs nothing. When the clock is set it looks at once.
const LONGEST_SLEEP: Duration = Duration::from_secs(12 * 3600);
/// And at most this often, while its certificate has not ended yet.
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);
/// How soon it is looked at again once its certificate has ended and nobody wrote a new one.
const OVERDUE: Duration = Duration::from_secs(10);

/// How long one of several servers may take to begin an answer before another is asked from then on. A write may wait some
/// seconds for an election; a watch is answered at once and goes on for long.
const ANSWER: Duration = Duration::from_secs(15);

/// Clients of the servers of one cluster.
struct Clients {
    /// At least one.
    all: Vec<Client>,
    current: usize,
}

/// A client of an API server that can be exchanged for another one under all who use it; or of several servers of one
/// cluster, of which the next is used when one cannot be reached. Cheap to clone.
#[derive(Clone)]
pub struct Exchange {
    clients: Arc<RwLock<Clients>>,
}

/// A server that did not begin an answer.
#[derive(Debug, thiserror::Error)]
#[error("the server did not answer within {ANSWER:?}; another is asked from now on")]
struct Unanswered;

impl Exchange {
    /// Begins with this one.
    #[must_use]
    pub fn new(first: Client) -> Self {
        let clients = Arc::new(RwLock::new(Clients { all: vec![first], current: 0 }));
        Self { clients }
    }

    /// From here on requests go to this one.
    pub fn set(&self, next: Client) {
        self.set_all(vec![next]);
    }

    /// From here on requests go to one of these, the first until it is not reached; nothing changes if there are none.
    pub fn set_all(&self, all: Vec<Client>) {
        if !all.is_empty() {
            *self.clients.write().unwrap_or_else(PoisonError::into_inner) = Clients { all, current: 0 };
        }
    }

    /// A client whose requests go to whichever is the current one when they are sent.
    #[must_use]
    pub fn client(&self) -> Client {
        let namespace = self.current().default_namespace().to_owned();
        Client::new(self.clone(), namespace)
    }

    fn current(&self) -> Client {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        match clients.all.get(clients.current) {
            Some(client) => client.clone(),
            None => unreachable!("the current client is one of them"),
        }
    }

    /// The current client, which one it is, and whether there are others.
    fn choose(&self) -> (Client, usize, bool) {
        let (at, several) = {
            let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
            (clients.current, clients.all.len() > 1)
        };
        (self.current(), at, several)
    }

    /// The one at `at` was not reached.
    fn pass(&self, at: usize) {
        {
            let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
            if clients.current != at || clients.all.len() < 2 {
                return;
            }
            clients.current = (at + 1) % clients.all.len();
        }
        tracing::info!("the API server is not reached; another is asked");
    }
}

impl tower::Service<Request<Body>> for Exchange {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ((client, at, several), this) = (self.choose(), self.clone());
        if !several {
            return Box::pin(async move { client.send(request).await });
        }
        Box::pin(async move {
            let answered = tokio::time::timeout(ANSWER, client.send(request)).await;
            let answered = answered.unwrap_or_else(|_| Err(kube::Error::Service(Box::new(Unanswered))));
            if answered.is_err() {
                this.pass(at);
            }
            answered
        })
    }
}

/// Works with a client that has the credentials of a kubeconfig file, and takes over what is written there meanwhile:
/// the API server renews the files of its own cluster.
///
/// # Errors
/// The file cannot be used, or the work's own error.
pub async fn with_kubeconfig<T, F>(file: &Path, work: impl FnOnce(Client) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let (text, found) = read(file).await.with_context(|| format!("--kubeconfig {}", file.display()))?;
    let exchange = Exchange::new(found.client);
    let client = exchange.client();
    let follower = Follower { file: file.to_owned(), text, ends: found.ends, exchange };
    let done = CancellationToken::new();
    let work = async {
        let result = work(client).await;
        done.cancel();
        result
    };
    tokio::join!(work, follower.run(&done)).0
}

/// What a kubeconfig amounts to.
struct Found {
    client: Client,
    /// When its certificate ends, if it has one.
    ends: Option<Timestamp>,
}

async fn read(file: &Path) -> anyhow::Result<(String, Found)> {
    let text = tokio::fs::read_to_string(file).await?;
    let found = understand(&text).await?;
    Ok((text, found))
}

async fn understand(text: &str) -> anyhow::Result<Found> {
    let kubeconfig = Kubeconfig::from_yaml(text)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let ends = config.auth_info.client_certificate_data.as_ref().and_then(|data| {
        let pem = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
        not_after(&pem)
    });
    Ok(Found { client: Client::try_from(config)?, ends })
}

/// When the first certificate of a PEM text ends; `None` when there is none in it.
#[must_use]
pub fn not_after(pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Keeps a client at what its file says.
struct Follower {
    file: PathBuf,
    text: String,
    ends: Option<Timestamp>,
    exchange: Exchange,
}

impl Follower {
    async fn run(mut self, done: &CancellationToken) {
        loop {
            let set = WallClock::watch();
            tokio::select! {
                () = done.cancelled() => return,
                () = set.sleep(until_next_look(self.ends, Timestamp::now())) => {}
            }
            if let Err(error) = self.look().await {
                let error: &(dyn std::error::Error + 'static) = error.as_ref();
                tracing::warn!(error, path = %self.file.display(), "credentials not read again");
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let text = tokio::fs::read_to_string(&self.file).await?;
        if text == self.text {
            return Ok(());
        }
        let found = understand(&text).await?;
        (self.text, self.ends) = (text, found.ends);
        self.exchange.set(found.client);
        tracing::info!(path = %self.file.display(), "credentials exchanged");
        Ok(())
    }
}

/// A quarter of what is left of the certificate's life: its file is written anew when a third is left.
fn until_next_look(ends: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(ends) = ends else { return LONGEST_SLEEP };
    match Duration::try_from(ends.duration_since(now)) {
        Ok(left) if !left.is_zero() => (left / 4).clamp(SHORTEST_SLEEP, LONGEST_SLEEP),
        _ => OVERDUE,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// A client that answers everything with a Status that names it.
    fn named(name: &'static str, asked: &Arc<AtomicUsize>) -> Client {
        let asked = Arc::clone(asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            asked.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, Infallible>(Response::new(Body::from(name.as_bytes().to_vec()))) }
        });
        Client::new(service, name)
    }

    #[tokio::test]
    async fn requests_go_to_the_current_client() {
        let (one, two) = (Arc::default(), Arc::default());
        let exchange = Exchange::new(named("one", &one));
        let client = exchange.client();
        let ask = async || client.request_text(Request::get("/version").body(Vec::new()).unwrap()).await.unwrap();
        assert_eq!(ask().await, "one");
        exchange.set(named("two", &two));
        assert_eq!(ask().await, "two");
        assert_eq!((one.load(Ordering::SeqCst), two.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(client.default_namespace(), "one");
    }

    #[tokio::test]
    async fn another_server_is_asked_when_one_is_not_reached() {
        let asked = Arc::default();
        let broken = |_: Request<Body>| async { Err::<Response<Body>, _>(std::io::Error::other("gone")) };
        let exchange = Exchange::new(named("alone", &asked));
        exchange.set_all(vec![Client::new(tower::service_fn(broken), "gone"), named("two", &asked)]);
        let client = exchange.client();
        let ask = async || client.request_text(Request::get("/version").body(Vec::new()).unwrap()).await;
        assert!(ask().await.is_err(), "whether the first did it nobody knows");
        assert_eq!((ask().await.unwrap(), ask().await.unwrap()), ("two".to_owned(), "two".to_owned()));
        exchange.set_all(Vec::new());
        assert_eq!(ask().await.unwrap(), "two");
    }

    #[test]
    fn a_file_is_looked_at_before_its_certificate_ends() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let after = |seconds: i64| until_next_look(Some(now + jiff::SignedDuration::from_secs(seconds)), now);
        assert_eq!(after(365 * 24 * 3600), LONGEST_SLEEP);
        assert_eq!(after(40), Duration::from_secs(10));
        assert_eq!(after(2), SHORTEST_SLEEP);
        assert_eq!((after(0), after(-5)), (OVERDUE, OVERDUE));
        assert_eq!(until_next_look(None, now), LONGEST_SLEEP);
    }

    const FILE: &str = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
        users: [{name: u, user: {token: t}}]\ncontexts: [{name: x, context: {cluster: c, user: u, namespace: NS}}]\n\
        current-context: x\n";

    #[tokio::test]
    async fn what_is_written_into_the_file_is_taken_over_and_what_is_wrong_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        std::fs::write(&file, FILE.replace("NS", "before")).unwrap();
        let (text, found) = read(&file).await.unwrap();
        let exchange = Exchange::new(found.client);
        let mut follower = Follower { file: file.clone(), text, ends: found.ends, exchange: exchange.clone() };
        follower.look().await.unwrap();
        assert_eq!(exchange.current().default_namespace(), "before");
        std::fs::write(&file, "no: [kubeconfig").unwrap();
        assert!(follower.look().await.is_err());
        assert_eq!(exchange.current().default_namespace(), "before");
        std::fs::write(&file, FILE.replace("NS", "after")).unwrap();
        follower.look().await.unwrap();
        assert_eq!(exchange.current().default_namespace(), "after");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named() {
        let error = with_kubeconfig(Path::new("/no/such/file"), |_| async { Ok(()) }).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("--kubeconfig /no/such/file: "), "{error:#}");
    }
}
