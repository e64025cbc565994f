//! Reads and checks the header of one file.

use std::mem;

use crate::error::{QuantError, Result};
use crate::ggml_type::GgmlType;

use super::cursor::{At, Cursor};
use super::fault::{Fault, Field};
use super::limits::Limits;
use super::metadata::{Entry, Metadata};
use super::source::Source;
use super::tensor::TensorInfo;
use super::value::{Array, FromValue, Strings, Value};

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// A stack frame each, so bounded whatever the limits say.
const MAX_ARRAY_DEPTH: u32 = 64;
/// Empty key, value type, value of one byte.
const LEAST_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// Empty name, number of dimensions, one dimension, type, offset.
const LEAST_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;
/// Element type and count.
const LEAST_ARRAY_BYTES: u64 = 4 + 8;

/// One file's header, checked.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
}

impl Header {
    /// Reads the header of `source`, which is part `part` of a set that may still hold
    /// `tensors_left` tensors.
    pub(crate) fn read(
        source: &Source,
        limits: &Limits,
        part: u32,
        tensors_left: u64,
    ) -> Result<Self> {
        let mut cursor = Cursor::new(source, limits);
        let version = read_version(&mut cursor)?;

        cursor.at = At::TensorCount;
        let tensor_count_at = cursor.position();
        let tensor_count: u64 = cursor.number()?;
        cursor.limit(tensor_count_at, "tensors", tensors_left, tensor_count)?;
        cursor.check(tensor_count_at, tensor_count, LEAST_TENSOR_BYTES)?;

        cursor.at = At::MetadataCount;
        let entry_count_at = cursor.position();
        let entry_count: u64 = cursor.number()?;
        cursor.limit(
            entry_count_at,
            "metadata_entries",
            limits.metadata_entries,
            entry_count,
        )?;
        cursor.check(entry_count_at, entry_count, LEAST_ENTRY_BYTES)?;

        let metadata = read_metadata(&mut cursor, entry_count)?;
        let alignment = alignment(source, limits, &metadata)?;
        let descriptions = read_descriptions(&mut cursor, tensor_count)?;
        let tensors = Layout {
            source,
            part,
            alignment,
            data_start: cursor
                .position()
                .checked_next_multiple_of(alignment)
                .unwrap_or(u64::MAX), // refused as soon as a tensor is added to it
        }
        .place(descriptions)?;
        Ok(Self {
            version,
            metadata,
            tensors,
        })
    }

    /// An integer that the format itself reads; any integer type will do.
    pub(crate) fn integer(&self, source: &Source, key: &str) -> Result<Option<u64>> {
        integer(source, &self.metadata, key)
    }
}

/// An error about the value of a metadata key, at the place of its entry.
pub(crate) fn value_fault(
    source: &Source,
    metadata: &Metadata,
    key: &str,
    fault: Fault,
) -> QuantError {
    QuantError::Malformed {
        path: source.path().to_owned(),
        offset: metadata.entry(key).map_or(0, |entry| entry.offset),
        field: Field::Value {
            key: key.to_owned(),
        },
        fault,
    }
}

fn integer(source: &Source, metadata: &Metadata, key: &str) -> Result<Option<u64>> {
    let Some(entry) = metadata.entry(key) else {
        return Ok(None);
    };
    u64::from_value(&entry.value).map(Some).map_err(|_| {
        let fault = Fault::WrongType {
            expected: u64::EXPECTED,
            found: entry.value.type_name(),
        };
        value_fault(source, metadata, key, fault)
    })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    cursor.at = At::Magic;
    let mut found = [0; 4];
    cursor.fill(&mut found)?;
    if found != MAGIC {
        return Err(cursor.fail(0, Fault::BadMagic { found }));
    }
    cursor.at = At::Version;
    let offset = cursor.position();
    let found: u32 = cursor.number()?;
    match found {
        2 | 3 => Ok(found),
        // A small number with its bytes reversed.
        _ if found != 0 && found & 0xffff == 0 => Err(cursor.fail(
            offset,
            Fault::BigEndian {
                version: found.swap_bytes(),
            },
        )),
        _ => Err(cursor.fail(offset, Fault::UnsupportedVersion { found })),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata> {
    let limits = cursor.limits();
    let mut entries = cursor.room(count)?;
    let mut nested = 0;
    for index in 0..count {
        cursor.at = At::Key(index);
        let offset = cursor.position();
        cursor.name = cursor.string("key_bytes", limits.key_bytes)?;
        cursor.at = At::Value;
        let value = read_value(cursor, &mut nested)?;
        let key = mem::take(&mut cursor.name);
        entries.push(Entry { key, value, offset });
    }
    Metadata::new(entries).map_err(|twice| {
        cursor.name.clone_from(&twice.key);
        cursor.fail(twice.offset, Fault::DuplicateKey { key: twice.key })
    })
}

fn read_value(cursor: &mut Cursor<'_>, nested: &mut u64) -> Result<Value> {
    let offset = cursor.position();
    Ok(match cursor.number::<u32>()? {
        0 => Value::U8(cursor.number()?),
        1 => Value::I8(cursor.number()?),
        2 => Value::U16(cursor.number()?),
        3 => Value::I16(cursor.number()?),
        4 => Value::U32(cursor.number()?),
        5 => Value::I32(cursor.number()?),
        6 => Value::F32(cursor.number()?),
        7 => Value::Bool(cursor.boolean()?),
        8 => Value::String(cursor.string("header_bytes", cursor.limits().header_bytes)?),
        9 => Value::Array(read_array(cursor, 1, nested)?),
        10 => Value::U64(cursor.number()?),
        11 => Value::I64(cursor.number()?),
        12 => Value::F64(cursor.number()?),
        code => return Err(cursor.fail(offset, Fault::UnknownValueType { code })),
    })
}

fn read_array(cursor: &mut Cursor<'_>, depth: u32, nested: &mut u64) -> Result<Array> {
    let offset = cursor.position();
    let allowed = cursor.limits().array_depth.min(MAX_ARRAY_DEPTH);
    cursor.limit(offset, "array_depth", allowed.into(), depth.into())?;
    let code: u32 = cursor.number()?;
    let count_at = cursor.position();
    let count: u64 = cursor.number()?;
    Ok(match code {
        0 => Array::U8(cursor.numbers(count)?),
        1 => Array::I8(cursor.numbers(count)?),
        2 => Array::U16(cursor.numbers(count)?),
        3 => Array::I16(cursor.numbers(count)?),
        4 => Array::U32(cursor.numbers(count)?),
        5 => Array::I32(cursor.numbers(count)?),
        6 => Array::F32(cursor.numbers(count)?),
        7 => Array::Bool(cursor.booleans(count)?),
        8 => Array::String(read_strings(cursor, count_at, count)?),
        9 => {
            cursor.check(count_at, count, LEAST_ARRAY_BYTES)?;
            *nested = nested.saturating_add(count);
            let allowed = cursor.limits().nested_arrays;
            cursor.limit(count_at, "nested_arrays", allowed, *nested)?;
            let mut arrays = cursor.room(count)?;
            for _ in 0..count {
                arrays.push(read_array(cursor, depth + 1, nested)?);
            }
            Array::Array(arrays)
        }
        10 => Array::U64(cursor.numbers(count)?),
        11 => Array::I64(cursor.numbers(count)?),
        12 => Array::F64(cursor.numbers(count)?),
        code => return Err(cursor.fail(offset, Fault::UnknownValueType { code })),
    })
}

fn read_strings(cursor: &mut Cursor<'_>, count_at: u64, count: u64) -> Result<Strings> {
    cursor.check(count_at, count, 8)?;
    let mut ends = cursor.room(count)?;
    // Room for the most text that can follow, so that it never has to move; the rest is given back.
    let most = cursor.most() - count * 8;
    let mut text = String::from_utf8(cursor.room(most)?).unwrap_or_default();
    let mut scratch = Vec::new();
    for _ in 0..count {
        let len = cursor.string_len()?;
        cursor.text(len, &mut scratch, &mut text)?;
        ends.push(text.len());
    }
    text.shrink_to_fit();
    Ok(Strings::from_parts(text, ends))
}

/// The alignment that metadata to be written ask for. One that is no power of two gives 1: the
/// reader refuses it.
pub(super) fn declared_alignment(metadata: &Metadata) -> u64 {
    let found = metadata.find(ALIGNMENT_KEY).ok().flatten();
    let found = found.unwrap_or(DEFAULT_ALIGNMENT);
    if found.is_power_of_two() { found } else { 1 }
}

fn alignment(source: &Source, limits: &Limits, metadata: &Metadata) -> Result<u64> {
    let found = integer(source, metadata, ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    let fault = if !found.is_power_of_two() {
        Fault::InvalidAlignment { found }
    } else if found > limits.alignment {
        Fault::OverLimit {
            limit: "alignment",
            allowed: limits.alignment,
            found,
        }
    } else {
        return Ok(found);
    };
    Err(value_fault(source, metadata, ALIGNMENT_KEY, fault))
}

/// A tensor as the header describes it, and where its offset stands.
struct Description {
    info: TensorInfo,
    offset_at: u64,
}

fn read_descriptions(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<Description>> {
    let mut descriptions = cursor.room(count)?;
    for index in 0..count {
        descriptions.push(read_description(cursor, index)?);
    }
    Ok(descriptions)
}

fn read_description(cursor: &mut Cursor<'_>, index: u64) -> Result<Description> {
    let limits = cursor.limits();
    cursor.at = At::TensorName(index);
    let record = cursor.position();
    cursor.name = cursor.string("name_bytes", limits.name_bytes)?;

    cursor.at = At::TensorShape;
    let shape_at = cursor.position();
    let dimensions: u32 = cursor.number()?;
    if dimensions == 0 {
        return Err(cursor.fail(shape_at, Fault::NoDimensions));
    }
    let allowed = limits.dimensions.into();
    cursor.limit(shape_at, "dimensions", allowed, dimensions.into())?;
    let mut shape = cursor.room::<usize>(dimensions.into())?;
    let mut elements = 1usize;
    for index in 0..dimensions {
        let offset = cursor.position();
        let dimension: u64 = cursor.number()?;
        if dimension == 0 {
            return Err(cursor.fail(offset, Fault::ZeroDimension { index }));
        }
        let grown = usize::try_from(dimension).ok().and_then(|dimension| {
            shape.push(dimension);
            elements.checked_mul(dimension)
        });
        elements = grown.ok_or_else(|| cursor.fail(offset, Fault::SizeOverflow))?;
    }
    shape.reverse();

    cursor.at = At::TensorType;
    let type_at = cursor.position();
    let code: u32 = cursor.number()?;
    let ggml_type = GgmlType::from_code(code)
        .ok_or_else(|| cursor.fail(type_at, Fault::UnknownTensorType { code }))?;
    cursor.at = At::TensorShape;
    let row = shape.last().copied().unwrap_or(0);
    if !row.is_multiple_of(ggml_type.block_len()) {
        let row = row as u64;
        return Err(cursor.fail(shape_at, Fault::PartialBlock { ggml_type, row }));
    }
    let bytes = ggml_type
        .bytes_of(elements)
        .ok_or_else(|| cursor.fail(shape_at, Fault::SizeOverflow))?;

    cursor.at = At::TensorOffset;
    let offset_at = cursor.position();
    let offset = cursor.number()?;
    Ok(Description {
        info: TensorInfo {
            name: mem::take(&mut cursor.name),
            ggml_type,
            shape,
            part: 0,
            offset,
            bytes,
            record,
        },
        offset_at,
    })
}

/// Where the tensor data of a file may lie.
struct Layout<'a> {
    source: &'a Source,
    part: u32,
    alignment: u64,
    data_start: u64,
}

impl Layout<'_> {
    fn fail(&self, at: &Description, fault: Fault) -> QuantError {
        QuantError::Malformed {
            path: self.source.path().to_owned(),
            offset: at.offset_at,
            field: Field::TensorOffset {
                tensor: at.info.name.clone(),
            },
            fault,
        }
    }

    /// Makes offsets absolute; they must be aligned, inside the file, and apart from each other.
    fn place(&self, mut descriptions: Vec<Description>) -> Result<Vec<TensorInfo>> {
        let len = self.source.len();
        for description in &mut descriptions {
            let offset = description.info.offset;
            if !offset.is_multiple_of(self.alignment) {
                let alignment = self.alignment;
                return Err(self.fail(description, Fault::Unaligned { offset, alignment }));
            }
            let start = self.data_start.checked_add(offset);
            let end = start.and_then(|start| start.checked_add(description.info.bytes as u64));
            let (Some(start), Some(end)) = (start, end) else {
                return Err(self.fail(description, Fault::SizeOverflow));
            };
            if end > len {
                return Err(self.fail(description, Fault::OutOfFile { end, len }));
            }
            description.info.offset = start;
            description.info.part = self.part;
        }
        let mut by_offset: Vec<&Description> = descriptions.iter().collect();
        by_offset.sort_by_key(|description| description.info.offset);
        for two in by_offset.windows(2) {
            let (before, after) = (&two[0].info, &two[1].info);
            if before.offset + before.bytes as u64 > after.offset {
                let other = before.name.clone();
                return Err(self.fail(two[1], Fault::Overlap { other }));
            }
        }
        Ok(descriptions.into_iter().map(|one| one.info).collect())
    }
}
