//! Processes run in a container beside its own, and attaching to its own.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use super::{Signal, client::Client};
use crate::{
    error::Error,
    id::SandboxId,
    protocol::{Fds, Reply, Request},
    spec::User,
    sys,
};

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
    sandbox: SandboxId,
    client: Client,
    code: Option<i32>,
}

impl ExecSession {
    pub(super) fn new(sandbox: SandboxId, mut client: Client, fds: Fds) -> io::Result<ExecSession> {
        let ends = Ends::take(&mut client, fds)?;
        Ok(ExecSession {
            stdin: ends.stdin,
            stdout: ends.stdout,
            stderr: ends.stderr,
            terminal: ends.terminal,
            sandbox,
            client,
            code: None,
        })
    }

    /// Changes the terminal's size.
    ///
    /// # Errors
    /// When it has no terminal, or none any more.
    pub async fn resize(&mut self, size: WindowSize) -> Result<(), Error> {
        resize(self.terminal.as_ref(), size)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub async fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        let sent = self.client.send(&Request::ExecSignal { signal: signal.0 }).await;
        sent.map_err(|source| Error::Supervisor { id: self.sandbox.clone(), step: "signal a process", source })
    }

    /// Waits for its end and tells its exit code (128 and the signal's number when a signal ended it).
    ///
    /// # Errors
    /// When the supervisor is gone, as when the sandbox is removed meanwhile.
    ///
    /// # Cancel safety
    /// Safe: may be called again.
    pub async fn wait(&mut self) -> Result<i32, Error> {
        while self.code.is_none() {
            match self.client.receive().await {
                Ok(Reply::Code(code)) => self.code = Some(code),
                // An answer to a signal that came too late.
                Ok(_) => {}
                Err(source) => {
                    return Err(Error::Supervisor { id: self.sandbox.clone(), step: "wait for a process", source });
                }
            }
        }
        Ok(self.code.unwrap_or_default())
    }
}

/// The agent's ends of pipes, as they came with a reply.
struct Ends {
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    terminal: Option<Terminal>,
}

impl Ends {
    fn take(client: &mut Client, fds: Fds) -> io::Result<Ends> {
        let mut take = |there: bool| there.then(|| client.take_fd()).transpose();
        Ok(Ends {
            stdin: take(fds.stdin)?.map(pipe::Sender::from_owned_fd).transpose()?,
            stdout: take(fds.stdout)?.map(pipe::Receiver::from_owned_fd).transpose()?,
            stderr: take(fds.stderr)?.map(pipe::Receiver::from_owned_fd).transpose()?,
            terminal: take(fds.terminal)?.map(Terminal::new).transpose()?,
        })
    }
}

/// A terminal's outer side. Reading gives what the process writes; the end is when no process has it open any more.
#[derive(Debug)]
pub struct Terminal {
    fd: AsyncFd<OwnedFd>,
}

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Terminal> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Terminal { fd: sys::watch(fd)? })
    }

    /// Changes its size; programs in it get SIGWINCH.
    ///
    /// # Errors
    /// What the kernel says, as when the other side is gone.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        sys::set_window_size(&self.fd, size.width, size.height)
    }

    /// Another handle of the same terminal, so that one task can read and another write.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn try_clone(&self) -> io::Result<Terminal> {
        Terminal::new(self.fd.get_ref().try_clone()?)
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
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
    pub(super) fn new(mut client: Client, fds: Fds) -> io::Result<AttachSession> {
        let ends = Ends::take(&mut client, fds)?;
        Ok(AttachSession { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr, terminal: ends.terminal })
    }

    /// Changes the terminal's size.
    ///
    /// # Errors
    /// When it has no terminal, or none any more.
    pub async fn resize(&mut self, size: WindowSize) -> Result<(), Error> {
        resize(self.terminal.as_ref(), size)
    }
}

/// Who takes the terminal out of a session resizes it by [`Terminal::resize`].
fn resize(terminal: Option<&Terminal>, size: WindowSize) -> Result<(), Error> {
    let missing = |why: String| Error::Unsupported { what: "resizing", why };
    let terminal = terminal.ok_or_else(|| missing("the process has no terminal".to_owned()))?;
    terminal.resize(size).map_err(|error| missing(error.to_string()))
}

/// Which of its outputs a process said something on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The usual one, or its terminal.
    Output,
    /// That for errors.
    Error,
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
