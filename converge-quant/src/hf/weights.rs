//! The `.safetensors` files of a folder.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::gguf::Source;
use crate::{GgmlType, QuantError, Result};

use super::FolderFault;
use super::json::{Json, fault};

/// The file where there is one only.
const SINGLE: &str = "model.safetensors";
/// Which tensor is in which file, where there are more.
const INDEX: &str = "model.safetensors.index.json";
/// Bytes of a header that are read at most, as in the crate `safetensors`.
const MOST_BYTES: u64 = 100_000_000;

/// All tensors of a folder.
#[derive(Debug)]
pub(super) struct Weights {
    parts: Vec<Source>,
    tensors: BTreeMap<String, Stored>,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) ggml_type: GgmlType,
    pub(super) shape: Vec<usize>,
    part: usize,
    offset: u64,
}

impl Weights {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let mut weights = Self {
            parts: Vec::new(),
            tensors: BTreeMap::new(),
        };
        let Some(index) = Json::find(&folder.join(INDEX))? else {
            weights.add(&folder.join(SINGLE))?;
            return Ok(weights);
        };
        let map = index.need("weight_map", index.object("weight_map")?)?;
        let mut files: Vec<&str> = map.values().filter_map(|file| file.as_str()).collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            // A name in the folder, not a way out of it.
            if Path::new(file).file_name() != Some(file.as_ref()) {
                let fault = FolderFault::Unsupported {
                    found: file.to_owned(),
                    supported: "files beside the index".to_owned(),
                };
                return Err(index.error("weight_map", fault));
            }
            weights.add(&folder.join(file))?;
        }
        for name in map.keys() {
            if !weights.tensors.contains_key(name) {
                return Err(index.error(name, FolderFault::Missing));
            }
        }
        Ok(weights)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let source = Source::open(path)?;
        let len = source.len();
        let mut size = [0; 8];
        source.read_exact_at(&mut size, 0)?;
        let expected = u64::from_le_bytes(size);
        let found = len.saturating_sub(8);
        if expected > found.min(MOST_BYTES) {
            let found = found.min(MOST_BYTES);
            return Err(fault(path, "header", FolderFault::Size { expected, found }));
        }
        let mut header = vec![0; expected as usize];
        source.read_exact_at(&mut header, 8)?;
        // It checks that the tensors follow each other and are as large as their shapes say.
        let header: Metadata = serde_json::from_slice(&header).map_err(|error| {
            let message = error.to_string();
            fault(path, "header", FolderFault::Syntax { message })
        })?;
        for (name, info) in header.tensors() {
            let ggml_type = match info.dtype {
                Dtype::F32 => GgmlType::F32,
                Dtype::F16 => GgmlType::F16,
                Dtype::BF16 => GgmlType::BF16,
                other => {
                    let fault = FolderFault::Unsupported {
                        found: format!("{other:?}"),
                        supported: "F32, F16 and BF16".to_owned(),
                    };
                    return Err(super::json::fault(path, &name, fault));
                }
            };
            let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            let data = 8 + expected;
            let needed = end.saturating_add(data);
            if needed > len {
                let (expected, found) = (needed, len);
                return Err(fault(path, &name, FolderFault::Size { expected, found }));
            }
            let stored = Stored {
                ggml_type,
                shape: info.shape.clone(),
                part: self.parts.len(),
                offset: data + start,
            };
            self.tensors.insert(name, stored);
        }
        self.parts.push(source);
        Ok(())
    }

    /// By name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, one)| (name.as_str(), one))
    }

    /// The file of a tensor.
    pub(super) fn path(&self, stored: &Stored) -> &Path {
        self.parts
            .get(stored.part)
            .map_or(Path::new(""), Source::path)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(Source::len).sum()
    }

    /// The bytes of some rows of `cols` numbers.
    pub(super) fn read(
        &self,
        stored: &Stored,
        rows: Range<usize>,
        cols: usize,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let row = cols * stored.ggml_type.block_bytes();
        buf.resize(rows.len() * row, 0);
        let start = stored.offset + (rows.start * row) as u64;
        match self.parts.get(stored.part) {
            Some(part) => part.read_exact_at(buf, start),
            None => Err(QuantError::ForeignTensor {
                tensor: format!("at {}", stored.offset),
            }),
        }
    }
}
