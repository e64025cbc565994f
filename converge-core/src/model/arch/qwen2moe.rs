//! `qwen2moe`: Qwen1.5-MoE and Qwen2-57B-A14B.

use super::{
    super::spec::{DecoderSpec, FeedForward, RopePairs},
    Source,
};
use crate::Result;

pub(super) const NAME: &str = "qwen2moe";

/// Qwen2's attention; experts beside one that every token goes through, whose probabilities are
/// those among all experts.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Halves)?;
    let whole = source.size("feed_forward_length")?;
    let used = source.size("expert_used_count")?;
    let inner = source.size_or("expert_feed_forward_length", (whole / used).max(1))?;
    let shared_inner = source.size_or("expert_shared_feed_forward_length", whole)?;
    source.decoder(&sizes, |i| {
        let layer = source.layer(i, &sizes, Some(rope.clone()), || {
            let mut experts = source.experts(i, &sizes, inner, false)?;
            experts.shared = Some(source.shared_expert(i, &sizes, shared_inner)?);
            Ok(FeedForward::Experts(experts))
        })?;
        source.require_biases(&layer)?;
        Ok(layer)
    })
}
