//! `qwen2`: Qwen2 and Qwen2.5, Coder included.

use super::{DecoderSpec, Source};
use crate::{
    Result,
    model::spec::{Activation, Rope, RopePairs},
};

pub(super) const NAME: &str = "qwen2";

/// Queries, keys and values have biases, nothing else has.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let (embedding, vocab) = source.embedding(sizes.width)?;
    let (head, tied_head) = source.head(&embedding, vocab, sizes.width)?;
    let layers = (0..sizes.layers)
        .map(|i| {
            let layer = source.layer(i, &sizes)?;
            for projection in [&layer.query, &layer.key, &layer.value] {
                source.require_bias(projection)?;
            }
            Ok(layer)
        })
        .collect::<Result<_>>()?;
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
            pairs: RopePairs::Halves,
            base: source.positive("rope.freq_base", Some(10_000.0))?,
            scaling: source.rope_scaling(&sizes)?,
        },
        norm_eps: source.positive("attention.layer_norm_rms_epsilon", None)?,
        activation: Activation::Silu,
        layers,
        output_norm: source.vector("output_norm.weight", sizes.width)?,
        embedding,
        head,
        tied_head,
    })
}
