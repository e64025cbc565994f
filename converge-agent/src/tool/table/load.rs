//! From a file to rows: delimiter, header, odd lines, the type of each column.

use serde::{Deserialize, Serialize};

use super::column::{Cell, Column};
use super::{MAX_COLUMNS, TableError};
use crate::tool::folder::TextFile;
use crate::tool::number::{NumberStyle, infer_style};
use crate::tool::{Folder, ToolError};

/// A table in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Path of the file.
    pub path: String,
    /// What separates its cells.
    pub delimiter: char,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Its rows, in order.
    pub rows: Vec<Row>,
    /// Lines that are not rows of the table: they take part in nothing and are reported.
    pub set_aside: Vec<SetAside>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Line of the file in which it begins, from 1.
    pub line: usize,
    /// Its cells without blanks around them; there may be fewer than columns.
    pub cells: Vec<String>,
}

impl Row {
    /// The cell of a column, by its place; empty where the row is short.
    pub fn cell(&self, column: usize) -> &str {
        self.cells.get(column).map_or("", String::as_str)
    }
}

/// A line that was not taken for a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// The line.
    pub line: usize,
    /// Why.
    pub reason: SetAsideReason,
}

/// Why a line is no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SetAsideReason {
    /// It has more cells than the header, as from a separator in an unquoted number.
    TooManyCells,
    /// It has one cell where the header has several: a remark.
    Remark,
    /// It holds the total of other rows.
    Total,
}

impl Table {
    /// Reads the table in a file: a CSV file with `,`, `;`, tab or `|` between cells and a
    /// header, or the largest pipe table of a Markdown file. Lines that begin with `#` before
    /// the header are passed over.
    ///
    /// # Errors
    /// Those of [`Folder::read_whole`], and [`TableError`] for a file without a table.
    pub fn open(folder: &Folder, path: &str) -> Result<Self, ToolError> {
        Ok(Self::parse(&folder.read_whole(path)?)?)
    }

    /// The table in a text file.
    ///
    /// # Errors
    /// [`TableError`] for a file without a table.
    pub fn parse(file: &TextFile) -> Result<Self, TableError> {
        let path = file.path.clone();
        let (delimiter, records) = match markdown_records(&file.text) {
            Some(records) => ('|', records),
            None => csv_records(&path, &file.text)?,
        };
        let mut records = records.into_iter();
        let header = records
            .next()
            .ok_or_else(|| TableError::Empty { path: path.clone() })?;
        if header.cells.len() > MAX_COLUMNS {
            return Err(TableError::TooManyColumns { path });
        }
        let width = header.cells.len();
        let (mut rows, mut set_aside) = (Vec::new(), Vec::new());
        for mut row in records {
            while row.cells.len() > width && row.cells.last().is_some_and(String::is_empty) {
                row.cells.pop();
            }
            let filled = row.cells.iter().filter(|cell| !cell.is_empty()).count();
            let reason = if filled == 0 {
                continue;
            } else if row.cells.len() > width {
                SetAsideReason::TooManyCells
            } else if width > 1 && row.cells.len() == 1 {
                SetAsideReason::Remark
            } else if filled < width && is_total(&row) {
                SetAsideReason::Total
            } else {
                rows.push(row);
                continue;
            };
            set_aside.push(SetAside {
                line: row.line,
                reason,
            });
        }
        let columns = columns_of(&header.cells, &rows, delimiter);
        Ok(Self {
            path,
            delimiter,
            columns,
            rows,
            set_aside,
        })
    }

    /// The place of a column, by its name in any case and spacing.
    ///
    /// # Errors
    /// [`TableError::NoSuchColumn`] with the names there are.
    pub fn column(&self, name: &str) -> Result<usize, TableError> {
        let exact = self.columns.iter().position(|column| column.name == name);
        let like = || {
            let wanted = folded(name);
            self.columns
                .iter()
                .position(|column| folded(&column.name) == wanted)
        };
        exact.or_else(like).ok_or_else(|| TableError::NoSuchColumn {
            column: crate::tool::clip(name, 100).0.to_owned(),
            columns: self
                .columns
                .iter()
                .take(50)
                .map(|column| column.name.clone())
                .collect(),
        })
    }

    /// The cell of a row as what its column holds.
    pub fn value(&self, row: &Row, column: usize) -> Cell {
        match self.columns.get(column) {
            Some(kind) => kind.read(row.cell(column)),
            None => Cell::Missing,
        }
    }
}

/// A name as it is compared: letters and digits in lower case.
fn folded(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn is_total(row: &Row) -> bool {
    const WORDS: [&str; 8] = [
        "total",
        "totals",
        "sum",
        "grand total",
        "subtotal",
        "summe",
        "gesamt",
        "total amount",
    ];
    let first = row.cells.iter().find(|cell| !cell.is_empty());
    first.is_some_and(|cell| WORDS.contains(&cell.trim_end_matches(':').to_lowercase().as_str()))
}

fn columns_of(header: &[String], rows: &[Row], delimiter: char) -> Vec<Column> {
    // Where a column's own numbers leave their style open, the table's others decide; files
    // with semicolons come from places that write a decimal comma.
    let all = rows
        .iter()
        .flat_map(|row| row.cells.iter().map(String::as_str));
    let amounts = all.filter(|cell| cell.len() <= 40);
    let fallback = infer_style(amounts).unwrap_or(match delimiter {
        ';' => NumberStyle::Comma,
        _ => NumberStyle::Point,
    });
    let mut columns: Vec<Column> = Vec::new();
    for (place, name) in header.iter().enumerate() {
        let mut name = match crate::tool::clip(name, 100).0 {
            "" => format!("column {}", place + 1),
            name => name.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        if columns.iter().any(|column| column.name == name) {
            name = format!("{name} ({})", place + 1);
        }
        let cells = || rows.iter().map(|row| row.cell(place));
        columns.push(Column::infer(name, cells, fallback));
    }
    columns
}

/// Rows of the CSV text, the header first, and the delimiter.
fn csv_records(path: &str, text: &str) -> Result<(char, Vec<Row>), TableError> {
    let mut start = 0;
    let mut skipped = 0;
    let mut named = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        // `sep=;` is how spreadsheets name the delimiter.
        let sep = bare.strip_prefix("sep=").filter(|sep| sep.len() == 1);
        if !(bare.is_empty() || bare.starts_with('#') || sep.is_some()) {
            break;
        }
        named = named.or(sep.and_then(|sep| sep.bytes().next()));
        start += line.len();
        skipped += 1;
    }
    let body = &text[start..];
    let delimiter = named.unwrap_or_else(|| delimiter_of(body));
    let mut records = Vec::new();
    let mut lines = LineCounter::new(body, skipped + 1);
    let mut reader = reader(body, delimiter);
    let mut record = csv::StringRecord::new();
    // The text is UTF-8 and rows may differ in length, so reading cannot fail.
    while reader.read_record(&mut record).unwrap_or(false) {
        let from = record.position().map_or(0, csv::Position::byte) as usize;
        let to = (reader.position().byte() as usize).min(body.len());
        let (line, raw) = lines.record(from, to);
        let unclosed = raw.trim_end().contains('\n') && raw.matches('"').count() % 2 == 1;
        if unclosed {
            return Err(TableError::UnclosedQuote {
                path: path.to_owned(),
                line,
            });
        }
        // More cells than any header may have are as good as one too many.
        let cells = record.iter().take(MAX_COLUMNS + 1);
        let cells = cells.map(str::to_owned).collect();
        records.push(Row { line, cells });
    }
    Ok((char::from(delimiter), records))
}

fn reader(body: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_reader(body.as_bytes())
}

/// The delimiter that gives the header more than one cell and most of the first rows as many.
fn delimiter_of(body: &str) -> u8 {
    let fit = |delimiter: u8| {
        let mut reader = reader(body, delimiter);
        let mut record = csv::StringRecord::new();
        let mut width = 0;
        let (mut rows, mut alike) = (0_usize, 0_usize);
        while rows < 50 && reader.read_record(&mut record).unwrap_or(false) {
            match rows {
                0 => width = record.len(),
                _ => alike += usize::from(record.len() == width),
            }
            rows += 1;
        }
        // Whole percents, so that the number of cells decides between near equals.
        let share = if rows > 1 { alike * 20 / (rows - 1) } else { 0 };
        (width > 1).then_some((share, width))
    };
    let candidates = [b',', b';', b'\t', b'|'];
    let best = candidates
        .into_iter()
        .rev()
        .filter_map(|d| fit(d).map(|fit| (fit, d)))
        .max();
    best.map_or(b',', |(_, delimiter)| delimiter)
}

/// Numbers of lines for byte offsets that only grow.
struct LineCounter<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> LineCounter<'a> {
    fn new(text: &'a str, first: usize) -> Self {
        Self {
            text,
            at: 0,
            line: first,
        }
    }

    /// The line in which the record between two offsets begins, and its text. The reader counts
    /// empty lines before a record to it; they are passed over.
    fn record(&mut self, from: usize, to: usize) -> (usize, &'a str) {
        let text = self.text.get(from..to.max(from)).unwrap_or_default();
        let blank = text.len() - text.trim_start_matches(['\r', '\n']).len();
        let start = from + blank;
        let passed = self.text.get(self.at..start).unwrap_or_default();
        self.line += passed.matches('\n').count();
        self.at = start.max(self.at);
        (self.line, &text[blank..])
    }
}

/// The largest pipe table of a Markdown text, the header first.
fn markdown_records(text: &str) -> Option<Vec<Row>> {
    let mut best: Vec<Row> = Vec::new();
    let mut open: Vec<Row> = Vec::new();
    let mut ruled = false;
    let lines = text
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()));
    for (line, text) in lines.chain([(0, "")]) {
        let is_row = text.len() > 1 && text.starts_with('|') && text.ends_with('|');
        if is_row {
            let cells = pipe_cells(text);
            let rule = cells
                .iter()
                .all(|cell| !cell.is_empty() && cell.bytes().all(|b| matches!(b, b'-' | b':')));
            match (rule, open.len()) {
                (true, 1) => ruled = true,
                (true, _) => {}
                (false, _) => open.push(Row { line, cells }),
            }
        } else {
            if ruled && open.len() > best.len() {
                best = std::mem::take(&mut open);
            }
            open.clear();
            ruled = false;
        }
    }
    (!best.is_empty()).then_some(best)
}

fn pipe_cells(line: &str) -> Vec<String> {
    let inner = line.strip_prefix('|').unwrap_or(line);
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    let mut cells = vec![String::new()];
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '|' if cells.len() > MAX_COLUMNS => break,
            '|' => cells.push(String::new()),
            '\\' if chars.peek() == Some(&'|') => {}
            c => cells.last_mut().into_iter().for_each(|cell| cell.push(c)),
        }
        if c == '\\' && chars.next_if_eq(&'|').is_some() {
            cells.last_mut().into_iter().for_each(|cell| cell.push('|'));
        }
    }
    cells
        .iter()
        .map(|cell| cell.trim().trim_matches('*').to_owned())
        .collect()
}
