//! Authentication: whose request is it?
//!
//! ```text
//!   client certificate ──► x509              name and groups from the subject
//!   bearer a.b.c ────────► service_account   a signed token whose account, pod, secret or node is still there
//!   bearer id.secret ────► bootstrap         a join token, kept as a Secret in kube-system
//!   nothing ─────────────► anonymous         for [`is_open`] paths alone
//! ```
//!
//! **Invariant:** a credential that is wrong is never taken for none: it ends in 401, unless another one beside it is
//! right.

mod bootstrap;
mod service_account;
mod x509;

use std::sync::Arc;

use coracle_proto::status::Status;
use coracle_store::Store;
use futures::future::BoxFuture;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

pub use self::service_account::{Bound, Claims, Reference, Tokens};
use crate::{pki::Pki, user::User};

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
}

/// The wall clock, passed in so that tests can set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Whether a request for this path may come without credentials: health and version, and nothing else.
#[must_use]
pub fn is_open(path: &str) -> bool {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ["/healthz", "/livez", "/readyz"].into_iter().any(below) || matches!(path, "/version" | "/version/")
}

/// All authenticators of the server in their order.
pub struct Authenticators {
    x509: x509::X509,
    tokens: Arc<Tokens>,
    store: Store,
    clock: Clock,
}

impl std::fmt::Debug for Authenticators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticators").finish_non_exhaustive()
    }
}

impl Authenticators {
    /// The server's authenticators.
    #[must_use]
    pub fn new(pki: &Arc<Pki>, tokens: Arc<Tokens>, store: Store, clock: Clock) -> Self {
        Self { x509: x509::X509::new(pki.clone()), tokens, store, clock }
    }

    /// Who shows the bearer token, and which of `audiences` (the server's own when there are none) it is for.
    ///
    /// # Errors
    /// Why it is not valid; for the log and TokenReviews, not for whoever shows it.
    pub fn bearer(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), String> {
        let now = (self.clock)();
        if bootstrap::looks_like(token) {
            // Join tokens are for this server alone.
            let own = self.tokens.audiences();
            if !audiences.is_empty() && !audiences.iter().any(|a| own.contains(a)) {
                return Err("the token is not for these audiences".to_owned());
            }
            return bootstrap::authenticate(&self.store, token, now).map(|user| (user, own.to_vec()));
        }
        self.tokens.authenticate(token, audiences, now)
    }

    fn decide(&self, credentials: &Credentials) -> Result<Option<Arc<User>>, Box<Status>> {
        let mut wrong = false;
        if !credentials.certificates.is_empty() {
            match self.x509.authenticate(&credentials.certificates, (self.clock)()) {
                Ok(user) => return Ok(Some(user)),
                Err(why) => {
                    wrong = true;
                    tracing::debug!(why, "client certificate refused");
                }
            }
        }
        if let Some(token) = &credentials.bearer {
            match self.bearer(token, &[]) {
                Ok((user, _)) => return Ok(Some(Arc::new(user))),
                Err(why) => {
                    wrong = true;
                    tracing::debug!(why, "bearer token refused");
                }
            }
        }
        if wrong { Err(Box::new(Status::unauthorized())) } else { Ok(None) }
    }
}

impl Authenticator for Authenticators {
    fn authenticate<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Option<Arc<User>>, Box<Status>>> {
        Box::pin(std::future::ready(self.decide(credentials)))
    }
}

#[cfg(test)]
mod tests;
