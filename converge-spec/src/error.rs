//! The one error type of this crate.

use std::path::PathBuf;

use converge_core::CoreError;
use thiserror::Error;

/// `Result` with this crate's error.
pub type Result<T, E = SpecError> = std::result::Result<T, E>;

/// Everything that can go wrong with a source of drafts.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The two models do not have the same tokens.
    #[error(
        "the draft model's token {id} is {draft:?} and the model's {target:?}: their vocabularies \
         must be the same"
    )]
    Vocabulary {
        /// The first token that differs.
        id: converge_core::TokenId,
        /// Its text in the draft model; empty where it has none.
        draft: String,
        /// Its text in the model; empty where it has none.
        target: String,
    },
    /// A draft model that cannot forget a part of what it read.
    #[error("the draft model can only forget everything at once, so it cannot draft")]
    Forgetful,
    /// The file of earlier texts cannot be read or written.
    #[error("{path}: {source}")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The model.
    #[error(transparent)]
    Core(#[from] CoreError),
}
