//! Run a GGUF model: tokenizer, chat template, decoder, KV cache, sampling, constraints, sessions.
//!
//! ```text
//!  messages ─► chat::ChatTemplate ─► spans ─► tokenizer::Tokenizer ─► tokens
//!                                                                       │ Request
//!                                                                       ▼
//!                        generate::Session, behind the trait generate::Generate
//!                          │ tokens ▲ logits          │ logits ▲ allowed tokens
//!                          ▼        │                 ▼        │
//!                        model::Decoder            sample::Sampler ◄─ constrain::Grammar
//!                          │
//!          ┌───────────────┴────────────────┐
//!   backend::cpu                     backend::candle
//!   our own kernels, exact           any device of candle; the oracle in tests
//! ```
//!
//! - [`load()`] makes a [`Session`](generate::Session) of a file in one call.
//! - Whatever stands above (an agent, a drafter) speaks to a model through
//!   [`Generate`](generate::Generate) alone.
//! - [`model`] describes decoders as data, read from a file; a [`backend`] computes them.
//! - [`cache`] holds keys and values in pages that sessions share, fork and take up again.
//! - [`chat`] renders messages with the model's own template, in spans, so that no text of a
//!   message becomes a control token; a [`Conversation`](chat::Conversation) adds to its tokens and
//!   changes none, up to where the context ends: then turns give way to a summary, by a plan.
//! - [`constrain`] holds an answer to a JSON schema, a regular expression, a Lark grammar or calls
//!   of tools.
//! - [`embed`] makes vectors of texts; [`hub`] knows models by name, and where they lie.
//!
//! ```no_run
//! use converge_core::{
//!     LoadOptions,
//!     chat::{Message, RenderOptions},
//!     generate::{Event, Generate as _, Request},
//!     load,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut session = load("model.gguf".as_ref(), &LoadOptions::default())?;
//! let messages = [Message::user("What is a KV cache?")];
//! let prompt = session.chat().encode(session.tokenizer(), &messages, &RenderOptions::default())?;
//! let mut request = Request::new(prompt);
//! request.max_tokens = 200;
//! let generation = session.generate(&request, &mut |event| {
//!     if let Event::Text(text) = event {
//!         print!("{text}");
//!     }
//! })?;
//! println!("\n{} tokens", generation.usage.decoded);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod backend;
pub mod cache;
pub mod chat;
pub mod constrain;
pub mod embed;
pub mod error;
pub mod generate;
pub mod hub;
mod load;
pub mod model;
pub mod sample;
pub mod tokenizer;

pub use error::{CoreError, Result};
pub use load::{Backend, LoadOptions, Progress, load};

/// A token of the model's vocabulary: an index into `tokenizer.ggml.tokens`.
pub type TokenId = u32;
