//! Where the tensors come from.

use std::ops::Range;

use crate::gguf::{Gguf, Metadata, TensorSpec};
use crate::{QuantError, Result};

/// A model to quantize, read some rows at a time from several threads.
pub trait Source: Sync {
    /// What the new file will say of the model.
    fn metadata(&self) -> &Metadata;

    /// Its tensors, in any order.
    fn tensors(&self) -> Vec<TensorSpec>;

    /// The bytes of some rows of a tensor, as stored; `buf` becomes exactly these. `tensor` is its
    /// place in [`tensors`](Self::tensors).
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn read_rows(&self, tensor: usize, rows: Range<usize>, buf: &mut Vec<u8>) -> Result<()>;
}

impl Source for Gguf {
    fn metadata(&self) -> &Metadata {
        self.metadata()
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        self.tensors().iter().map(TensorSpec::from).collect()
    }

    fn read_rows(&self, tensor: usize, rows: Range<usize>, buf: &mut Vec<u8>) -> Result<()> {
        let info = self.tensors().get(tensor);
        let info = info.ok_or_else(|| QuantError::MissingTensor {
            path: self.path().to_owned(),
            name: format!("number {tensor}"),
        })?;
        self.read_rows(info, rows, buf)
    }
}
