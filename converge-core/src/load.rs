//! From a file to a session in one call.

use std::{fmt, num::NonZeroUsize, path::Path, sync::Arc};

use converge_quant::{Gguf, PackedStore, kernels::KvType};

#[cfg(feature = "candle")]
use crate::backend::candle::{AdaptedDecoder, CandleModel, CandleOptions, WeightMode};
use crate::{
    CoreError, Result,
    backend::cpu::{CpuModel, CpuOptions},
    chat::ChatTemplate,
    generate::{Cancel, Session},
    model::Decoder,
    tokenizer::Tokenizer,
};

/// The engine that computes a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Backend {
    /// Our own kernels on the CPU: exact, the fastest there.
    #[default]
    Cpu,
    /// candle on any of its devices.
    #[cfg(feature = "candle")]
    Candle {
        /// How weights are held.
        mode: WeightMode,
        /// Where the model is computed.
        device: candle_core::Device,
    },
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Positions that the context may have; at most what the model was trained for.
    pub context: usize,
    /// Threads of the CPU engine; `None` for as many as the machine has cores. candle takes its
    /// own from the environment.
    pub threads: Option<NonZeroUsize>,
    /// The most bytes that the KV caches of all sessions take together, those of earlier requests
    /// included; `None` for a full context and half a gigabyte more. Of the CPU engine only.
    pub cache_bytes: Option<usize>,
    /// How the KV cache stores its numbers: in half precision, or in little more than half of that
    /// memory with some loss. Of the CPU engine only.
    pub kv: KvType,
    /// Whether each thread but the caller's keeps to a core of its own
    /// ([`Pool::pinned`](converge_quant::Pool::pinned)). Of the CPU engine only.
    pub pin: bool,
    /// Where packed weights are kept, so that the model need not be packed again the next time:
    /// about as many bytes as its file. `None` keeps none. Of the CPU engine only.
    pub packed: Option<PackedStore>,
    /// Is told how much of the model is loaded. Of the CPU engine only.
    pub progress: Option<Progress>,
    /// Ends the loading. Of the CPU engine only.
    pub cancel: Cancel,
    /// The engine.
    pub backend: Backend,
}

/// What is told how much of a model is loaded: bytes of its tensors, and how many there are.
///
/// It is called by the thread that loads, after every 32 MB and every matrix, and should be quick.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(u64, u64) + Send + Sync>);

impl Progress {
    /// Calls `tell` with the bytes done and the bytes in all.
    pub fn new(tell: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(crate) fn tell(&self, done: u64, total: u64) {
        (self.0)(done, total);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Default for LoadOptions {
    /// 4096 positions, on all cores of the CPU; nothing kept on disk.
    fn default() -> Self {
        Self {
            context: 4096,
            threads: None,
            cache_bytes: None,
            kv: KvType::F16,
            pin: false,
            packed: None,
            progress: None,
            cancel: Cancel::new(),
            backend: Backend::default(),
        }
    }
}

impl LoadOptions {
    /// candle keeps keys and values as it likes.
    #[cfg(feature = "candle")]
    fn without_kv_type(&self) -> Result<()> {
        match self.kv {
            KvType::F16 => Ok(()),
            kv => Err(CoreError::ModelParameter {
                key: "the KV cache's type".to_owned(),
                found: format!("{kv:?}"),
                expected: "F16, as the model runs through candle".to_owned(),
            }),
        }
    }

    /// Loads the decoder alone. What has no description here runs through candle-transformers,
    /// whatever the backend ([`ADAPTED`](crate::backend::candle::ADAPTED)).
    ///
    /// # Errors
    /// The model's for what is not supported;
    /// [`ModelParameter`](CoreError::ModelParameter) for a context that the model does not have, or a
    /// KV cache that the engine does not have; [`Cancelled`](CoreError::Cancelled).
    pub fn decoder(&self, gguf: &Gguf) -> Result<Box<dyn Decoder>> {
        #[cfg(feature = "candle")]
        if AdaptedDecoder::trained_context(gguf)?.is_some() {
            self.without_kv_type()?;
            let decoder = AdaptedDecoder::load(gguf, &self.candle())?;
            return Ok(Box::new(decoder));
        }
        Ok(match &self.backend {
            Backend::Cpu => {
                let options = CpuOptions {
                    context: self.context,
                    threads: self.threads,
                    level: None,
                    cache_bytes: self.cache_bytes,
                    kv: self.kv,
                    pin: self.pin,
                    packed: self.packed.clone(),
                    progress: self.progress.clone(),
                    cancel: self.cancel.clone(),
                };
                Box::new(CpuModel::load(gguf, &options)?.decoder())
            }
            #[cfg(feature = "candle")]
            Backend::Candle { .. } => {
                self.without_kv_type()?;
                Box::new(CandleModel::load(gguf, &self.candle())?.decoder())
            }
        })
    }

    /// What candle is asked for where it computes the model.
    #[cfg(feature = "candle")]
    fn candle(&self) -> CandleOptions {
        let mut options = CandleOptions {
            context: self.context,
            ..CandleOptions::default()
        };
        if let Backend::Candle { mode, device } = &self.backend {
            options.mode = *mode;
            options.device = device.clone();
        }
        options
    }
}

/// Opens a GGUF file (the first one of a split set) and makes a session of it: weights, tokenizer
/// and chat template.
///
/// # Errors
/// The reader's for a file that is missing, truncated or malformed; the tokenizer's, the chat
/// template's and the model's for what is not supported;
/// [`ModelParameter`](CoreError::ModelParameter) for a context that the model does not have, or a
/// vocabulary larger than the model's embedding; [`Cancelled`](CoreError::Cancelled).
pub fn load(path: &Path, options: &LoadOptions) -> Result<Session> {
    let gguf = Gguf::open(path)?;
    // What is small and may be refused comes before the weights.
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
    let chat = ChatTemplate::from_gguf(gguf.metadata())?;
    let decoder = options.decoder(&gguf)?;
    if tokenizer.vocab() > decoder.vocab() {
        return Err(CoreError::ModelParameter {
            key: "tokenizer.ggml.tokens".to_owned(),
            found: format!("{} tokens", tokenizer.vocab()),
            expected: format!("at most {}, the rows of the embedding", decoder.vocab()),
        });
    }
    Ok(Session::new(decoder, Arc::new(tokenizer), Arc::new(chat)))
}
