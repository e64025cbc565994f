//! Rotary positions as tables.

use candle_core::Tensor;
use converge_quant::Gguf;

use super::CandleOptions;
use crate::{
    Result,
    model::{
        rope::Frequencies,
        spec::{Rope, RopePairs},
    },
};

/// Cosines and sines of every position's angles, `context × size / 2`, times what turned vectors
/// are lengthened by.
pub(super) struct Rotary {
    pairs: RopePairs,
    size: usize,
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    pub(super) fn new(gguf: &Gguf, rope: &Rope, options: &CandleOptions) -> Result<Self> {
        let frequencies = Frequencies::new(gguf, rope, options.context)?;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..options.context {
            for (c, s) in frequencies.at(position) {
                cos.push(c);
                sin.push(s);
            }
        }
        let table =
            |values| Tensor::from_vec(values, (options.context, rope.size / 2), &options.device);
        Ok(Self {
            pairs: rope.pairs,
            size: rope.size,
            cos: table(cos)?,
            sin: table(sin)?,
        })
    }

    /// Turns `x`, `heads × n × head_size`, whose first row is at position `start`.
    pub(super) fn turn(&self, x: &Tensor, start: usize) -> candle_core::Result<Tensor> {
        let (_, n, head_size) = x.dims3()?;
        let (cos, sin) = (self.cos.narrow(0, start, n)?, self.sin.narrow(0, start, n)?);
        let whole = self.size == head_size;
        let turned = match whole {
            true => x.unsqueeze(0)?,
            false => x.narrow(2, 0, self.size)?.contiguous()?.unsqueeze(0)?,
        };
        let turned = match self.pairs {
            RopePairs::Interleaved => candle_nn::rotary_emb::rope_i(&turned, &cos, &sin),
            RopePairs::Halves => candle_nn::rotary_emb::rope(&turned, &cos, &sin),
        }?
        .squeeze(0)?;
        match whole {
            true => Ok(turned),
            false => {
                let rest = x.narrow(2, self.size, head_size - self.size)?;
                Tensor::cat(&[turned, rest], 2)
            }
        }
    }
}
