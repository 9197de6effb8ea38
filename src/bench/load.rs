//! The load generator: a number of connections that each send one request after the other.
//!
//! Each connection is one TLS connection with HTTP/1.1 kept alive, as `wrk` does it; latencies are counted in a histogram
//! of fixed size, so that a long run costs no memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

/// Where requests go, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    bearer: Option<String>,
}

impl Target {
    /// The cluster a kubeconfig's current context names.
    pub(crate) fn new(config: &kube::Config) -> anyhow::Result<Self> {
        let host = config.cluster_url.host().context("the server's URL has no host")?.to_owned();
        let port = config.cluster_url.port_u16().unwrap_or(443);
        let mut tls = config.rustls_client_config().context("TLS by kubeconfig")?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).context("the server's name")?;
        let bearer = config.auth_info.token.as_ref().map(|token| {
            use secrecy::ExposeSecret as _;
            format!("Bearer {}", token.expose_secret())
        });
        Ok(Self { host, port, name, tls: TlsConnector::from(Arc::new(tls)), bearer })
    }

    /// The same server, for whoever holds the token.
    ///
    /// # Errors
    /// The kubeconfig cannot be used for TLS.
    pub(crate) fn with_token(config: &kube::Config, token: &str) -> anyhow::Result<Self> {
        let mut config = config.clone();
        config.auth_info = kube::config::AuthInfo::default();
        Ok(Self { bearer: Some(format!("Bearer {token}")), ..Self::new(&config)? })
    }

    /// Opens a connection; its driver runs in `tasks`.
    pub(crate) async fn connect(&self, tasks: &mut JoinSet<()>) -> anyhow::Result<Connection> {
        let socket = TcpStream::connect((self.host.trim_matches(['[', ']']), self.port)).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), socket).await.context("TLS handshake")?;
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tasks.spawn(async move {
            // A connection that breaks is seen by whoever sends the next request over it.
            let _ = driver.await;
        });
        Ok(Connection { sender, host: format!("{}:{}", self.host, self.port), bearer: self.bearer.clone() })
    }
}

/// One kept-alive connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    bearer: Option<String>,
}

impl Connection {
    /// Sends a request and reads the answer's head.
    pub(crate) async fn send(
        &mut self,
        method: http::Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder().method(&method).uri(path).header(header::HOST, &self.host);
        request = request.header(header::ACCEPT, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        if !body.is_empty() {
            // The one kind of patch that is measured; JSON is YAML.
            let applies = method == http::Method::PATCH;
            let media = if applies { "application/apply-patch+yaml" } else { "application/json" };
            request = request.header(header::CONTENT_TYPE, media);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(
        &mut self,
        method: http::Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

/// Latencies in buckets, each an eighth of a power of two wide: at most 9 % off.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Vec<AtomicU64>,
}

const PER_OCTAVE: u32 = 8;

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: (0..64 * PER_OCTAVE).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts one latency.
    pub(crate) fn record(&self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
        let octave = nanoseconds.ilog2();
        let rest = if octave >= 3 { (nanoseconds >> (octave - 3)) & 7 } else { 0 };
        let at = octave * PER_OCTAVE + u32::try_from(rest).unwrap_or_default();
        if let Some(bucket) = self.buckets.get(at as usize) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The latency that this share of all stays below, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
        let wanted = self.count() as f64 * share;
        let mut sum = 0.0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
            let here = bucket.load(Ordering::Relaxed) as f64;
            sum += here;
            if sum >= wanted && here > 0.0 {
                let at = u32::try_from(at).unwrap_or_default();
                let low = 2_f64.powi(i32::try_from(at / PER_OCTAVE).unwrap_or_default());
                let upper = low * (1.0 + f64::from(at % PER_OCTAVE + 1) / f64::from(PER_OCTAVE));
                return upper / 1e6;
            }
        }
        0.0
    }
}

/// How requests are sent.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Load {
    /// Connections at once.
    #[arg(long, default_value_t = Self::USUAL.clients)]
    pub(crate) clients: usize,
    /// Seconds each kind of request is sent.
    #[arg(long = "seconds", default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) length: Duration,
}

impl Load {
    /// What nothing else is said of.
    pub(crate) const USUAL: Self = Self { clients: 32, length: Duration::from_secs(10) };
}

/// A number of seconds.
///
/// # Errors
/// It is none.
pub(crate) fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

/// What a run of load amounts to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Requests answered as they should be, per second.
    pub(crate) rate: f64,
    /// Latencies in milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// When a run of load is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this time.
    Time(Duration),
    /// After so many requests.
    Count(u64),
}

/// Has the connections send what `request` gives for the n-th request, for so long; every answer must be a success.
pub(crate) async fn run(
    target: &Target,
    load: Load,
    request: impl Fn(u64) -> (http::Method, String, Bytes) + Send + Sync + 'static,
) -> anyhow::Result<Outcome> {
    run_until(target, load.clients, Until::Time(load.length), request).await
}

/// The same, until something else.
pub(crate) async fn run_until(
    target: &Target,
    clients: usize,
    until: Until,
    request: impl Fn(u64) -> (http::Method, String, Bytes) + Send + Sync + 'static,
) -> anyhow::Result<Outcome> {
    let mut drivers = JoinSet::new();
    let mut workers = JoinSet::new();
    let (histogram, counter, request) = (Arc::new(Histogram::new()), Arc::new(AtomicU64::new(0)), Arc::new(request));
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(target.connect(&mut drivers).await?);
    }
    let start = Instant::now();
    for mut connection in connections {
        let (histogram, counter, request) = (Arc::clone(&histogram), Arc::clone(&counter), Arc::clone(&request));
        workers.spawn(async move {
            loop {
                let n = counter.fetch_add(1, Ordering::Relaxed);
                let is_over = match until {
                    Until::Time(length) => start.elapsed() >= length,
                    Until::Count(count) => n >= count,
                };
                if is_over {
                    break;
                }
                let (method, path, body) = request(n);
                let sent = Instant::now();
                let (status, answer) = connection.call(method, &path, body).await?;
                if !status.is_success() {
                    bail!("{path}: {status}: {}", String::from_utf8_lossy(&answer));
                }
                histogram.record(sent.elapsed());
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let seconds = start.elapsed().as_secs_f64();
    drivers.shutdown().await;
    #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
    let rate = histogram.count() as f64 / seconds;
    Ok(Outcome { rate, p50: histogram.quantile(0.5), p99: histogram.quantile(0.99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close_to_the_truth() {
        let histogram = Histogram::new();
        for n in 1..=1000_u64 {
            histogram.record(Duration::from_micros(n));
        }
        for (share, truth) in [(0.5, 0.5), (0.99, 0.99), (1.0, 1.0)] {
            let found = histogram.quantile(share);
            assert!((found / truth - 1.0).abs() < 0.15, "{share}: {found} instead of {truth}");
        }
        assert_eq!(histogram.count(), 1000);
    }
}
