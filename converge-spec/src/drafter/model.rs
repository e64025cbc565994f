//! Guesses of a small model of the same vocabulary.
//!
//! It chooses as the large one does: with the same penalties, grammar and temperature, and with the
//! same noise at the same position. Sampling is argmax(logit / T + Gumbel noise), the noise a function
//! of (seed, position, token), so where the two distributions agree on a token, the two draws mostly
//! do, too: a coupling, with which a draft is right more often than a draw of its own would be.

use std::collections::HashSet;

use converge_core::{
    CoreError, LoadOptions, Result, TokenId,
    generate::{Place, Request},
    model::{Decoder, Logits, Rows},
    sample::Sampler,
    tokenizer::Tokenizer,
};

use converge_quant::Gguf;

use super::{Drafter, Gate, Guess};
use crate::error::SpecError;

/// Tokens that are read at once, as in a session.
const CHUNK: usize = 128;

/// Upper ends of the classes of guesses, by the small model's own probability.
const BOUNDS: [f64; 9] = [0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.96, 0.99, 1.0];

/// How often the two agree, before anything is learned.
const PRIORS: [f64; BOUNDS.len()] = [0.2, 0.3, 0.42, 0.53, 0.65, 0.76, 0.86, 0.93, 0.98];

/// A model with a KV cache of its own.
pub struct ModelDrafter {
    decoder: Box<dyn Decoder>,
    tokenizer: Tokenizer,
    /// What the cache holds.
    held: Vec<TokenId>,
    sampler: Option<Sampler>,
    /// Where the head is narrowed: to tokens below this, and to those of the text.
    frequent: Option<usize>,
    /// Tokens of the text that are not below it.
    rare: HashSet<TokenId>,
}

impl ModelDrafter {
    /// A drafter of this decoder for the model that `target` belongs to.
    ///
    /// # Errors
    /// [`SpecError::Vocabulary`] where the two models do not have the same tokens,
    /// [`SpecError::Forgetful`] for a decoder that cannot cut its cache back.
    pub fn new(
        decoder: Box<dyn Decoder>,
        tokenizer: Tokenizer,
        target: &Tokenizer,
    ) -> Result<Self, SpecError> {
        let tokens = tokenizer.vocab().max(target.vocab()) as TokenId;
        let differs = |&id: &TokenId| {
            tokenizer.token_bytes(id) != target.token_bytes(id)
                || tokenizer.is_control(id) != target.is_control(id)
        };
        if let Some(id) = (0..tokens).find(differs) {
            return Err(SpecError::Vocabulary {
                id,
                draft: tokenizer.token_text(id).into_owned(),
                target: target.token_text(id).into_owned(),
            });
        }
        if !decoder.truncates() {
            return Err(SpecError::Forgetful);
        }
        Ok(Self {
            decoder,
            tokenizer,
            held: Vec::new(),
            sampler: None,
            frequent: None,
            rare: HashSet::new(),
        })
    }

    /// A drafter of the model in this file.
    ///
    /// # Errors
    /// As [`new`](Self::new), and those of [`LoadOptions::decoder`].
    pub fn load(gguf: &Gguf, options: &LoadOptions, target: &Tokenizer) -> Result<Self, SpecError> {
        let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
        let decoder = options.decoder(gguf)?;
        Self::new(decoder, tokenizer, target)
    }

    /// Computes the head for tokens below `frequent` only, and for those of the text. Byte-level BPE
    /// numbers its tokens as they were merged, frequent ones first.
    #[must_use]
    pub fn with_frequent(mut self, frequent: usize) -> Self {
        self.frequent = Some(frequent);
        self.narrow(&[]);
        self
    }

    /// Lets the tokens of `text` through the head, too.
    fn narrow(&mut self, text: &[TokenId]) {
        let Some(frequent) = self.frequent else {
            return;
        };
        let before = self.rare.len();
        let rare = text.iter().filter(|&&id| id as usize >= frequent);
        self.rare.extend(rare);
        if self.rare.len() > before || text.is_empty() {
            let rare: Vec<_> = self.rare.iter().copied().collect();
            self.decoder.narrow_head(frequent, &rare);
        }
    }

    /// Forgets what the cache holds beyond what it has in common with `text`.
    fn keep_common(&mut self, text: &[TokenId]) -> Result<()> {
        let common = self.held.iter().zip(text);
        let common = common.take_while(|(a, b)| a == b).count();
        self.keep(common)
    }

    fn keep(&mut self, len: usize) -> Result<()> {
        if len < self.held.len() {
            self.decoder.truncate(len)?;
            self.held.truncate(self.decoder.len());
        }
        Ok(())
    }

    /// Reads what is new of `text`, and returns the logits after it.
    fn read(&mut self, text: &[TokenId], place: &Place<'_>) -> Result<Logits> {
        // The logits of the last token are needed.
        self.keep_common(text.split_last().map_or(&[], |(_, rest)| rest))?;
        let new = self.held.len()..text.len();
        self.narrow(text.get(new).unwrap_or_default());
        let mut logits = Logits::default();
        let mut left = text.len() - self.held.len();
        for chunk in text
            .get(self.held.len()..)
            .unwrap_or_default()
            .chunks(CHUNK)
        {
            left -= chunk.len();
            let rows = if left == 0 { Rows::Last } else { Rows::None };
            logits = self.decoder.forward(chunk, rows, place.cancel)?;
            self.held.extend_from_slice(chunk);
        }
        Ok(logits)
    }

    fn guess(&mut self, place: &Place<'_>, gate: &mut Gate<'_>) -> Result<()> {
        let Some(mut sampler) = self.sampler.take() else {
            return Ok(());
        };
        let state = sampler.state();
        let result = self.guess_with(&mut sampler, place, gate);
        sampler.restore(state);
        self.sampler = Some(sampler);
        result
    }

    fn guess_with(
        &mut self,
        sampler: &mut Sampler,
        place: &Place<'_>,
        gate: &mut Gate<'_>,
    ) -> Result<()> {
        let vocab = self.tokenizer.vocab().min(self.decoder.vocab());
        let mut constraint = place.constraint.cloned();
        let mut text = place.history.to_vec();
        while gate.is_open() && text.len() < self.decoder.context() {
            let logits = self.read(&text, place)?;
            let Some(row) = logits.row(0).and_then(|row| row.get(..vocab)) else {
                return Ok(());
            };
            let mask = match &mut constraint {
                Some(constraint) => Some(constraint.mask()?),
                None => None,
            };
            let token = sampler.sample(row, &text, mask.as_ref())?;
            if self.tokenizer.is_end(token) {
                return Ok(());
            }
            let probability = probability(row, token);
            let class = BOUNDS.iter().position(|&bound| probability <= bound);
            gate.push(Guess {
                token,
                class: class.unwrap_or(BOUNDS.len() - 1),
            });
            self.decoder.reuse(logits);
            text.push(token);
            if let Some(constraint) = &mut constraint {
                constraint.commit(token)?;
                // Read with the next guess.
                let forced = constraint.forced()?;
                gate.force(&forced);
                for &token in &forced {
                    constraint.commit(token)?;
                }
                text.extend(forced);
                if constraint.is_done() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// About how likely the token is: enough for its class, and much quicker than to the last bit.
fn probability(row: &[f32], token: TokenId) -> f64 {
    let own = row
        .get(token as usize)
        .copied()
        .unwrap_or(f32::NEG_INFINITY);
    // Of all others together, those that are so much less likely come to next to nothing.
    let near = row.iter().map(|x| x - own).filter(|x| *x > -12.0);
    1.0 / near.map(|x| f64::from(x.exp())).sum::<f64>()
}

impl std::fmt::Debug for ModelDrafter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelDrafter")
            .field("held", &self.held.len())
            .field("frequent", &self.frequent)
            .finish_non_exhaustive()
    }
}

impl Drafter for ModelDrafter {
    fn name(&self) -> &'static str {
        "model"
    }

    fn priors(&self) -> &[f64] {
        &PRIORS
    }

    fn begin(&mut self, request: &Request) {
        // What earlier texts had is of no more use.
        self.rare.clear();
        self.narrow(&request.prompt);
        self.sampler = Sampler::new(&request.sampling, &self.tokenizer).ok();
    }

    /// Nothing is read before a guess is wanted.
    fn commit(&mut self, text: &[TokenId]) {
        // A cache that cannot be cut back is found out, and told, when it is read on.
        let _ = self.keep_common(text);
    }

    fn propose(&mut self, place: &Place<'_>, gate: &mut Gate<'_>) -> Result<()> {
        match self.guess(place, gate) {
            // Whatever this model or its sampler stumbles on, the text goes on without it.
            Err(CoreError::Cancelled) => Err(CoreError::Cancelled),
            Err(error) => {
                tracing::debug!("the draft model has no guess: {error}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn rollback(&mut self, len: usize) {
        let _ = self.keep(len);
    }

    fn behind(&self, text: usize) -> Option<usize> {
        Some(text.saturating_sub(self.held.len()))
    }
}
