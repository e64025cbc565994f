//! `list`: the files of a folder with what tells them apart.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::folder::TextFile;
use super::table::Table;
use super::{Effect, FnTool, Folder, Tool, ToolContext, ToolError, ToolOutput, clip};

/// Arguments of [`list`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListArgs {
    /// Directory below the folder; the whole folder if left out.
    #[serde(default)]
    pub path: Option<String>,
}

/// One file of a [`ListResult`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// Path below the folder, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of lines; `None` for a file that is not text or was not looked into.
    pub lines: Option<usize>,
    /// First line with a letter or digit, without markup, at most 120 bytes.
    pub title: Option<String>,
    /// For a `.csv` or `.tsv` file: its columns and rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<ListedTable>,
}

/// The size of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTable {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Number of rows, without the header.
    pub rows: usize,
}

/// The files of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListResult {
    /// Sorted by path.
    pub files: Vec<ListedFile>,
    /// Entries left out: links, devices, names that are no UTF-8.
    pub skipped: usize,
    /// Whether there are more files than the folder's limits let through.
    pub truncated: bool,
}

impl ListResult {
    /// One line a file, at most `max` bytes; says how many files did not fit.
    pub fn text(&self, max: usize) -> String {
        let mut text = String::new();
        for (done, file) in self.files.iter().enumerate() {
            let mut line = file.path.clone();
            match file.lines {
                Some(_) if file.table.is_some() => {}
                Some(lines) => line.push_str(&format!(" ({lines} lines)")),
                None => line.push_str(&format!(" ({} bytes, not text)", file.bytes)),
            }
            if let Some(table) = &file.table {
                let columns = table.columns.join(", ");
                let (columns, _) = clip(&columns, 500);
                line.push_str(&format!(" (table of {} rows): {columns}", table.rows));
            } else if let Some(title) = &file.title {
                line.push_str(": ");
                line.push_str(title);
            }
            if text.len() + line.len() > max {
                text.push_str(&format!("[and {} more files]\n", self.files.len() - done));
                return text;
            }
            text.push_str(&line);
            text.push('\n');
        }
        if self.files.is_empty() {
            text.push_str("(no files)\n");
        }
        if self.truncated {
            text.push_str("[there are more files than can be listed]\n");
        }
        text
    }
}

/// Lists the files below `args.path` with sizes, numbers of lines and titles.
///
/// # Errors
/// A path that cannot be used, no file below it, and those of [`Folder::walk`].
pub fn list(
    folder: &Folder,
    args: &ListArgs,
    context: &ToolContext<'_>,
) -> Result<ListResult, ToolError> {
    let below = Folder::normalize(args.path.as_deref().unwrap_or(""))?;
    let walk = folder.walk(context)?;
    let mut left = folder.limits().total_bytes;
    let mut files = Vec::new();
    for entry in walk.files {
        let inside = below.is_empty()
            || entry
                .path
                .strip_prefix(&below)
                .is_some_and(|rest| rest.starts_with('/'));
        if !inside {
            continue;
        }
        context.check()?;
        let mut file = ListedFile {
            path: entry.path,
            bytes: entry.bytes,
            lines: None,
            title: None,
            table: None,
        };
        let cost = entry.bytes.min(folder.limits().file_bytes);
        if cost <= left
            && let Ok(text) = folder.read_text(&file.path)
        {
            left -= cost;
            file.lines = Some(text.lines().count());
            file.title = text.lines().find_map(title_of);
            file.table = table_in(&text);
        }
        files.push(file);
    }
    if files.is_empty() && !below.is_empty() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(folder.explain(&below, missing));
    }
    Ok(ListResult {
        files,
        skipped: walk.skipped,
        truncated: walk.truncated,
    })
}

fn table_in(file: &TextFile) -> Option<ListedTable> {
    let name = file.path.to_ascii_lowercase();
    if file.truncated || !(name.ends_with(".csv") || name.ends_with(".tsv")) {
        return None;
    }
    let table = Table::parse(file).ok()?;
    let columns = table
        .columns
        .into_iter()
        .map(|column| column.name)
        .collect();
    Some(ListedTable {
        columns,
        rows: table.rows.len(),
    })
}

/// The line without markup around it, if it says something.
fn title_of(line: &str) -> Option<String> {
    let line = line.trim_matches(|c: char| c.is_whitespace() || "#=*-_/<>!|;\"'`".contains(c));
    if !line.contains(char::is_alphanumeric) {
        return None;
    }
    Some(clip(line, 120).0.to_owned())
}

/// [`list`] as a tool named `list`.
pub fn tool(folder: Folder) -> impl Tool {
    let description = "Lists the files with their numbers of lines and their titles, \
                       tables with their columns.";
    FnTool::new(
        "list",
        description,
        Effect::ReadOnly,
        move |args: ListArgs, context| {
            let result = list(&folder, &args, context)?;
            let text = result.text(folder.limits().output_bytes);
            let shown = text.lines().filter(|line| !line.starts_with('[')).count();
            let mut output = ToolOutput::new(&result, text)?;
            output.truncated = result.truncated || shown < result.files.len();
            Ok(output)
        },
    )
}
