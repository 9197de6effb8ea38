//! Attaching to a container's own streams.

use std::io;

use nix::poll::PollFlags;

use super::{Supervisor, kernel};
use crate::{
    id::ContainerId,
    protocol::{Failure, Fds, Reply},
    state::ContainerState,
    supervisor::{
        connection::ConnectionId,
        tap::{MAX_TAPS, Tap},
    },
};

/// What is waited for of an attached client: that it takes more, or only that it goes.
pub(super) fn wanted(tap: &Tap) -> PollFlags {
    if tap.is_behind() { PollFlags::POLLOUT } else { PollFlags::empty() }
}

impl Supervisor {
    /// Gives copies of the container's ends. Input is shared by everybody attached, as a terminal is.
    pub(super) fn attach(
        &mut self,
        from: ConnectionId,
        id: &ContainerId,
        output_only: bool,
    ) -> Result<Option<Reply>, Failure> {
        let failed = |error: io::Error| kernel("attach", &error);
        let place = self.place_of(id).ok_or(Failure::NotFound)?;
        let container = self.containers.get_mut(place).ok_or(Failure::NotFound)?;
        if !matches!(container.status.state, ContainerState::Running { .. }) {
            return Err(Failure::NotRunning);
        }
        let mut kinds = Fds::default();
        let mut fds = Vec::new();
        if container.outputs.iter().any(|output| output.taps.len() >= MAX_TAPS) {
            let message = format!("{MAX_TAPS} clients are attached already");
            return Err(Failure::Kernel { step: "attach".to_owned(), message });
        }
        if !output_only {
            if let Some(stdin) = &container.stdin {
                kinds.stdin = true;
                fds.push(stdin.try_clone().map_err(failed)?);
            }
            if container.spec.stdin_once {
                // The client's copy is then the last: when it leaves, the container reads the end.
                container.stdin = None;
            }
        }
        let tty = container.spec.tty;
        for output in &mut container.outputs {
            let (theirs, ours) = Tap::open().map_err(|error| failed(error.into()))?;
            output.taps.push(ours);
            fds.push(theirs);
            if output.is_stderr() {
                kinds.stderr = true;
            } else {
                kinds.stdout = true;
            }
        }
        if tty && let Some(output) = container.outputs.first() {
            kinds.terminal = true;
            fds.push(output.fd.try_clone().map_err(failed)?);
        }
        self.answer_with(from, &Reply::Attached { fds: kinds }, &fds);
        Ok(None)
    }
}
