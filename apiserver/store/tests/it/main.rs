//! The store as its users see it: a real directory, a real thread, a real process.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod frugal;
#[cfg(test)]
mod full;
#[cfg(test)]
mod kill;
#[cfg(test)]
#[path = "../../src/testing/oracle.rs"]
mod oracle;
#[cfg(test)]
mod power;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod transactions;
