//! What the server itself does about objects of some kinds: looks at each as it comes, until it stops.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::status_of::Result;

/// After a watch broke for another reason than its age, it is begun anew this much later.
const RETRY: Duration = Duration::from_secs(1);

/// Follows, and again when that ends, until `shutdown`. `what` is what is not seen meanwhile.
///
/// # Cancel safety
/// Dropping the future stops it at once; what was begun is begun anew the next time.
pub(super) async fn keep<F>(what: &'static str, shutdown: &CancellationToken, follow: impl Fn() -> F + Send)
where
    F: Future<Output = Result<()>> + Send,
{
    while !shutdown.is_cancelled() {
        let followed = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            followed = follow() => followed,
        };
        if let Err(status) = followed
            && status.code != 410
        {
            tracing::warn!(kind = what, reason = %status.message, "objects are not seen; they are looked at anew");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}
