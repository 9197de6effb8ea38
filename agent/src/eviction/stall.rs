//! Being told when tasks stall for want of memory: the kernel's pressure stall information (its `accounting/psi.rst`).

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What is to be told of: some task stalled for 100 ms in all within a second.
const TRIGGER: &[u8] = b"some 100000 1000000\0";

/// Wakes when tasks stall; never where the kernel does not count it.
pub(super) struct Stalls(Option<AsyncFd<std::fs::File>>);

impl Stalls {
    /// Begins to be told, if the kernel can.
    pub(super) fn watch() -> Self {
        Self(Self::at(Path::new("/proc/pressure/memory")))
    }

    fn at(path: &Path) -> Option<AsyncFd<std::fs::File>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        file.write_all(TRIGGER).ok()?;
        #[expect(
            deprecated,
            reason = "what is deprecated about it are types whose descriptor changes; a File's does not"
        )]
        AsyncFd::with_interest(file, Interest::PRIORITY).ok()
    }

    /// Ends when tasks stall. The kernel tells at most once within the trigger's window.
    pub(super) async fn next(&mut self) {
        if let Some(file) = &self.0 {
            match file.ready(Interest::PRIORITY).await {
                Ok(mut ready) => return ready.clear_ready(),
                // It will not tell any more.
                Err(_) => self.0 = None,
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kernel_that_does_not_tell_is_waited_for_without_end() {
        let mut stalls = Stalls(Stalls::at(Path::new("/nonexistent/pressure")));
        assert!(stalls.0.is_none());
        tokio::select! {
            biased;
            () = stalls.next() => panic!("nothing was to be told"),
            () = tokio::task::yield_now() => {}
        }
    }
}
