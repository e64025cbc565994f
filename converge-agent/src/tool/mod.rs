//! Tools: what an agent can do besides thinking. A tool has a name, a JSON schema derived from a
//! Rust type, a declared effect, and a function with typed errors.
//!
//! The built-in tools work on a [`Folder`], a directory handle that nothing leads out of, and on
//! exact decimals and civil dates. Each is a plain typed function first (`list::list`,
//! `table::query`, …) and a [`Tool`] by a thin adapter.

mod builtin;
pub mod calculate;
pub mod civil;
pub mod date;
pub mod decimal;
mod error;
pub mod facts;
pub mod folder;
pub mod list;
pub mod number;
pub mod read;
pub mod search;
pub mod table;
mod toolbox;
mod typed;
mod wide;
pub(crate) mod words;
pub mod write;

use std::fmt;

use converge_core::generate::Cancel;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use decimal::Decimal;
pub use error::{PathProblem, ToolError};
pub use folder::{Folder, FolderLimits};
pub use toolbox::Toolbox;
pub use typed::{FnTool, input_schema_of};

use crate::policy::Permit;

/// What a call does to the world: decides whether it may be repeated after a crash and whether
/// it needs an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Changes nothing.
    ReadOnly,
    /// Changes something, but doing it twice is the same as doing it once.
    Idempotent,
    /// Changes something, and each call counts.
    Mutating,
}

/// Something the agent can call.
pub trait Tool: Send + Sync {
    /// The name by which plans and calls refer to it: `[a-z][a-z0-9_]*`.
    fn name(&self) -> &str;

    /// One or two sentences for the model: what it does, when to use it.
    fn description(&self) -> &str;

    /// JSON schema of the arguments, an object.
    fn input_schema(&self) -> Value;

    /// What a call does to the world.
    fn effect(&self) -> Effect;

    /// Runs the call. Call it through [`Toolbox::call`], which holds mutating tools to a permit.
    ///
    /// # Errors
    /// Arguments that do not fit the schema, and whatever goes wrong in the tool.
    fn call(&self, args: &Value, context: &ToolContext<'_>) -> Result<ToolOutput, ToolError>;
}

/// What a call gets besides its arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToolContext<'a> {
    /// Ends a long call early.
    pub cancel: Option<&'a Cancel>,
    /// The approval of exactly this call; a mutating tool runs only with one.
    pub permit: Option<&'a Permit>,
}

impl ToolContext<'_> {
    /// Whether the call may go on.
    ///
    /// # Errors
    /// [`ToolError::Cancelled`] after somebody asked to stop.
    pub fn check(&self) -> Result<(), ToolError> {
        match self.cancel {
            Some(cancel) if cancel.is_cancelled() => Err(ToolError::Cancelled),
            _ => Ok(()),
        }
    }
}

/// Lines of a file that an output stands on. `first == last` for one line; lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// Path below the folder, with `/`.
    pub path: String,
    /// First line, from 1.
    pub first: usize,
    /// Last line, inclusive.
    pub last: usize,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}:{}", self.path, self.first)
        } else {
            write!(f, "{}:{}-{}", self.path, self.first, self.last)
        }
    }
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// The typed result, for code.
    pub value: Value,
    /// The same for the model, of bounded length.
    pub text: String,
    /// The lines it stands on.
    pub sources: Vec<Source>,
    /// Whether a limit cut something off; `text` then says so.
    pub truncated: bool,
}

impl ToolOutput {
    /// An output that stands on no file.
    ///
    /// # Errors
    /// [`ToolError::Output`] if the result does not serialize.
    pub fn new(result: &impl Serialize, text: impl Into<String>) -> Result<Self, ToolError> {
        let value = serde_json::to_value(result).map_err(ToolError::Output)?;
        Ok(Self {
            value,
            text: text.into(),
            sources: Vec::new(),
            truncated: false,
        })
    }
}

/// `text` cut to at most `max` bytes at a character border, and whether it was cut.
pub(crate) fn clip(text: &str, max: usize) -> (&str, bool) {
    let end = text.floor_char_boundary(max);
    (&text[..end], end < text.len())
}

#[cfg(test)]
mod archive_tests;
