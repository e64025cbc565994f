//! From a row of logits to a token.
//!
//! The order is fixed: repetition, frequency and presence penalties → logit bias → grammar mask →
//! greedy, or temperature → top-k → top-p → min-p → argmax(logit / T + Gumbel noise). The noise is
//! a function of (seed, position, token) alone (see [`noise`]), so a sampler has no state: the same
//! history, seed and logits give the same token, whoever asks and in whatever order.

mod error;
pub mod math;
pub mod noise;

use std::cmp::Ordering;

pub use error::SampleError;

use crate::{CoreError, Result, TokenId, constrain::Mask};

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
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 64,
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

    /// Checks every option against its range.
    ///
    /// # Errors
    /// [`SampleError::Option`] names the first option that is out of range.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            (
                "temperature",
                self.temperature,
                self.temperature >= 0.0,
                "at least 0",
            ),
            (
                "top_p",
                self.top_p,
                self.top_p > 0.0 && self.top_p <= 1.0,
                "in (0, 1]",
            ),
            (
                "min_p",
                self.min_p,
                (0.0..=1.0).contains(&self.min_p),
                "in [0, 1]",
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0,
                "above 0",
            ),
            ("frequency_penalty", self.frequency_penalty, true, "finite"),
            ("presence_penalty", self.presence_penalty, true, "finite"),
        ];
        for (name, value, in_range, expected) in checks {
            if !value.is_finite() || !in_range {
                return Err(SampleError::Option {
                    name,
                    value,
                    expected,
                }
                .into());
            }
        }
        for &(token, bias) in &self.logit_bias {
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(SampleError::Bias { token, bias }.into());
            }
        }
        Ok(())
    }

    fn penalizes(&self) -> bool {
        self.penalty_window > 0
            && (self.repetition_penalty != 1.0
                || self.frequency_penalty != 0.0
                || self.presence_penalty != 0.0)
    }
}

/// A token that may be drawn, with its logit after penalties, bias and temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: TokenId,
    /// Its logit, divided by the temperature unless greedy.
    pub logit: f64,
}

impl Candidate {
    /// Most likely first; of equals the lowest id.
    fn order(a: &Self, b: &Self) -> Ordering {
        b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
    }
}

/// Chooses tokens by one [`Sampling`]. Holds buffers only; its results depend on its arguments.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: Sampling,
    kept: Vec<Candidate>,
    edited: Vec<f64>,
    window: Vec<TokenId>,
}

impl Sampler {
    /// A sampler of these options.
    ///
    /// # Errors
    /// [`SampleError::Option`] or [`SampleError::Bias`] where an option is out of its range.
    pub fn new(options: &Sampling) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            options: options.clone(),
            kept: Vec::new(),
            edited: Vec::new(),
            window: Vec::new(),
        })
    }

    /// The options it was made of.
    pub fn options(&self) -> &Sampling {
        &self.options
    }

    /// The token that follows `history` (every token before it, prompt included), given the raw
    /// `logits` of the vocabulary and, under a grammar, the tokens that it allows.
    ///
    /// # Errors
    /// [`SampleError::Logit`] where a logit is not a number or plus infinity,
    /// [`SampleError::NothingAllowed`] where mask and bias leave no token,
    /// [`TokenOutOfRange`](CoreError::TokenOutOfRange) where a bias names no token.
    pub fn sample(
        &mut self,
        logits: &[f32],
        history: &[TokenId],
        mask: Option<&Mask>,
    ) -> Result<TokenId> {
        self.keep(logits, history, mask)?;
        if self.options.temperature == 0.0 {
            return self
                .kept
                .first()
                .map(|c| c.token)
                .ok_or(SampleError::NothingAllowed.into());
        }
        let noise = noise::row(self.options.seed, history.len() as u64);
        let mut best: Option<Candidate> = None;
        for c in &self.kept {
            // Noise that cannot lift this one over the best need not be computed.
            let least = best.map_or(f64::NEG_INFINITY, |b| b.logit - c.logit);
            let Some(gumbel) = noise.gumbel_from(c.token, least) else {
                continue;
            };
            let drawn = Candidate {
                token: c.token,
                logit: c.logit + gumbel,
            };
            if best.is_none_or(|b| Candidate::order(&drawn, &b).is_lt()) {
                best = Some(drawn);
            }
        }
        best.map(|b| b.token)
            .ok_or(SampleError::NothingAllowed.into())
    }

    /// The tokens that [`sample`](Self::sample) draws from; one when greedy. In no certain order.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn candidates(
        &mut self,
        logits: &[f32],
        history: &[TokenId],
        mask: Option<&Mask>,
    ) -> Result<&[Candidate]> {
        self.keep(logits, history, mask)?;
        Ok(&self.kept)
    }

    fn keep(&mut self, logits: &[f32], history: &[TokenId], mask: Option<&Mask>) -> Result<()> {
        for (token, &value) in logits.iter().enumerate() {
            if value.is_nan() || value == f32::INFINITY {
                return Err(SampleError::Logit {
                    token: token as TokenId,
                    value,
                }
                .into());
            }
        }
        self.edit(logits, history)?;
        self.kept.clear();
        let greedy = self.options.temperature == 0.0;
        let temperature = if greedy {
            1.0
        } else {
            f64::from(self.options.temperature)
        };
        let mut best: Option<Candidate> = None;
        for (token, &logit) in self.edited.iter().enumerate() {
            let token = token as TokenId;
            if logit == f64::NEG_INFINITY || mask.is_some_and(|m| !m.allows(token)) {
                continue;
            }
            let candidate = Candidate {
                token,
                logit: logit / temperature,
            };
            if !greedy {
                self.kept.push(candidate);
            } else if best.is_none_or(|b| candidate.logit > b.logit) {
                best = Some(candidate);
            }
        }
        self.kept.extend(best);
        if self.kept.is_empty() {
            return Err(SampleError::NothingAllowed.into());
        }
        if !greedy {
            self.top_k();
            self.top_p();
            self.min_p();
        }
        Ok(())
    }

    /// Penalties and bias, into `edited`.
    fn edit(&mut self, logits: &[f32], history: &[TokenId]) -> Result<()> {
        self.edited.clear();
        self.edited.extend(logits.iter().map(|&x| f64::from(x)));
        let o = &self.options;
        if o.penalizes() {
            let recent = history.len().saturating_sub(o.penalty_window);
            self.window.clear();
            self.window.extend(history.iter().skip(recent));
            self.window.sort_unstable();
            for run in self.window.chunk_by(|a, b| a == b) {
                let Some(logit) = run.first().and_then(|&t| self.edited.get_mut(t as usize)) else {
                    continue;
                };
                let factor = f64::from(o.repetition_penalty);
                *logit = if *logit > 0.0 {
                    *logit / factor
                } else {
                    *logit * factor
                };
                *logit -= run.len() as f64 * f64::from(o.frequency_penalty)
                    + f64::from(o.presence_penalty);
            }
        }
        for &(token, bias) in &o.logit_bias {
            let slot = self
                .edited
                .get_mut(token as usize)
                .ok_or(CoreError::TokenOutOfRange {
                    id: token,
                    vocab: logits.len(),
                })?;
            *slot += f64::from(bias);
        }
        Ok(())
    }

    fn top_k(&mut self) {
        let k = self.options.top_k;
        if k == 0 || k >= self.kept.len() {
            return;
        }
        self.kept.select_nth_unstable_by(k - 1, Candidate::order);
        self.kept.truncate(k);
        // Selection leaves an order of its own: sums below must not depend on it.
        self.kept.sort_unstable_by(Candidate::order);
    }

    fn top_p(&mut self) {
        if self.options.top_p >= 1.0 {
            return;
        }
        let max = self.max();
        let total: f64 = self.kept.iter().map(|c| math::exp(c.logit - max)).sum();
        let goal = f64::from(self.options.top_p) * total;
        // Few tokens hold nearly all the mass: order a growing head instead of everything.
        let mut head = 64;
        loop {
            head = head.min(self.kept.len());
            if head < self.kept.len() {
                self.kept.select_nth_unstable_by(head - 1, Candidate::order);
            }
            if let Some(first) = self.kept.get_mut(..head) {
                first.sort_unstable_by(Candidate::order);
            }
            let mut sum = 0.0;
            let mut enough = None;
            for (i, c) in self.kept.iter().take(head).enumerate() {
                sum += math::exp(c.logit - max);
                if sum >= goal {
                    enough = Some(i + 1);
                    break;
                }
            }
            if let Some(n) = enough {
                self.kept.truncate(n);
                return;
            }
            if head == self.kept.len() {
                return;
            }
            head *= 8;
        }
    }

    fn min_p(&mut self) {
        let min_p = f64::from(self.options.min_p);
        if min_p == 0.0 {
            return;
        }
        let max = self.max();
        self.kept.retain(|c| math::exp(c.logit - max) >= min_p);
    }

    fn max(&self) -> f64 {
        self.kept
            .iter()
            .map(|c| c.logit)
            .fold(f64::NEG_INFINITY, f64::max)
    }
}

#[cfg(test)]
mod tests;
