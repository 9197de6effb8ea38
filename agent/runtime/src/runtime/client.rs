//! One connection to a supervisor, from the agent's side.

use std::{
    collections::VecDeque,
    fs,
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::UnixStream,
};

use crate::{
    protocol::{Reply, Request, Spoken, encode, take_frame},
    state::ContainerStatus,
    sys,
};

/// What a supervisor answers first.
#[derive(Debug)]
pub(super) enum Greeting {
    /// It serves us.
    Status {
        /// Its process id.
        pid: u32,
        /// Its containers.
        containers: Vec<ContainerStatus>,
    },
    /// It does not.
    Stranger(Spoken),
}

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Client {
    /// Connects to the supervisor of a sandbox's directory. The directory is named by descriptor, as a socket's name is
    /// at most 108 bytes long (unix(7)).
    pub(super) async fn connect(directory: &Path) -> io::Result<Client> {
        let directory = fs::File::open(directory)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/sock", directory.as_raw_fd()));
        let stream = UnixStream::connect(path).await?;
        Ok(Client { stream, input: Vec::new(), fds: VecDeque::new() })
    }

    pub(super) async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(&encode(request)?).await
    }

    /// The next reply.
    ///
    /// # Cancel safety
    /// Safe: what was read is kept.
    pub(super) async fn receive(&mut self) -> io::Result<Reply> {
        Ok(serde_json::from_slice(&self.receive_frame().await?)?)
    }

    /// Asks for the status, of a supervisor of any version.
    pub(super) async fn greet(&mut self) -> io::Result<Greeting> {
        self.send(&Request::Status).await?;
        let frame = self.receive_frame().await?;
        if let Some(spoken) = Spoken::read(&frame)
            && !spoken.serves_us()
        {
            return Ok(Greeting::Stranger(spoken));
        }
        match serde_json::from_slice(&frame)? {
            Reply::Status { pid, containers, .. } => Ok(Greeting::Status { pid, containers }),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question")),
        }
    }

    async fn receive_frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(frame) = take_frame(&mut self.input)? {
                return Ok(frame);
            }
            self.stream.readable().await?;
            let Client { stream, input, fds } = self;
            match stream.try_io(Interest::READABLE, || read(stream.as_raw_fd(), input, fds)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends and receives.
    pub(super) async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        self.send(request).await?;
        self.receive().await
    }

    /// The next descriptor that came.
    pub(super) fn take_fd(&mut self) -> io::Result<OwnedFd> {
        self.fds.pop_front().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a descriptor is missing"))
    }
}

fn read(socket: RawFd, input: &mut Vec<u8>, fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut chunk = [0; 16 << 10];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let count = {
        let mut parts = [IoSliceMut::new(&mut chunk)];
        let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(sent) = part {
                fds.extend(sys::adopt(sent));
            }
        }
        message.bytes
    };
    input.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(count)
}
