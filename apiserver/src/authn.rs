//! Authentication: whose request is it?
//!
//! ```text
//!   client certificate ──► x509              name and groups from the subject
//!   bearer a.b.c ────────► oidc              a token of an issuer that is configured
//!                └───────► service_account   a signed token whose account, pod, secret or node is still there
//!                └───────► legacy            the token of a Secret that still holds it
//!   bearer id.secret ────► bootstrap         a join token, kept as a Secret in kube-system
//!   nothing ─────────────► anonymous         for [`is_open`] paths alone, unless configured otherwise
//! ```
//!
//! **Invariant:** a credential that is wrong is never taken for none: it ends in 401, unless another one beside it is
//! right.

mod bootstrap;
mod legacy;
pub mod oidc;
mod service_account;
mod x509;

use std::sync::{Arc, PoisonError, RwLock};

use coracle_proto::status::Status;
use coracle_store::Store;
use futures::future::BoxFuture;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

pub(crate) use self::legacy::TYPE as TOKEN_SECRET;
pub(crate) use self::oidc::reload::Reloads;
use self::oidc::{Issuers, config::Anonymous};
pub use self::service_account::{Bound, Claims, Reference, Tokens};
use crate::{metrics::Clients, pki::Pki, user::User};

/// What a client showed of itself.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The TLS client certificate and those behind it. That the client holds the key is proven; whose certificate it is
    /// and who issued it is not.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// The bearer token.
    pub bearer: Option<String>,
}

/// Tells who shows these credentials.
pub trait Authenticator: Send + Sync {
    /// The user; none when the credentials say nothing to this authenticator (no credentials at all is the caller's
    /// to make anonymous).
    ///
    /// # Errors
    /// 401 for credentials that are wrong; anything else that must end the request.
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Option<Arc<User>>, Box<Status>>>;

    /// Whether a request for this path may come without credentials.
    fn takes_anonymous(&self, path: &str) -> bool {
        is_open(path)
    }
}

/// The wall clock, passed in so that tests can set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Whether a path is open to everybody: health and version, and nothing else.
#[must_use]
pub fn is_open(path: &str) -> bool {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ["/healthz", "/livez", "/readyz"].into_iter().any(below) || matches!(path, "/version" | "/version/")
}

/// All authenticators of the server in their order.
pub struct Authenticators {
    x509: x509::X509,
    tokens: Arc<Tokens>,
    issuers: RwLock<Arc<Issuers>>,
    anonymous: Anonymous,
    reloads: Reloads,
    clients: Arc<Clients>,
    store: Store,
    clock: Clock,
}

impl std::fmt::Debug for Authenticators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticators").finish_non_exhaustive()
    }
}

impl Authenticators {
    /// The server's authenticators; whom they let in is counted with `clients`.
    #[must_use]
    pub(crate) fn new(pki: &Arc<Pki>, tokens: Arc<Tokens>, store: Store, clock: Clock, clients: Arc<Clients>) -> Self {
        Self {
            x509: x509::X509::new(pki.clone()),
            tokens,
            issuers: RwLock::new(Arc::new(Issuers::none())),
            anonymous: Anonymous::default(),
            reloads: Reloads::default(),
            clients,
            store,
            clock,
        }
    }

    /// The same, and who else is let in.
    ///
    /// # Errors
    /// All that is wrong with the configuration.
    pub fn with(self, config: oidc::config::Config) -> Result<Self, String> {
        self.exchange_issuers(config.issuers)?;
        Ok(Self { anonymous: config.anonymous, ..self })
    }

    /// From here on the tokens of these issuers are taken, and of none before them.
    ///
    /// # Errors
    /// All that is wrong with them; it stays as it was then.
    fn exchange_issuers(&self, issuers: Vec<oidc::config::Issuer>) -> Result<(), String> {
        let next = self.issuers().instead(issuers, &[self.tokens.issuer().to_owned()])?;
        *self.issuers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    fn issuers(&self) -> Arc<Issuers> {
        Arc::clone(&self.issuers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often the configuration was read again, and what came of it.
    pub(crate) fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// Ends the connections to issuers.
    pub async fn stop(&self) {
        self.issuers().stop().await;
    }

    /// Who shows the bearer token, and which of `audiences` (the server's own when there are none) it is for.
    ///
    /// # Errors
    /// Why it is not valid; for the log and TokenReviews, not for whoever shows it.
    pub async fn bearer(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), String> {
        let now = (self.clock)();
        let user = if bootstrap::looks_like(token) {
            bootstrap::authenticate(&self.store, token, now)?
        } else if legacy::looks_like(token) {
            self.tokens.authenticate_of_secret(token, now)?
        } else if let Some(user) = self.issuers().authenticate(token, now).await? {
            user
        } else {
            return self.tokens.authenticate(token, audiences, now);
        };
        // Tokens that are not the cluster's own know nothing of its audiences: they are for this server.
        let own = self.tokens.audiences();
        let meant =
            own.iter().filter(|own| audiences.is_empty() || audiences.contains(own)).cloned().collect::<Vec<_>>();
        if meant.is_empty() {
            return Err("the token is not for these audiences".to_owned());
        }
        Ok((user, meant))
    }

    async fn decide(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Box<Status>> {
        let mut wrong = false;
        if !credentials.certificates.is_empty() {
            match self.x509.authenticate(&credentials.certificates, (self.clock)()) {
                Ok((user, not_after)) => {
                    let left = not_after.duration_since((self.clock)());
                    self.clients.showed_certificate(left.try_into().unwrap_or_default());
                    self.clients.let_in(&user.name);
                    return Ok(Some(user));
                }
                Err(why) => {
                    wrong = true;
                    tracing::debug!(why, "client certificate refused");
                }
            }
        }
        if let Some(token) = &credentials.bearer {
            match self.bearer(token, &[]).await {
                Ok((user, _)) => {
                    self.clients.let_in(&user.name);
                    return Ok(Some(Arc::new(user)));
                }
                Err(why) => {
                    wrong = true;
                    tracing::debug!(why, "bearer token refused");
                }
            }
        }
        if wrong {
            self.clients.refused();
            return Err(Box::new(Status::unauthorized()));
        }
        Ok(None)
    }
}

impl Authenticator for Authenticators {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Option<Arc<User>>, Box<Status>>> {
        Box::pin(self.decide(credentials))
    }

    fn takes_anonymous(&self, path: &str) -> bool {
        match &self.anonymous {
            Anonymous::Open => is_open(path),
            Anonymous::Everywhere => true,
            Anonymous::At(paths) => paths.iter().any(|own| own == path),
            Anonymous::Nowhere => false,
        }
    }
}

#[cfg(test)]
mod tests;
