//! `table`: filter, group, sort and add up a CSV file (or a Markdown table), so that a model
//! never adds up rows itself. `profile` says which columns and values there are.

mod column;
mod load;
mod profile;
mod query;
mod result;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use column::{Cell, Column, ColumnKind};
pub use load::{Row, SetAside, SetAsideReason, Table};
pub use profile::{ColumnProfile, Profile, profile};
pub use query::query;
pub use result::{Group, ResultRow, TableResult};

use super::{Effect, FnTool, Folder, Source, Tool, ToolOutput};

/// Most columns of a table.
pub const MAX_COLUMNS: usize = 500;

/// Arguments of [`query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableArgs {
    /// Path of the CSV file.
    pub path: String,
    /// Conditions that a row must meet, all of them; none takes every row.
    #[serde(default)]
    pub filter: Vec<Condition>,
    /// One result for each value of this column.
    #[serde(default)]
    pub group_by: Option<String>,
    /// What to do with the rows.
    pub aggregate: Aggregate,
    /// Order of the groups or rows; the file's own if left out.
    #[serde(default)]
    pub sort: Option<Sort>,
    /// Most groups or rows to return.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// One condition on a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Name of the column.
    pub column: String,
    /// How to compare.
    pub op: Compare,
    /// What to compare with: a number, a date (also a month such as 2025-03, a quarter such as
    /// Q1 2025, or a year), or text. Not looked at where `other_column` is given.
    #[serde(default, deserialize_with = "scalar")]
    pub value: String,
    /// The upper end, for between.
    #[serde(default, deserialize_with = "optional_scalar")]
    pub to: Option<String>,
    /// Compare with this column of the same row instead of a value.
    #[serde(default)]
    pub other_column: Option<String>,
}

/// How a cell is compared. Numbers, dates and text compare as what the column holds; text in
/// any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// Equal; for a date also: within the month, quarter or year.
    Eq,
    /// Not equal.
    Ne,
    /// Less, before.
    Lt,
    /// Less or equal, before or on.
    Le,
    /// Greater, after.
    Gt,
    /// Greater or equal, after or on.
    Ge,
    /// Has the text in it.
    Contains,
    /// From `value` to `to`, both included.
    Between,
}

/// What to compute from the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// The operation.
    pub op: AggregateOp,
    /// The column it works on; not needed to count or to list rows.
    #[serde(default)]
    pub column: Option<String>,
}

/// An operation on the rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AggregateOp {
    /// How many rows (with a column: how many of its cells hold something).
    Count,
    /// The sum.
    Sum,
    /// The least number or earliest date.
    Min,
    /// The greatest number or latest date.
    Max,
    /// The arithmetic mean.
    Mean,
    /// The rows themselves.
    Rows,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sort {
    /// A column; with group_by, that column or `value` for the computed value.
    pub by: String,
    /// Greatest first.
    #[serde(default)]
    pub descending: bool,
}

/// A table that cannot be read, or a question that does not fit it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableError {
    /// No header or no row.
    #[error("{path:?} holds no table")]
    Empty {
        /// The file.
        path: String,
    },
    /// More than [`MAX_COLUMNS`] columns.
    #[error("the header of {path:?} has more than {MAX_COLUMNS} columns")]
    TooManyColumns {
        /// The file.
        path: String,
    },
    /// A quotation mark that is never closed, so that rows cannot be told apart.
    #[error("the quotation mark in line {line} of {path:?} is never closed")]
    UnclosedQuote {
        /// The file.
        path: String,
        /// The line.
        line: usize,
    },
    /// No column of that name.
    #[error("there is no column {column:?}; there are {}", columns.join(", "))]
    NoSuchColumn {
        /// The name as given.
        column: String,
        /// The names there are.
        columns: Vec<String>,
    },
    /// An operation that needs a column.
    #[error("{op:?} needs a column")]
    ColumnNeeded {
        /// The operation.
        op: AggregateOp,
    },
    /// A comparison that two columns of a row do not take part in.
    #[error("{op:?} does not compare two columns")]
    NotOfColumns {
        /// The comparison.
        op: Compare,
    },
    /// `between` without its upper end.
    #[error("between needs both value and to")]
    UpperNeeded,
    /// A value that does not compare with the column.
    #[error("column {column:?} holds {kind}, with which {value:?} does not compare")]
    Mismatch {
        /// The column.
        column: String,
        /// What it holds.
        kind: &'static str,
        /// The value as given.
        value: String,
    },
    /// A column that does not hold what the operation needs.
    #[error("{op:?} does not work on column {column:?}, which holds {kind}")]
    WrongKind {
        /// The operation.
        op: AggregateOp,
        /// The column.
        column: String,
        /// What it holds.
        kind: &'static str,
    },
    /// A cell among those to compute with that is no number (or no date).
    #[error(
        "line {line} has {found:?} in column {column:?}, which cannot be computed with; filter it out"
    )]
    UnreadableCell {
        /// The column.
        column: String,
        /// The line.
        line: usize,
        /// What stands there.
        found: String,
    },
    /// Amounts of different units, which have no common sum or order.
    #[error("column {column:?} mixes {first} and {second} (line {line}); filter for one of them")]
    MixedUnits {
        /// The column.
        column: String,
        /// One unit.
        first: String,
        /// Another.
        second: String,
        /// A line with the other.
        line: usize,
    },
    /// A sum beyond 38 digits.
    #[error("the result of column {column:?} is too large")]
    TooLarge {
        /// The column.
        column: String,
    },
}

/// A string, or a number or truth value that a model wrote without quotes.
fn scalar<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Text(String),
        Number(serde_json::Number),
        Truth(bool),
    }
    Ok(match Scalar::deserialize(from)? {
        Scalar::Text(text) => text,
        Scalar::Number(number) => number.to_string(),
        Scalar::Truth(truth) => truth.to_string(),
    })
}

fn optional_scalar<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "scalar")] String);
    Ok(Option::<Wrapped>::deserialize(from)?.map(|wrapped| wrapped.0))
}

/// [`query`] as a tool named `table`.
pub fn tool(folder: Folder) -> impl Tool {
    let description = "Computes over the rows of a table file: filters them, groups them, counts, \
                       sums, finds the least, the greatest or the mean, or lists the rows.";
    FnTool::new(
        "table",
        description,
        Effect::ReadOnly,
        move |args: TableArgs, context| {
            context.check()?;
            let table = Table::open(&folder, &args.path)?;
            let result = query(&table, &args)?;
            let mut output = ToolOutput::new(&result, result.text(folder.limits().output_bytes))?;
            output.truncated = result.truncated;
            let groups = result.groups.iter().flat_map(|group| group.lines.iter());
            let mut lines: Vec<usize> = groups
                .copied()
                .chain(result.rows.iter().map(|row| row.line))
                .collect();
            lines.sort_unstable();
            lines.dedup();
            output.sources = lines
                .chunk_by(|a, b| a + 1 == *b)
                .filter_map(|run| Some((*run.first()?, *run.last()?)))
                .map(|(first, last)| Source {
                    path: result.path.clone(),
                    first,
                    last,
                })
                .collect();
            Ok(output)
        },
    )
}

#[cfg(test)]
mod tests;
