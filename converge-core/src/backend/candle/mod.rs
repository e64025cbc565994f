//! The decoder on candle tensors: any candle device, f32 activations, an f32 KV cache.
//!
//! With [`WeightMode::F32`] every weight is dequantized once: the exact model, and the proof that
//! the architecture is right. With [`WeightMode::Quantized`] the blocks of the file go through
//! candle's `QMatMul`, which rounds activations to 8 bits on the CPU.

mod adapter;
mod cache;
mod decoder;
mod feed_forward;
mod ops;
mod rotary;
mod weights;

use std::sync::Arc;

use candle_core::Device;
use converge_quant::Gguf;

pub use adapter::{ADAPTED, AdaptedDecoder};
pub use decoder::CandleDecoder;

use crate::{CoreError, Result, model::DecoderSpec};
use ops::Gate;
use weights::Weights;

/// How weights are held and multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightMode {
    /// Dequantized to f32 at load: 4 bytes a weight.
    F32,
    /// As in the file, multiplied by candle's quantized kernels.
    #[default]
    Quantized,
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct CandleOptions {
    /// How weights are held.
    pub mode: WeightMode,
    /// Positions that a KV cache may grow to; at most what the model was trained for.
    pub context: usize,
    /// Where tensors live and are computed.
    pub device: Device,
}

impl Default for CandleOptions {
    /// Quantized, 4096 positions, on the CPU.
    fn default() -> Self {
        Self {
            mode: WeightMode::default(),
            context: 4096,
            device: Device::Cpu,
        }
    }
}

/// A model's weights on a device. Clones and decoders share them.
#[derive(Clone)]
pub struct CandleModel {
    spec: Arc<DecoderSpec>,
    weights: Arc<Weights>,
    context: usize,
    gate: Gate,
}

impl CandleModel {
    /// Loads the weights of a file.
    ///
    /// # Errors
    /// Those of [`DecoderSpec::from_gguf`];
    /// [`ModelParameter`](CoreError::ModelParameter) for a context of 0 or beyond the trained one;
    /// the reader's and candle's errors.
    pub fn load(gguf: &Gguf, options: &CandleOptions) -> Result<Self> {
        let spec = DecoderSpec::from_gguf(gguf)?;
        if options.context == 0 || options.context > spec.trained_context {
            return Err(CoreError::ModelParameter {
                key: "context".to_owned(),
                found: options.context.to_string(),
                expected: format!("1 to {}, the trained context", spec.trained_context),
            });
        }
        let weights = Weights::load(gguf, &spec, options)?;
        Ok(Self {
            gate: Gate::exact(spec.activation),
            spec: Arc::new(spec),
            weights: Arc::new(weights),
            context: options.context,
        })
    }

    /// The same model with GELU as ggml has it on CPUs, from a table of 65536 entries: arguments
    /// between -10 and 10 and their values are rounded to f16, smaller ones give 0, larger ones
    /// themselves.
    ///
    /// For comparisons with llama.cpp: over the layers the rounding moves log-probabilities by about
    /// 0.0005 even where all else is f32. Models without GELU stay as they are.
    #[must_use]
    pub fn with_gelu_of_ggml(mut self) -> Self {
        self.gate = self.gate.of_ggml();
        self
    }

    /// What the model is.
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// A decoder with an empty KV cache over these weights.
    pub fn decoder(&self) -> CandleDecoder {
        CandleDecoder::new(self.clone())
    }
}

impl std::fmt::Debug for CandleModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CandleModel")
            .field("architecture", &self.spec.architecture)
            .field("layers", &self.spec.layers.len())
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
