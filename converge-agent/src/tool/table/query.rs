//! Filter, group, aggregate, sort.

use std::cmp::Ordering;
use std::collections::HashMap;

use jiff::civil::Date;

use super::column::{Cell, ColumnKind, is_missing};
use super::load::{Row, Table};
use super::result::{Group, ResultRow, TableResult};
use super::{AggregateOp, Compare, Condition, TableArgs, TableError};
use crate::tool::civil::parse_period;
use crate::tool::clip;
use crate::tool::decimal::Decimal;
use crate::tool::number::{NumberStyle, parse_quantity};

/// Most groups or rows of a result, and what is given without a limit of the caller's.
const MAX_RESULTS: usize = 1_000;
const DEFAULT_RESULTS: usize = 50;
/// Most lines that a result names of a kind.
const MAX_LINES: usize = 1_000;

/// Answers a question about a table.
///
/// # Errors
/// [`TableError`]: a column that does not exist, a comparison or an operation that does not fit
/// what it holds, a cell that is no number among those to add up, amounts in several units.
pub fn query(table: &Table, args: &TableArgs) -> Result<TableResult, TableError> {
    let op = args.aggregate.op;
    let column = args
        .aggregate
        .column
        .as_deref()
        .map(|name| table.column(name))
        .transpose()?;
    let group_by = args
        .group_by
        .as_deref()
        .map(|name| table.column(name))
        .transpose()?;
    let tests = args
        .filter
        .iter()
        .map(|condition| Test::compile(table, condition))
        .collect::<Result<Vec<_>, _>>()?;

    let mut incomparable = Vec::new();
    let mut matched = Vec::new();
    for row in &table.rows {
        let mut fits = true;
        for test in &tests {
            fits &= match test.holds(table, row) {
                Some(holds) => holds,
                None => {
                    incomparable.push(row.line);
                    false
                }
            };
        }
        if fits {
            matched.push(row);
        }
    }
    incomparable.dedup();

    let mut result = TableResult {
        path: table.path.clone(),
        total: table.rows.len(),
        matched: matched.len(),
        label: label(op, args.aggregate.column.as_deref()),
        groups: Vec::new(),
        header: Vec::new(),
        rows: Vec::new(),
        missing: Vec::new(),
        incomparable,
        set_aside: table.set_aside.clone(),
        truncated: false,
    };
    let limit = args.limit.unwrap_or(DEFAULT_RESULTS).clamp(1, MAX_RESULTS);
    if op == AggregateOp::Rows {
        sort_rows(table, args, &mut matched)?;
        result.truncated = matched.len() > limit;
        result.header = table
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect();
        result.rows = matched
            .iter()
            .take(limit)
            .map(|row| ResultRow {
                line: row.line,
                cells: row.cells.clone(),
            })
            .collect();
    } else {
        let mut missing = Vec::new();
        for (key, rows) in grouped(table, group_by, &matched) {
            let mut group = aggregate(table, op, column, &rows, &mut missing)?;
            group.key = key;
            result.truncated |= group.lines.len() > MAX_LINES;
            group.lines.truncate(MAX_LINES);
            result.groups.push(group);
        }
        missing.sort_unstable();
        result.missing = missing;
        if let Some(place) = group_by {
            sort_groups(table, args, place, &mut result.groups)?;
            result.truncated |= result.groups.len() > limit;
            result.groups.truncate(limit);
        }
    }
    for lines in [&mut result.missing, &mut result.incomparable] {
        result.truncated |= lines.len() > MAX_LINES;
        lines.truncate(MAX_LINES);
    }
    Ok(result)
}

fn label(op: AggregateOp, column: Option<&str>) -> String {
    let op = match op {
        AggregateOp::Count => "count",
        AggregateOp::Sum => "sum",
        AggregateOp::Min => "min",
        AggregateOp::Max => "max",
        AggregateOp::Mean => "mean",
        AggregateOp::Rows => "rows",
    };
    column.map_or_else(|| op.to_owned(), |column| format!("{op} of {column}"))
}

/// A condition made ready for a column.
struct Test {
    column: usize,
    op: Compare,
    value: Wanted,
}

enum Wanted {
    Number(Decimal, Decimal),
    Period((Date, Date), (Date, Date)),
    Text(String, String),
    Column(usize),
    Missing,
}

impl Test {
    fn compile(table: &Table, condition: &Condition) -> Result<Self, TableError> {
        let column = table.column(&condition.column)?;
        let (op, text) = (condition.op, condition.value.as_str());
        if let Some(other) = &condition.other_column {
            if matches!(op, Compare::Contains | Compare::Between) {
                return Err(TableError::NotOfColumns { op });
            }
            let value = Wanted::Column(table.column(other)?);
            return Ok(Self { column, op, value });
        }
        let upper = match (op, condition.to.as_deref()) {
            (Compare::Between, None) => return Err(TableError::UpperNeeded),
            (Compare::Between, Some(to)) => to,
            _ => text,
        };
        let kind = table
            .columns
            .get(column)
            .map_or(ColumnKind::Text, |column| column.kind);
        let mismatch = |value: &str| TableError::Mismatch {
            column: condition.column.clone(),
            kind: kind.name(),
            value: clip(value, 100).0.to_owned(),
        };
        let empty = text.trim().is_empty() && matches!(op, Compare::Eq | Compare::Ne);
        let value = match kind {
            _ if empty => Wanted::Missing,
            _ if op == Compare::Contains => Wanted::Text(folded(text), String::new()),
            ColumnKind::Number(style) => {
                let read = |text: &str| {
                    let style = style_of(table, column, text, style);
                    parse_quantity(text, style)
                        .map(|q| q.value)
                        .ok_or_else(|| mismatch(text))
                };
                Wanted::Number(read(text)?, read(upper)?)
            }
            ColumnKind::Date { .. } => {
                let read = |text: &str| match table.columns[column].read(text) {
                    Cell::Date(date) => Ok((date, date)),
                    _ => parse_period(text).ok_or_else(|| mismatch(text)),
                };
                Wanted::Period(read(text)?, read(upper)?)
            }
            ColumnKind::Text => Wanted::Text(folded(text), folded(upper)),
        };
        Ok(Self { column, op, value })
    }

    /// Whether the row meets the condition; `None` where its cell does not compare.
    fn holds(&self, table: &Table, row: &Row) -> Option<bool> {
        let written = row.cell(self.column);
        if let Wanted::Column(other) = self.value {
            return self.holds_between(&table.value(row, self.column), &table.value(row, other));
        }
        let cell = match (&self.value, self.op) {
            (Wanted::Missing, op) => return Some(is_missing(written) == (op == Compare::Eq)),
            (Wanted::Text(part, _), Compare::Contains) => {
                return Some(folded(written).contains(part.as_str()));
            }
            _ => table.value(row, self.column),
        };
        Some(match (&self.value, cell) {
            (_, Cell::Missing) => self.op == Compare::Ne,
            (Wanted::Number(low, high), Cell::Number { value, .. }) => {
                self.compares(value.cmp(low), value.cmp(high))
            }
            (Wanted::Period(low, high), Cell::Date(date)) => {
                self.compares(against(date, *low), against(date, *high))
            }
            (Wanted::Text(low, high), _) => {
                let text = folded(written);
                self.compares(text.as_str().cmp(low), text.as_str().cmp(high))
            }
            (_, _) => {
                return if self.op == Compare::Ne {
                    Some(true)
                } else {
                    None
                };
            }
        })
    }

    /// Whether two cells of a row meet the condition; what is missing meets none but `ne`.
    fn holds_between(&self, a: &Cell, b: &Cell) -> Option<bool> {
        let order = match (a, b) {
            (Cell::Missing, _) | (_, Cell::Missing) => return Some(self.op == Compare::Ne),
            (Cell::Number { .. }, Cell::Number { .. })
            | (Cell::Date(_), Cell::Date(_))
            | (Cell::Text(_), Cell::Text(_)) => compare(a, b),
            _ => return None,
        };
        Some(self.compares(order, order))
    }

    fn compares(&self, low: Ordering, high: Ordering) -> bool {
        match self.op {
            Compare::Eq => low == Ordering::Equal,
            Compare::Ne => low != Ordering::Equal,
            Compare::Lt => low == Ordering::Less,
            Compare::Le => low != Ordering::Greater,
            Compare::Gt => low == Ordering::Greater,
            Compare::Ge => low != Ordering::Less,
            Compare::Between => low != Ordering::Less && high != Ordering::Greater,
            Compare::Contains => false,
        }
    }
}

/// A date before, in or after a period.
fn against(date: Date, (first, last): (Date, Date)) -> Ordering {
    if date < first {
        Ordering::Less
    } else if date > last {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// `1.200` means in a question what it means in the column if it stands there, else 1.2.
fn style_of(table: &Table, column: usize, text: &str, style: NumberStyle) -> NumberStyle {
    let stands = table.rows.iter().any(|row| row.cell(column) == text.trim());
    if stands { style } else { NumberStyle::Point }
}

/// Text as it is compared: lower case, single blanks.
fn folded(text: &str) -> String {
    text.to_lowercase()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The matched rows by the value of a column, in order of their first line.
fn grouped<'a>(
    table: &Table,
    by: Option<usize>,
    rows: &[&'a Row],
) -> Vec<(Option<String>, Vec<&'a Row>)> {
    let Some(by) = by else {
        return vec![(None, rows.to_vec())];
    };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<(Option<String>, Vec<&Row>)> = Vec::new();
    for row in rows {
        let written = row.cell(by);
        let same = match table.value(row, by) {
            Cell::Number { value, unit } => format!("{value} {}", unit.unwrap_or_default()),
            Cell::Date(date) => date.to_string(),
            Cell::Missing => String::new(),
            Cell::Text(text) => folded(&text),
        };
        let place = *places.entry(same).or_insert_with(|| {
            groups.push((Some(written.to_owned()), Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(row);
    }
    groups
}

fn aggregate(
    table: &Table,
    op: AggregateOp,
    column: Option<usize>,
    rows: &[&Row],
    missing: &mut Vec<usize>,
) -> Result<Group, TableError> {
    let all = || rows.iter().map(|row| row.line).collect::<Vec<_>>();
    let group = |value, lines: Vec<usize>, count| Group {
        key: None,
        value,
        count,
        lines,
    };
    let counted = |count: usize| {
        // At most as many rows as a file has bytes.
        let value = Decimal::from(i64::try_from(count).unwrap_or(i64::MAX));
        Cell::Number { value, unit: None }
    };
    let Some(place) = column else {
        return match op {
            AggregateOp::Count => Ok(group(counted(rows.len()), all(), rows.len())),
            op => Err(TableError::ColumnNeeded { op }),
        };
    };
    if op == AggregateOp::Count {
        let filled = rows.iter().filter(|row| !is_missing(row.cell(place)));
        let lines: Vec<usize> = filled.map(|row| row.line).collect();
        return Ok(group(counted(lines.len()), lines.clone(), lines.len()));
    }
    let kind = table.columns[place].kind;
    let name = &table.columns[place].name;
    let ordered = matches!(op, AggregateOp::Min | AggregateOp::Max);
    match kind {
        ColumnKind::Number(_) => {}
        ColumnKind::Date { .. } if ordered => {}
        _ => {
            let (column, kind) = (name.clone(), kind.name());
            return Err(TableError::WrongKind { op, column, kind });
        }
    }
    let (mut numbers, mut dates) = (Vec::new(), Vec::new());
    let mut common: Option<String> = None;
    for row in rows {
        match table.value(row, place) {
            Cell::Missing => missing.push(row.line),
            Cell::Number { value, unit } => {
                match (&common, unit) {
                    (Some(first), Some(second)) if *first != second => {
                        let (column, first, line) = (name.clone(), first.clone(), row.line);
                        return Err(TableError::MixedUnits {
                            column,
                            first,
                            second,
                            line,
                        });
                    }
                    (None, Some(unit)) => common = Some(unit),
                    _ => {}
                }
                numbers.push((value, row.line));
            }
            Cell::Date(date) => dates.push((date, row.line)),
            Cell::Text(found) => {
                let found = clip(&found, 60).0.to_owned();
                return Err(TableError::UnreadableCell {
                    column: name.clone(),
                    line: row.line,
                    found,
                });
            }
        }
    }
    if !dates.is_empty() {
        let (date, lines) = extreme(&dates, op);
        return Ok(group(
            date.map_or(Cell::Missing, Cell::Date),
            lines,
            dates.len(),
        ));
    }
    let lines: Vec<usize> = numbers.iter().map(|(_, line)| *line).collect();
    let count = numbers.len();
    let too_large = |_| TableError::TooLarge {
        column: name.clone(),
    };
    let sum = || {
        let sum = numbers
            .iter()
            .try_fold(Decimal::ZERO, |sum, (value, _)| sum.checked_add(*value));
        sum.map_err(too_large)
    };
    let (value, lines) = match op {
        _ if numbers.is_empty() => (None, lines),
        AggregateOp::Sum => (Some(sum()?), lines),
        AggregateOp::Mean => {
            let count = Decimal::from(i64::try_from(count).unwrap_or(i64::MAX));
            (Some(sum()?.checked_div(count).map_err(too_large)?), lines)
        }
        op => extreme(&numbers, op),
    };
    let value = value.map_or(Cell::Missing, |value| Cell::Number {
        value,
        unit: common,
    });
    Ok(group(value, lines, count))
}

/// The least (greatest for `max`) and all lines that have it.
fn extreme<T: Ord + Copy>(values: &[(T, usize)], op: AggregateOp) -> (Option<T>, Vec<usize>) {
    let all = values.iter().map(|(value, _)| *value);
    let best = if op == AggregateOp::Max {
        all.max()
    } else {
        all.min()
    };
    let with = values.iter().filter(|(value, _)| Some(*value) == best);
    (best, with.map(|(_, line)| *line).collect())
}

/// An order over cells: numbers, dates, text, then what is missing.
fn compare(a: &Cell, b: &Cell) -> Ordering {
    let rank = |cell: &Cell| match cell {
        Cell::Number { .. } => 0,
        Cell::Date(_) => 1,
        Cell::Text(_) => 2,
        Cell::Missing => 3,
    };
    match (a, b) {
        (Cell::Number { value: a, .. }, Cell::Number { value: b, .. }) => a.cmp(b),
        (Cell::Date(a), Cell::Date(b)) => a.cmp(b),
        (Cell::Text(a), Cell::Text(b)) => folded(a).cmp(&folded(b)),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

/// The same with the greatest first on demand; what is missing stays last.
fn directed(a: &Cell, b: &Cell, descending: bool) -> Ordering {
    let missing = |cell: &Cell| *cell == Cell::Missing;
    match compare(a, b) {
        order if !descending || missing(a) || missing(b) => order,
        order => order.reverse(),
    }
}

fn sort_rows(table: &Table, args: &TableArgs, rows: &mut Vec<&Row>) -> Result<(), TableError> {
    let Some(sort) = &args.sort else {
        return Ok(());
    };
    let place = table.column(&sort.by)?;
    let mut keyed: Vec<(Cell, &Row)> = rows
        .iter()
        .map(|row| (table.value(row, place), *row))
        .collect();
    keyed.sort_by(|(a, _), (b, _)| directed(a, b, sort.descending));
    *rows = keyed.into_iter().map(|(_, row)| row).collect();
    Ok(())
}

fn sort_groups(
    table: &Table,
    args: &TableArgs,
    by: usize,
    groups: &mut [Group],
) -> Result<(), TableError> {
    let Some(sort) = &args.sort else {
        return Ok(());
    };
    // A column that is neither the groups' nor the computed one has no single value in a group.
    let place = table.column(&sort.by).ok();
    let computed = args
        .aggregate
        .column
        .as_deref()
        .and_then(|name| table.column(name).ok());
    if place == Some(by) {
        let key = |group: &Group| table.columns[by].read(group.key.as_deref().unwrap_or(""));
        groups.sort_by(|a, b| directed(&key(a), &key(b), sort.descending));
    } else if sort.by.eq_ignore_ascii_case("value") || place.is_some() && place == computed {
        groups.sort_by(|a, b| directed(&a.value, &b.value, sort.descending));
    } else {
        let columns = vec!["value".to_owned(), table.columns[by].name.clone()];
        return Err(TableError::NoSuchColumn {
            column: sort.by.clone(),
            columns,
        });
    }
    Ok(())
}
