//! Drafts: guesses of what comes next, which the model checks several at a time.
//!
//! A pass over a few tokens costs little more than a pass over one, as the weights are read once.
//! After each pass the rows of logits are gone through in order, each token chosen as without a
//! draft; where it is the one guessed, the next row is that of the next token (Leviathan et al.,
//! "Fast Inference from Transformers via Speculative Decoding", arXiv 2211.17192, with the choice
//! of each token a function of seed and position instead of rejection sampling). So a draft changes
//! how fast a text comes, never the text.

use crate::{
    Result, TokenId,
    constrain::Constraint,
    generate::{Cancel, Request},
};

/// Guesses what a generation says next.
pub trait Draft: Send {
    /// A generation begins.
    fn begin(&mut self, request: &Request);

    /// Puts at most `place.most` tokens that may come next into `out`, which is empty. None at all
    /// is a guess, too. What cannot be used is left out: everything from an end token, an unknown
    /// one, or one that the grammar refuses.
    ///
    /// # Errors
    /// Whatever keeps the generation from going on; a source that knows nothing has no guess.
    fn propose(&mut self, place: &Place<'_>, out: &mut Vec<TokenId>) -> Result<()>;

    /// What became of a pass; called after each one that ended in a choice of tokens, also where
    /// there was no guess.
    fn checked(&mut self, pass: &Checked);
}

/// Where a generation stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Prompt and everything generated.
    pub history: &'a [TokenId],
    /// How many of them are the prompt.
    pub prompt: usize,
    /// The grammar, after everything generated.
    pub constraint: Option<&'a Constraint>,
    /// Tokens that the pass has before the guesses: the last one, and those that the grammar forced.
    pub behind: usize,
    /// The most tokens that a guess may have.
    pub most: usize,
    /// Ends the generation.
    pub cancel: &'a Cancel,
}

/// A pass with which the model checked a draft.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Checked {
    /// Positions in the cache before.
    pub depth: usize,
    /// Tokens of the pass.
    pub tokens: usize,
    /// Of these, tokens that were guessed: what of a proposal could be used.
    pub drafted: usize,
    /// Of these, tokens that were right and became text.
    pub accepted: usize,
    /// Tokens that were chosen after it: none of them forced.
    pub chosen: usize,
    /// Seconds of the pass.
    pub seconds: f64,
}
