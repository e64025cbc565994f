//! From a row of logits to a token.
//!
//! The order is fixed: repetition, frequency and presence penalties → [DRY](Dry) → logit bias →
//! grammar mask → greedy, or temperature → top-k → typical → top-p → min-p (or
//! [mirostat](Mirostat) in their place) → argmax(logit / T + Gumbel noise). The noise is a function
//! of (seed, position, token) alone (see [`noise`]): the same history, seed and logits give the same
//! token, whoever asks and in whatever order. Only mirostat remembers anything, one number, in the
//! [`State`] that drafts copy and put back.

mod cut;
mod dry;
mod error;
pub mod math;
mod mirostat;
pub mod noise;
mod options;

use std::cmp::Ordering;

pub use dry::Dry;
pub use error::SampleError;
pub use mirostat::Mirostat;
pub use options::Sampling;

use crate::{CoreError, Result, TokenId, constrain::Mask, tokenizer::Tokenizer};

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

/// What a sampler remembers from token to token.
///
/// Whoever samples ahead (a draft, of which some tokens may be rejected) keeps the state of each
/// position and puts back that of the last token that counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Mirostat's bound on the surprise of a token, in bits; of no meaning without mirostat.
    bound: f64,
}

impl State {
    /// As bits, to be kept in a file.
    pub fn to_bits(self) -> u64 {
        self.bound.to_bits()
    }

    /// From what [`to_bits`](Self::to_bits) gave.
    pub fn from_bits(bits: u64) -> Self {
        Self {
            bound: f64::from_bits(bits),
        }
    }
}

/// Chooses tokens by one [`Sampling`]. Beside its [`State`] it holds buffers only: its results
/// depend on its arguments and that state.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: Sampling,
    dry: Option<dry::Repetitions>,
    state: State,
    kept: Vec<Candidate>,
    /// How many tokens there were to choose from before any was cut off.
    allowed: usize,
    edited: Vec<f64>,
    window: Vec<TokenId>,
}

impl Sampler {
    /// A sampler of these options for the tokens of this tokenizer, at the beginning of a text.
    ///
    /// # Errors
    /// Those of [`Sampling::validate`].
    pub fn new(options: &Sampling, tokenizer: &Tokenizer) -> Result<Self> {
        options.validate()?;
        let dry = options.dry.as_ref();
        Ok(Self {
            options: options.clone(),
            dry: dry.map(|dry| dry::Repetitions::new(dry, tokenizer)),
            state: State {
                bound: options.mirostat.map_or(0.0, |m| m.first_bound()),
            },
            kept: Vec::new(),
            allowed: 0,
            edited: Vec::new(),
            window: Vec::new(),
        })
    }

    /// The options it was made of.
    pub fn options(&self) -> &Sampling {
        &self.options
    }

    /// What it remembers now.
    pub fn state(&self) -> State {
        self.state
    }

    /// Goes back to what it remembered then.
    pub fn restore(&mut self, state: State) {
        self.state = state;
    }

    /// The token that follows `history` (every token before it, prompt included), given the raw
    /// `logits` of the vocabulary and, under a grammar, the tokens that it allows. The
    /// [`State`] is then the one after that token.
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
        let mut best: Option<(Candidate, f64)> = None;
        for c in &self.kept {
            // Noise that cannot lift this one over the best need not be computed.
            let least = best.map_or(f64::NEG_INFINITY, |(b, _)| b.logit - c.logit);
            let Some(gumbel) = noise.gumbel_from(c.token, least) else {
                continue;
            };
            let drawn = Candidate {
                token: c.token,
                logit: c.logit + gumbel,
            };
            if best.is_none_or(|(b, _)| Candidate::order(&drawn, &b).is_lt()) {
                best = Some((drawn, c.logit));
            }
        }
        let (drawn, logit) = best.ok_or(SampleError::NothingAllowed)?;
        // Where there was no choice nothing is learned: a token that a grammar forces may as well
        // not come here at all.
        if let Some(mirostat) = self.options.mirostat
            && self.allowed > 1
        {
            let surprise = cut::surprise(cut::log_total(&self.kept), logit);
            self.state.bound = mirostat.next_bound(self.state.bound, surprise);
        }
        Ok(drawn.token)
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
        check(logits)?;
        self.kept.clear();
        if self.takes_likeliest() {
            self.kept.extend(likeliest(logits, mask));
            self.allowed = self.kept.len();
            return match self.kept.is_empty() {
                true => Err(SampleError::NothingAllowed.into()),
                false => Ok(()),
            };
        }
        self.edit(logits, history)?;
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
        self.allowed = self.kept.len();
        if greedy {
            return Ok(());
        }
        let (o, kept) = (&self.options, &mut self.kept);
        if o.mirostat.is_some() {
            cut::surprising(kept, self.state.bound);
        } else {
            cut::top_k(kept, o.top_k);
            cut::typical(kept, f64::from(o.typical_p));
            cut::top_p(kept, f64::from(o.top_p));
            cut::min_p(kept, f64::from(o.min_p));
        }
        Ok(())
    }

    /// Whether nothing stands between the logits and the likeliest token.
    fn takes_likeliest(&self) -> bool {
        let o = &self.options;
        o.temperature == 0.0 && !o.penalizes() && self.dry.is_none() && o.logit_bias.is_empty()
    }

    /// Penalties, DRY and bias, into `edited`.
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
        if let Some(dry) = &mut self.dry {
            dry.penalize(history, &mut self.edited);
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
}

/// Logits that are looked at together: in vector registers, as nothing branches among them.
const TOGETHER: usize = 64;

/// Refuses logits that are not numbers or plus infinity.
fn check(logits: &[f32]) -> Result<()> {
    let broken = |x: f32| x.is_nan() || x == f32::INFINITY;
    for (i, some) in logits.chunks(TOGETHER).enumerate() {
        if !some.iter().fold(false, |any, &x| any | broken(x)) {
            continue;
        }
        if let Some(at) = some.iter().position(|&x| broken(x)) {
            return Err(SampleError::Logit {
                token: (i * TOGETHER + at) as TokenId,
                value: some.get(at).copied().unwrap_or(f32::NAN),
            }
            .into());
        }
    }
    Ok(())
}

/// The likeliest token that the mask allows, of equals the lowest; none where all are ruled out.
fn likeliest(logits: &[f32], mask: Option<&Mask>) -> Option<Candidate> {
    let mut best = (f32::NEG_INFINITY, None);
    for (i, some) in logits.chunks(TOGETHER).enumerate() {
        let higher = |top: f32, &x: &f32| if x > top { x } else { top };
        if some.iter().fold(best.0, higher) == best.0 {
            continue;
        }
        for (at, &logit) in some.iter().enumerate() {
            let token = (i * TOGETHER + at) as TokenId;
            if logit > best.0 && mask.is_none_or(|mask| mask.allows(token)) {
                best = (logit, Some(token));
            }
        }
    }
    best.1.map(|token| Candidate {
        token,
        logit: f64::from(best.0),
    })
}

#[cfg(test)]
mod dry_tests;
#[cfg(test)]
mod mirostat_tests;
#[cfg(test)]
mod tests;
