//! Files in several parts: `name-00001-of-00003.gguf`, as llama.cpp's `gguf-split` writes them.

use std::path::{Path, PathBuf};

use crate::error::{QuantError, Result};

use super::fault::Fault;
use super::header::{Header, value_fault};
use super::limits::Limits;
use super::source::Source;

const COUNT_KEY: &str = "split.count";
const NUMBER_KEY: &str = "split.no";
const TENSORS_KEY: &str = "split.tensors.count";

/// A part of a set: its file and its header.
pub(crate) struct Part {
    pub(crate) source: Source,
    pub(crate) header: Header,
}

impl Part {
    fn open(path: &Path, limits: &Limits, part: u32, tensors_left: u64) -> Result<Self> {
        let source = Source::open(path)?;
        let header = Header::read(&source, limits, part, tensors_left)?;
        Ok(Self { source, header })
    }

    fn fault(&self, key: &str, fault: Fault) -> QuantError {
        value_fault(&self.source, &self.header.metadata, key, fault)
    }

    fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.header.integer(&self.source, key)
    }

    /// Checks an integer that must be there; `optional` lets it be missing.
    fn expect(&self, key: &str, expected: u64, optional: bool) -> Result<()> {
        match self.integer(key)? {
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(self.fault(key, Fault::Mismatch { expected, found })),
            None if optional => Ok(()),
            None => Err(self.fault(key, Fault::MissingKey)),
        }
    }
}

/// Opens `path` and, if it is one part of a set, all the others, in order. Any part may be named.
pub(crate) fn open(path: &Path, limits: &Limits) -> Result<Vec<Part>> {
    let opened = Part::open(path, limits, 0, limits.tensors)?;
    // 0 is what `gguf-split --merge` leaves behind.
    let count = opened.integer(COUNT_KEY)?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![opened]);
    }
    let allowed = limits.parts.into();
    let Some(parts) = u32::try_from(count).ok().filter(|_| count <= allowed) else {
        let fault = Fault::OverLimit {
            limit: "parts",
            allowed,
            found: count,
        };
        return Err(opened.fault(COUNT_KEY, fault));
    };
    let number = opened
        .integer(NUMBER_KEY)?
        .ok_or_else(|| opened.fault(NUMBER_KEY, Fault::MissingKey))?;
    if number >= count {
        let fault = Fault::Mismatch {
            expected: count - 1,
            found: number,
        };
        return Err(opened.fault(NUMBER_KEY, fault));
    }
    let suffix = suffix(number as u32, parts);
    let prefix = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(&suffix))
        .ok_or_else(|| QuantError::PartName {
            path: path.to_owned(),
            expected: suffix.clone(),
        })?;
    drop(opened); // read again in its turn, so that the limit on tensors holds for the set
    open_all(path, prefix, parts, limits)
}

fn open_all(path: &Path, prefix: &str, parts: u32, limits: &Limits) -> Result<Vec<Part>> {
    let mut set: Vec<Part> = Vec::new();
    let mut tensors = 0;
    for number in 0..parts {
        let part_path = part_path(path, prefix, number, parts);
        let left = limits.tensors.saturating_sub(tensors);
        let part = Part::open(&part_path, limits, number, left).map_err(|error| match error {
            QuantError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                QuantError::MissingPart {
                    path: part_path,
                    parts,
                }
            }
            other => other,
        })?;
        part.expect(COUNT_KEY, parts.into(), false)?;
        part.expect(NUMBER_KEY, number.into(), false)?;
        tensors += part.header.tensors.len() as u64;
        set.push(part);
    }
    for (number, part) in set.iter().enumerate() {
        part.expect(TENSORS_KEY, tensors, number > 0)?;
    }
    Ok(set)
}

/// `number` counts from 0, the names from 1.
fn suffix(number: u32, parts: u32) -> String {
    format!("-{:05}-of-{parts:05}.gguf", number + 1)
}

fn part_path(path: &Path, prefix: &str, number: u32, parts: u32) -> PathBuf {
    path.with_file_name(format!("{prefix}{}", suffix(number, parts)))
}
