//! What can be wrong with a folder of a model.

use thiserror::Error;

/// What is wrong with a field of a file of a model's folder.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FolderFault {
    /// The field is not there.
    #[error("missing")]
    Missing,
    /// The field holds something else.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What was expected.
        expected: &'static str,
        /// What was found, cut short.
        found: String,
    },
    /// The field says something that is not converted.
    #[error("{found} is not converted; it is for {supported}")]
    Unsupported {
        /// What it says.
        found: String,
        /// What is converted.
        supported: String,
    },
    /// A tensor that models of the architecture do not have.
    #[error("no tensor of the architecture {architecture}")]
    UnknownTensor {
        /// The architecture.
        architecture: &'static str,
    },
    /// What the field points to is outside of the file, or not as large as it says.
    #[error("{expected} bytes are needed, {found} are there")]
    Size {
        /// Bytes needed.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The file is no JSON, or not of the form that it must have.
    #[error("{message}")]
    Syntax {
        /// What the parser said, with line and column.
        message: String,
    },
}
