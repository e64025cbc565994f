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

    /// Bytes of a type that this crate does not decode were to be decoded.
    #[error(
        "there is no decoder for {ggml_type}; supported are {}",
        supported_names()
    )]
    NoDecoder {
        /// The type.
        ggml_type: GgmlType,
    },

    /// Bytes to decode that end inside a block.
    #[error("{bytes} bytes are no whole blocks of {ggml_type} ({block_bytes} bytes each)")]
    PartialBlock {
        /// The type to decode.
        ggml_type: GgmlType,
        /// How many bytes there are.
        bytes: usize,
        /// Bytes of one block.
        block_bytes: usize,
    },

    /// Room for more or fewer numbers than there are to decode.
    #[error("{expected} numbers of type {ggml_type} cannot be decoded into room for {found}")]
    DecodeLength {
        /// The type to decode.
        ggml_type: GgmlType,
        /// Numbers in the bytes given.
        expected: usize,
        /// Numbers the output has room for.
        found: usize,
    },
}

fn supported_names() -> String {
    let names: Vec<&str> = GgmlType::supported().map(GgmlType::name).collect();
    names.join(", ")
}
