//! The matrices of a model, one after the other: from a file of packed weights where there is one,
//! else packed.

use std::ops::{ControlFlow, Range};

use super::{
    Packed, PackedStore, PackedWriting,
    file::{Fault, PackedFile, Slot},
    key::Key,
    store::passed_over,
};
use crate::{Gguf, QuantError, Result, TensorInfo};

/// Loads the matrices of a GGUF file, and says how far it is.
///
/// ```no_run
/// use std::{ops::ControlFlow, path::Path};
/// use converge_quant::{Gguf, Matrices, PackedMode, PackedStore};
///
/// # fn main() -> Result<(), converge_quant::QuantError> {
/// let gguf = Gguf::open("model.gguf")?;
/// let store = PackedStore::new(Path::new("packed"), PackedMode::Read);
/// let mut tell = |done: u64, all: u64| {
///     println!("{done} of {all} bytes");
///     ControlFlow::Continue(())
/// };
/// let mut matrices = Matrices::new(&gguf, Some(&store), &mut tell);
/// let query = matrices.load(gguf.tensor("blk.0.attn_q.weight")?, 0..1536)?;
/// // … and when all are there, they are kept for the next time, in the background.
/// let writing = matrices.finish();
/// # drop((query, writing));
/// # Ok(())
/// # }
/// ```
pub struct Matrices<'a> {
    gguf: &'a Gguf,
    store: Option<(&'a PackedStore, Key)>,
    /// What they are read from, as long as it is good.
    file: Option<PackedFile>,
    /// All that was loaded, where it may have to be written.
    loaded: Vec<(Slot, Packed)>,
    tell: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    done: u64,
    total: u64,
}

impl<'a> Matrices<'a> {
    /// Those of `gguf`, from a file of `store` where there is one. `tell` is told the bytes of
    /// tensors that are loaded and that there are, after every 32 MB and every matrix, and can stop
    /// the work.
    pub fn new(
        gguf: &'a Gguf,
        store: Option<&'a PackedStore>,
        tell: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Self {
        let store = store.and_then(|store| match Key::of(gguf) {
            Ok(key) => Some((store, key)),
            Err(error) => {
                tracing::warn!(%error, "weights are not kept");
                None
            }
        });
        Self {
            file: store.as_ref().and_then(|(store, key)| store.find(key)),
            total: gguf.tensors().iter().map(|info| info.bytes as u64).sum(),
            gguf,
            store,
            loaded: Vec::new(),
            tell,
            done: 0,
        }
    }

    /// The file that they are of.
    #[must_use]
    pub fn gguf(&self) -> &'a Gguf {
        self.gguf
    }

    /// Rows of a tensor, packed.
    ///
    /// # Errors
    /// As [`Packed::load`]; [`QuantError::Cancelled`] where that was asked for.
    pub fn load(&mut self, info: &TensorInfo, rows: Range<usize>) -> Result<Packed> {
        let packed = match self.read(info, &rows)? {
            Some(packed) => packed,
            None => {
                let (done, total, tell) = (self.done, self.total, &mut self.tell);
                let mut tell = |bytes: usize| tell(total.min(done + bytes as u64), total);
                Packed::load_telling(self.gguf, info, rows.clone(), &mut tell)?
            }
        };
        let bytes = rows.len().saturating_mul(info.row_bytes());
        self.done = self.total.min(self.done.saturating_add(bytes as u64));
        if self.store.is_some() {
            self.loaded.push((Slot::new(info, &rows), packed.clone()));
        }
        Ok(packed)
    }

    /// From the file of packed weights; one that fails once is not used again.
    fn read(&mut self, info: &TensorInfo, rows: &Range<usize>) -> Result<Option<Packed>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let (done, total, tell) = (self.done, self.total, &mut self.tell);
        let mut tell = |bytes: usize| tell(total.min(done + bytes as u64), total);
        match file.load(info, rows, &mut tell) {
            Ok(packed) => Ok(Some(packed)),
            Err(Fault::Quant(QuantError::Cancelled)) => Err(QuantError::Cancelled),
            Err(fault) => {
                passed_over(file.path(), &fault);
                self.file = None;
                Ok(None)
            }
        }
    }

    /// All are loaded. What was packed is written to the store by a thread in the background, which
    /// leaves the processor to all others; the caller decides how long it may.
    pub fn finish(self) -> Option<PackedWriting> {
        // What is asked of the last call is not worth throwing all away.
        let _ = (self.tell)(self.total, self.total);
        let (store, key) = self.store?;
        match self.file {
            Some(_) => None,
            None => PackedWriting::begin(store.folder().clone(), key, self.gguf, self.loaded),
        }
    }
}

impl std::fmt::Debug for Matrices<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matrices")
            .field("file", &self.file)
            .field("done", &self.done)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
