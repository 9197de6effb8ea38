//! What lives as long as an answer goes on: while its body is sent, or while the connection is used that it upgrades.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http::Response;
use http_body::{Frame, SizeHint};

/// What lives as long as an upgraded connection does: a response that upgrades one has it among its extensions.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl Kept {
    /// Keeps something until the last byte has been passed on.
    pub(crate) fn keep(&self, something: impl Send + 'static) {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(something));
    }

    /// That of a response that upgrades a connection.
    pub(crate) fn of<T>(response: &Response<T>) -> Option<&Self> {
        response.extensions().get()
    }
}

/// The same answer, which drops `held` when there is no more of it.
pub(crate) fn by<T: Send + Unpin + 'static>(response: Response<Body>, held: T) -> Response<Body> {
    match Kept::of(&response) {
        Some(kept) => {
            kept.keep(held);
            response
        }
        None => response.map(|body| with(body, held)),
    }
}

/// A body, and what is dropped with it.
struct Held<T> {
    body: Body,
    _held: T,
}

/// The same body, which drops `held` when it was sent, or is not sent any further.
fn with<T: Send + Unpin + 'static>(body: Body, held: T) -> Body {
    Body::new(Held { body, _held: held })
}

impl<T: Unpin> http_body::Body for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_held_goes_with_the_body() {
        let held = Arc::new(());
        let whole = with(Body::from("text"), Arc::clone(&held));
        assert_eq!((Arc::strong_count(&held), http_body::Body::size_hint(&whole).exact()), (2, Some(4)));
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "text");
        assert_eq!(Arc::strong_count(&held), 1);
        drop(with(Body::from("text"), Arc::clone(&held)));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn what_is_held_outlives_an_answer_that_upgrades_its_connection() {
        let (held, kept) = (Arc::new(()), Kept::default());
        let mut answer = Response::new(Body::empty());
        answer.extensions_mut().insert(kept.clone());
        drop(by(answer, Arc::clone(&held)));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(kept);
        assert_eq!(Arc::strong_count(&held), 1);
        drop(by(Response::new(Body::empty()), Arc::clone(&held)));
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
