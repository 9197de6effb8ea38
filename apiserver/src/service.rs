//! The server without a socket, for components in the same process.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

use crate::{
    filters::{self, Peer},
    server::Inner,
    user::User,
};

/// A `tower` service that answers as the server does, to one user.
#[derive(Clone)]
pub struct Service {
    server: Arc<Inner>,
    user: Arc<User>,
}

impl Service {
    pub(crate) fn new(server: Arc<Inner>, user: User) -> Self {
        Self { server, user: Arc::new(user) }
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
        let handled = filters::handle(Arc::clone(&self.server), peer, request.map(Body::new));
        Box::pin(async move { Ok(handled.await) })
    }
}
