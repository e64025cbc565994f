//! Which models Converge knows, and where they lie on this machine.
//!
//! The catalogue pins every file by size and SHA-256 and says where it can be fetched from; the
//! fetching itself is not done here: this crate has no network code. [`resolve`] turns a name or a
//! path into a file, [`verify`] holds a file against its checksum.

mod cache;
mod catalogue;
mod error;
mod verify;

pub use cache::{
    CACHE_VARIABLE, PACKED_VARIABLE, Resolved, cache_dir, packed_dir, resolve, resolve_in,
};
pub use catalogue::{Entry, File, Package, Upstream, catalogue, find};
pub use error::HubError;
pub use verify::{sha256, verify};

/// The command that fetches a model by name; the name follows it after a space.
pub const FETCH_COMMAND: &str = "cargo run --release --example fetch --";

#[cfg(test)]
mod tests;
