//! The words everyone in Coracle speaks: plain data and pure functions, no I/O and no tokio.

pub mod field;
pub mod meta;
pub mod name;
pub mod patch;
pub mod quantity;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
