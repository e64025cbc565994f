use std::{io, path::PathBuf};

use thiserror::Error;

/// Why texts could not be embedded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// A file of the model could not be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A description in JSON that is none, or lacks something.
    #[error("{path}: {source}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: serde_json::Error,
    },
    /// A description that says something that no model can be.
    #[error("{path}: `{key}` is {found}, expected {expected}", path = path.display())]
    Parameter {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is expected of it.
        expected: &'static str,
    },
    /// The tokenizer's file cannot be used, or its tokenizer refused a text.
    #[error("{path}: {source}", path = path.display())]
    Tokenizer {
        /// `tokenizer.json`.
        path: PathBuf,
        /// What the tokenizer said.
        source: tokenizers::Error,
    },
    /// A text without tokens.
    #[error("text {text} has no tokens (texts are counted from 0)")]
    Empty {
        /// Which of the texts, from 0.
        text: usize,
    },
    /// A text that is longer than the model takes.
    #[error(
        "text {text} has {tokens} tokens, the model takes {limit} (texts are counted from 0); \
         split it"
    )]
    TooLong {
        /// Which of the texts, from 0.
        text: usize,
        /// Its tokens.
        tokens: usize,
        /// The most that the model takes.
        limit: usize,
    },
}
