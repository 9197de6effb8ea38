//! The server without a socket, for components in the same process.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

use crate::{
    filters::{self, Peer},
    registry::Share,
    server::Inner,
    user::User,
};

/// A `tower` service that answers as the server does, to one user.
#[derive(Clone)]
pub struct Service {
    server: Arc<Inner>,
    user: Arc<User>,
    share: Share,
}

impl Service {
    pub(crate) fn new(server: Arc<Inner>, user: User) -> Self {
        Self { server, user: Arc::new(user), share: Share::Whole }
    }

    /// The same for who reads a few fields of every object that changes: its watches do not tell who owns which fields,
    /// which is half of what a small object weighs.
    #[must_use]
    pub fn without_owners(self) -> Self {
        Self { share: Share::WithoutOwners, ..self }
    }
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = Peer::InProcess(Arc::clone(&self.user));
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.share);
        let (method, clients) = (request.method().clone(), Arc::clone(&self.server.metrics.clients));
        let handled = filters::handle(Arc::clone(&self.server), peer, request);
        Box::pin(async move {
            let begun = Instant::now();
            let response = handled.await;
            clients.answered(&method, response.status(), begun.elapsed());
            Ok(response)
        })
    }
}
