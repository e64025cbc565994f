//! `read`: the numbered lines of a text file, whole or a range.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::folder::TextFile;
use super::{Effect, FnTool, Folder, Source, Tool, ToolError, ToolOutput, clip};

/// Arguments of [`read`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadArgs {
    /// Path of the file, as listed.
    pub path: String,
    /// First line to read, from 1; the beginning if left out.
    #[serde(default)]
    pub first: Option<usize>,
    /// Last line to read; the end if left out.
    #[serde(default)]
    pub last: Option<usize>,
}

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Its text without the line end, at most [`FolderLimits::line_bytes`] long.
    ///
    /// [`FolderLimits::line_bytes`]: super::FolderLimits::line_bytes
    pub text: String,
    /// Whether the line goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// Lines of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadResult {
    /// Path below the folder.
    pub path: String,
    /// The lines, in order.
    pub lines: Vec<Line>,
    /// Lines of the whole file, or of its beginning if `file_cut`.
    pub total: usize,
    /// The first line asked for that no longer fitted the output.
    pub next: Option<usize>,
    /// Whether the file is longer than the folder's limit, so that its end cannot be read.
    pub file_cut: bool,
}

impl ReadResult {
    /// The lines as the model sees them, each after its number.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let more = if line.cut { " […]" } else { "" };
            text.push_str(&format!("{}: {}{more}\n", line.number, line.text));
        }
        if self.lines.is_empty() {
            text.push_str("(the file is empty)\n");
        }
        if let Some(next) = self.next {
            text.push_str(&format!(
                "[cut here; go on with first = {next} of {}]\n",
                self.total
            ));
        }
        if self.file_cut {
            text.push_str("[the file is too long; its end cannot be read]\n");
        }
        text
    }
}

/// Reads lines of a file, as many as fit one output.
///
/// # Errors
/// Those of [`Folder::read_text`], and a range that the file does not have.
pub fn read(folder: &Folder, args: &ReadArgs) -> Result<ReadResult, ToolError> {
    let file = folder.read_text(&args.path)?;
    let total = file.lines().count();
    let first = args.first.unwrap_or(1);
    let last = args.last.unwrap_or(total);
    // A range that goes beyond the end reads up to it; one that begins there does not exist.
    let exists = first >= 1 && first <= total && last >= first;
    if !exists && (args.first.is_some() || args.last.is_some()) {
        return Err(ToolError::LineRange {
            path: file.path,
            first,
            last,
            lines: total,
        });
    }
    let limits = folder.limits();
    let mut lines = Vec::new();
    let mut bytes = 0;
    let mut next = None;
    for (number, text) in file.lines().enumerate().map(|(i, text)| (i + 1, text)) {
        if number < first {
            continue;
        }
        if number > last {
            break;
        }
        let (text, cut) = clip(text, limits.line_bytes);
        bytes += text.len() + 8;
        if bytes > limits.output_bytes && !lines.is_empty() {
            next = Some(number);
            break;
        }
        lines.push(Line {
            number,
            text: text.to_owned(),
            cut,
        });
    }
    let TextFile {
        path,
        truncated: file_cut,
        ..
    } = file;
    Ok(ReadResult {
        path,
        lines,
        total,
        next,
        file_cut,
    })
}

/// [`read`] as a tool named `read`.
pub fn tool(folder: Folder) -> impl Tool {
    let description = "Reads a text file: its lines, each with its number. \
                       Give first and last to read a part.";
    FnTool::new(
        "read",
        description,
        Effect::ReadOnly,
        move |args: ReadArgs, context| {
            context.check()?;
            let result = read(&folder, &args)?;
            let mut output = ToolOutput::new(&result, result.text())?;
            output.truncated = result.next.is_some()
                || result.file_cut
                || result.lines.iter().any(|line| line.cut);
            if let (Some(first), Some(last)) = (result.lines.first(), result.lines.last()) {
                let (first, last) = (first.number, last.number);
                output.sources.push(Source {
                    path: result.path,
                    first,
                    last,
                });
            }
            Ok(output)
        },
    )
}
