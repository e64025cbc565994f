//! What a tool can refuse or fail with. The messages are read by the model too, so each says
//! what would work instead.

use std::io;

use thiserror::Error;

use super::calculate::ExpressionError;
use super::date::DateError;
use super::table::TableError;

/// What is wrong with a path given to a tool on a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// No name in it.
    #[error("it is empty")]
    Empty,
    /// Begins at a root or a drive.
    #[error("it is absolute; give it relative to the folder")]
    Absolute,
    /// Has a `..`.
    #[error("it has `..`; give it relative to the folder")]
    Parent,
    /// Has a control character or a NUL byte.
    #[error("it has a control character")]
    Control,
    /// Longer than 1024 bytes.
    #[error("it is longer than 1024 bytes")]
    TooLong,
    /// A symbolic link on the way leads out of the folder.
    #[error("it leads out of the folder")]
    Escapes,
    /// Names a directory where a file is needed.
    #[error("it is a directory")]
    Directory,
    /// A device, socket or pipe.
    #[error("it is not a regular file")]
    Special,
}

/// A tool refused or failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ToolError {
    /// No tool of that name.
    #[error("there is no tool {tool:?}; there are {}", known.join(", "))]
    UnknownTool {
        /// The name as called.
        tool: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Two tools of one name.
    #[error("there is already a tool named {tool:?}")]
    DuplicateTool {
        /// The name.
        tool: String,
    },
    /// A name that is not `[a-z][a-z0-9_]*`.
    #[error("a tool's name is made of a-z, 0-9 and _ and begins with a letter, unlike {tool:?}")]
    BadToolName {
        /// The name.
        tool: String,
    },
    /// The arguments do not fit the tool's schema.
    #[error("the arguments of {tool} do not fit: {source}")]
    Arguments {
        /// The tool.
        tool: String,
        /// What and where.
        source: serde_json::Error,
    },
    /// A result that does not serialize as JSON.
    #[error("the result does not serialize: {0}")]
    Output(#[source] serde_json::Error),
    /// A mutating call without an approval of exactly this call.
    #[error("{tool} changes things and this call was not approved")]
    NotApproved {
        /// The tool.
        tool: String,
    },
    /// A path that cannot be used.
    #[error("the path {path:?} cannot be used: {problem}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// No such file.
    #[error("there is no file {path:?}{}", did_you_mean(similar))]
    NotFound {
        /// The path as given.
        path: String,
        /// Files with similar names.
        similar: Vec<String>,
    },
    /// There is such a file already.
    #[error("the file {path:?} exists already")]
    Exists {
        /// The path as given.
        path: String,
    },
    /// A file that is no text.
    #[error("{path:?} is not a text file")]
    Binary {
        /// Its path.
        path: String,
    },
    /// A file beyond the folder's limit, where a part of it would give a wrong result.
    #[error("{path:?} has {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Its path.
        path: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A range of lines that the file does not have.
    #[error("lines {first} to {last} do not exist: {path:?} has {lines} lines")]
    LineRange {
        /// The file.
        path: String,
        /// First line asked for.
        first: usize,
        /// Last line asked for.
        last: usize,
        /// Lines of the file.
        lines: usize,
    },
    /// A search for nothing.
    #[error("the query has no word to search for")]
    EmptyQuery,
    /// A table that cannot be read, or a question that does not fit it.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An expression without a result.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// A date that cannot be read or reached.
    #[error(transparent)]
    Date(#[from] DateError),
    /// The system's own error.
    #[error("{path:?}: {source}")]
    Io {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A tool of the user's own failed.
    #[error("{tool}: {source}")]
    Failed {
        /// The tool.
        tool: String,
        /// Its own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn did_you_mean(similar: &[String]) -> String {
    if similar.is_empty() {
        "; list the folder to see what there is".to_owned()
    } else {
        format!("; similar: {}", similar.join(", "))
    }
}
