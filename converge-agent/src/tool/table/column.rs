//! What a column holds, and a cell as that.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::tool::civil::{self, parse_date, parse_slashed};
use crate::tool::decimal::Decimal;
use crate::tool::number::{NumberStyle, infer_style, parse_quantity};

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in the header; `column 3` where that is empty.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What most cells of a column hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Numbers in this style.
    Number(NumberStyle),
    /// Dates; `day_first` tells how `03/04/2025` reads, if other rows of the column tell it.
    Date {
        /// Whether the day stands before the month, where other cells of the column show it.
        day_first: Option<bool>,
    },
    /// Anything else.
    Text,
}

impl ColumnKind {
    /// In a word, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number(_) => "numbers",
            Self::Date { .. } => "dates",
            Self::Text => "text",
        }
    }
}

/// A cell as what its column holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Empty, or a sign for it such as `-` or `n/a`.
    Missing,
    /// A number and its unit.
    Number {
        /// The number.
        value: Decimal,
        /// Its unit, if one stands in the cell.
        unit: Option<String>,
    },
    /// A date.
    Date(#[serde(with = "civil::as_text")] Date),
    /// Text, also where the column holds something else otherwise.
    Text(String),
}

pub(super) fn is_missing(cell: &str) -> bool {
    const SIGNS: [&str; 8] = ["", "-", "–", "—", "n/a", "na", "null", "none"];
    cell.len() <= 4 && SIGNS.contains(&cell.trim().to_lowercase().as_str())
}

impl Column {
    /// A column of these cells. It holds numbers or dates if most cells that hold something do.
    pub(super) fn infer<'a, I: Iterator<Item = &'a str>>(
        name: String,
        cells: impl Fn() -> I,
        fallback: NumberStyle,
    ) -> Self {
        let filled = || cells().filter(|cell| !is_missing(cell));
        let total = filled().count();
        let slashed = |day_first| {
            filled()
                .filter(|c| parse_slashed(c, day_first).is_some())
                .count()
        };
        let day_first = match (slashed(true), slashed(false)) {
            (day, month) if day > month => Some(true),
            (day, month) if month > day => Some(false),
            _ => None,
        };
        let dates = ColumnKind::Date { day_first };
        let style = infer_style(filled().filter(|cell| parse_date(cell).is_none()));
        let numbers = ColumnKind::Number(style.unwrap_or(fallback));
        let fits = |kind| {
            let column = Self {
                name: String::new(),
                kind,
            };
            let fitting = filled().filter(|cell| !matches!(column.read(cell), Cell::Text(_)));
            total > 0 && fitting.count() * 2 > total
        };
        let kind = [dates, numbers].into_iter().find(|kind| fits(*kind));
        Self {
            name,
            kind: kind.unwrap_or(ColumnKind::Text),
        }
    }

    /// The cell as what this column holds.
    pub fn read(&self, cell: &str) -> Cell {
        if is_missing(cell) {
            return Cell::Missing;
        }
        let read = match self.kind {
            ColumnKind::Number(style) => parse_quantity(cell, style).map(|quantity| Cell::Number {
                value: quantity.value,
                unit: quantity.unit,
            }),
            ColumnKind::Date { day_first } => parse_date(cell)
                .or_else(|| parse_slashed(cell, day_first?))
                .map(Cell::Date),
            ColumnKind::Text => None,
        };
        read.unwrap_or_else(|| Cell::Text(cell.trim().to_owned()))
    }
}
