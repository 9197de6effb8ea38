//! What agent and supervisor say to each other: a length in four bytes (little endian), then JSON.
//!
//! A supervisor outlives the agent that started it, so a later agent speaks to an earlier supervisor: variants and fields are
//! only ever added, and what a supervisor does not know it answers with [`Failure::Unsupported`]. After a downgrade an
//! earlier agent meets a later supervisor, which says whom it still serves ([`SERVES_FROM`]).

use std::io;

use serde::{Deserialize, Serialize};

use crate::{
    error::StartError,
    id::ContainerId,
    runtime::ExecSpec,
    spec::ContainerSpec,
    state::{ContainerStatus, Exit},
};

/// The version a supervisor tells in its status: 2 knows [`Request::Attach`]'s `output_only`, which an earlier one ignores,
/// giving the input as well; 3 knows [`Request::ReopenLog`].
pub(crate) const VERSION: u32 = 3;

/// The version of the earliest agent that a supervisor of ours serves. It is raised when something is taken out of the
/// protocol, or means something else: an earlier agent then leaves the supervisor alone.
pub(crate) const SERVES_FROM: u32 = 1;

/// A frame is never longer: an environment is at most a few MiB (execve(2)), the rest is small.
pub(crate) const MAX_FRAME: usize = 16 << 20;

/// What an agent asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Every container; answered with [`Reply::Status`].
    Status,
    /// Answered with [`Reply::Container`] when the program runs.
    Start(Box<ContainerSpec>),
    /// To the first process.
    Signal { container: ContainerId, signal: i32 },
    /// To the first process, the container's own stop signal.
    Stop { container: ContainerId },
    /// Everything in the container.
    Kill { container: ContainerId },
    /// Answered with [`Reply::Exited`] when it has.
    Wait { container: ContainerId },
    /// Drops the record of an exited container.
    Forget { container: ContainerId },
    /// Answered with [`Reply::Exec`] and descriptors, later with [`Reply::Code`]. Closing the connection kills it.
    Exec { container: ContainerId, spec: ExecSpec },
    /// To the process started on this connection.
    ExecSignal { signal: i32 },
    /// Answered with [`Reply::Attached`] and descriptors.
    Attach {
        container: ContainerId,
        /// The client has nothing to say: the input stays for one that has.
        #[serde(default)]
        output_only: bool,
    },
    /// Goes on in a new log file, after the old one was renamed; answered with [`Reply::Done`].
    ReopenLog { container: ContainerId },
    /// Answered with a [`Reply::Container`] for every container now and whenever one changes.
    Subscribe,
    /// Kills everything; answered with [`Reply::Done`] when all is dead, after which the supervisor ends.
    Shutdown,
}

/// What a supervisor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To [`Request::Status`].
    Status {
        version: u32,
        /// [`SERVES_FROM`] of the supervisor; an early one that does not say serves everybody.
        #[serde(default)]
        serves_from: u32,
        pid: u32,
        containers: Vec<ContainerStatus>,
    },
    /// One container.
    Container(ContainerStatus),
    /// To [`Request::Wait`].
    Exited(Exit),
    /// The process runs; which descriptors come along, in this order: stdin, stdout, stderr, terminal.
    Exec { fds: Fds },
    /// The process has ended.
    Code(i32),
    /// To [`Request::Attach`].
    Attached { fds: Fds },
    /// Nothing more to say.
    Done,
    /// It did not happen.
    Failed(Failure),
}

/// Which descriptors come with a reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fds {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) terminal: bool,
}

/// Why it did not happen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound,
    NotRunning,
    Running,
    Start(StartError),
    Unsupported(String),
    Kernel { step: String, message: String },
}

/// A value as a frame.
pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() - 4;
    let header = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(io::ErrorKind::InvalidInput)?;
    if let Some(place) = frame.get_mut(..4) {
        place.copy_from_slice(&header.to_le_bytes());
    }
    Ok(frame)
}

/// What every version of [`Reply::Status`] says, whatever else is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spoken {
    pub(crate) version: u32,
    pub(crate) serves_from: u32,
}

impl Spoken {
    /// Reads it from a frame; `None` when that is no status.
    pub(crate) fn read(frame: &[u8]) -> Option<Spoken> {
        let whole: serde_json::Value = serde_json::from_slice(frame).ok()?;
        let status = whole.get("Status")?;
        let number = |name| status.get(name).and_then(serde_json::Value::as_u64).and_then(|n| u32::try_from(n).ok());
        Some(Spoken { version: number("version")?, serves_from: number("serves_from").unwrap_or(0) })
    }

    /// Whether an agent of this version is served.
    pub(crate) fn serves_us(self) -> bool {
        self.serves_from <= VERSION
    }
}

/// Takes the first whole frame out of what has arrived.
pub(crate) fn take_frame(buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(header) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*header) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let rest = buffer.split_off(4 + length);
    let mut frame = std::mem::replace(buffer, rest);
    frame.drain(..4);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let frames = [encode(&Reply::Done).unwrap(), encode(&Reply::Code(7)).unwrap()];
        let stream: Vec<u8> = frames.concat();
        for cut in 1..stream.len() {
            let mut buffer = Vec::new();
            let mut seen = Vec::new();
            for part in stream.chunks(cut) {
                buffer.extend_from_slice(part);
                while let Some(frame) = take_frame(&mut buffer).unwrap() {
                    seen.push(String::from_utf8(frame).unwrap());
                }
            }
            assert_eq!(seen, ["\"Done\"", "{\"Code\":7}"]);
        }
    }

    #[test]
    fn what_an_earlier_agent_asked_is_still_understood() {
        let asked: Request = serde_json::from_str(r#"{"Attach": {"container": "c1"}}"#).unwrap();
        assert!(matches!(asked, Request::Attach { output_only: false, .. }), "{asked:?}");
    }

    #[test]
    fn who_is_served_is_read_of_any_status() {
        let cases = [
            (r#"{"Status":{"version":1,"pid":7,"containers":[]}}"#, Some((1, true))),
            (
                r#"{"Status":{"version":9,"serves_from":1,"pid":7,"containers":[{"of":"another shape"}]}}"#,
                Some((9, true)),
            ),
            (r#"{"Status":{"version":9,"serves_from":9,"news":true}}"#, Some((9, false))),
            (r#"{"Status":{}}"#, None),
            (r#""Done""#, None),
            ("{", None),
        ];
        for (frame, wanted) in cases {
            let found = Spoken::read(frame.as_bytes()).map(|spoken| (spoken.version, spoken.serves_us()));
            assert_eq!(found, wanted, "{frame}");
        }
        assert!(Spoken { version: VERSION, serves_from: SERVES_FROM }.serves_us());
    }

    #[test]
    fn what_the_first_version_asked_is_still_understood() {
        let asked: Request =
            serde_json::from_str(r#"{"Start":{"name":"c","attempt":0,"layers":["/l"],"argv":["true"]}}"#).unwrap();
        let Request::Start(spec) = asked else { panic!("{asked:?}") };
        assert_eq!((spec.name.as_str(), spec.layers.len(), spec.privileged), ("c", 1, false));
    }

    #[test]
    fn a_frame_that_says_it_is_huge_is_refused_before_it_is_stored() {
        assert!(take_frame(&mut vec![0xff, 0xff, 0xff, 0xff, 0]).is_err());
    }
}
