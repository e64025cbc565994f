//! `gemma2`: Gemma 2.

use super::{
    super::spec::{Activation, DecoderSpec, RopePairs},
    Source,
    source::inverse_root,
};
use crate::Result;

pub(super) const NAME: &str = "gemma2";

/// Layers of the model whose queries are scaled by the width of a head in the residual stream.
const LAYERS_27B: usize = 46;

/// Norms before and after each part, soft caps, and a window in every other layer. The norms'
/// weights are stored with the 1 that the model adds.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Halves)?;
    let window = source.size_or("attention.sliding_window", 4096)?;
    let windowed = source.windowed(2, sizes.layers)?;
    let spec = source.decoder(&sizes, |i| {
        let mut layer = source.layer(i, &sizes, Some(rope.clone()), || source.dense(i, &sizes))?;
        (layer.post_attention_norm, layer.post_feed_forward_norm) = source.post_norms(i, &sizes)?;
        layer.window = windowed.get(i).is_some_and(|&is| is).then_some(window);
        Ok(layer)
    })?;
    Ok(DecoderSpec {
        activation: Activation::GeluTanh,
        embedding_scale: (sizes.width as f32).sqrt(),
        attention_scale: match sizes.layers {
            LAYERS_27B => inverse_root(sizes.width / sizes.heads),
            _ => spec.attention_scale,
        },
        attention_softcap: Some(source.positive_or("attn_logit_softcapping", 50.0)?),
        logit_softcap: Some(source.positive_or("final_logit_softcapping", 30.0)?),
        ..spec
    })
}
