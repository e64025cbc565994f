//! How tokens are chosen: the options, their ranges and their defaults.

use super::{Dry, Mirostat, SampleError, noise};
use crate::{Result, TokenId};

/// How the next token is chosen. The default is greedy: the most likely token, always.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy, 1 the model's own distribution. Finite, not negative.
    pub temperature: f32,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest of the most likely tokens whose probabilities reach this sum; in (0, 1],
    /// 1 keeps all. Probabilities are those among the tokens that top-k kept.
    pub top_p: f32,
    /// Keeps the fewest of the most typical tokens whose probabilities reach this sum; in (0, 1],
    /// 1 keeps all. A token is the more typical the nearer its surprise, −ln p, is to the entropy of
    /// those that top-k kept (Meister et al. 2022, "Locally Typical Sampling", arXiv 2202.00666).
    pub typical_p: f32,
    /// Keeps tokens at least this many times as likely as the most likely; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of the window's tokens (CTRL, Keskar et
    /// al. 2019, as in llama.cpp); 1 is off. Finite, positive.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once for each time it occurs in the window; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each token that occurs in the window; 0 is off.
    pub presence_penalty: f32,
    /// How many of the last tokens, prompt included, the three penalties look at; 0 is none,
    /// `usize::MAX` all.
    pub penalty_window: usize,
    /// Penalizes tokens that would go on with a repetition.
    pub dry: Option<Dry>,
    /// Cuts the unlikely tokens off so that the text keeps a certain surprise, in the place of
    /// top-k, typical, top-p and min-p; it needs a temperature above 0.
    pub mirostat: Option<Mirostat>,
    /// Added to the logits of these tokens; minus infinity bans a token.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Seed of the noise; of no effect when greedy.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            typical_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 64,
            dry: None,
            mirostat: None,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Draws at `temperature` with the noise of `seed`, nothing cut off.
    pub fn at(temperature: f32, seed: u64) -> Self {
        Self {
            temperature,
            seed,
            ..Self::default()
        }
    }

    /// The same options with a noise of their own for branch `branch`: what a fork draws has nothing
    /// to do with what others draw.
    #[must_use]
    pub fn branch(mut self, branch: u64) -> Self {
        self.seed = noise::fork_seed(self.seed, branch);
        self
    }

    /// Checks every option against its range, and those that do not go together.
    ///
    /// # Errors
    /// [`SampleError::Option`] names the first option that is out of range,
    /// [`SampleError::Conflict`] two that exclude each other; [`SampleError::Bias`],
    /// [`SampleError::EmptyBreaker`].
    pub fn validate(&self) -> Result<()> {
        let positive = |x: f32| x > 0.0;
        let part = |x: f32| x > 0.0 && x <= 1.0;
        let checks = [
            check("temperature", self.temperature, |x| x >= 0.0, "at least 0"),
            check("top_p", self.top_p, part, "in (0, 1]"),
            check("typical_p", self.typical_p, part, "in (0, 1]"),
            check(
                "min_p",
                self.min_p,
                |x| (0.0..=1.0).contains(&x),
                "in [0, 1]",
            ),
            check(
                "repetition_penalty",
                self.repetition_penalty,
                positive,
                "above 0",
            ),
            check(
                "frequency_penalty",
                self.frequency_penalty,
                |_| true,
                "finite",
            ),
            check(
                "presence_penalty",
                self.presence_penalty,
                |_| true,
                "finite",
            ),
        ];
        checks.into_iter().collect::<Result<(), _>>()?;
        if let Some(dry) = &self.dry {
            dry.validate()?;
        }
        if let Some(mirostat) = &self.mirostat {
            mirostat.validate()?;
            self.goes_with_mirostat()?;
        }
        for &(token, bias) in &self.logit_bias {
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(SampleError::Bias { token, bias }.into());
            }
        }
        Ok(())
    }

    fn goes_with_mirostat(&self) -> Result<(), SampleError> {
        let others = [
            ("temperature 0", self.temperature == 0.0),
            ("top_k", self.top_k != 0),
            ("typical_p", self.typical_p != 1.0),
            ("top_p", self.top_p != 1.0),
            ("min_p", self.min_p != 0.0),
        ];
        match others.into_iter().find(|(_, given)| *given) {
            Some((with, _)) => Err(SampleError::Conflict {
                name: "mirostat",
                with,
            }),
            None => Ok(()),
        }
    }

    pub(super) fn penalizes(&self) -> bool {
        self.penalty_window > 0
            && (self.repetition_penalty != 1.0
                || self.frequency_penalty != 0.0
                || self.presence_penalty != 0.0)
    }
}

/// An option's value held against its range.
pub(super) fn check(
    name: &'static str,
    value: f32,
    in_range: impl Fn(f32) -> bool,
    expected: &'static str,
) -> Result<(), SampleError> {
    match value.is_finite() && in_range(value) {
        true => Ok(()),
        false => Err(SampleError::Option {
            name,
            value,
            expected,
        }),
    }
}
