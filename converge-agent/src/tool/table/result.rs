//! What a query gave, with the lines it stands on.

use serde::{Deserialize, Serialize};

use super::column::Cell;
use super::load::{SetAside, SetAsideReason};

/// The result of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableResult {
    /// Path of the file.
    pub path: String,
    /// Rows of the table.
    pub total: usize,
    /// Rows that met the conditions.
    pub matched: usize,
    /// What was computed, such as `sum of amount`.
    pub label: String,
    /// One for each value of the column grouped by; a single one without grouping.
    pub groups: Vec<Group>,
    /// The column names, when rows are listed.
    pub header: Vec<String>,
    /// The rows, when rows are listed.
    pub rows: Vec<ResultRow>,
    /// Lines of matched rows that were not computed with because the column holds nothing there.
    pub missing: Vec<usize>,
    /// Lines whose cell did not compare with a condition because it is not what the column holds.
    pub incomparable: Vec<usize>,
    /// Lines that are no rows of the table.
    pub set_aside: Vec<SetAside>,
    /// Whether groups, rows or lines were left out because of a limit.
    pub truncated: bool,
}

/// Rows taken together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The value they share, as first written; `None` without grouping.
    pub key: Option<String>,
    /// What was computed; [`Cell::Missing`] where there was nothing to compute with.
    pub value: Cell,
    /// How many rows it was computed from.
    pub count: usize,
    /// The lines of these rows (for `min` and `max`: of those that have the value), the first
    /// thousand.
    pub lines: Vec<usize>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRow {
    /// Its line.
    pub line: usize,
    /// Its cells, as written.
    pub cells: Vec<String>,
}

impl TableResult {
    /// The result as the model sees it, at most about `max` bytes.
    pub fn text(&self, max: usize) -> String {
        let mut text = format!("{} of {} rows match\n", self.matched, self.total);
        let mut parts: Vec<String> = self
            .groups
            .iter()
            .map(|group| self.group_text(group))
            .collect();
        if !self.header.is_empty() {
            parts.push(format!("line: {}", self.header.join(" | ")));
        }
        let rows = self
            .rows
            .iter()
            .map(|row| format!("{}: {}", row.line, row.cells.join(" | ")));
        parts.extend(rows);
        for (done, part) in parts.iter().enumerate() {
            if text.len() + part.len() > max {
                text.push_str(&format!("[and {} more]\n", parts.len() - done));
                break;
            }
            text.push_str(part);
            text.push('\n');
        }
        let mut note = |lines: &[usize], what: &str| {
            if !lines.is_empty() {
                text.push_str(&format!("note: {what} in {}\n", shown(lines)));
            }
        };
        note(&self.missing, "nothing to compute with");
        note(&self.incomparable, "a cell that does not compare");
        let aside = |reason| -> Vec<usize> {
            let with = self.set_aside.iter().filter(|line| line.reason == reason);
            with.map(|line| line.line).collect()
        };
        note(
            &aside(SetAsideReason::TooManyCells),
            "too many cells, left out,",
        );
        note(&aside(SetAsideReason::Remark), "a remark, left out,");
        note(&aside(SetAsideReason::Total), "a total, left out,");
        text
    }

    fn group_text(&self, group: &Group) -> String {
        let key = group
            .key
            .as_ref()
            .map(|key| format!(" for {key}"))
            .unwrap_or_default();
        let value = match &group.value {
            Cell::Missing => "nothing".to_owned(),
            Cell::Number { value, unit } => {
                let short = value.round(10);
                let unit = unit
                    .as_ref()
                    .map(|unit| format!(" {unit}"))
                    .unwrap_or_default();
                format!("{short}{unit}")
            }
            Cell::Date(date) => date.to_string(),
            Cell::Text(text) => text.clone(),
        };
        format!("{}{key}: {value} ({})", self.label, shown(&group.lines))
    }
}

/// Lines in words, consecutive ones as a range, at most ten of them.
fn shown(lines: &[usize]) -> String {
    if lines.is_empty() {
        return "no line".to_owned();
    }
    let runs: Vec<String> = lines
        .chunk_by(|a, b| a + 1 == *b)
        .filter_map(|run| Some((*run.first()?, *run.last()?)))
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect();
    let more = if runs.len() > 10 { ", …" } else { "" };
    let word = if lines.len() == 1 { "line" } else { "lines" };
    format!("{word} {}{more}", runs[..runs.len().min(10)].join(", "))
}
