//! Kubernetes' protobuf to and from JSON: what typed clients send and like to be answered in.
//!
//! client-go's typed clients, the controllers of many operators and kubectl's commands that are built on them (`create`,
//! `scale`, …) speak protobuf about objects of built-in kinds. A body is `k8s\0` and a `runtime.Unknown` around the object's
//! own message; a watch is a row of `WatchEvent`s, each behind its length. Objects go through messages of the crate
//! prost-reflect in both directions: bytes become a `DynamicMessage` and that becomes JSON, and back, so that everywhere else
//! there is one way of reading and writing objects only.
//!
//! ```text
//!  bytes ──▶ DynamicMessage ──▶ JSON         decode.rs     place.rs: which field the crate could not read
//!  bytes ◀── DynamicMessage ◀── JSON         encode.rs
//!                  ▲
//!            descriptors.rs ◀── table.rs     one file an API group below protobuf/wire/
//!  messages.rs                               envelopes: plain structs of prost's
//! ```
//!
//! # What is the crate's, and what is ours
//! The crate's: which field of which type a message has, by descriptors; all that is on the wire (keys, numbers, lengths, what
//! is to be skipped, whether texts are UTF-8). Ours: that messages within a message are read and written one at a time; where a message's field lies in
//! Kubernetes' JSON, under which name, which zeros JSON leaves out and Go writes all the same, and the messages that are a
//! single value there, such as times and quantities. The descriptors are made of tables of a word a field, when the first
//! message is read or written: they and the names take 6 MB then.
//!
//! # Why no struct a message
//! There are such types (the crate k8s-pb), but they are of an older Kubernetes and would lose twelve fields; they have no
//! serde and know no field's name in JSON, so that each of some thousand messages would need a second mapping beside them;
//! and all of them would be compiled into every binary. They are the judge in the tests instead (`tests/judge.rs`): every
//! field of every table, each with a value of its own, goes through the type of its kind and has to come back.
//!
//! Go's encoder writes zeros of fields that are no pointers although nobody said them. They are written here as well, and
//! left out of JSON where Go's JSON leaves them out, so that an object is the same one whichever way it goes.

use std::borrow::Cow;

mod decode;
mod descriptors;
mod encode;
mod messages;
mod place;
mod table;
mod times;
mod unsaid;

use self::table::message_of;
pub use self::{
    decode::to_json,
    encode::{List, from_json, write_event},
    table::embedded_in,
    times::{WrongTime, may_have_wrong_time, wrong_time},
    unsaid::{drop_unsaid, has_unsaid},
};

/// What every body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// The media type of such bodies, and of what is in them.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// Why bytes are not an object, or an object has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They do not begin as Kubernetes' protobuf does.
    #[error("the body is not Kubernetes' protobuf: it does not begin with k8s\\0")]
    Magic,
    /// They are not protobuf, or not of the kind.
    #[error("{path}: {why}")]
    Malformed {
        /// The field, from the kind's name on where that is known.
        path: String,
        /// What is wrong there.
        why: Cow<'static, str>,
    },
    /// A kind there is no table for.
    #[error("objects of {api_version:?}, kind {kind:?} are not taken as protobuf")]
    UnknownKind {
        /// Its group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

impl Error {
    fn wrong(why: &'static str) -> Self {
        Self::Malformed { path: String::new(), why: Cow::Borrowed(why) }
    }

    /// The same fault, seen from the message that has it in a field of this name.
    fn within(mut self, name: &str) -> Self {
        if let Self::Malformed { path, .. } = &mut self {
            *path = if path.is_empty() { name.to_owned() } else { format!("{name}.{path}") };
        }
        self
    }

    fn unknown(api_version: &str, kind: &str) -> Self {
        Self::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() }
    }
}

/// Whether objects of a kind can be spoken about in protobuf. Those of custom resources cannot.
#[must_use]
pub fn is_spoken(api_version: &str, kind: &str) -> bool {
    message_of(api_version, kind).is_some()
}

#[cfg(test)]
mod tests;
