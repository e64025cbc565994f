//! Run a GGUF model: tokenizer, chat template, decoder, KV cache, sampling, constraints, sessions.

#![forbid(unsafe_code)]

pub mod backend;
pub mod chat;
pub mod constrain;
pub mod embed;
pub mod error;
pub mod generate;
pub mod hub;
#[cfg(feature = "candle")]
mod load;
pub mod model;
pub mod sample;
pub mod tokenizer;

pub use error::{CoreError, Result};
#[cfg(feature = "candle")]
pub use load::{LoadOptions, load};

/// A token of the model's vocabulary: an index into `tokenizer.ggml.tokens`.
pub type TokenId = u32;
