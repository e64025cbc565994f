use thiserror::Error;

use crate::TokenId;

/// Why no token could be chosen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A sampling option is out of its range.
    #[error("sampling option {name} is {value}; it must be {expected}")]
    Option {
        /// Name of the field of [`Sampling`](super::Sampling).
        name: &'static str,
        /// The value as given.
        value: f32,
        /// The range.
        expected: &'static str,
    },
    /// Two sampling options exclude each other.
    #[error("sampling option {name} does not go with {with}: leave out one of the two")]
    Conflict {
        /// Name of the field of [`Sampling`](super::Sampling).
        name: &'static str,
        /// What it does not go with.
        with: &'static str,
    },
    /// A sequence breaker of DRY is empty.
    #[error("a sequence breaker of dry is empty: give the text where repetitions end")]
    EmptyBreaker,
    /// A logit bias is not a number or plus infinity.
    #[error("logit bias of token {token} is {bias}; it must be a number below infinity")]
    Bias {
        /// The token.
        token: TokenId,
        /// The value as given.
        bias: f32,
    },
    /// The model computed a logit that is not a number or plus infinity.
    #[error("the logit of token {token} is {value}: the weights or the computation are broken")]
    Logit {
        /// The first such token.
        token: TokenId,
        /// Its logit.
        value: f32,
    },
    /// Grammar mask and logit bias leave no token to choose.
    #[error("grammar and logit bias leave no token to choose")]
    NothingAllowed,
}
