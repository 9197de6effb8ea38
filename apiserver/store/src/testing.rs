//! What stands in for disk, engine and clients in tests, and the suites that what stands in and the real thing both pass.

mod checkpoints;
mod cluster;
mod engine_suite;
mod faults;
mod model;
mod oracle;
mod seeds;
mod simulation;
mod state;
mod world;
