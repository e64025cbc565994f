//! `qwen3moe`: Qwen3's mixtures of experts, Coder included.

use super::{
    super::spec::{DecoderSpec, RopePairs},
    Source,
};
use crate::Result;

pub(super) const NAME: &str = "qwen3moe";

/// Qwen3's attention; the chosen experts' probabilities sum to 1.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Halves)?;
    let inner = source.size("expert_feed_forward_length")?;
    source.decoder(&sizes, |i| {
        let mut layer = source.layer(i, &sizes, Some(rope.clone()), || {
            source.only_experts(i, &sizes, inner)
        })?;
        (layer.query_norm, layer.key_norm) = source.head_norms(i, &sizes)?;
        Ok(layer)
    })
}
