//! GGUF files: opened once, checked in full, read by position; and written.
//!
//! Follows the GGUF specification, versions 2 and 3, little-endian. Opening reads only the header;
//! tensors are fetched into owned memory when asked for, so a file that changes or shrinks later
//! gives an error, never a fault.

mod cursor;
mod fault;
mod header;
mod limits;
mod metadata;
mod serialize;
mod source;
mod split;
mod tensor;
mod value;
mod write;

use std::ops::Range;
use std::path::Path;

use crate::error::{QuantError, Result};

pub use fault::{Fault, Field};
pub use limits::Limits;
pub use metadata::Metadata;
pub use tensor::TensorInfo;
pub use value::{Array, FromValue, Mismatch, Strings, Value};
pub use write::{TensorSpec, Writer, copy};

pub(crate) use source::Source;

/// An open GGUF file, or all the parts of a split one.
#[derive(Debug)]
pub struct Gguf {
    sources: Vec<Source>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices of `tensors`, in the order of their names.
    by_name: Vec<u32>,
}

impl Gguf {
    /// Opens and checks a file under the default [`Limits`]; of a split file, any part.
    ///
    /// # Errors
    /// As [`Gguf::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Limits::default())
    }

    /// Opens and checks a file; of a split file, any part.
    ///
    /// # Errors
    /// [`QuantError::Io`] or [`QuantError::NotAFile`] if it cannot be read,
    /// [`QuantError::Malformed`] with field and offset if it breaks the format or the limits,
    /// [`QuantError::MissingPart`] or [`QuantError::PartName`] if the other parts cannot be found.
    pub fn open_with(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let parts = split::open(path.as_ref(), limits)?;
        let mut sources = Vec::with_capacity(parts.len());
        let mut tensors = Vec::new();
        let mut first = None;
        for split::Part { source, header } in parts {
            sources.push(source);
            if tensors.is_empty() {
                tensors = header.tensors;
            } else {
                tensors.extend(header.tensors);
            }
            first.get_or_insert((header.version, header.metadata));
        }
        let (version, metadata) = first.unwrap_or_default();
        let by_name = sort_names(&sources, &tensors)?;
        Ok(Self {
            sources,
            version,
            metadata,
            tensors,
            by_name,
        })
    }

    /// The metadata; of a split file, that of the first part.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the file's order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of a name that must be there.
    ///
    /// # Errors
    /// [`QuantError::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.find(name).ok_or_else(|| QuantError::MissingTensor {
            path: self.path().to_owned(),
            name: name.to_owned(),
        })
    }

    /// The tensor of a name that may be missing.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        let tensor = |index: u32| &self.tensors[index as usize];
        self.by_name
            .binary_search_by(|&index| tensor(index).name.as_str().cmp(name))
            .ok()
            .map(|at| tensor(self.by_name[at]))
    }

    /// The bytes of a tensor, as stored.
    ///
    /// # Errors
    /// [`QuantError::Io`], also if the file has shrunk since it was opened;
    /// [`QuantError::ForeignTensor`] for a tensor of another file; [`QuantError::OutOfMemory`].
    pub fn read(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_rows(info, 0..info.rows(), &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of some rows of a tensor, as stored; `buf` becomes exactly these.
    ///
    /// # Errors
    /// [`QuantError::RowRange`] for rows that the tensor does not have; else as [`Gguf::read`].
    pub fn read_rows(
        &self,
        info: &TensorInfo,
        rows: Range<usize>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        if rows.start > rows.end || rows.end > info.rows() {
            return Err(QuantError::RowRange {
                tensor: info.name.clone(),
                start: rows.start,
                end: rows.end,
                rows: info.rows(),
            });
        }
        // The fields of a description are public: nothing is taken for granted.
        let place = || {
            let bytes = rows.len().checked_mul(info.row_bytes())?;
            let skipped = rows.start.checked_mul(info.row_bytes())?;
            let start = info.offset.checked_add(skipped as u64)?;
            let end = start.checked_add(bytes as u64)?;
            let source = self.sources.get(info.part())?;
            (end <= source.len()).then_some((source, start, bytes))
        };
        let (source, start, bytes) = place().ok_or_else(|| QuantError::ForeignTensor {
            tensor: info.name.clone(),
        })?;
        buf.clear();
        buf.try_reserve_exact(bytes)
            .map_err(|_| QuantError::OutOfMemory {
                tensor: info.name.clone(),
                bytes,
            })?;
        buf.resize(bytes, 0);
        source.read_exact_at(buf, start)
    }

    /// Bytes of the file, or of all parts together.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.sources.iter().map(Source::len).sum()
    }

    /// The file, or the first part.
    #[must_use]
    pub fn path(&self) -> &Path {
        // An opened file has at least one part.
        self.sources.first().map_or(Path::new(""), Source::path)
    }

    /// The files of all parts, in order.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.sources.iter().map(Source::path)
    }

    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The descriptions alone; the file is closed.
    fn into_tensors(self) -> Vec<TensorInfo> {
        self.tensors
    }

    /// The version of the format: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }
}

/// The order of the names, each of which may occur only once in the whole set.
fn sort_names(sources: &[Source], tensors: &[TensorInfo]) -> Result<Vec<u32>> {
    let tensor = |index: u32| &tensors[index as usize];
    let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
    by_name.sort_by(|&a, &b| tensor(a).name.cmp(&tensor(b).name));
    for two in by_name.windows(2) {
        let (first, second) = (tensor(two[0]), tensor(two[1]));
        if first.name == second.name {
            // The sort is stable, so the second is the later one in the file.
            return Err(QuantError::Malformed {
                path: sources
                    .get(second.part())
                    .map_or_else(Default::default, |source| source.path().to_owned()),
                offset: second.record,
                field: Field::TensorName {
                    index: two[1].into(),
                },
                fault: Fault::DuplicateTensor {
                    tensor: second.name.clone(),
                },
            });
        }
    }
    Ok(by_name)
}
