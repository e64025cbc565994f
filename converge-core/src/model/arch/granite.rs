//! `granite`: the dense models of Granite 3.

use super::{
    super::spec::{DecoderSpec, RopePairs},
    Source,
};
use crate::Result;

pub(super) const NAME: &str = "granite";

/// Llama with scales: of embeddings, of attention, of what is added to the residual stream, and a
/// divisor of the logits. A scale that is 0 is one that the file does not have.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Interleaved)?;
    let spec = source.decoder(&sizes, |i| {
        source.layer(i, &sizes, Some(rope.clone()), || source.dense(i, &sizes))
    })?;
    Ok(DecoderSpec {
        embedding_scale: source.scale("embedding_scale")?.unwrap_or(1.0),
        attention_scale: source
            .scale("attention.scale")?
            .unwrap_or(spec.attention_scale),
        residual_scale: source.scale("residual_scale")?.unwrap_or(1.0),
        logit_scale: 1.0 / source.scale("logit_scale")?.unwrap_or(1.0),
        ..spec
    })
}
