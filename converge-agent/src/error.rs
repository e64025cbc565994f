//! The one error type of this crate.

use thiserror::Error;

use crate::policy::Exceeded;
use crate::tool::ToolError;

/// `Result` with this crate's error.
pub type Result<T, E = AgentError> = std::result::Result<T, E>;

/// Everything that can end or refuse a step of a run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The model, its tokenizer, its template or its grammar.
    #[error(transparent)]
    Core(#[from] converge_core::CoreError),
    /// A tool refused or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A budget ran out.
    #[error(transparent)]
    Budget(#[from] Exceeded),
    /// The model's answer is no record of its phase.
    #[error("{phase:?}: {source} in {text:?}")]
    Record {
        /// The phase.
        phase: crate::phase::Phase,
        /// What is wrong with it.
        source: serde_json::Error,
        /// Its first characters.
        text: String,
    },
    /// A tool's output is not of the type that it promises.
    #[error("output of the tool {tool}: {source}")]
    Output {
        /// The tool.
        tool: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}
