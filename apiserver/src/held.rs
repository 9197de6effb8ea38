//! Bodies of answers that go on for long, with what lives as long as they are sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};

/// A body, and what is dropped with it.
struct Held<T> {
    body: Body,
    _held: T,
}

/// The same body, which drops `held` when it was sent, or is not sent any further.
pub(crate) fn with<T: Send + Unpin + 'static>(body: Body, held: T) -> Body {
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
    use std::sync::Arc;

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
}
