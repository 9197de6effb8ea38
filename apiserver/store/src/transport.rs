//! The way to the other members: handed in, for the store knows neither networks nor certificates.

use crate::peer::MemberId;

/// Carries packets to peers.
///
/// What arrives is handed to [`Store::deliver`](crate::Store::deliver) with the name of the member it came from, which
/// the transport has made sure of.
pub trait Transport: Send + Sync + 'static {
    /// Sends a packet, or drops it: it is sent again, or no longer needed, when the time has come. Never waits.
    fn send(&self, to: MemberId, packet: Vec<u8>);
}

/// For a member that has no peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: MemberId, _: Vec<u8>) {}
}
