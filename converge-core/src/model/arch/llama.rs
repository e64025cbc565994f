//! `llama`: Llama 1 to 3, Mistral, Mixtral, SmolLM, and the many models converted under that name.

use super::{
    super::spec::{DecoderSpec, RopePairs},
    Source,
};
use crate::Result;

pub(super) const NAME: &str = "llama";

/// Biases, head sizes, a window (Mistral 7B's first version) and experts (Mixtral) are taken as
/// the file has them; rows of queries and keys are permuted in the file so that rotary pairs are
/// neighbours.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Interleaved)?;
    let window = source.window()?;
    let experts = source.optional_size("expert_count")?.unwrap_or(0) > 0;
    source.decoder(&sizes, |i| {
        let mut layer = source.layer(i, &sizes, Some(rope.clone()), || match experts {
            true => source.only_experts(i, &sizes, source.size("feed_forward_length")?),
            false => source.dense(i, &sizes),
        })?;
        layer.window = window;
        Ok(layer)
    })
}
