//! Where guesses come from.

mod automaton;
pub mod model;
pub mod store;
pub mod suffix;

use converge_core::{
    Result, TokenId,
    generate::{Place, Request},
};

pub use crate::controller::Gate;
pub use model::ModelDrafter;
pub use store::Store;
pub use suffix::SuffixDrafter;

/// A guessed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guess {
    /// The token.
    pub token: TokenId,
    /// How sure the drafter is: an index into its [`priors`](Drafter::priors). Guesses of a class
    /// are right about equally often.
    pub class: usize,
}

impl Guess {
    /// The class of tokens that the grammar forces after a guess.
    pub(crate) const FORCED: usize = usize::MAX;

    /// Whether the grammar forces it, if the guesses before it are right.
    pub fn is_forced(&self) -> bool {
        self.class == Self::FORCED
    }
}

/// One source of guesses.
///
/// ```text
///   begin ─► commit ─► propose ─► (the model checks) ─► rollback ─► commit ─► propose ─► …
/// ```
pub trait Drafter: Send {
    /// Its name in figures.
    fn name(&self) -> &'static str;

    /// For each class of guesses, how likely they are right before any was checked.
    fn priors(&self) -> &[f64];

    /// A generation begins.
    fn begin(&mut self, request: &Request) {
        let _ = request;
    }

    /// What the text is now, from the first token of the prompt on.
    fn commit(&mut self, text: &[TokenId]);

    /// Guesses the tokens after `place.history` as long as the gate is open, in order.
    ///
    /// # Errors
    /// Whatever keeps the generation from going on; a source that knows nothing has no guess.
    fn propose(&mut self, place: &Place<'_>, gate: &mut Gate<'_>) -> Result<()>;

    /// The text agrees with the last guesses up to this length, and no further.
    fn rollback(&mut self, len: usize) {
        let _ = len;
    }

    /// A generation has ended: prompt and everything generated, and how many of them are the prompt.
    fn finish(&mut self, text: &[TokenId], prompt: usize) {
        let _ = prompt;
        self.commit(text);
    }

    /// Tokens that it would have to read before it could guess after a text of this length; `None`
    /// for a drafter whose guesses cost next to nothing.
    fn behind(&self, text: usize) -> Option<usize> {
        let _ = text;
        None
    }
}
