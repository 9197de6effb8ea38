//! SPDY/3.1, the server's side: many streams over one connection, as kubectl's port-forward and older clients' exec speak it.
//!
//! ```text
//!   bytes ─▶ frame::Decoder ─▶ session ─▶ Stream (headers, pieces in)
//!   bytes ◀─ frame::Encoder ◀─ session ◀─ Stream (pieces out, end, reset)
//! ```
//!
//! The connection is anything that carries bytes: an upgraded HTTP connection, or a WebSocket that bytes are tunnelled
//! through. What is spoken is draft-mbelshe-httpbis-spdy-00 with the windows of 3.1, as far as Kubernetes' clients use it:
//! they open streams, and never push. Those clients neither keep windows nor grant any; what bounds both sides is then the
//! connection itself, which nobody reads of while what was read before waits. A client that grants windows is kept to them.

mod frame;
mod headers;
mod session;

pub(crate) use self::frame::ResetReason;
pub(crate) use self::headers::Headers;
pub(crate) use self::session::{Closed, Incoming, Inlet, Outlet, Received, Session, Stream, serve};
