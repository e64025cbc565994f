//! The one error type of this crate.

use std::path::PathBuf;

use thiserror::Error;

use crate::ggml_type::GgmlType;

/// `Result` with this crate's error.
pub type Result<T, E = QuantError> = std::result::Result<T, E>;

/// What can be wrong with a file of weights, or with what is asked of it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The operating system refused to open or read the file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A tensor that is not in the file was asked for.
    #[error("{path}: no tensor named {name:?}", path = path.display())]
    MissingTensor {
        /// The file; the first part of a split one.
        path: PathBuf,
        /// The name asked for.
        name: String,
    },

    /// A tensor is stored in a type that this crate does not decode.
    #[error(
        "tensor {tensor:?} is stored as {found}; supported are {}",
        supported_names()
    )]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: GgmlType,
    },
}

fn supported_names() -> String {
    let names: Vec<&str> = GgmlType::supported().map(GgmlType::name).collect();
    names.join(", ")
}
