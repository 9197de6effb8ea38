//! The cluster's own certificates and keys: made on first start, renewed by the process itself.
//!
//! ```text
//!   ca.crt, ca.key ──signs──► apiserver.pem              what the server shows on its port
//!   (10 years)                node-client.pem            the server itself, towards nodes
//!                             admin.kubeconfig           system:masters
//!                             scheduler.kubeconfig       system:kube-scheduler
//!                             controller-manager.kubeconfig
//!                             nodes' certificates        through `join`, or [`Pki::issue`] in the same process
//!   sa.key ─────────signs──► service account tokens
//!
//!   front-proxy-ca.pem ──signs──► front-proxy-client.pem the server itself, towards aggregated API servers: whoever
//!   (10 years)                                           shows it may say in headers whose request it passes on
//! ```
//!
//! Everything the authority signs lives a year, unless told otherwise, and is replaced at two thirds of its life, in the
//! files and in the running TLS configurations alike. The authority itself is not replaced by the process: all trust in the cluster
//! hangs on it, so that is an operator's decision. On the front proxy's nothing hangs but what reads it from the
//! ConfigMap `extension-apiserver-authentication`, so it is made anew when it is damaged.
//!
//! The admin credential is in `system:masters` rather than in a group bound to `cluster-admin`: the one who can read it
//! can read the authority's key beside it, so a revocable binding would promise what it cannot hold, while
//! `system:masters` still opens the door when somebody has broken the RBAC objects.
//!
//! **Invariants:** private keys are readable by the owner alone; a file is always whole (written beside, synced, renamed);
//! a damaged or missing leaf is issued anew, a damaged authority stops the start.

mod authority;
mod files;
mod identity;
mod kubeconfig;
mod request;
mod signing;
mod tls;
mod witness;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_process::WallClock;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::tls::Swap;
pub(crate) use self::tls::{KEYS, PEERS};
pub(crate) use self::witness::WitnessKeys;
pub use self::{
    authority::{Authority, Profile, Usage},
    identity::Identity,
    kubeconfig::kubeconfig,
    signing::SigningKey,
    tls::ClientVerifier,
};
pub(crate) use self::{
    authority::{Grant, requested_key, requested_names},
    identity::{subject, validity},
    request::{Requested, check_certificates},
};

/// How long what the authority signs is valid, unless somebody wants it otherwise.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The process looks at its certificates at least this often: a monotonic sleep does not see a suspended machine, and twice
/// a day costs nothing. When the clock is set it looks at once.
const LONGEST_SLEEP: Duration = Duration::from_secs(12 * 3600);

/// After a failed renewal (a full disk, say) it is tried again this much later.
const RETRY: Duration = Duration::from_secs(10 * 60);

/// The name the server has towards aggregated API servers.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// Puts another secret of the cluster at `path`, readable by the owner alone: after a cut at any moment there is the old
/// file or the new one.
///
/// # Errors
/// The file or its directory cannot be written.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        files::make_dir(dir)?;
    }
    files::write(path, text)
}

/// What the certificates are about.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where keys and certificates are kept; made when missing.
    pub dir: PathBuf,
    /// Where the kubeconfig files are kept; made when missing.
    pub kubeconfigs: PathBuf,
    /// The cluster's DNS domain: `cluster.local`.
    pub domain: String,
    /// The address of the Service `kubernetes`: the first one of the service range.
    pub service_ip: IpAddr,
    /// This host's name.
    pub hostname: String,
    /// Addresses others reach this server at.
    pub advertise: Vec<IpAddr>,
    /// Further names and addresses the serving certificate shall hold.
    pub extra_names: Vec<String>,
    /// The server's URL as the kubeconfig files have it: `https://127.0.0.1:6443`.
    pub server: String,
    /// How long what the authority signs is valid.
    pub lifetime: Duration,
}

/// The file with the authority's certificate.
pub(crate) const AUTHORITY: &str = "ca.crt";

/// The files a further server of the cluster needs before its first start, the first last: its being there says all are.
const SHARED: [&str; 4] = [AUTHORITY, "ca.key", "sa.key", "front-proxy-ca.pem"];

/// What of this directory a further server of the cluster needs, by file name; and `more`, if it is there.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn shared_files(dir: &Path, more: &[&str]) -> Result<Vec<(String, String)>, Error> {
    let mut files = Vec::new();
    for name in SHARED.iter().chain(more) {
        let path = dir.join(name);
        if files::exists(&path)? {
            files.push(((*name).to_owned(), files::read(&path)?));
        }
    }
    Ok(files)
}

/// Puts what another server gave where this one looks for it: all or, if it is cut off, nothing that counts.
///
/// # Errors
/// It cannot be written, or lacks a file.
pub(crate) fn take_shared_files(dir: &Path, given: &[(String, String)], more: &[&str]) -> Result<(), Error> {
    let mut contents = Vec::new();
    for name in SHARED.iter().chain(more) {
        match given.iter().find(|(given, _)| given == name) {
            Some((_, text)) => contents.push((*name, text.clone())),
            None if more.contains(name) => {}
            None => return Err(Error::Malformed(format!("the other server gave no {name}"))),
        }
    }
    files::make_filled_dir(dir, &contents)
}

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("{}: {step}", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should; without it the cluster's trust is lost, so nothing is put in its place.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key or certificate could not be made.
    #[error("make {what}")]
    Make {
        /// Which one.
        what: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate or key is not usable for TLS.
    #[error("use {what} for TLS")]
    Tls {
        /// Which one.
        what: &'static str,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// What was given is not what it should be; the sentence says what is wrong and may be shown to the giver.
    #[error("{0}")]
    Malformed(String),
}

/// The identities the process keeps fresh itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Serving,
    NodeClient,
    FrontProxy,
    Admin,
    Scheduler,
    ControllerManager,
}

impl Kept {
    fn path(self, config: &Config) -> PathBuf {
        match self {
            Self::Serving => config.dir.join("apiserver.pem"),
            Self::NodeClient => config.dir.join("node-client.pem"),
            Self::FrontProxy => config.dir.join("front-proxy-client.pem"),
            Self::Admin => config.kubeconfigs.join("admin.kubeconfig"),
            Self::Scheduler => config.kubeconfigs.join("scheduler.kubeconfig"),
            Self::ControllerManager => config.kubeconfigs.join("controller-manager.kubeconfig"),
        }
    }

    fn is_kubeconfig(self) -> bool {
        matches!(self, Self::Admin | Self::Scheduler | Self::ControllerManager)
    }

    fn profile(self, config: &Config) -> Profile {
        match self {
            Self::Serving => Profile {
                name: "kube-apiserver".to_owned(),
                group: None,
                alt_names: serving_names(config),
                usage: Usage::Server,
            },
            Self::NodeClient => Profile::client("kube-apiserver-kubelet-client", Some("system:masters")),
            Self::FrontProxy => Profile::client(FRONT_PROXY, None),
            Self::Admin => Profile::client("kubernetes-admin", Some("system:masters")),
            Self::Scheduler => Profile::client("system:kube-scheduler", None),
            Self::ControllerManager => Profile::client("system:kube-controller-manager", None),
        }
    }
}

/// Every name and address a client may call the server by.
fn serving_names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default"]
        .iter()
        .map(|n| (*n).to_owned())
        .chain([
            "kubernetes.default.svc".to_owned(),
            format!("kubernetes.default.svc.{}", config.domain),
            config.service_ip.to_string(),
            config.hostname.clone(),
        ])
        .chain(config.advertise.iter().filter(|a| !a.is_unspecified()).map(IpAddr::to_string))
        .chain(config.extra_names.iter().cloned())
        .filter(|n| !n.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The cluster's keys and certificates. Cheap to share behind an [`Arc`].
pub struct Pki {
    config: Config,
    authority: Authority,
    signing: SigningKey,
    verifier: ClientVerifier,
    serving: Arc<Swap>,
    node_client: Arc<Swap>,
    front_authority: Authority,
    front_proxy: Arc<Swap>,
    /// Of every kept identity, when it is to be replaced.
    due: Mutex<Vec<(Kept, Timestamp)>>,
    /// Tells of every new credential of the administrator.
    admin: watch::Sender<()>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.config.dir).finish_non_exhaustive()
    }
}

impl Pki {
    /// Loads what is in the directory and makes what is not there, expired, damaged, or about other names than
    /// `config`'s. Reads and writes files: call it where blocking is allowed.
    ///
    /// # Errors
    /// A file cannot be read or written, or the authority or the signing key is damaged.
    pub fn open(config: Config, now: Timestamp) -> Result<Self, Error> {
        let roots = Roots::load_or_make(&config.dir, now, config.lifetime)?;
        files::make_dir(&config.kubeconfigs)?;
        let authority = roots.authority;
        let front_authority = front_authority(&config, now)?;
        let mut due = Vec::new();
        let mut load = |kept: Kept| -> Result<Identity, Error> {
            let signer = if kept == Kept::FrontProxy { &front_authority } else { &authority };
            let identity = match load_kept(kept, &config, signer, now) {
                Some(identity) => identity,
                None => issue_kept(kept, &config, signer, now)?,
            };
            due.push((kept, identity.renew_at()));
            Ok(identity)
        };
        let (serving, node_client) = (load(Kept::Serving)?, load(Kept::NodeClient)?);
        let front_proxy = load(Kept::FrontProxy)?;
        for kept in [Kept::Admin, Kept::Scheduler, Kept::ControllerManager] {
            load(kept)?;
        }
        Ok(Self {
            verifier: ClientVerifier::new(authority.certificate())?,
            serving: Arc::new(Swap::new(&serving)?),
            node_client: Arc::new(Swap::new(&node_client)?),
            front_proxy: Arc::new(Swap::new(&front_proxy)?),
            front_authority,
            due: Mutex::new(due),
            admin: watch::Sender::new(()),
            signing: roots.signing,
            authority,
            config,
        })
    }

    /// The certificate authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The key that signs service account tokens.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// What decides whether a client's certificate is this cluster's and valid.
    #[must_use]
    pub fn client_verifier(&self) -> &ClientVerifier {
        &self.verifier
    }

    /// What these certificates are about.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The names and addresses of the serving certificate.
    #[must_use]
    pub fn serving_names(&self) -> Vec<String> {
        serving_names(&self.config)
    }

    /// The path of the admin's kubeconfig file.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        Kept::Admin.path(&self.config)
    }

    /// Changes whenever the admin's kubeconfig file got a new credential.
    #[must_use]
    pub fn admin_renewals(&self) -> watch::Receiver<()> {
        self.admin.subscribe()
    }

    /// A new key with a certificate of the given profile, for a component of the same process (the node agent).
    ///
    /// # Errors
    /// A name that no certificate can hold.
    pub fn issue(&self, profile: &Profile, now: Timestamp) -> Result<Identity, Error> {
        self.authority.issue(profile, now)
    }

    /// Signs the key of a member that keeps no key of the cluster's (a certificate signing request, PEM): nobody renews the
    /// certificate, so it is valid as long as the authority is.
    ///
    /// # Errors
    /// The request is malformed or its signature is wrong.
    pub(crate) fn sign_member(&self, request: &str, profile: &Profile, now: Timestamp) -> Result<String, Error> {
        self.authority.sign_for_life(request, profile, now)
    }

    /// TLS for the server's port: the current serving certificate, HTTP/2 and HTTP/1.1. Clients are asked for a
    /// certificate and need none; any well-formed one whose key the client holds passes the handshake, and
    /// authentication decides what it is worth, so that a bad one is answered with 401 as in Kubernetes.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub fn server_tls(&self) -> Result<rustls::ServerConfig, Error> {
        tls::server(self.serving.clone(), &self.verifier)
    }

    /// As [`Pki::server_tls`], for a port where this member of the store is reached too.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub(crate) fn shared_tls(&self, member: &Shown) -> Result<rustls::ServerConfig, Error> {
        tls::shared(self.serving.clone(), member.0.clone(), &self.verifier)
    }

    /// TLS towards other members of the store.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub(crate) fn peer_tls(&self, member: &Shown) -> Result<rustls::ClientConfig, Error> {
        tls::towards_peers(member.0.clone(), self.authority.certificate(), PEERS)
    }

    /// TLS towards other servers, to give them the keys that values are sealed with.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub(crate) fn keys_tls(&self, member: &Shown) -> Result<rustls::ClientConfig, Error> {
        tls::towards_peers(member.0.clone(), self.authority.certificate(), KEYS)
    }

    /// TLS for a port that is only for holders of this cluster's client certificates: HTTP/2 alone.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub fn mutual_tls(&self) -> Result<rustls::ServerConfig, Error> {
        tls::mutual(self.serving.clone(), &self.verifier)
    }

    /// TLS towards the nodes' servers: the server's current client certificate, trusting this cluster's authority alone.
    ///
    /// # Errors
    /// The TLS library refuses the configuration.
    pub fn node_tls(&self) -> Result<rustls::ClientConfig, Error> {
        tls::client(self.node_client.clone(), self.authority.certificate())
    }

    /// The certificate of the authority (PEM) that signs what this server shows to aggregated API servers.
    #[must_use]
    pub fn front_authority_pem(&self) -> &str {
        self.front_authority.pem()
    }

    /// What this server shows to aggregated API servers: always the current certificate.
    #[must_use]
    pub fn front_proxy(&self) -> Arc<dyn rustls::client::ResolvesClientCert> {
        self.front_proxy.clone()
    }

    /// Replaces every identity that is due, in the files and in the running TLS configurations; says when the next one
    /// is. Writes files: call it where blocking is allowed.
    ///
    /// # Errors
    /// The first failure; what was replaced before it stays replaced.
    pub fn renew(&self, now: Timestamp) -> Result<Timestamp, Error> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        for (kept, at) in due.iter_mut() {
            if *at > now {
                continue;
            }
            let signer = if *kept == Kept::FrontProxy { &self.front_authority } else { &self.authority };
            let identity = issue_kept(*kept, &self.config, signer, now)?;
            match kept {
                Kept::Serving => self.serving.set(&identity)?,
                Kept::NodeClient => self.node_client.set(&identity)?,
                Kept::FrontProxy => self.front_proxy.set(&identity)?,
                Kept::Admin => self.admin.send_replace(()),
                Kept::Scheduler | Kept::ControllerManager => {}
            }
            *at = identity.renew_at();
        }
        Ok(due.iter().map(|(_, at)| *at).min().unwrap_or(Timestamp::MAX))
    }

    /// Keeps the identities fresh until `shutdown`. `clock` is the wall clock.
    pub async fn run(self: Arc<Self>, clock: impl Fn() -> Timestamp + Send, shutdown: CancellationToken) {
        loop {
            let (set, now) = (WallClock::watch(), clock());
            let pki = self.clone();
            let wait = match tokio::task::spawn_blocking(move || pki.renew(now)).await {
                Ok(Ok(next)) => until(next, now),
                Ok(Err(error)) => {
                    tracing::error!(error = &error as &(dyn std::error::Error + 'static), "certificates not renewed");
                    RETRY
                }
                Err(error) => {
                    tracing::error!(error = &error as &(dyn std::error::Error + 'static), "renewal was cut off");
                    RETRY
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = set.sleep(wait) => {}
            }
        }
    }
}

/// Issues the identity of a component of the same process anew whenever it is due, until `shutdown`, and gives each to
/// `take`. The first one, which ends the first wait, is the caller's. `clock` is the wall clock.
pub async fn keep_issued(
    pki: Arc<Pki>,
    profile: Profile,
    first: Timestamp,
    clock: impl Fn() -> Timestamp + Send,
    mut take: impl FnMut(&Identity) + Send,
    shutdown: CancellationToken,
) {
    let mut due = first;
    loop {
        let (set, now) = (WallClock::watch(), clock());
        let wait = if due > now {
            until(due, now)
        } else {
            match pki.issue(&profile, now) {
                Ok(identity) => {
                    take(&identity);
                    due = identity.renew_at();
                    until(due, now)
                }
                Err(error) => {
                    tracing::error!(error = &error as &(dyn std::error::Error + 'static), "certificate not renewed");
                    RETRY
                }
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = set.sleep(wait) => {}
        }
    }
}

/// An identity that is shown at running ports and connections, and exchanged meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Shown(Arc<Swap>);

impl Shown {
    /// Begins with this one.
    ///
    /// # Errors
    /// It is not usable for TLS.
    pub(crate) fn new(identity: &Identity) -> Result<Self, Error> {
        Ok(Self(Arc::new(Swap::new(identity)?)))
    }

    /// New connections see this one.
    ///
    /// # Errors
    /// It is not usable for TLS.
    pub(crate) fn set(&self, identity: &Identity) -> Result<(), Error> {
        self.0.set(identity)
    }
}

/// How long to sleep at a stretch until `due`.
fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or(RETRY).min(LONGEST_SLEEP)
}

/// What cannot be made anew without losing the cluster's trust.
struct Roots {
    authority: Authority,
    signing: SigningKey,
}

impl Roots {
    /// Authority and signing key appear together: a directory without them is filled beside and renamed, so that a
    /// first start which is cut off anywhere leaves either nothing or all.
    fn load_or_make(dir: &Path, now: Timestamp, lifetime: Duration) -> Result<Self, Error> {
        if !files::exists(&dir.join("ca.crt"))? && !files::exists(&dir.join("ca.key"))? {
            let authority = Authority::make("kubernetes", now, lifetime)?;
            let signing = SigningKey::make()?;
            let contents =
                [("ca.crt", authority.pem().to_owned()), ("ca.key", authority.key_pem()), ("sa.key", signing.pem())];
            files::make_filled_dir(dir, &contents)?;
            return Ok(Self { authority, signing });
        }
        let damaged = |name: &str| {
            let path = dir.join(name);
            move |error: Error| Error::Damaged { path, why: error_chain(&error) }
        };
        let (certificate, key) = (files::read(&dir.join("ca.crt"))?, files::read(&dir.join("ca.key"))?);
        let authority = Authority::parse(&certificate, &key, lifetime).map_err(damaged("ca.crt"))?;
        let signing = SigningKey::parse(&files::read(&dir.join("sa.key"))?).map_err(damaged("sa.key"))?;
        Ok(Self { authority, signing })
    }
}

/// The front proxy's authority, from its one file or made anew into it.
fn front_authority(config: &Config, now: Timestamp) -> Result<Authority, Error> {
    let path = config.dir.join("front-proxy-ca.pem");
    if files::exists(&path)? {
        let text = files::read(&path)?;
        // The certificate comes first, then the key.
        let key = text.find("-----BEGIN PRIVATE KEY-----").unwrap_or(text.len());
        let (certificate, key) = text.split_at(key);
        match Authority::parse(certificate, key, config.lifetime) {
            Ok(authority) => return Ok(authority),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the front proxy's authority is made anew");
            }
        }
    }
    let authority = Authority::make("front-proxy-ca", now, config.lifetime)?;
    files::write(&path, &format!("{}{}", authority.pem(), authority.key_pem()))?;
    Ok(authority)
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The identity as it stands in its file, if it can serve on.
fn load_kept(kept: Kept, config: &Config, authority: &Authority, now: Timestamp) -> Option<Identity> {
    let text = files::read(&kept.path(config)).ok()?;
    let identity = if kept.is_kubeconfig() {
        let (server, identity) = kubeconfig::parse(&text)?;
        (server == config.server).then_some(identity)?
    } else {
        Identity::parse(&text).ok()?
    };
    (identity.renew_at() > now && identity.fits(&kept.profile(config)) && authority.issued(&identity))
        .then_some(identity)
}

fn issue_kept(kept: Kept, config: &Config, authority: &Authority, now: Timestamp) -> Result<Identity, Error> {
    let profile = kept.profile(config);
    let mut identity = authority.issue(&profile, now)?;
    if kept == Kept::Serving {
        // A joining node knows the authority by its hash and must see it to compare.
        identity = identity.followed_by(authority.certificate());
    }
    let text = if kept.is_kubeconfig() {
        kubeconfig(&config.server, authority.pem(), &profile.name, &identity)
    } else {
        identity.pem()
    };
    files::write(&kept.path(config), &text)?;
    Ok(identity)
}

#[cfg(test)]
mod tests;
