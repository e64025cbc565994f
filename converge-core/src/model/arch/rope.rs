//! Rotary positions as the metadata and the tensors of divisors give them.

use super::{
    super::spec::{Rope, RopePairs, RopeScaling},
    Sizes, Source, parameter,
};
use crate::{CoreError, Result};

const DIVISORS: &str = "rope_freqs.weight";
const SHORT: &str = "rope_factors_short.weight";
const LONG: &str = "rope_factors_long.weight";
const TYPE: &str = "rope.scaling.type";
const ORIGINAL: &str = "rope.scaling.original_context_length";

impl Source<'_> {
    /// The rotary positions of all layers.
    pub(super) fn rope(&self, sizes: &Sizes, pairs: RopePairs) -> Result<Rope> {
        let size = self.size_or("rope.dimension_count", sizes.head_size)?;
        if !size.is_multiple_of(2) || size > sizes.head_size {
            return Err(parameter(
                self.key("rope.dimension_count"),
                size,
                format!("an even number, at most the head size {}", sizes.head_size),
            ));
        }
        Ok(Rope {
            pairs,
            size,
            base: self.positive_or("rope.freq_base", 10_000.0)?,
            scaling: self.rope_scaling(sizes, size)?,
        })
    }

    fn rope_scaling(&self, sizes: &Sizes, size: usize) -> Result<RopeScaling> {
        let kind: Option<String> = self.gguf.metadata().find(&self.key(TYPE))?;
        let has = |name: &str| self.gguf.find(name).is_some();
        match kind.as_deref().filter(|kind| !kind.is_empty()) {
            // Converters of some models write the divisors and no type.
            None if has(SHORT) || has(LONG) => self.long_rope(sizes, size),
            Some("longrope" | "su") => self.long_rope(sizes, size),
            None | Some("none" | "llama3") if has(DIVISORS) => {
                let tensor = self.vector(DIVISORS, size / 2)?;
                Ok(RopeScaling::PerPair { tensor })
            }
            Some(other) if has(DIVISORS) => Err(CoreError::UnsupportedFeature {
                key: self.key(TYPE),
                found: format!("`{other}` besides `{DIVISORS}`"),
                supported: "one of the two",
            }),
            Some("none") => Ok(RopeScaling::None),
            // A factor without a type divides all frequencies.
            None => match self.factor()? {
                Some(factor) => Ok(RopeScaling::Linear { factor }),
                None => Ok(RopeScaling::None),
            },
            Some("linear") => Ok(RopeScaling::Linear {
                factor: self.required_factor()?,
            }),
            Some("llama3") => self.llama3(),
            Some("yarn") => self.yarn(sizes),
            Some(other) => Err(CoreError::UnsupportedFeature {
                key: self.key(TYPE),
                found: format!("`{other}`"),
                supported: "none, linear, llama3, yarn, longrope",
            }),
        }
    }

    fn factor(&self) -> Result<Option<f32>> {
        match self.scale("rope.scaling.factor")? {
            Some(factor) => Ok(Some(factor)),
            None => self.scale("rope.scale_linear"),
        }
    }

    fn required_factor(&self) -> Result<f32> {
        match self.factor()? {
            Some(factor) => Ok(factor),
            None => self.positive("rope.scaling.factor"),
        }
    }

    fn llama3(&self) -> Result<RopeScaling> {
        const HIGH: &str = "rope.scaling.high_freq_factor";
        let low_frequency_factor = self.positive_or("rope.scaling.low_freq_factor", 1.0)?;
        let high_frequency_factor = self.positive_or(HIGH, 4.0)?;
        if high_frequency_factor <= low_frequency_factor {
            return Err(parameter(
                self.key(HIGH),
                high_frequency_factor,
                format!("more than the low factor, {low_frequency_factor}"),
            ));
        }
        Ok(RopeScaling::Llama3 {
            factor: self.required_factor()?,
            low_frequency_factor,
            high_frequency_factor,
            original_context: self.size(ORIGINAL)?,
        })
    }

    fn yarn(&self, sizes: &Sizes) -> Result<RopeScaling> {
        const EXTRAPOLATION: &str = "rope.scaling.yarn_ext_factor";
        if let Some(share) = self.optional_positive(EXTRAPOLATION)?.filter(|&x| x != 1.0) {
            return Err(CoreError::UnsupportedFeature {
                key: self.key(EXTRAPOLATION),
                found: share.to_string(),
                supported: "1",
            });
        }
        let factor = self.required_factor()?;
        // Section 3.4 of the paper: the softmax's temperature, as a length of both vectors.
        let lengthened = 1.0 + 0.1 * factor.max(1.0).ln();
        Ok(RopeScaling::Yarn {
            factor,
            beta_fast: self.positive_or("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: self.positive_or("rope.scaling.yarn_beta_slow", 1.0)?,
            original_context: self.size_or(ORIGINAL, sizes.trained_context)?,
            attention_factor: lengthened * self.attention_factor()?.unwrap_or(1.0),
        })
    }

    fn attention_factor(&self) -> Result<Option<f32>> {
        match self.optional_positive("rope.scaling.attn_factor")? {
            Some(factor) => Ok(Some(factor)),
            None => self.optional_positive("rope.scaling.yarn_attn_factor"),
        }
    }

    fn long_rope(&self, sizes: &Sizes, size: usize) -> Result<RopeScaling> {
        let original_context = self.size_or(ORIGINAL, sizes.trained_context)?;
        let attention_factor = match self.attention_factor()? {
            Some(factor) => factor,
            None => {
                let stretch = sizes.trained_context as f64 / original_context as f64;
                let bits = (original_context as f64).ln().max(f64::MIN_POSITIVE);
                (1.0 + stretch.max(1.0).ln() / bits).sqrt() as f32
            }
        };
        Ok(RopeScaling::LongRope {
            short: self.vector(SHORT, size / 2)?,
            long: self.vector(LONG, size / 2)?,
            original_context,
            attention_factor,
        })
    }
}
