//! Rotary positions as tables.

use std::f64::consts::TAU;

use candle_core::{DType, Device, Tensor};
use converge_quant::{Gguf, candle as quant};

use super::CandleOptions;
use crate::{
    Result,
    model::spec::{Rope, RopePairs, RopeScaling},
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
        let divisors = match divisors_tensor(&rope.scaling, options.context) {
            Some(name) => quant::tensor(gguf, name, DType::F32, &Device::Cpu)?.to_vec1::<f32>()?,
            None => vec![1.0; rope.size / 2],
        };
        let frequencies = frequencies(rope, &divisors);
        let length = match rope.scaling {
            RopeScaling::Yarn {
                attention_factor, ..
            }
            | RopeScaling::LongRope {
                attention_factor, ..
            } => f64::from(attention_factor),
            _ => 1.0,
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..options.context)
                .flat_map(|position| {
                    frequencies
                        .iter()
                        .map(move |frequency| (length * f(position as f64 * frequency)) as f32)
                })
                .collect();
            Tensor::from_vec(values, (options.context, rope.size / 2), &options.device)
        };
        Ok(Self {
            pairs: rope.pairs,
            size: rope.size,
            cos: table(f64::cos)?,
            sin: table(f64::sin)?,
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

/// The tensor of a divisor per pair, where there is one.
fn divisors_tensor(scaling: &RopeScaling, context: usize) -> Option<&str> {
    match scaling {
        RopeScaling::PerPair { tensor } => Some(tensor),
        RopeScaling::LongRope {
            short,
            long,
            original_context,
            ..
        } => Some(if context > *original_context {
            long
        } else {
            short
        }),
        _ => None,
    }
}

/// The angle by which a position turns each pair. In f64, so that far positions lose nothing.
fn frequencies(rope: &Rope, divisors: &[f32]) -> Vec<f64> {
    let (base, size) = (f64::from(rope.base), rope.size as f64);
    let plain = |i: usize| base.powf(-((2 * i) as f64) / size);
    let scale = |i: usize, frequency: f64| match rope.scaling {
        RopeScaling::None | RopeScaling::PerPair { .. } | RopeScaling::LongRope { .. } => frequency,
        RopeScaling::Linear { factor } => frequency / f64::from(factor),
        RopeScaling::Llama3 {
            factor,
            low_frequency_factor,
            high_frequency_factor,
            original_context,
        } => {
            let (low, high) = (
                f64::from(low_frequency_factor),
                f64::from(high_frequency_factor),
            );
            let turns = original_context as f64 * frequency / TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            mixed(frequency, factor, kept)
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_context,
            ..
        } => {
            // The pair, as a real number, that makes so many turns in the original context.
            let pair = |turns: f32| {
                let wavelength = original_context as f64 / f64::from(turns);
                size * (wavelength / TAU).ln() / (2.0 * base.ln())
            };
            let first = pair(beta_fast).floor().max(0.0);
            let last = pair(beta_slow).ceil().min(size - 1.0);
            let kept = 1.0 - ((i as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
            mixed(frequency, factor, kept)
        }
    };
    divisors
        .iter()
        .enumerate()
        .map(|(i, &divisor)| scale(i, plain(i)) / f64::from(divisor))
        .collect()
}

/// `kept` of the frequency as it is, the rest of it divided.
fn mixed(frequency: f64, factor: f32, kept: f64) -> f64 {
    frequency * (kept + (1.0 - kept) / f64::from(factor))
}
