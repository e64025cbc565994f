//! What can be wrong inside a GGUF file, and where.

use std::fmt;

use thiserror::Error;

use crate::ggml_type::GgmlType;

/// The field of a GGUF file that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The four bytes `GGUF`.
    Magic,
    /// The format's version.
    Version,
    /// The number of tensors.
    TensorCount,
    /// The number of metadata entries.
    MetadataCount,
    /// The key of a metadata entry.
    Key {
        /// Position of the entry, from 0.
        index: u64,
    },
    /// The type or the value of a metadata entry.
    Value {
        /// The entry's key.
        key: String,
    },
    /// The name of a tensor.
    TensorName {
        /// Position of the tensor, from 0.
        index: u64,
    },
    /// The number of dimensions, or a dimension, of a tensor.
    TensorShape {
        /// The tensor.
        tensor: String,
    },
    /// The type of a tensor.
    TensorType {
        /// The tensor.
        tensor: String,
    },
    /// Where a tensor's bytes begin.
    TensorOffset {
        /// The tensor.
        tensor: String,
    },
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "magic"),
            Self::Version => write!(f, "version"),
            Self::TensorCount => write!(f, "tensor count"),
            Self::MetadataCount => write!(f, "metadata count"),
            Self::Key { index } => write!(f, "key of metadata entry {index}"),
            Self::Value { key } => write!(f, "metadata {key:?}"),
            Self::TensorName { index } => write!(f, "name of tensor {index}"),
            Self::TensorShape { tensor } => write!(f, "shape of tensor {tensor:?}"),
            Self::TensorType { tensor } => write!(f, "type of tensor {tensor:?}"),
            Self::TensorOffset { tensor } => write!(f, "offset of tensor {tensor:?}"),
        }
    }
}

/// What is wrong with a field of a GGUF file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The file ends inside the field, or the length it states is more than the file holds.
    #[error("needs {needed} bytes, the file has {left} left")]
    Truncated {
        /// Bytes the field takes; `u64::MAX` where the number does not fit.
        needed: u64,
        /// Bytes from the field to the end of the file.
        left: u64,
    },
    /// The file does not begin with `GGUF`.
    #[error("not a GGUF file: it begins with {:?}", String::from_utf8_lossy(found))]
    BadMagic {
        /// What it begins with.
        found: [u8; 4],
    },
    /// The file was written for a big-endian machine.
    #[error("version {version} in big-endian byte order; only little-endian files are read")]
    BigEndian {
        /// The version, read as big-endian.
        version: u32,
    },
    /// Neither version 2 nor 3.
    #[error("version {found} is not supported; supported are 2 and 3")]
    UnsupportedVersion {
        /// The version stated.
        found: u32,
    },
    /// More than [`Limits`](super::Limits) allow.
    #[error("{found} is more than the limit `{limit}` of {allowed}")]
    OverLimit {
        /// The field of [`Limits`](super::Limits).
        limit: &'static str,
        /// What it allows.
        allowed: u64,
        /// What the file asks for.
        found: u64,
    },
    /// The memory for a field could not be had.
    #[error("no memory for {bytes} bytes")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
    },
    /// A code that stands for no metadata type.
    #[error("unknown value type {code}")]
    UnknownValueType {
        /// The code.
        code: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("a boolean is 0 or 1, found {found}")]
    InvalidBool {
        /// The byte.
        found: u8,
    },
    /// Text that is not UTF-8.
    #[error("not UTF-8 after {valid_bytes} bytes")]
    NotUtf8 {
        /// Bytes up to the first that is wrong.
        valid_bytes: u64,
    },
    /// A key that occurred before.
    #[error("the key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A key that the format asks for is not there.
    #[error("missing")]
    MissingKey,
    /// A value that the format itself reads has the wrong type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// A value disagrees with the other parts of a split file, or with what they hold together.
    #[error("expected {expected}, found {found}")]
    Mismatch {
        /// What the other parts say.
        expected: u64,
        /// What this one says.
        found: u64,
    },
    /// An alignment that is not a power of two.
    #[error("an alignment is a power of two, found {found}")]
    InvalidAlignment {
        /// The value.
        found: u64,
    },
    /// A tensor without dimensions.
    #[error("no dimensions")]
    NoDimensions,
    /// A tensor with a dimension of 0.
    #[error("dimension {index} is 0")]
    ZeroDimension {
        /// Position of the dimension in the file, from 0.
        index: u32,
    },
    /// The number of elements, bytes, or the end of a tensor does not fit in 64 bits.
    #[error("the size of the tensor does not fit in 64 bits")]
    SizeOverflow,
    /// A code that stands for no tensor type.
    #[error("unknown tensor type {code}")]
    UnknownTensorType {
        /// The code.
        code: u32,
    },
    /// Rows that are not whole blocks.
    #[error("rows of {row} elements are not whole blocks of {ggml_type} ({} elements)", ggml_type.block_len())]
    PartialBlock {
        /// The tensor's type.
        ggml_type: GgmlType,
        /// Elements in a row.
        row: u64,
    },
    /// A tensor that begins off the file's alignment.
    #[error("offset {offset} is not a multiple of the alignment {alignment}")]
    Unaligned {
        /// Offset from the start of the tensor data.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor that reaches beyond the end of the file.
    #[error("the tensor ends at byte {end} of a file of {len}")]
    OutOfFile {
        /// First byte after the tensor.
        end: u64,
        /// Length of the file.
        len: u64,
    },
    /// A tensor that shares bytes with another.
    #[error("overlaps tensor {other:?}")]
    Overlap {
        /// The other tensor.
        other: String,
    },
    /// A tensor's name that occurred before.
    #[error("the tensor {tensor:?} occurs twice")]
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
}
