//! The one error type of this crate.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::ggml_type::GgmlType;
use crate::gguf::{Fault, Field};
use crate::quantize::Recipe;
use crate::simd::Level;

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

    /// The operating system refused to write the file. Nothing is left of it.
    #[error("{path}: cannot be written{}: {source}", room(*needed), path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Bytes that it takes, 0 where it is not known yet.
        needed: u64,
        /// What the system said.
        source: std::io::Error,
    },

    /// More or fewer bytes were given for a tensor of a file to be written than it takes.
    #[error("tensor {tensor:?}: {expected} bytes must follow, given were {found}")]
    TensorBytes {
        /// The tensor.
        tensor: String,
        /// Bytes that are missing.
        expected: usize,
        /// Bytes given.
        found: usize,
    },

    /// The caller stopped the work.
    #[error("stopped")]
    Cancelled,

    /// The path leads to a directory, a pipe or a device.
    #[error("{path}: not a regular file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },

    /// The file breaks the GGUF format, or the limits set for it.
    #[error("{path}: byte {offset}: {field}: {fault}", path = path.display())]
    Malformed {
        /// The file; of a split one, the part.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What stands there.
        field: Field,
        /// What is wrong with it.
        fault: Fault,
    },

    /// A part of a split file is not beside the others.
    #[error("{path}: missing; the model has {parts} parts, all are needed in one directory", path = path.display())]
    MissingPart {
        /// The part looked for.
        path: PathBuf,
        /// How many there should be.
        parts: u32,
    },

    /// A part of a split file was renamed, so that the others cannot be found.
    #[error("{path}: a part of a split model, its name must end in {expected:?}", path = path.display())]
    PartName {
        /// The file.
        path: PathBuf,
        /// How its name must end.
        expected: String,
    },

    /// A metadata key that is needed is not in the file.
    #[error("no metadata {key:?}")]
    MissingKey {
        /// The key.
        key: String,
    },

    /// A metadata value has another type than the one asked for.
    #[error("metadata {key:?}: expected {expected}, found {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What the file has.
        found: &'static str,
    },

    /// A metadata integer does not fit the type asked for.
    #[error("metadata {key:?}: expected {expected}, found {found}")]
    OutOfRange {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What the file has.
        found: i128,
    },

    /// A metadata key was given twice.
    #[error("metadata {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },

    /// A tensor that is not in the file was asked for.
    #[error("{path}: no tensor named {name:?}", path = path.display())]
    MissingTensor {
        /// The file; the first part of a split one.
        path: PathBuf,
        /// The name asked for.
        name: String,
    },

    /// A tensor's description does not belong to the file it is read from.
    #[error("tensor {tensor:?} is not of this file")]
    ForeignTensor {
        /// The tensor.
        tensor: String,
    },

    /// Rows were asked for that a tensor does not have.
    #[error("tensor {tensor:?}: rows {start}..{end} of {rows}")]
    RowRange {
        /// The tensor.
        tensor: String,
        /// First row asked for.
        start: usize,
        /// Row after the last asked for.
        end: usize,
        /// Rows it has.
        rows: usize,
    },

    /// The memory for a tensor could not be had.
    #[error("tensor {tensor:?}: no memory for {bytes} bytes")]
    OutOfMemory {
        /// The tensor.
        tensor: String,
        /// Bytes asked for.
        bytes: usize,
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

    /// A matrix was to be packed whose type has no kernels.
    #[error("there are no kernels for weights of type {ggml_type}")]
    NoKernel {
        /// The type.
        ggml_type: GgmlType,
    },

    /// More or fewer bytes than a matrix has.
    #[error("{found} bytes are no {rows} rows of {cols} elements of type {ggml_type}")]
    MatrixBytes {
        /// The type.
        ggml_type: GgmlType,
        /// Rows named.
        rows: usize,
        /// Elements of a row named.
        cols: usize,
        /// Bytes given.
        found: usize,
    },

    /// A row was asked for that a matrix does not have.
    #[error("row {row} of a matrix of {rows} rows")]
    MatrixRow {
        /// The row asked for.
        row: usize,
        /// Rows it has.
        rows: usize,
    },

    /// The environment asks for instructions of an unknown name.
    #[error("{variable} is {found:?}; this machine has {}", level_names())]
    UnknownLevel {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        found: String,
    },

    /// Kernels were to use instructions that this machine lacks.
    #[error("this machine has no {}; it has {}", level.name(), level_names())]
    NoSuchInstructions {
        /// What was asked for.
        level: Level,
    },

    /// Threads cannot be kept on cores of their own.
    #[error("{threads} threads cannot each have a core of their own: {source}")]
    Pin {
        /// Threads asked for.
        threads: usize,
        /// What is in the way.
        source: std::io::Error,
    },

    /// Heads that attention cannot have.
    #[error(
        "{heads} query heads, {kv_heads} of keys and values, {size} elements each: none may be 0, \
         and query heads are a multiple of the others"
    )]
    Heads {
        /// Query heads.
        heads: usize,
        /// Heads of keys and values.
        kv_heads: usize,
        /// Elements of each.
        size: usize,
    },

    /// Operands of a kernel do not fit each other.
    #[error("{operand}: expected {expected} numbers, found {found}")]
    OperandLength {
        /// Which operand.
        operand: &'static str,
        /// Numbers that fit.
        expected: usize,
        /// Numbers given.
        found: usize,
    },

    /// Numbers were to be encoded in a type that this crate does not encode.
    #[error("there is no encoder for {ggml_type}")]
    NoEncoder {
        /// The type.
        ggml_type: GgmlType,
    },

    /// Numbers to encode that end inside a block.
    #[error("{numbers} numbers are no whole blocks of {ggml_type} ({block_len} numbers each)")]
    PartialRow {
        /// The type to encode.
        ggml_type: GgmlType,
        /// How many numbers there are.
        numbers: usize,
        /// Numbers of one block.
        block_len: usize,
    },

    /// A number that a type cannot hold: infinite, no number, or too large.
    #[error("number {position} is {value}: {ggml_type} cannot hold it")]
    Unencodable {
        /// The type to encode.
        ggml_type: GgmlType,
        /// Which of the numbers.
        position: usize,
        /// The number.
        value: f32,
    },

    /// A weight that the type of its tensor cannot hold.
    #[error("tensor {tensor:?}: row {row}, column {column} is {value}: {ggml_type} cannot hold it")]
    UnencodableWeight {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
        /// The type to encode.
        ggml_type: GgmlType,
        /// The number.
        value: f32,
    },

    /// A tensor to quantize is quantized already.
    #[error("tensor {tensor:?} is quantized already, as {found}: errors would add up")]
    Requantize {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: GgmlType,
    },

    /// No recipe has this name.
    #[error("there is no recipe {name:?}; there are {}", recipe_names())]
    UnknownRecipe {
        /// The name given.
        name: String,
    },

    /// A model's folder has something that is missing, wrong, or not converted.
    #[cfg(feature = "safetensors")]
    #[error("{path}: {field}: {fault}", path = path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// The field or the tensor.
        field: String,
        /// What is wrong with it.
        fault: crate::hf::FolderFault,
    },

    /// candle could not take over a tensor.
    #[cfg(feature = "candle")]
    #[error("tensor {tensor:?}: {source}")]
    Candle {
        /// The tensor.
        tensor: String,
        /// What candle said.
        source: Box<candle_core::Error>,
    },
}

impl QuantError {
    /// The error, told of another path: of the file that a partial one was to become.
    pub(crate) fn at_path(mut self, to: &Path) -> Self {
        if let Self::Io { path, .. } | Self::Malformed { path, .. } | Self::PartName { path, .. } =
            &mut self
        {
            to.clone_into(path);
        }
        self
    }
}

fn room(needed: u64) -> String {
    match needed {
        0 => String::new(),
        _ => format!(", it takes {needed} bytes"),
    }
}

fn recipe_names() -> String {
    let names: Vec<&str> = Recipe::ALL.iter().map(|recipe| recipe.name()).collect();
    names.join(", ")
}

fn level_names() -> String {
    let names: Vec<&str> = Level::available().map(Level::name).collect();
    names.join(", ")
}

fn supported_names() -> String {
    let names: Vec<&str> = GgmlType::supported().map(GgmlType::name).collect();
    names.join(", ")
}
