//! The few things a checkpoint asks of a key-value engine, so that engines can be exchanged and simulated.

use crate::error::Result;

pub(crate) mod sled;

/// Longest value handed to an engine: sled keeps larger pages in files of their own, which it never syncs.
pub(crate) const CHUNK: usize = 4096;

/// One change: a key, and its new value or none to remove it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// Takes a key and its value.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// A key-value engine. Of what was written since the last [`Engine::sync`] any part may survive a power cut, key by key;
/// everything before it does. `testing::engine_suite` says the same in tests.
pub(crate) trait Engine: Send + 'static {
    /// Visits every key with a prefix, in order.
    fn scan(&mut self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()>;
    /// Writes changes.
    fn write(&mut self, changes: &[Change]) -> Result<()>;
    /// Puts everything written on stable storage.
    fn sync(&mut self) -> Result<()>;
    /// Bytes it takes on the disk.
    fn size(&mut self) -> Result<u64>;
    /// From now on everything is written to, and read from, a new and empty one beside it, until [`Engine::replace`], or
    /// until [`Engine::rest`], which gives that one up.
    fn begin_anew(&mut self) -> Result<()>;
    /// The new one, of which everything has been synced, takes the place of the other: at once, and for good.
    fn replace(&mut self) -> Result<()>;
    /// Gives back memory and threads until the next call of another method.
    fn rest(&mut self);
}
