//! Processes run in a container beside its own, and attaching to its own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use super::Signal;
use crate::{error::Error, spec::User};
use std::os::fd::OwnedFd;

/// What to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Environment beside the container's own.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory; the container's own when empty.
    #[serde(default)]
    pub cwd: String,
    /// As whom; the container's own user when `None`.
    #[serde(default)]
    pub user: Option<User>,
    /// A terminal instead of pipes.
    #[serde(default)]
    pub tty: bool,
    /// Give it an input; otherwise it is `/dev/null` (with a terminal there always is one).
    #[serde(default)]
    pub stdin: bool,
    /// The terminal's first size.
    #[serde(default)]
    pub size: Option<WindowSize>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// A process in a container, and the ends of its pipes. Dropping it kills the process.
#[derive(Debug)]
pub struct ExecSession {
    /// Its input; dropping it is the end of input. `None` without `stdin` and with a terminal.
    pub stdin: Option<pipe::Sender>,
    /// Its output; `None` with a terminal.
    pub stdout: Option<pipe::Receiver>,
    /// Its error output; `None` with a terminal.
    pub stderr: Option<pipe::Receiver>,
    /// The terminal, for both ways.
    pub terminal: Option<Terminal>,
}

impl ExecSession {
    /// Changes the terminal's size.
    ///
    /// # Errors
    /// When it has no terminal.
    pub async fn resize(&mut self, size: WindowSize) -> Result<(), Error> {
        Err(Error::Unsupported { what: "resize", why: format!("{size:?}") })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub async fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        Err(Error::Unsupported { what: "signal", why: format!("{signal:?}") })
    }

    /// Waits for its end and tells its exit code (128 and the signal's number when a signal ended it).
    ///
    /// # Errors
    /// When the supervisor is gone, as when the sandbox is removed meanwhile.
    ///
    /// # Cancel safety
    /// Safe: may be called again.
    pub async fn wait(&mut self) -> Result<i32, Error> {
        Err(Error::Unsupported { what: "exec", why: "no supervisor".to_owned() })
    }
}

/// A terminal's outer side. Reading gives what the process writes; the end is when no process has it open any more.
#[derive(Debug)]
pub struct Terminal {
    fd: AsyncFd<OwnedFd>,
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = std::task::ready!(self.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| nix::unistd::read(fd.get_ref(), buf.initialize_unfilled()).map_err(io::Error::from))
            {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The kernel says EIO when the last process has closed the inner side (pty(7)): the end, not a fault.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = std::task::ready!(self.fd.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| nix::unistd::write(fd.get_ref(), buf).map_err(io::Error::from)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The ends of a running container's own pipes or terminal. Output from now on; what went before is in the log.
/// Dropping it leaves the container alone.
#[derive(Debug)]
pub struct AttachSession {
    /// Its input, when the container was made with one and no terminal.
    pub stdin: Option<pipe::Sender>,
    /// A copy of its output (of both with a terminal).
    pub stdout: Option<pipe::Receiver>,
    /// A copy of its error output; `None` with a terminal.
    pub stderr: Option<pipe::Receiver>,
    /// The terminal's input side, with a terminal: write and resize, do not read (output comes by `stdout`).
    pub terminal: Option<Terminal>,
}

impl AttachSession {
    /// Changes the terminal's size.
    ///
    /// # Errors
    /// When it has no terminal.
    pub async fn resize(&mut self, size: WindowSize) -> Result<(), Error> {
        Err(Error::Unsupported { what: "resize", why: format!("{size:?}") })
    }
}

/// What a short command in a container said, as for probes and hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code.
    pub code: i32,
    /// Its output and error output as they came, cut at the limit given.
    pub output: Vec<u8>,
    /// How long it ran.
    pub took: Duration,
}
