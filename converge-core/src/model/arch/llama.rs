//! `llama`: Llama 1 to 3, SmolLM, and the many models converted under that name.

use super::{DecoderSpec, Source};
use crate::{
    Result,
    model::spec::{Activation, Rope, RopePairs},
};

pub(super) const NAME: &str = "llama";

/// Biases are taken where the file has them; rows of queries and keys are permuted in the file so
/// that rotary pairs are neighbours.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let (embedding, vocab) = source.embedding(sizes.width)?;
    let (head, tied_head) = source.head(&embedding, vocab, sizes.width)?;
    Ok(DecoderSpec {
        architecture: NAME,
        width: sizes.width,
        feed_forward: sizes.feed_forward,
        vocab,
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_size: sizes.head_size,
        trained_context: sizes.trained_context,
        rope: Rope {
            pairs: RopePairs::Interleaved,
            base: source.positive("rope.freq_base", Some(10_000.0))?,
            scaling: source.rope_scaling(&sizes)?,
        },
        norm_eps: source.positive("attention.layer_norm_rms_epsilon", None)?,
        activation: Activation::Silu,
        layers: (0..sizes.layers)
            .map(|i| source.layer(i, &sizes))
            .collect::<Result<_>>()?,
        output_norm: source.vector("output_norm.weight", sizes.width)?,
        embedding,
        head,
        tied_head,
    })
}
