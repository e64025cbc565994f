//! `qwen3`: the dense models of Qwen3.

use super::{
    super::spec::{DecoderSpec, RopePairs},
    Source,
};
use crate::Result;

pub(super) const NAME: &str = "qwen3";

/// Every head of queries and keys has a norm; no biases.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Halves)?;
    source.decoder(&sizes, |i| {
        let mut layer = source.layer(i, &sizes, Some(rope.clone()), || source.dense(i, &sizes))?;
        (layer.query_norm, layer.key_norm) = source.head_norms(i, &sizes)?;
        Ok(layer)
    })
}
