//! DRY: "don't repeat yourself".

use std::fmt;

use super::SampleError;
use super::options::check;
use crate::{TokenId, tokenizer::Tokenizer};

/// Penalizes tokens that would go on with a repetition (p-e-w 2024, "DRY: A modern repetition
/// penalty", text-generation-webui #5677; as in llama.cpp).
///
/// Where the last n tokens of the text occur earlier in it, and there were followed by a token,
/// `multiplier · base^(n − allowed_length)` is subtracted from that token's logit, n being the
/// longest such stretch and at least `allowed_length`. A stretch ends where a breaker stands in the
/// text, in one token or across several, and a token that brings a breaker is never penalized: so
/// names, lists and formats may repeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// The penalty of a stretch of `allowed_length` tokens; 0 is off. Finite, not negative.
    pub multiplier: f32,
    /// How many times as large it is for each token more; finite, at least 1.
    pub base: f32,
    /// The shortest stretch that counts, in tokens; at least 1.
    pub allowed_length: usize,
    /// How many of the last tokens, prompt included, it looks at; `usize::MAX` all.
    pub window: usize,
    /// Texts that a repetition is not followed across; none of them empty.
    pub breakers: Vec<String>,
}

impl Default for Dry {
    fn default() -> Self {
        Self {
            multiplier: 0.8,
            base: 1.75,
            allowed_length: 2,
            window: usize::MAX,
            breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
        }
    }
}

impl Dry {
    pub(super) fn validate(&self) -> Result<(), SampleError> {
        check(
            "dry.multiplier",
            self.multiplier,
            |x| x >= 0.0,
            "at least 0",
        )?;
        check("dry.base", self.base, |x| x >= 1.0, "at least 1")?;
        if self.allowed_length == 0 {
            return Err(SampleError::Option {
                name: "dry.allowed_length",
                value: 0.0,
                expected: "at least 1",
            });
        }
        match self.breakers.iter().any(String::is_empty) {
            true => Err(SampleError::EmptyBreaker),
            false => Ok(()),
        }
    }

    /// The penalty of a stretch; finite, so that even all tokens together are not banned by it.
    fn penalty(&self, length: usize) -> f64 {
        let mut penalty = f64::from(self.multiplier);
        // Not `powi`, whose rounding is the platform's.
        for _ in self.allowed_length..length {
            penalty *= f64::from(self.base);
            if penalty > f64::from(f32::MAX) {
                return f64::from(f32::MAX);
            }
            if self.base == 1.0 {
                break;
            }
        }
        penalty
    }
}

/// Finds repetitions and penalizes them. Holds buffers only.
#[derive(Clone)]
pub(super) struct Repetitions {
    options: Dry,
    tokenizer: Tokenizer,
    /// The window, last token first.
    reversed: Vec<TokenId>,
    /// For each place of the window, last first, how many tokens up to it are those of the end.
    lengths: Vec<usize>,
    /// Tokens that followed such a stretch, with its length.
    follow: Vec<(TokenId, usize)>,
    text: Vec<u8>,
}

impl fmt::Debug for Repetitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

impl Repetitions {
    pub(super) fn new(options: &Dry, tokenizer: &Tokenizer) -> Self {
        Self {
            options: options.clone(),
            tokenizer: tokenizer.clone(),
            reversed: Vec::new(),
            lengths: Vec::new(),
            follow: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Subtracts the penalties of what follows `history`.
    pub(super) fn penalize(&mut self, history: &[TokenId], logits: &mut [f64]) {
        if self.options.multiplier == 0.0 {
            return;
        }
        let begin = history.len().saturating_sub(self.options.window);
        let window = history.get(begin..).unwrap_or_default();
        let limit = self.since_breaker(window);
        if limit < self.options.allowed_length {
            return;
        }
        self.find(window, limit);
        let mut follow = std::mem::take(&mut self.follow);
        for same in follow.chunk_by(|a, b| a.0 == b.0) {
            // Of the same token the longest comes last.
            if let Some(&(token, length)) = same.last()
                && let Some(logit) = logits.get_mut(token as usize)
                && !self.breaks(window, token)
            {
                *logit -= self.options.penalty(length);
            }
        }
        follow.clear();
        self.follow = follow;
    }

    /// Which tokens followed the end of the window earlier, and after how many of its tokens, at
    /// most `limit`: ordered.
    fn find(&mut self, window: &[TokenId], limit: usize) {
        self.reversed.clear();
        self.reversed.extend(window.iter().rev());
        common_beginnings(&self.reversed, &mut self.lengths);
        self.follow.clear();
        let places = self.reversed.iter().zip(self.lengths.iter().skip(1));
        for (&token, &length) in places {
            if length >= self.options.allowed_length {
                self.follow.push((token, length.min(limit)));
            }
        }
        self.follow.sort_unstable();
    }

    /// How many tokens there are after the last one that brings a breaker.
    fn since_breaker(&mut self, window: &[TokenId]) -> usize {
        let place = (0..window.len()).rev().find(|&at| {
            let (before, rest) = window.split_at(at);
            rest.first()
                .is_some_and(|&token| self.breaks(before, token))
        });
        place.map_or(window.len(), |at| window.len() - at - 1)
    }

    /// Whether a breaker ends in `token` where it stands after `before`.
    fn breaks(&mut self, before: &[TokenId], token: TokenId) -> bool {
        let longest = self.options.breakers.iter().map(String::len).max();
        let Some(longest) = longest else {
            return false;
        };
        // Backwards, until no breaker can reach further.
        self.text.clear();
        push_reversed(&self.tokenizer, token, &mut self.text);
        let own = self.text.len();
        for &token in before.iter().rev() {
            if self.text.len() + 1 >= own + longest {
                break;
            }
            push_reversed(&self.tokenizer, token, &mut self.text);
        }
        self.text.reverse();
        let border = self.text.len() - own;
        self.options.breakers.iter().any(|breaker| {
            let from = border.saturating_sub(breaker.len() - 1);
            let text = self.text.get(from..).unwrap_or_default();
            own > 0 && text.windows(breaker.len()).any(|w| w == breaker.as_bytes())
        })
    }
}

/// The text of a token, control tokens as they are written, last byte first.
fn push_reversed(tokenizer: &Tokenizer, token: TokenId, text: &mut Vec<u8>) {
    if tokenizer.is_control(token) {
        text.extend(tokenizer.token_text(token).bytes().rev());
    } else {
        text.extend(tokenizer.token_bytes(token).iter().rev());
    }
}

/// For each place of `text` how many tokens from there on are those that it begins with: the
/// Z-algorithm, in linear time.
fn common_beginnings(text: &[TokenId], lengths: &mut Vec<usize>) {
    lengths.clear();
    lengths.resize(text.len(), 0);
    if let Some(first) = lengths.first_mut() {
        *first = text.len();
    }
    // The stretch known to be like the beginning that reaches furthest.
    let (mut begin, mut end) = (0, 0);
    for at in 1..text.len() {
        let known = lengths.get(at - begin).copied().unwrap_or(0);
        let mut length = known.min(usize::saturating_sub(end, at));
        while text
            .get(at + length)
            .is_some_and(|t| text.get(length) == Some(t))
        {
            length += 1;
        }
        if let Some(slot) = lengths.get_mut(at) {
            *slot = length;
        }
        if at + length > end {
            (begin, end) = (at, at + length);
        }
    }
}
