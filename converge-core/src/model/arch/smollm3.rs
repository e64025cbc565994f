//! `smollm3`: SmolLM3.

use super::{
    super::spec::{DecoderSpec, RopePairs},
    Source,
};
use crate::Result;

pub(super) const NAME: &str = "smollm3";

/// Every layer of this number uses no positions.
const WITHOUT_POSITIONS: usize = 4;

/// Llama, with rotary positions in three of four layers.
pub(super) fn describe(source: &Source<'_>) -> Result<DecoderSpec> {
    let sizes = source.sizes()?;
    let rope = source.rope(&sizes, RopePairs::Interleaved)?;
    source.decoder(&sizes, |i| {
        let turned = !(i + 1).is_multiple_of(WITHOUT_POSITIONS);
        let rope = turned.then(|| rope.clone());
        source.layer(i, &sizes, rope, || source.dense(i, &sizes))
    })
}
