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
    /// The vocabulary of the model file cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// A model is not on this machine, or is not what it should be.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// Texts could not be embedded.
    #[error(transparent)]
    Embed(#[from] crate::embed::EmbedError),
    /// The chat template, or what it was given.
    #[error(transparent)]
    Chat(#[from] crate::chat::ChatError),
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
    /// The KV caches of all sessions of a model have no room for more.
    #[error(
        "the KV caches of this model hold {used} of at most {limit} bytes and {needed} more are \
         needed; drop a session, shorten the context, or allow more"
    )]
    CacheFull {
        /// Bytes asked for.
        needed: usize,
        /// Bytes in use.
        used: usize,
        /// The most that there may be.
        limit: usize,
    },
    /// A session could not be kept in a file, or taken up from one.
    #[error(transparent)]
    Snapshot(#[from] crate::cache::SnapshotError),
    /// A KV cache that another loaded model has made.
    #[error("the KV cache belongs to another model")]
    ForeignCache,
    /// Keys and values were to be written where no room was made.
    #[error("the KV cache has no page of its own for position {position}")]
    NoPage {
        /// The position.
        position: usize,
    },
    /// A decoder that computes one sequence at a time only.
    #[error("this decoder cannot compute several sequences in one pass, or be forked")]
    OneSequence,
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
    /// A decoder that can forget everything only was to keep a part.
    #[error("the cache holds {held} positions and cannot be cut back to {len}, only to 0")]
    CannotTruncate {
        /// Positions in the cache.
        held: usize,
        /// Positions that were to stay.
        len: usize,
    },
    /// The file's architecture has no decoder description.
    #[error("architecture `{found}` is not supported (supported: {})", supported.join(", "))]
    UnsupportedArchitecture {
        /// `general.architecture` as it stands in the file.
        found: String,
        /// The architectures that there are descriptions for.
        supported: &'static [&'static str],
    },
    /// The architecture is known, but the file asks for a variant of it that is not.
    #[error("`{key}` is {found}, which is not supported (supported: {supported})")]
    UnsupportedFeature {
        /// The metadata key.
        key: String,
        /// Its value.
        found: String,
        /// What would be supported.
        supported: &'static str,
    },
    /// A parameter of the model has a value that no model can have.
    #[error("`{key}` is {found}, expected {expected}")]
    ModelParameter {
        /// The metadata key or option.
        key: String,
        /// Its value.
        found: String,
        /// What is expected of it.
        expected: String,
    },
    /// A tensor's shape contradicts the model's parameters.
    #[error("tensor `{tensor}` has shape {found:?}, expected {expected:?} ([rows, columns])")]
    TensorShape {
        /// The tensor's name in the file.
        tensor: String,
        /// The shape that the parameters demand, rows first.
        expected: Vec<usize>,
        /// The shape in the file, rows first.
        found: Vec<usize>,
    },
    /// A request without a prompt: there is nothing to go on from.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// An empty stop string, which would appear at once.
    #[error("a stop string is empty")]
    EmptyStopString,
    /// A grammar that was compiled for another vocabulary.
    #[error("the grammar was compiled for {grammar} tokens, the model has {model}")]
    ForeignGrammar {
        /// Vocabulary of the grammar.
        grammar: usize,
        /// Vocabulary of the model.
        model: usize,
    },
    /// A backend returned fewer rows of logits than it was asked for, or shorter ones.
    #[error("the pass returned no logits for row {row}; it has {rows} rows")]
    MissingLogits {
        /// The row.
        row: usize,
        /// Rows returned.
        rows: usize,
    },
    /// candle refused an operation (out of device memory, an unsupported type on a device …).
    #[cfg(feature = "candle")]
    #[error("candle: {0}")]
    Candle(#[source] Box<candle_core::Error>),
}

#[cfg(feature = "candle")]
impl From<candle_core::Error> for CoreError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(Box::new(error))
    }
}
