//! `gemma3`: the text models of Gemma 3.

use super::{
    super::spec::{Activation, DecoderSpec, Rope, RopePairs, RopeScaling},
    Source,
    source::inverse_root,
};
use crate::Result;

pub(super) const NAME: &str = "gemma3";

/// Layers of the model whose queries are scaled by the width of a head in the residual stream.
const LAYERS_27B: usize = 62;

/// Norms before and after each part and of every head of queries and keys; a window in five of
/// six layers, which turn by a base of their own and are not stretched. The norms' weights are
/// stored with the 1 that the model adds.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let global = Rope {
        base: source.positive_or("rope.freq_base", 1_000_000.0)?,
        ..source.rope(&sizes, RopePairs::Halves)?
    };
    let local = Rope {
        base: source.positive_or("rope.freq_base_swa", 10_000.0)?,
        scaling: RopeScaling::None,
        ..global.clone()
    };
    let window = source.size("attention.sliding_window")?;
    let windowed = source.windowed(6, sizes.layers)?;
    let spec = source.decoder(&sizes, |i| {
        let is_local = windowed.get(i).is_some_and(|&is| is);
        let rope = if is_local { &local } else { &global };
        let mut layer = source.layer(i, &sizes, Some(rope.clone()), || source.dense(i, &sizes))?;
        (layer.query_norm, layer.key_norm) = source.head_norms(i, &sizes)?;
        (layer.post_attention_norm, layer.post_feed_forward_norm) = source.post_norms(i, &sizes)?;
        layer.window = is_local.then_some(window);
        Ok(layer)
    })?;
    Ok(DecoderSpec {
        activation: Activation::GeluTanh,
        embedding_scale: (sizes.width as f32).sqrt(),
        attention_scale: match sizes.layers {
            LAYERS_27B => inverse_root(sizes.width / sizes.heads),
            _ => spec.attention_scale,
        },
        logit_softcap: source.scale("final_logit_softcapping")?,
        ..spec
    })
}
