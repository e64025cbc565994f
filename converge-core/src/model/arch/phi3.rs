//! `phi3`: Phi-3, Phi-3.5 and Phi-4, mini included.

use super::{
    super::spec::{DecoderSpec, RopePairs},
    Source,
};
use crate::Result;

pub(super) const NAME: &str = "phi3";

/// Queries, keys and values in one tensor, gate and up in another; a part of each head may be
/// turned. The same window in all layers, as the model is defined; 0 says that there is none.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Halves)?;
    let window = source.window()?;
    source.decoder(&sizes, |i| {
        let mut layer = source.layer(i, &sizes, Some(rope.clone()), || {
            source.dense_fused(i, &sizes)
        })?;
        layer.window = window;
        Ok(layer)
    })
}
