use crate::{
    TokenId,
    constrain::Grammar,
    generate::Cancel,
    sample::{Sampling, State},
};

/// What to generate from.
#[derive(Clone, Debug)]
pub struct Request {
    /// The whole context, from the first token on. What the session's cache holds of it already is
    /// reused.
    pub prompt: Vec<TokenId>,
    /// So many of the prompt's last tokens are the beginning of the answer: an earlier generation
    /// that was cut off. Grammar and stop strings go on from before them. 0 for a new answer.
    pub answered: usize,
    /// What the sampler remembered when that generation was cut off
    /// ([`Generation::sampler`]); `None` for a new answer.
    pub sampler: Option<State>,
    /// The most tokens to generate; 0 only reads the prompt into the cache.
    pub max_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Holds the text to a grammar.
    pub grammar: Option<Grammar>,
    /// Under a grammar, the text is complete before `max_tokens` or the context end it: a token after
    /// which no completion fits is not taken, the next of one that does fit is. A budget too small for
    /// any is refused with [`ConstrainError::Budget`](crate::constrain::ConstrainError::Budget), save
    /// a `max_tokens` of 0, which only reads the prompt. Stop strings and a cancellation still end a
    /// text anywhere.
    pub complete: bool,
    /// The generation ends where one of these appears; it is not part of the text.
    pub stop: Vec<String>,
    /// For each token, its log-probability and those of this many likeliest; 0 is none at all.
    pub log_probs: usize,
    /// Ends the generation from elsewhere.
    pub cancel: Cancel,
}

impl Request {
    /// Goes on where `generation`, which came of this request, was cut off: the tokens that follow are
    /// those that would have followed. Of a text that was held back because a stop string may have
    /// begun, nothing is taken back.
    #[must_use]
    pub fn after(&self, generation: &Generation) -> Self {
        let mut next = self.clone();
        next.prompt.extend_from_slice(&generation.tokens);
        next.answered += generation.tokens.len();
        next.sampler = Some(generation.sampler);
        next
    }

    /// Greedy, unconstrained, at most 256 tokens.
    pub fn new(prompt: Vec<TokenId>) -> Self {
        Self {
            prompt,
            answered: 0,
            sampler: None,
            max_tokens: 256,
            sampling: Sampling::default(),
            grammar: None,
            complete: false,
            stop: Vec::new(),
            log_probs: 0,
            cancel: Cancel::new(),
        }
    }
}

/// What happens while a generation runs, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// So many tokens of the prompt are read; those taken from the cache are not counted.
    Prefill {
        /// Tokens read so far.
        done: usize,
        /// Tokens to read.
        total: usize,
    },
    /// A token was chosen; its text may come later, or not at all.
    Token(TokenId),
    /// More text: whole characters, never a stop string or the beginning of one.
    Text(&'a str),
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model chose an end token.
    EndOfText,
    /// This stop string appeared.
    StopString(String),
    /// `max_tokens` tokens were generated. Under a grammar the text is then
    /// incomplete, unless [`Request::complete`] forbids that.
    MaxTokens,
    /// The text is complete by the grammar.
    GrammarDone,
    /// The context is full. Never with a grammar and [`Request::complete`].
    Context,
    /// The caller cancelled.
    Cancelled,
}

/// What a generation cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Prompt tokens that the cache held already.
    pub reused: usize,
    /// Prompt tokens computed.
    pub prefilled: usize,
    /// Tokens generated.
    pub decoded: usize,
    /// Of the generated tokens, those that the grammar left no choice about: no pass of their own.
    pub forced: usize,
    /// Of the generated tokens, those taken in place of what was chosen, so that the text is complete
    /// in its budget.
    pub closing: usize,
    /// Passes of the model that tokens were chosen after.
    pub passes: usize,
    /// Tokens that a draft guessed.
    pub drafted: usize,
    /// Of these, tokens that were right: no pass of their own.
    pub accepted: usize,
    /// Seconds until the prompt was read.
    pub prefill_seconds: f64,
    /// Seconds from then on.
    pub decode_seconds: f64,
}

/// Log-probabilities at one generated token, of the model's own distribution: before penalties,
/// bias, grammar and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogProbs {
    /// The token chosen.
    pub token: TokenId,
    /// Its log-probability.
    pub log_prob: f64,
    /// The likeliest tokens, most likely first, equals by id.
    pub top: Vec<(TokenId, f64)>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The tokens generated, without an end token; including those of a stop string.
    pub tokens: Vec<TokenId>,
    /// Their text, without a stop string.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// What it cost.
    pub usage: Usage,
    /// What the sampler remembers after the last token, to [go on](Request::after) from.
    pub sampler: State,
    /// One entry per token where the request asked for them; empty otherwise.
    pub log_probs: Vec<TokenLogProbs>,
}
