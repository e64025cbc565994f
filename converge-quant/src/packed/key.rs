//! What tells the file that weights were packed from, and its version, from any other.

use std::{fs, path::Path, time::SystemTime};

use twox_hash::{XxHash3_64, XxHash3_128};

use super::LAYOUT;
use crate::{Gguf, Result, gguf::Source};

/// The files of a model as they were when they were opened, and the layout of tiles here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) layout: u32,
    pub(super) parts: Vec<KeyPart>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPart {
    /// Its canonical path.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// When it was changed, in nanoseconds from the epoch of UNIX.
    pub(super) modified: i128,
    /// Of all that stands before its first tensor: metadata and the tensors' descriptions.
    pub(super) header: u128,
}

impl Key {
    pub(super) fn of(gguf: &Gguf) -> Result<Self> {
        let part = |(number, source): (usize, &Source)| {
            let tensors = gguf.tensors().iter().filter(|info| info.part() == number);
            let header = tensors.map(|info| info.offset).min();
            let mut hash = XxHash3_128::new();
            source.pieces(header.unwrap_or(source.len()), &mut |piece| {
                hash.write(piece);
                true
            })?;
            let path = fs::canonicalize(source.path());
            let path = path.unwrap_or_else(|_| source.path().to_owned());
            Ok(KeyPart {
                path: path.to_string_lossy().into_owned(),
                bytes: source.len(),
                modified: nanoseconds(source.modified()),
                header: hash.finish_128(),
            })
        };
        let parts = gguf.sources().iter().enumerate().map(part);
        Ok(Self {
            layout: LAYOUT,
            parts: parts.collect::<Result<_>>()?,
        })
    }

    /// The name, without its ending, of the file that has the tiles: one for a path, so that what
    /// was made of an earlier version is replaced.
    pub(super) fn name(&self) -> String {
        let path = self.parts.first().map_or("", |part| part.path.as_str());
        let stem = Path::new(path).file_stem().unwrap_or_default();
        let stem = stem.to_string_lossy();
        let plain = |c: char| match c {
            _ if c.is_ascii_alphanumeric() || "-_.".contains(c) => c,
            _ => '_',
        };
        let stem: String = stem.chars().take(80).map(plain).collect();
        format!("{stem}-{:016x}", XxHash3_64::oneshot(path.as_bytes()))
    }
}

impl KeyPart {
    /// Whether the file is still what it was.
    pub(super) fn holds(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|now| {
            let modified = now.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            (now.len(), nanoseconds(modified)) == (self.bytes, self.modified)
        })
    }
}

fn nanoseconds(time: SystemTime) -> i128 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}
