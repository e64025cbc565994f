//! From GGUF metadata and tensor names to a [`DecoderSpec`], one architecture per module.
//!
//! ```text
//! source    parameters, checked
//! tensors   tensors of a layer under the names that architectures share, shapes checked
//! rope      rotary positions and their scaling
//! experts   mixtures of experts
//! llama …   what an architecture makes of them
//! ```

mod experts;
mod gemma2;
mod gemma3;
mod granite;
mod llama;
mod phi3;
mod qwen2;
mod qwen2moe;
mod qwen3;
mod qwen3moe;
mod rope;
mod smollm3;
mod source;
mod tensors;

use converge_quant::Gguf;

use super::spec::DecoderSpec;
use crate::{CoreError, Result};
use source::{Sizes, Source, parameter};

/// Reads the description of a file of one architecture.
type Describe = fn(&Source<'_>) -> Result<DecoderSpec>;

/// What there is a description for.
const ARCHITECTURES: [(&str, Describe); 10] = [
    (llama::NAME, llama::describe),
    (qwen2::NAME, qwen2::describe),
    (qwen2moe::NAME, qwen2moe::describe),
    (qwen3::NAME, qwen3::describe),
    (qwen3moe::NAME, qwen3moe::describe),
    (gemma2::NAME, gemma2::describe),
    (gemma3::NAME, gemma3::describe),
    (phi3::NAME, phi3::describe),
    (smollm3::NAME, smollm3::describe),
    (granite::NAME, granite::describe),
];

/// The architectures that there is a description for: values of `general.architecture`.
pub const SUPPORTED: &[&str] = &{
    let mut names = [""; ARCHITECTURES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = ARCHITECTURES[i].0;
        i += 1;
    }
    names
};

/// Reads the description of the model in `gguf`.
pub(super) fn describe(gguf: &Gguf) -> Result<DecoderSpec> {
    let found: String = gguf.metadata().get("general.architecture")?;
    match ARCHITECTURES.iter().find(|(name, _)| *name == found) {
        Some((name, describe)) => describe(&Source { gguf, name }),
        None => Err(CoreError::UnsupportedArchitecture {
            found,
            supported: SUPPORTED,
        }),
    }
}

#[cfg(feature = "candle")]
#[cfg(test)]
mod tests;
