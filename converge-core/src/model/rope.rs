//! The angles of rotary positions, for every engine.

use std::f64::consts::{FRAC_2_PI, TAU};

use converge_quant::{Gguf, format};

use super::spec::{Rope, RopeScaling};
use crate::{
    Result,
    sample::math::{exp, ln},
};

/// The angle by which a position turns each pair, in f64, so that far positions lose nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frequencies {
    /// Radians of one position, for each pair.
    angles: Vec<f64>,
    /// What turned vectors are lengthened by.
    length: f64,
}

impl Frequencies {
    /// Those of a model that is loaded with a context of so many positions.
    pub(crate) fn new(gguf: &Gguf, rope: &Rope, context: usize) -> Result<Self> {
        let divisors = match divisors_tensor(&rope.scaling, context) {
            Some(name) => {
                let info = gguf.tensor(name)?;
                let mut divisors = vec![0.0; info.elements()];
                format::decode(info.ggml_type, &gguf.read(info)?, &mut divisors)?;
                divisors
            }
            None => vec![1.0; rope.size / 2],
        };
        let length = match rope.scaling {
            RopeScaling::Yarn {
                attention_factor, ..
            }
            | RopeScaling::LongRope {
                attention_factor, ..
            } => f64::from(attention_factor),
            _ => 1.0,
        };
        Ok(Self {
            angles: angles(rope, &divisors),
            length,
        })
    }

    /// Cosines and sines of a position's angles, times the length.
    pub(crate) fn at(&self, position: usize) -> impl Iterator<Item = (f32, f32)> {
        self.angles.iter().map(move |angle| {
            let (sin, cos) = sin_cos(position as f64 * angle);
            ((self.length * cos) as f32, (self.length * sin) as f32)
        })
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

fn angles(rope: &Rope, divisors: &[f32]) -> Vec<f64> {
    let (base, size) = (ln(f64::from(rope.base)), rope.size as f64);
    let plain = |i: usize| exp(base * -((2 * i) as f64) / size);
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
                size * ln(wavelength / TAU) / (2.0 * base)
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

/// π/2 in two parts: products of the first with an integer below 2²⁰ are exact.
const HALF_PI_HIGH: f64 = 1.570_796_326_734_125_6;
const HALF_PI_LOW: f64 = 6.077_100_506_506_192e-11;

/// Sine and cosine of an angle from 0 to about 10⁶, by additions and multiplications alone, so that
/// every machine turns vectors alike; the error is below 10⁻¹⁵.
fn sin_cos(angle: f64) -> (f64, f64) {
    let quarters = (angle * FRAC_2_PI).round_ties_even();
    let r = (angle - quarters * HALF_PI_HIGH) - quarters * HALF_PI_LOW;
    let z = r * r;
    // Taylor's series; |r| is at most π/4.
    let (mut sin, mut cos) = (0.0, 0.0);
    for k in (0..=8u32).rev() {
        let (odd, even) = (2 * k + 1, 2 * k);
        sin = 1.0 - z * sin / f64::from((odd + 1) * (odd + 2));
        cos = 1.0 - z * cos / f64::from((even + 1) * (even + 2));
    }
    let sin = r * sin;
    match quarters as u64 % 4 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_are_turned_as_trigonometry_says() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000u32 {
            let angle = f64::from(i) * 0.065_537 + f64::from(i % 7) * 1e-3;
            let (sin, cos) = sin_cos(angle);
            worst = worst.max((sin - angle.sin()).abs());
            worst = worst.max((cos - angle.cos()).abs());
        }
        assert!(worst < 1e-14, "worst error {worst:e}");
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
    }
}
