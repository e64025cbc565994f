//! Speculative decoding: several tokens a pass, and the same text to the bit.
//!
//! A pass over a model reads all of its weights, whether it computes one token or eight. So a session
//! computes the next token together with guesses of those after it, and keeps the guesses up to the
//! first wrong one.
//!
//! ```text
//!             ┌───────── Speculative, an implementation of Generate ─────────┐
//!   Request ─►│  Drafts                                 Session              │─► Generation
//!             │   SuffixDrafter  what followed before ┐   pass over token    │
//!             │   ModelDrafter   a small model        ├─►  and guesses       │
//!             │   …                                   ┘        │             │
//!             │   controller ◄── seconds, right or wrong ──────┘             │
//!             └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! **Exact.** The session goes through the logits of a pass one by one and chooses each token as it
//! would without a guess: with the request's penalties, its grammar, and noise that is a function of
//! seed and position. A guess decides only whether the next row of logits is there already. Leviathan
//! et al. ("Fast Inference from Transformers via Speculative Decoding", arXiv 2211.17192) keep the
//! *distribution* by rejecting some guesses at random; this keeps the *text*, because
//! argmax(logit / T + Gumbel noise) couples what is drawn with and without them. The decoder must keep
//! its side: logits that do not depend on the pass ([`Generate::exact`]).
//!
//! **Seldom slower.** The [`controller`] measures what passes and guesses cost and how often guesses of
//! each kind are right, and drafts as far as that pays; until it has learned, some drafts do not.
//!
//! - [`SuffixDrafter`] guesses what followed the same words before; it costs microseconds. With a
//!   [`Store`] it remembers earlier runs.
//! - [`ModelDrafter`] asks a small model of the same vocabulary.
//! - Tokens that a grammar forces need no guess: the session takes them into the text by itself. Drafts
//!   go on behind those that a guess leads to, and guess the tokens of what is forced as text only.
//!
//! ```no_run
//! use converge_core::{
//!     LoadOptions,
//!     generate::{Generate as _, Request},
//!     load,
//! };
//! use converge_quant::Gguf;
//! use converge_spec::{ModelDrafter, Speculative, SuffixDrafter};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = LoadOptions::default();
//! let session = load("large.gguf".as_ref(), &options)?;
//! let small = Gguf::open("small.gguf")?;
//! let model = ModelDrafter::load(&small, &options, session.tokenizer())?;
//! let mut speculative =
//!     Speculative::new(session, vec![Box::new(SuffixDrafter::new()), Box::new(model)]);
//!
//! let prompt = speculative.tokenizer().encode_continuation("fn main() {")?;
//! let generation = speculative.generate(&Request::new(prompt), &mut |_| ())?;
//! let stats = speculative.stats();
//! println!("{}\n{:.1} tokens a pass", generation.text, stats.tokens_per_pass());
//! # Ok(())
//! # }
//! ```
//!
//! [`Generate::exact`]: converge_core::generate::Generate::exact

#![forbid(unsafe_code)]

pub mod controller;
pub mod drafter;
mod drafts;
pub mod error;
mod speculative;
pub mod stats;

pub use drafter::{Drafter, Gate, Guess, ModelDrafter, Store, SuffixDrafter};
pub use drafts::Drafts;
pub use error::SpecError;
pub use speculative::Speculative;
pub use stats::{Position, SourceStats, Stats};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
