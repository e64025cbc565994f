//! The decoder on the CPU: packed weights, kernels of converge-quant, a KV cache in pages.
//!
//! ```text
//!   token ──► embedding ──► x ─┬─ norm ─► 8 bits ─► q k v ─► turn ─► pages ─► attention ─► 8 bits ─┐
//!                              │◄──────────────────────────────────────────────── output ◄────────┘
//!                              ├─ norm ─► 8 bits ─► gate up ─► gate·up ─► 8 bits ─► down ─┐
//!                              │◄─────────────────────────────────────────────────────────┘ … layers
//!                              └─ norm ─► 8 bits ─► head ─► logits
//! ```
//!
//! It keeps the exactness contract: the logits of a position are the same bits whatever else is in
//! the pass, however the prompt was cut up, on any number of threads and with any instructions.

mod decoder;
mod feed_forward;
#[cfg(feature = "candle")]
#[cfg(test)]
mod load_tests;
#[cfg(feature = "candle")]
#[cfg(test)]
mod tests;
mod weights;

use std::{num::NonZeroUsize, ops::ControlFlow, sync::Arc};

use converge_quant::{
    Gguf, Level, Matrices, PackedStore, PackedWriting, Pool, QuantError,
    kernels::{Heads, KvType},
};

pub use decoder::CpuDecoder;

use crate::{CoreError, Progress, Result, cache::Arena, generate::Cancel, model::DecoderSpec};
use weights::Weights;

/// How to load a model.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Positions that a KV cache may grow to; at most what the model was trained for.
    pub context: usize,
    /// Threads that compute; `None` for as many as the machine has cores.
    pub threads: Option<NonZeroUsize>,
    /// The instructions that kernels use; `None` for those that [`Level::detect`] finds.
    pub level: Option<Level>,
    /// The most bytes that the KV caches of all decoders take together; `None` for a full context
    /// and [`CACHE_BYTES`](CpuModel::CACHE_BYTES) more.
    pub cache_bytes: Option<usize>,
    /// How the KV cache stores its numbers.
    pub kv: KvType,
    /// Whether each thread but the caller's keeps to a core of its own ([`Pool::pinned`]).
    pub pin: bool,
    /// Where packed weights are kept, so that the model need not be packed again the next time:
    /// about as many bytes as its file. `None` keeps none.
    pub packed: Option<PackedStore>,
    /// Is told how much of the model is loaded.
    pub progress: Option<Progress>,
    /// Ends the loading.
    pub cancel: Cancel,
}

impl Default for CpuOptions {
    /// 4096 positions, all cores, the fastest instructions; nothing kept on disk.
    fn default() -> Self {
        Self {
            context: 4096,
            threads: None,
            level: None,
            cache_bytes: None,
            kv: KvType::F16,
            pin: false,
            packed: None,
            progress: None,
            cancel: Cancel::new(),
        }
    }
}

/// A model's weights, packed, and the threads that compute with them. Clones and decoders share
/// both.
#[derive(Clone)]
pub struct CpuModel {
    shared: Arc<Shared>,
}

struct Shared {
    /// Ends before all else goes.
    writing: Option<PackedWriting>,
    spec: DecoderSpec,
    weights: Weights,
    pool: Pool,
    level: Level,
    context: usize,
    arena: Arc<Arena>,
}

impl CpuModel {
    /// Bytes that KV caches may take beside one full context, unless told otherwise: what earlier
    /// requests and other sessions hold.
    pub const CACHE_BYTES: usize = 512 << 20;

    /// Reads and packs the weights of a file.
    ///
    /// # Errors
    /// Those of [`DecoderSpec::from_gguf`];
    /// [`ModelParameter`](CoreError::ModelParameter) for a context of 0 or beyond the trained one;
    /// the reader's errors; [`NoKernel`](converge_quant::QuantError::NoKernel) for a type of
    /// weights that there are no kernels for; those of [`Level::detect`], [`Level::checked`] and
    /// [`Pool::pinned`]; [`Cancelled`](CoreError::Cancelled).
    pub fn load(gguf: &Gguf, options: &CpuOptions) -> Result<Self> {
        let level = options.level.map_or_else(Level::detect, Level::checked)?;
        let spec = DecoderSpec::from_gguf(gguf)?;
        if options.context == 0 || options.context > spec.trained_context {
            return Err(CoreError::ModelParameter {
                key: "context".to_owned(),
                found: options.context.to_string(),
                expected: format!("1 to {}, the trained context", spec.trained_context),
            });
        }
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = options.threads.map_or_else(cores, NonZeroUsize::get);
        let pool = match options.pin {
            true => Pool::pinned(threads)?,
            false => Pool::new(threads),
        };
        let mut tell = |done, total| {
            if let Some(progress) = &options.progress {
                progress.tell(done, total);
            }
            match options.cancel.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let mut matrices = Matrices::new(gguf, options.packed.as_ref(), &mut tell);
        let weights = match Weights::load(&mut matrices, &spec, options.context) {
            Err(CoreError::Quant(QuantError::Cancelled)) => return Err(CoreError::Cancelled),
            weights => weights?,
        };
        let writing = matrices.finish();
        let heads = Heads::new(spec.heads, spec.kv_heads, spec.head_size)?.stored_as(options.kv);
        let windows: Vec<_> = spec.layers.iter().map(|layer| layer.window).collect();
        let full = Arena::full(heads, &windows, options.context);
        let cache_bytes = options
            .cache_bytes
            .unwrap_or(full.saturating_add(Self::CACHE_BYTES));
        Ok(Self {
            shared: Arc::new(Shared {
                arena: Arc::new(Arena::new(
                    weights::fingerprint(gguf)?,
                    heads,
                    windows,
                    cache_bytes,
                )),
                writing,
                weights,
                pool,
                level,
                context: options.context,
                spec,
            }),
        })
    }

    /// What the model is.
    pub fn spec(&self) -> &DecoderSpec {
        &self.shared.spec
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.shared.pool.threads()
    }

    /// Bytes that the packed weights take.
    pub fn weight_bytes(&self) -> usize {
        self.shared.weights.bytes()
    }

    /// Returns when packed weights that are being written for the next time are on the disk; at once
    /// where none are. Without it a model that is dropped soon leaves none.
    pub fn settle(&self) {
        if let Some(writing) = &self.shared.writing {
            writing.wait();
        }
    }

    /// What the KV caches of all its decoders take, and may take.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.shared.arena
    }

    /// A decoder with an empty KV cache over these weights.
    pub fn decoder(&self) -> CpuDecoder {
        CpuDecoder::new(self.clone())
    }
}

impl std::fmt::Debug for CpuModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuModel")
            .field("architecture", &self.shared.spec.architecture)
            .field("layers", &self.shared.spec.layers.len())
            .field("context", &self.shared.context)
            .finish_non_exhaustive()
    }
}
