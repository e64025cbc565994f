//! A directory handle that nothing leads out of, and text files read through it within limits.
//!
//! The handle is `cap_std::fs::Dir`: `..`, absolute paths and symbolic links that lead outside
//! are refused by the system or the handle, also when the tree changes meanwhile.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File};

use super::{PathProblem, ToolContext, ToolError};

/// How much of a folder is looked at. The defaults suit an archive of documents; none of them
/// can be lifted by the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderLimits {
    /// Bytes of one file that are read; what lies beyond is reported as cut.
    pub file_bytes: u64,
    /// Bytes that one call reads from all files together.
    pub total_bytes: u64,
    /// Files that a walk reports.
    pub files: usize,
    /// Directory entries that a walk looks at, of any kind.
    pub entries: usize,
    /// Directories inside each other.
    pub depth: usize,
    /// Bytes of one line in an output.
    pub line_bytes: usize,
    /// Bytes of one output's text.
    pub output_bytes: usize,
}

impl Default for FolderLimits {
    fn default() -> Self {
        Self {
            file_bytes: 8 << 20,
            total_bytes: 64 << 20,
            files: 5_000,
            entries: 50_000,
            depth: 32,
            line_bytes: 2_000,
            output_bytes: 16 << 10,
        }
    }
}

/// A directory and the limits within which tools use it. Clones share the handle.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: Arc<Dir>,
    limits: FolderLimits,
}

/// One file found by [`Folder::walk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Path below the folder, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The regular files of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Sorted by path.
    pub files: Vec<FileEntry>,
    /// Entries left out: symbolic links, devices, names that are no UTF-8, unreadable directories.
    pub skipped: usize,
    /// Whether a limit ended the walk early.
    pub truncated: bool,
}

/// How a text file was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// UTF-16 with a byte order mark.
    Utf16,
    /// Neither, so read as Windows-1252, which gives every byte a character.
    Windows1252,
}

/// A text file, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Path below the folder, normalized.
    pub path: String,
    /// The text, without a byte order mark.
    pub text: String,
    /// How it was decoded.
    pub encoding: Encoding,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Whether the file goes on beyond [`FolderLimits::file_bytes`].
    pub truncated: bool,
}

impl TextFile {
    /// The lines without their ends (`\n` or `\r\n`); the first is line 1.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }
}

impl Folder {
    /// Opens a directory of the host by its path. This is the one place with ambient authority;
    /// it is for the program, never for a path that a model wrote.
    ///
    /// # Errors
    /// What the system says about the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ToolError> {
        let path = path.as_ref();
        Dir::open_ambient_dir(path, ambient_authority())
            .map(Self::new)
            .map_err(|source| ToolError::Io {
                path: path.display().to_string(),
                source,
            })
    }

    /// A folder on a handle that the caller opened.
    pub fn new(dir: Dir) -> Self {
        Self {
            dir: Arc::new(dir),
            limits: FolderLimits::default(),
        }
    }

    /// The same directory with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: FolderLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The limits.
    pub fn limits(&self) -> &FolderLimits {
        &self.limits
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The path in the form that outputs use: relative, with `/`, without `.`; an empty string
    /// for the folder itself.
    ///
    /// # Errors
    /// [`ToolError::Path`] for an absolute path, one with `..` or control characters, or one
    /// that is too long.
    pub fn normalize(path: &str) -> Result<String, ToolError> {
        let refuse = |problem| {
            let (shown, _) = super::clip(path, 200);
            Err(ToolError::Path {
                path: shown.to_owned(),
                problem,
            })
        };
        if path.len() > 1024 {
            return refuse(PathProblem::TooLong);
        }
        if path.chars().any(char::is_control) {
            return refuse(PathProblem::Control);
        }
        let slashed = path.trim().replace('\\', "/");
        let drive = slashed.as_bytes().get(1) == Some(&b':')
            && slashed.starts_with(|c: char| c.is_ascii_alphabetic());
        if slashed.starts_with('/') || drive {
            return refuse(PathProblem::Absolute);
        }
        let mut parts = Vec::new();
        for part in slashed.split('/') {
            match part {
                "" | "." => {}
                ".." => return refuse(PathProblem::Parent),
                part => parts.push(part),
            }
        }
        Ok(parts.join("/"))
    }

    /// All regular files, sorted by path. Symbolic links are not followed and hidden entries
    /// (`.name`) are left out.
    ///
    /// # Errors
    /// The folder itself is unreadable, or the call is cancelled.
    pub fn walk(&self, context: &ToolContext<'_>) -> Result<Walk, ToolError> {
        let mut walk = Walk::default();
        let mut seen = 0_usize;
        let mut pending = vec![(String::new(), 0_usize)];
        'directories: while let Some((parent, depth)) = pending.pop() {
            context.check()?;
            let entries = if parent.is_empty() {
                self.dir.entries().map_err(|source| io_error(".", source))?
            } else {
                match self.dir.open_dir(&parent).and_then(|dir| dir.entries()) {
                    Ok(entries) => entries,
                    Err(_) => {
                        walk.skipped += 1;
                        continue;
                    }
                }
            };
            for entry in entries {
                if seen >= self.limits.entries || walk.files.len() >= self.limits.files {
                    walk.truncated = true;
                    break 'directories;
                }
                seen += 1;
                if seen.is_multiple_of(1024) {
                    context.check()?;
                }
                let Ok(entry) = entry else {
                    walk.skipped += 1;
                    continue;
                };
                let Ok(name) = entry.file_name().into_string() else {
                    walk.skipped += 1;
                    continue;
                };
                if name.starts_with('.') {
                    continue;
                }
                let path = if parent.is_empty() {
                    name
                } else {
                    format!("{parent}/{name}")
                };
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => {
                        if depth + 1 < self.limits.depth {
                            pending.push((path, depth + 1));
                        } else {
                            walk.truncated = true;
                        }
                    }
                    Ok(metadata) if metadata.is_file() && Self::normalize(&path).is_ok() => {
                        walk.files.push(FileEntry {
                            path,
                            bytes: metadata.len(),
                        });
                    }
                    _ => walk.skipped += 1,
                }
            }
        }
        walk.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(walk)
    }

    /// A text file, at most [`FolderLimits::file_bytes`] of it.
    ///
    /// # Errors
    /// A path that cannot be used or does not exist, a file that is not text, the system's own.
    pub fn read_text(&self, path: &str) -> Result<TextFile, ToolError> {
        let path = Self::normalize(path)?;
        let (file, bytes) = self.open_file(&path)?;
        let mut data = Vec::new();
        file.take(self.limits.file_bytes)
            .read_to_end(&mut data)
            .map_err(|source| io_error(&path, source))?;
        let truncated = bytes > data.len() as u64;
        match decode(&data, truncated) {
            Some((text, encoding)) => Ok(TextFile {
                path,
                text: text.into_owned(),
                encoding,
                bytes,
                truncated,
            }),
            None => Err(ToolError::Binary { path }),
        }
    }

    /// A text file as a whole, for results that a part would falsify.
    ///
    /// # Errors
    /// Those of [`Folder::read_text`], and [`ToolError::TooLarge`].
    pub fn read_whole(&self, path: &str) -> Result<TextFile, ToolError> {
        let file = self.read_text(path)?;
        if file.truncated {
            let limit = self.limits.file_bytes;
            return Err(ToolError::TooLarge {
                path: file.path,
                bytes: file.bytes,
                limit,
            });
        }
        Ok(file)
    }

    fn open_file(&self, path: &str) -> Result<(File, u64), ToolError> {
        let refuse = |problem| {
            Err(ToolError::Path {
                path: path.to_owned(),
                problem,
            })
        };
        if path.is_empty() {
            return refuse(PathProblem::Empty);
        }
        // Looked at before it is opened: opening a pipe would wait for its other end.
        let metadata = match self.dir.metadata(path) {
            Ok(metadata) => metadata,
            Err(source) => return Err(self.explain(path, source)),
        };
        if metadata.is_dir() {
            return refuse(PathProblem::Directory);
        }
        if !metadata.is_file() {
            return refuse(PathProblem::Special);
        }
        match self.dir.open(path) {
            Ok(file) => Ok((file, metadata.len())),
            Err(source) => Err(self.explain(path, source)),
        }
    }

    /// Turns the system's error about a path into a typed one.
    pub(crate) fn explain(&self, path: &str, source: io::Error) -> ToolError {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                let similar = self.similar(path);
                ToolError::NotFound {
                    path: path.to_owned(),
                    similar,
                }
            }
            // The handle's own refusal has no error number of the system.
            io::ErrorKind::PermissionDenied if source.raw_os_error().is_none() => ToolError::Path {
                path: path.to_owned(),
                problem: PathProblem::Escapes,
            },
            _ => io_error(path, source),
        }
    }

    /// Up to three files whose names resemble the path's last part.
    fn similar(&self, path: &str) -> Vec<String> {
        let Ok(walk) = self.walk(&ToolContext::default()) else {
            return Vec::new();
        };
        let wanted = stem_of(path);
        let mut near: Vec<(usize, &str)> = walk
            .files
            .iter()
            .map(|file| (distance(&wanted, &stem_of(&file.path)), file.path.as_str()))
            .filter(|(distance, _)| *distance <= wanted.chars().count().min(40) / 3)
            .collect();
        near.sort_unstable();
        near.into_iter()
            .take(3)
            .map(|(_, path)| path.to_owned())
            .collect()
    }
}

fn io_error(path: &str, source: io::Error) -> ToolError {
    ToolError::Io {
        path: path.to_owned(),
        source,
    }
}

/// The last part of a path, in lower case, without its extension, at most 64 characters.
fn stem_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.chars().take(64).flat_map(char::to_lowercase).collect()
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let best = (diagonal + usize::from(x != *y))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Decodes text; `None` for what is none. `cut` says that the data may end inside a character.
fn decode(data: &[u8], cut: bool) -> Option<(Cow<'_, str>, Encoding)> {
    match data {
        [0xFF, 0xFE, rest @ ..] => return Some((utf16(rest, u16::from_le_bytes), Encoding::Utf16)),
        [0xFE, 0xFF, rest @ ..] => return Some((utf16(rest, u16::from_be_bytes), Encoding::Utf16)),
        _ => {}
    }
    let data = data.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(data);
    // Text has no NUL; other control characters are rare in it.
    let sample = &data[..data.len().min(64 << 10)];
    let controls = sample
        .iter()
        .filter(|b| **b < 32 && !b"\t\n\x0c\r\x1b".contains(b))
        .count();
    if data.contains(&0) || controls * 20 > sample.len() {
        return None;
    }
    match std::str::from_utf8(data) {
        Ok(text) => Some((Cow::Borrowed(text), Encoding::Utf8)),
        Err(error) if cut && error.error_len().is_none() => {
            let whole = data.get(..error.valid_up_to())?;
            std::str::from_utf8(whole)
                .ok()
                .map(|text| (Cow::Borrowed(text), Encoding::Utf8))
        }
        Err(_) => {
            let text: String = data.iter().map(|b| windows_1252(*b)).collect();
            Some((Cow::Owned(text), Encoding::Windows1252))
        }
    }
}

fn utf16(data: &[u8], unit: fn([u8; 2]) -> u16) -> Cow<'_, str> {
    let units = data.chunks_exact(2).map(|pair| match pair {
        [a, b] => unit([*a, *b]),
        _ => 0xFFFD,
    });
    char::decode_utf16(units)
        .map(|c| c.unwrap_or('\u{FFFD}'))
        .collect::<String>()
        .into()
}

/// The WHATWG index of windows-1252 for 0x80 to 0x9F; all other bytes are Latin-1.
fn windows_1252(byte: u8) -> char {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9F => HIGH[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
