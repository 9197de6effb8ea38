//! One agent's connection: frames in, frames and descriptors out, never waiting for the other side.

use std::{
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt::PeerCredentials};

use crate::protocol::{Reply, Request, encode, take_frame};

/// What waits to be sent to a peer that does not read. Beyond it the peer is left: it comes again and asks for the state.
const MAX_WAITING: usize = 1 << 20;

pub(super) type ConnectionId = u64;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    pub(super) subscribed: bool,
    /// The process started on this connection, which ends with it.
    pub(super) exec: bool,
    pub(super) broken: bool,
}

impl Connection {
    /// Takes a peer, if it is root: whoever may ask the supervisor is root in the container's host.
    pub(super) fn accept(id: ConnectionId, stream: UnixStream) -> io::Result<Connection> {
        let peer = getsockopt(&stream, PeerCredentials)?;
        if peer.uid() != 0 {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        stream.set_nonblocking(true)?;
        Ok(Connection {
            id,
            stream,
            input: Vec::new(),
            output: Vec::new(),
            subscribed: false,
            exec: false,
            broken: false,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Reads what is there; the requests in it, in order. A peer that says nonsense is broken.
    pub(super) fn read(&mut self) -> Vec<Result<Request, String>> {
        let mut requests = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.broken = true;
                    break;
                }
                Ok(count) => self.input.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.broken |= error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        loop {
            match take_frame(&mut self.input) {
                Ok(Some(frame)) => {
                    requests.push(serde_json::from_slice(&frame).map_err(|error| error.to_string()));
                }
                Ok(None) => break,
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        requests
    }

    /// Sends, or keeps for later what does not go out at once.
    pub(super) fn send(&mut self, reply: &Reply) {
        self.send_with(reply, &[]);
    }

    /// The same with descriptors, which go with the first byte.
    pub(super) fn send_with(&mut self, reply: &Reply, fds: &[OwnedFd]) {
        let Ok(frame) = encode(reply) else {
            self.broken = true;
            return;
        };
        if fds.is_empty() {
            self.output.extend_from_slice(&frame);
        } else {
            self.flush();
            let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&fds)];
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(&frame)], &rights, flags, None) {
                Ok(count) => self.output.extend_from_slice(frame.get(count..).unwrap_or_default()),
                Err(_) => self.broken = true,
            }
        }
        self.flush();
        self.broken |= self.output.len() > MAX_WAITING;
    }

    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.broken |= error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
        self.output = Vec::new();
    }
}
