//! What a file says of a tensor.

use crate::error::{QuantError, Result};
use crate::ggml_type::GgmlType;

/// A tensor of a file: name, type, shape and, privately, its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// How the elements are stored.
    pub ggml_type: GgmlType,
    /// Elements along each dimension, slowest first: a matrix is `[rows, columns]`. GGUF itself
    /// writes the fastest first (`ne[0]` is the row length).
    pub shape: Vec<usize>,
    /// The part of a split file, from 0.
    pub(crate) part: u32,
    /// First byte, from the start of that part.
    pub(crate) offset: u64,
    /// Bytes it takes.
    pub(crate) bytes: usize,
    /// Where its description begins in the header.
    pub(crate) record: u64,
}

impl TensorInfo {
    /// Elements in a row: the last dimension.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows: the product of all dimensions but the last, 1 for a vector.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.elements() / self.cols().max(1)
    }

    /// Elements in all. The product was checked when the file was opened.
    #[must_use]
    pub fn elements(&self) -> usize {
        // Saturating, for the shape is a public field.
        self.shape
            .iter()
            .fold(1, |all, &one| all.saturating_mul(one))
    }

    /// Bytes the tensor takes in the file.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes a row takes in the file: whole blocks.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        (self.cols() / self.ggml_type.block_len()).saturating_mul(self.ggml_type.block_bytes())
    }

    /// First byte of the tensor, from the start of the part that holds it.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The part of a split file that holds the tensor, from 0.
    #[must_use]
    pub fn part(&self) -> usize {
        self.part as usize
    }

    /// Fails for a tensor whose type this crate does not decode.
    ///
    /// # Errors
    /// [`QuantError::UnsupportedType`], which names tensor, type and what is supported.
    pub fn check_supported(&self) -> Result<()> {
        if self.ggml_type.is_supported() {
            return Ok(());
        }
        Err(QuantError::UnsupportedType {
            tensor: self.name.clone(),
            found: self.ggml_type,
        })
    }
}
