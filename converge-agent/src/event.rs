//! What happens in a run, as it happens: for a terminal, a log, or a trace.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{evidence::Calculation, phase::Phase, run::Outcome, tool::Source};

/// One thing that happened. A run's trace is the list of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A phase begins, for the first time or again.
    Phase {
        /// Which.
        phase: Phase,
    },
    /// A tool is called.
    ToolCall {
        /// Its name.
        tool: String,
        /// Its arguments.
        args: Value,
    },
    /// A tool answered.
    ToolResult {
        /// Its name.
        tool: String,
        /// What it said, or why it refused.
        text: String,
        /// The lines that it stands on.
        sources: Vec<Source>,
        /// Whether it refused or failed.
        failed: bool,
    },
    /// The model is asked.
    Ask {
        /// By which phase.
        phase: Phase,
        /// About what.
        about: String,
        /// Tokens of the prompt.
        prompt_tokens: usize,
    },
    /// The model answered with a record of the phase.
    Record {
        /// The phase.
        phase: Phase,
        /// About what.
        about: String,
        /// The JSON as generated.
        record: Value,
        /// Seconds that it took.
        seconds: f64,
    },
    /// Something was computed.
    Computed {
        /// What, and what came out.
        calculation: Calculation,
    },
    /// An answer did not hold.
    Rejected {
        /// The answer.
        answer: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The run is over.
    Done {
        /// What came of it.
        outcome: Outcome,
    },
}
