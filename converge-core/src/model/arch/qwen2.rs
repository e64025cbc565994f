//! `qwen2`: Qwen2 and Qwen2.5, Coder included.

use super::{
    super::spec::{DecoderSpec, RopePairs},
    Source,
};
use crate::Result;

pub(super) const NAME: &str = "qwen2";

/// Queries, keys and values have biases, nothing else has.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Halves)?;
    source.decoder(&sizes, |i| {
        let layer = source.layer(i, &sizes, Some(rope.clone()), || source.dense(i, &sizes))?;
        source.require_biases(&layer)?;
        Ok(layer)
    })
}
