//! The one error type of this crate.

use thiserror::Error;

/// `Result` with this crate's error.
pub type Result<T, E = QuantError> = std::result::Result<T, E>;

/// What can be wrong with a file of weights, or with what is asked of it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The operating system refused to open or read the file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
