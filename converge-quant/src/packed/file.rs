//! A file of packed weights: the tiles of all matrices of a model, as they lie in memory.
//!
//! ```text
//!   magic, layout                                       12 bytes
//!   lengths of the file and of the header, checksum     24 bytes
//!   header    key: the files it was made of, their SHA-256; of each matrix: name, rows, type,
//!             place, a checksum of each megabyte
//!   pad       to a page
//!   tiles of the first matrix │ pad │ tiles of the next │ pad │ …
//! ```
//!
//! Nothing of it is believed before its checksum (XXH3) is right. The first bytes are written last.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    ops::{ControlFlow, Range},
    path::Path,
    sync::Arc,
};

use memmap2::Mmap;
use rayon::prelude::*;
use thiserror::Error;
use twox_hash::XxHash3_64;

use super::{
    Held, Packed, PackedMode, STEP, Shape,
    held::{Mapped, map},
    key::{Key, KeyPart},
};
use crate::{GgmlType, QuantError, TensorInfo, gguf::Source, memory::Aligned};

const MAGIC: &[u8; 8] = b"CVRGTILE";
/// Before the header.
const FRONT: usize = 36;
/// Bytes that have a checksum of their own: they are still in the core's cache when it is computed.
const CHUNK: usize = 1 << 20;
/// Tiles begin at multiples of this: of a page, which is one of a cache line.
const PAGE: u64 = 4096;
/// The longest header: of some hundred thousand matrices.
const LONGEST_HEADER: u64 = 256 << 20;
/// Bytes after which those written are sent to the disk.
const SYNC: usize = 32 << 20;

/// Why a file is of no use.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Quant(#[from] QuantError),
    #[error("it is no file of packed weights")]
    Foreign,
    #[error("its tiles have layout {found}, here they have {expected}")]
    Layout { found: u32, expected: u32 },
    #[error("it is damaged: {part}")]
    Damaged { part: &'static str },
    #[error("it was made of another file, or of an earlier version of it")]
    Other,
    #[error("it has not all matrices that the model needs")]
    Missing,
}

/// A matrix: a range of rows of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) tensor: String,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Slot {
    pub(super) fn new(info: &TensorInfo, rows: &Range<usize>) -> Self {
        Self {
            tensor: info.name.clone(),
            start: rows.start,
            end: rows.end,
        }
    }
}

/// Where the tiles of a matrix are.
#[derive(Clone, Debug)]
struct Place {
    ty: GgmlType,
    cols: usize,
    /// From the first page after the header.
    offset: u64,
    bytes: usize,
    sums: Vec<u64>,
}

/// All that stands before the tiles.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) key: Key,
    /// SHA-256 of each file that it was made of.
    pub(super) digests: Vec<[u8; 32]>,
    matrices: Vec<(Slot, Place)>,
}

/// A file that is there.
#[derive(Debug)]
pub(super) struct PackedFile {
    source: Source,
    map: Option<Arc<Mmap>>,
    /// Where tiles begin.
    start: u64,
    places: HashMap<Slot, Place>,
}

impl PackedFile {
    /// Opens what was made of `key`.
    pub(super) fn open(path: &Path, key: &Key, mode: PackedMode) -> Result<Self, Fault> {
        let source = Source::open(path)?;
        let (header, start) = Header::read(&source)?;
        if header.key != *key {
            return Err(Fault::Other);
        }
        let map = match mode {
            PackedMode::Read => None,
            PackedMode::Map => Some(Arc::new(map(source.file()).map_err(|source| {
                QuantError::Io {
                    path: path.to_owned(),
                    source,
                }
            })?)),
        };
        Ok(Self {
            source,
            map,
            start,
            places: header.matrices.into_iter().collect(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.source.path()
    }

    /// The tiles of some rows of a tensor. `tell` is told how many of their bytes are there, and may
    /// stop the work.
    pub(super) fn load(
        &self,
        info: &TensorInfo,
        rows: &Range<usize>,
        tell: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Packed, Fault> {
        let place = self.places.get(&Slot::new(info, rows));
        let place = place.ok_or(Fault::Missing)?;
        let shape = Shape::of_tensor(info, rows.len())?;
        if (place.ty, place.cols, place.bytes) != (shape.ty, shape.cols, shape.bytes()) {
            return Err(Fault::Damaged {
                part: "a matrix of another shape",
            });
        }
        let held = match &self.map {
            Some(map) => Held::Mapped(self.map_tiles(map, place, tell)?),
            None => Held::Owned(self.read_tiles(place, tell)?),
        };
        Ok(Packed::new(&shape, held))
    }

    fn map_tiles(
        &self,
        map: &Arc<Mmap>,
        place: &Place,
        tell: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Mapped, Fault> {
        let from = (self.start + place.offset) as usize;
        let mapped = Mapped::new(map, from..from + place.bytes);
        let mapped = mapped.ok_or(Fault::Damaged {
            part: "a matrix's place",
        })?;
        let mut done = 0;
        for (step, sums) in mapped.bytes().chunks(STEP).zip(place.steps()) {
            let chunks = step.par_chunks(CHUNK).zip(sums);
            chunks.try_for_each(|(chunk, sum)| check(chunk, *sum))?;
            done += step.len();
            stopped(tell(done))?;
        }
        Ok(mapped)
    }

    fn read_tiles(
        &self,
        place: &Place,
        tell: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Aligned, Fault> {
        let from = self.start + place.offset;
        let mut tiles = Aligned::for_weights(place.bytes);
        let mut done = 0;
        for (step, sums) in tiles.bytes_mut().chunks_mut(STEP).zip(place.steps()) {
            let chunks = step.par_chunks_mut(CHUNK).zip(sums).enumerate();
            chunks.try_for_each(|(i, (chunk, sum))| {
                let at = from + (done + i * CHUNK) as u64;
                self.source.read_exact_at(chunk, at)?;
                check(chunk, *sum)
            })?;
            done += step.len();
            stopped(tell(done))?;
        }
        Ok(tiles)
    }
}

impl Place {
    /// The checksums of each so many bytes as are taken at a time.
    fn steps(&self) -> impl Iterator<Item = &[u64]> {
        self.sums.chunks(STEP / CHUNK)
    }
}

fn check(chunk: &[u8], sum: u64) -> Result<(), Fault> {
    match XxHash3_64::oneshot(chunk) == sum {
        true => Ok(()),
        false => Err(Fault::Damaged {
            part: "a matrix's tiles",
        }),
    }
}

fn stopped(flow: ControlFlow<()>) -> Result<(), Fault> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(QuantError::Cancelled.into()),
    }
}

impl Header {
    /// For these matrices; their checksums are not known yet.
    pub(super) fn new(key: Key, digests: Vec<[u8; 32]>, matrices: &[(Slot, Packed)]) -> Self {
        let mut offset = 0u64;
        let place = |(slot, packed): &(Slot, Packed)| {
            let place = Place {
                ty: packed.ggml_type(),
                cols: packed.cols(),
                offset,
                bytes: packed.bytes(),
                sums: vec![0; packed.bytes().div_ceil(CHUNK)],
            };
            offset = (offset + place.bytes as u64).next_multiple_of(PAGE);
            (slot.clone(), place)
        };
        Self {
            key,
            digests,
            matrices: matrices.iter().map(place).collect(),
        }
    }

    /// Bytes that the whole file takes.
    pub(super) fn file_bytes(&self) -> u64 {
        tiles_begin(self.to_bytes().len()) + self.tile_bytes()
    }

    fn tile_bytes(&self) -> u64 {
        let ends = self
            .matrices
            .iter()
            .map(|(_, place)| place.offset + place.bytes as u64);
        ends.max().unwrap_or(0)
    }

    /// Writes a file of these matrices, those that the header was made for. `go_on` is asked after
    /// every chunk; whether all was written is the answer.
    pub(super) fn write(
        mut self,
        matrices: &[(Slot, Packed)],
        mut file: &File,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<bool> {
        let start = tiles_begin(self.to_bytes().len());
        let total = self.file_bytes();
        let mut since = 0;
        for ((_, place), (_, packed)) in self.matrices.iter_mut().zip(matrices) {
            file.seek(SeekFrom::Start(start + place.offset))?;
            for (chunk, sum) in packed.held.bytes().chunks(CHUNK).zip(&mut place.sums) {
                *sum = XxHash3_64::oneshot(chunk);
                file.write_all(chunk)?;
                since += chunk.len();
                // A little at a time, so that it can be stopped at any.
                if since >= SYNC {
                    file.sync_data()?;
                    since = 0;
                }
                if !go_on() {
                    return Ok(false);
                }
            }
        }
        file.set_len(total)?;
        let header = self.to_bytes();
        let mut front = Vec::with_capacity(FRONT + header.len());
        front.extend(MAGIC);
        front.extend(self.key.layout.to_le_bytes());
        front.extend(total.to_le_bytes());
        front.extend((header.len() as u64).to_le_bytes());
        let sum = sum_of(&front, &header);
        front.extend(sum.to_le_bytes());
        front.extend(&header);
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&front)?;
        Ok(true)
    }

    /// The header of a file, and where its tiles begin.
    pub(super) fn read(source: &Source) -> Result<(Self, u64), Fault> {
        let mut front = [0; FRONT];
        if source.len() < FRONT as u64 {
            return Err(Fault::Foreign);
        }
        source.read_exact_at(&mut front, 0)?;
        let mut fields = Fields(&front);
        let mut front_of = || {
            let magic = fields.take(MAGIC.len())?;
            Some((
                magic,
                fields.u32()?,
                fields.u64()?,
                fields.u64()?,
                fields.u64()?,
            ))
        };
        let (magic, layout, total, length, sum) = front_of().ok_or(Fault::Foreign)?;
        if magic != MAGIC {
            return Err(Fault::Foreign);
        }
        if layout != super::LAYOUT {
            return Err(Fault::Layout {
                found: layout,
                expected: super::LAYOUT,
            });
        }
        let damaged = || Fault::Damaged { part: "its header" };
        if total != source.len() || length > LONGEST_HEADER.min(total - FRONT as u64) {
            return Err(Fault::Damaged { part: "its length" });
        }
        let mut header = vec![0; length as usize];
        source.read_exact_at(&mut header, FRONT as u64)?;
        let (begin, _) = front.split_at(FRONT - 8);
        if sum_of(begin, &header) != sum {
            return Err(damaged());
        }
        let start = tiles_begin(header.len());
        let header = Self::from_bytes(&header).ok_or_else(damaged)?;
        let end = header.tile_bytes().checked_add(start);
        if end.is_none_or(|end| end > total) {
            return Err(damaged());
        }
        Ok((header, start))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut to = Vec::new();
        let text = |to: &mut Vec<u8>, text: &str| {
            to.extend((text.len() as u32).to_le_bytes());
            to.extend(text.as_bytes());
        };
        to.extend(self.key.layout.to_le_bytes());
        to.extend((self.key.parts.len() as u32).to_le_bytes());
        for (part, digest) in self.key.parts.iter().zip(&self.digests) {
            text(&mut to, &part.path);
            to.extend(part.bytes.to_le_bytes());
            to.extend(part.modified.to_le_bytes());
            to.extend(part.header.to_le_bytes());
            to.extend(digest);
        }
        to.extend((self.matrices.len() as u32).to_le_bytes());
        for (slot, place) in &self.matrices {
            text(&mut to, &slot.tensor);
            to.extend(place.ty.code().to_le_bytes());
            let numbers = [slot.start, slot.end, place.cols, place.bytes];
            for number in numbers.map(|n| n as u64).into_iter().chain([place.offset]) {
                to.extend(number.to_le_bytes());
            }
            for sum in &place.sums {
                to.extend(sum.to_le_bytes());
            }
        }
        to
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let layout = fields.u32()?;
        let (mut parts, mut digests) = (Vec::new(), Vec::new());
        for _ in 0..fields.u32()? {
            parts.push(KeyPart {
                path: fields.text()?,
                bytes: fields.u64()?,
                modified: i128::from_le_bytes(fields.array()?),
                header: u128::from_le_bytes(fields.array()?),
            });
            digests.push(fields.array()?);
        }
        let mut matrices = Vec::new();
        for _ in 0..fields.u32()? {
            let tensor = fields.text()?;
            let ty = GgmlType::from_code(fields.u32()?)?;
            let (start, end) = (fields.usize()?, fields.usize()?);
            let (cols, bytes) = (fields.usize()?, fields.usize()?);
            let offset = fields.u64().filter(|offset| offset.is_multiple_of(PAGE))?;
            offset.checked_add(bytes as u64)?;
            let sums = fields.take(bytes.div_ceil(CHUNK).checked_mul(8)?)?;
            let sums = sums.chunks_exact(8).map(|sum| Fields(sum).u64());
            let place = Place {
                ty,
                cols,
                offset,
                bytes,
                sums: sums.collect::<Option<_>>()?,
            };
            matrices.push((Slot { tensor, start, end }, place));
        }
        fields.0.is_empty().then_some(Self {
            key: Key { layout, parts },
            digests,
            matrices,
        })
    }
}

/// Of all that stands before the tiles.
fn sum_of(front: &[u8], header: &[u8]) -> u64 {
    let mut hash = XxHash3_64::with_seed(0);
    std::hash::Hasher::write(&mut hash, front);
    std::hash::Hasher::write(&mut hash, header);
    std::hash::Hasher::finish(&hash)
}

/// The first page after a header of so many bytes.
fn tiles_begin(header: usize) -> u64 {
    (FRONT as u64 + header as u64).next_multiple_of(PAGE)
}

/// What is left of a header.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(bytes)?;
        self.0 = left;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    fn usize(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
}
