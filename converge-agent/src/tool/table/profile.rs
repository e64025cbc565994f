//! What a table holds, for grammars that let a model name only real columns and values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::column::{Cell, is_missing};
use super::load::{SetAside, Table};
use crate::tool::{Folder, ToolError};

/// Most distinct values that are listed of a column.
const MAX_DISTINCT: usize = 30;

/// What a table holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Path of the file.
    pub path: String,
    /// Number of rows, without the header.
    pub rows: usize,
    /// The columns, in order.
    pub columns: Vec<ColumnProfile>,
    /// Lines that are no rows.
    pub set_aside: Vec<SetAside>,
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnProfile {
    /// Its name, by which a query names it.
    pub name: String,
    /// `numbers`, `dates` or `text`.
    pub kind: String,
    /// The units in it, if cells have one.
    pub units: Vec<String>,
    /// The least number or earliest date, as it is written in the file.
    pub min: Option<String>,
    /// The greatest number or latest date, as it is written in the file.
    pub max: Option<String>,
    /// Its different values as written, in order of their first line, if they are at most 30
    /// and none is longer than 100 bytes.
    pub distinct: Option<Vec<String>>,
    /// How many cells hold nothing.
    pub missing: usize,
}

impl Profile {
    /// The profile as the model sees it.
    pub fn text(&self) -> String {
        let mut text = format!("{}: {} rows\n", self.path, self.rows);
        for column in &self.columns {
            text.push_str(&format!("- {} ({}", column.name, column.kind));
            if !column.units.is_empty() {
                text.push_str(&format!(" in {}", column.units.join(", ")));
            }
            text.push(')');
            match (&column.min, &column.max, &column.distinct) {
                (Some(min), Some(max), _) => text.push_str(&format!(": {min} to {max}")),
                (_, _, Some(distinct)) => text.push_str(&format!(": {}", distinct.join(", "))),
                _ => {}
            }
            text.push('\n');
        }
        text
    }
}

impl Table {
    /// What this table holds.
    pub fn profile(&self) -> Profile {
        let columns = (0..self.columns.len())
            .map(|place| self.profile_column(place))
            .collect();
        Profile {
            path: self.path.clone(),
            rows: self.rows.len(),
            columns,
            set_aside: self.set_aside.clone(),
        }
    }

    fn profile_column(&self, place: usize) -> ColumnProfile {
        let mut units: Vec<String> = Vec::new();
        let mut distinct = Some(BTreeMap::new());
        let mut numbers: Option<[_; 2]> = None;
        let mut dates: Option<[_; 2]> = None;
        let mut missing = 0;
        for row in &self.rows {
            let cell = row.cell(place);
            if is_missing(cell) {
                missing += 1;
                continue;
            }
            if let Some(values) = &mut distinct {
                let next = values.len();
                values.entry(cell).or_insert(next);
                if values.len() > MAX_DISTINCT || cell.len() > 100 {
                    distinct = None;
                }
            }
            match self.value(row, place) {
                Cell::Number { value, unit } => {
                    let [min, max] = numbers.get_or_insert([(value, cell), (value, cell)]);
                    widen(min, max, value, cell);
                    if let Some(unit) = unit.filter(|unit| !units.contains(unit))
                        && units.len() < MAX_DISTINCT
                    {
                        units.push(unit);
                    }
                }
                Cell::Date(date) => {
                    let [min, max] = dates.get_or_insert([(date, cell), (date, cell)]);
                    widen(min, max, date, cell);
                }
                Cell::Text(_) | Cell::Missing => {}
            }
        }
        let range = numbers
            .map(|[min, max]| [min.1, max.1])
            .or_else(|| dates.map(|[min, max]| [min.1, max.1]));
        let mut distinct: Option<Vec<_>> = distinct.map(|values| values.into_iter().collect());
        if let Some(values) = &mut distinct {
            values.sort_by_key(|(_, order)| *order);
        }
        let column = self.columns.get(place);
        ColumnProfile {
            name: column.map(|column| column.name.clone()).unwrap_or_default(),
            kind: column
                .map(|column| column.kind.name().to_owned())
                .unwrap_or_default(),
            units,
            min: range.map(|[min, _]| min.to_owned()),
            max: range.map(|[_, max]| max.to_owned()),
            distinct: distinct.map(|values| {
                values
                    .into_iter()
                    .map(|(value, _)| value.to_owned())
                    .collect()
            }),
            missing,
        }
    }
}

fn widen<'a, T: Ord + Copy>(
    min: &mut (T, &'a str),
    max: &mut (T, &'a str),
    value: T,
    cell: &'a str,
) {
    if value < min.0 {
        *min = (value, cell);
    }
    if value > max.0 {
        *max = (value, cell);
    }
}

/// What the table in a file holds.
///
/// # Errors
/// Those of [`Table::open`].
pub fn profile(folder: &Folder, path: &str) -> Result<Profile, ToolError> {
    Ok(Table::open(folder, path)?.profile())
}
