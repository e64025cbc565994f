//! Generating text: requests, events, and what comes of them.

mod cancel;
mod log_probs;
mod request;

pub use cancel::Cancel;
pub use log_probs::{log_prob, top_log_probs};
pub use request::{Event, Generation, Request, StopReason, TokenLogProbs, Usage};
