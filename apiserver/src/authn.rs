//! Authentication: whose request is it?

use coracle_proto::status::Status;
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;

use crate::user::User;

/// What a client showed of itself.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The TLS client certificate and those behind it. That the client holds the key is proven; whose certificate it is
    /// and who issued it is not.
    pub certificates: Vec<CertificateDer<'static>>,
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
    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<Option<User>, Box<Status>>>;
}
