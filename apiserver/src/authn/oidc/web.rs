//! Documents of an issuer, fetched within limits of time and size.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use serde::de::DeserializeOwned;

use super::config::Issuer;
use crate::upstream::{
    connect::{Connector, Pool, Protection, Reached, Tasks, Trusted, pool, tls},
    root,
};

/// As large as a document may be.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Whom an issuer's certificates make known, and who vouches for them.
pub(super) struct Web {
    http: Pool<Empty<Bytes>>,
}

impl Web {
    /// What the issuer's certificates are good for; nothing is fetched yet.
    ///
    /// # Errors
    /// Its certificate authority is none.
    pub(super) fn new(issuer: &Issuer, tasks: &Tasks) -> Result<Self, String> {
        let tls = tls(&Trusted::Bundle(issuer.certificate_authority.as_bytes()), None)?;
        let connector = Connector { place: Reached::Uri, protection: Protection::Scheme(tls) };
        Ok(Self { http: pool(tasks, connector) })
    }

    /// A document of JSON.
    ///
    /// # Errors
    /// It cannot be had, or is none.
    pub(super) async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let body = self.get(url, "application/json", None).await?;
        serde_json::from_slice(&body).map_err(|error| format!("Get {url:?}: {error}"))
    }

    /// A text, which may be for the bearer of a token only.
    ///
    /// # Errors
    /// It cannot be had, or is none.
    pub(super) async fn text(&self, url: &str, bearer: Option<&str>) -> Result<String, String> {
        // What is fetched decides who somebody is, and the token is nobody else's to see.
        if !url.starts_with("https://") {
            return Err(format!("endpoint {url:?} must begin with https://"));
        }
        let body = self.get(url, "*/*", bearer).await?;
        String::from_utf8(body.into()).map_err(|_| "could not decode distributed claim response".to_owned())
    }

    /// A document. Redirects are not followed.
    async fn get(&self, url: &str, accept: &'static str, bearer: Option<&str>) -> Result<Bytes, String> {
        let late = |_| Err(format!("Get {url:?}: no answer in time"));
        tokio::time::timeout(LIMIT, self.ask(url, accept, bearer)).await.unwrap_or_else(late)
    }

    async fn ask(&self, url: &str, accept: &'static str, bearer: Option<&str>) -> Result<Bytes, String> {
        let failed = |why: &dyn std::fmt::Display| format!("Get {url:?}: {why}");
        let uri: Uri = url.parse().map_err(|error| failed(&error))?;
        let mut request = Request::get(uri).header(header::ACCEPT, accept);
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|error| failed(&error))?;
        let response = self.http.request(request).await.map_err(|error| failed(&root(&error)))?;
        let code = response.status();
        if !code.is_success() {
            return Err(failed(&code));
        }
        let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await.map_err(|error| failed(&error))?;
        Ok(body.to_bytes())
    }
}
