use crate::{TokenId, constrain::Grammar, generate::Cancel, sample::Sampling};

/// What to generate from.
#[derive(Clone, Debug)]
pub struct Request {
    /// The whole context, from the first token on. What the session's cache holds of it already is
    /// reused.
    pub prompt: Vec<TokenId>,
    /// The most tokens to generate; 0 only reads the prompt into the cache.
    pub max_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Holds the text to a grammar.
    pub grammar: Option<Grammar>,
    /// The generation ends where one of these appears; it is not part of the text.
    pub stop: Vec<String>,
    /// For each token, its log-probability and those of this many likeliest; 0 is none at all.
    pub log_probs: usize,
    /// Ends the generation from elsewhere.
    pub cancel: Cancel,
}

impl Request {
    /// Greedy, unconstrained, at most 256 tokens.
    pub fn new(prompt: Vec<TokenId>) -> Self {
        Self {
            prompt,
            max_tokens: 256,
            sampling: Sampling::default(),
            grammar: None,
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
    /// `max_tokens` tokens were generated. Under a grammar the text is then incomplete.
    MaxTokens,
    /// The text is complete by the grammar.
    GrammarDone,
    /// The context is full.
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
    /// One entry per token where the request asked for them; empty otherwise.
    pub log_probs: Vec<TokenLogProbs>,
}
