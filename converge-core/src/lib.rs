//! Run a GGUF model: tokenizer, chat template, decoder, KV cache, sampling, constraints, sessions.

#![forbid(unsafe_code)]

pub mod backend;
pub mod chat;
pub mod constrain;
pub mod error;
pub mod generate;
pub mod hub;
pub mod model;
pub mod sample;
pub mod tokenizer;

pub use error::{CoreError, Result};

/// A token of the model's vocabulary: an index into `tokenizer.ggml.tokens`.
pub type TokenId = u32;
