//! What came of a run.

use serde::{Deserialize, Serialize};

use crate::{evidence::Calculation, policy::Limit, tool::Source};

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// The question is answered, and the answer stands on what was found.
    Done,
    /// Everything that might hold the answer was read, and it does not.
    NotFound,
    /// No answer stood up to the check, and there was nothing left to try.
    NoProgress,
    /// A budget ran out.
    Budget(Limit),
    /// The caller cancelled.
    Cancelled,
    /// A step did not fit the context.
    Overflow,
    /// The model or its grammar failed; the message says how.
    Model(String),
}

/// A quote that an answer stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Citation {
    /// File and lines.
    #[serde(flatten)]
    pub source: Source,
    /// The words that stand there.
    pub quote: String,
}

/// What came of a run: the answer or, after any other end, what was found so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The answer; where none was found, a sentence that says so.
    pub answer: String,
    /// Why the run ended.
    pub stop: StopReason,
    /// The quotes that the answer stands on.
    pub citations: Vec<Citation>,
    /// The calculations that were done.
    pub calculations: Vec<Calculation>,
}
