//! The one error type of this crate.

use thiserror::Error;

/// `Result` with this crate's error.
pub type Result<T, E = CoreError> = std::result::Result<T, E>;

/// Everything that can go wrong between a model file and its tokens.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CoreError {
    /// The model file is unreadable, malformed, or lacks something the model needs.
    #[error(transparent)]
    Quant(#[from] converge_quant::QuantError),
    /// A model is not on this machine, or is not what it should be.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// The prompt and what was asked for do not fit the context.
    #[error(
        "context overflow: {prompt} prompt tokens and {reserve} reserved for the answer \
         exceed the context of {context}; shorten the prompt or raise the context"
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens reserved for the answer.
        reserve: usize,
        /// Positions that the KV cache holds.
        context: usize,
    },
    /// The caller cancelled; the KV cache holds what was there before the pass.
    #[error("cancelled")]
    Cancelled,
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab} tokens")]
    TokenOutOfRange {
        /// The id as given.
        id: crate::TokenId,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// No token could be chosen from the logits.
    #[error(transparent)]
    Sample(#[from] crate::sample::SampleError),
    /// A grammar could not be compiled, or could not be kept.
    #[error(transparent)]
    Constrain(#[from] crate::constrain::ConstrainError),
}
