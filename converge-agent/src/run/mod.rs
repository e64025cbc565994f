//! The run as a state machine without I/O: [`Run::next_step`] says what to do, [`Run::generated`]
//! and [`Run::called`] take what came of it.
//!
//! A run serializes at every step, so it can be stored before an effect and resumed after it.
//!
//! ```text
//!        list, profile, look up, search       read, extract      select, fold, calculate   answer
//! question ──► plan ────────────────► execute ──────────► observe ─────────────► refine ───► done
//!                                        ▲                                         │
//!                                        └──────────── something is missing ───────┘
//! ```

mod compute;
mod conclude;
mod lookup;
mod outcome;
mod query;
mod relate;
mod search;
mod span;
mod state;
mod survey;

pub use outcome::{Citation, Outcome, StopReason};
pub use state::{Run, Settings, Step};

#[cfg(test)]
mod tests;
