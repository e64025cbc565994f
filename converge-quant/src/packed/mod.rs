//! Weights as the kernels read them: tiles of sixteen rows.
//!
//! A vector register holds sixteen rows × four consecutive elements, so a multiply-add
//! instruction takes four elements of an activation, broadcast to all lanes, and gives sixteen
//! outputs: one output lives in one lane, and no sum ever crosses lanes.
//!
//! ```text
//!   file      row 0: [block][block]…      row 1: [block][block]…       … row 15
//!                └──────────┬─────────────────┴──────── … ──────┘
//!                           ▼ sixteen blocks of one column
//!   tile      [unit: scales of 16 rows | 4 bytes of row 0, of row 1, … of row 15 | next 4 …]
//!             [unit][unit] …
//! ```
//!
//! Packing moves bytes and unpacks 6-bit scales, it rounds nothing. Tiles are about as large as the
//! file's blocks: reading them is what decoding a token costs.

mod file;
mod float;
mod held;
mod k_quants;
mod key;
mod legacy;
mod matrices;
mod store;
#[cfg(test)]
mod store_tests;
pub(crate) mod tile;
mod writing;

use std::{
    ops::{ControlFlow, Range},
    sync::Arc,
};

use rayon::prelude::*;

use crate::{GgmlType, Gguf, Level, QuantError, Result, TensorInfo, memory::Aligned, simd::LANES};
use held::Held;
pub use matrices::Matrices;
pub use store::{PackedEntry, PackedMode, PackedStore};
pub(crate) use tile::{Block, TileFormat, VECTOR, Visitor};
pub use writing::PackedWriting;

/// Version of what tiles look like in memory, of all types together. Files of packed weights have
/// it: who changes what [`Packed::from_bytes`] makes of a type raises it.
const LAYOUT: u32 = 2;

/// Bytes after which loading says how far it is.
const STEP: usize = 32 << 20;

/// Rows of a tile.
pub(crate) const ROWS: usize = LANES;

/// Elements of a row that kernels take at a time: with two scales of the activations, one for each 16.
pub(crate) const BLOCK: usize = 32;

/// A matrix in tiles: `rows × cols`, any type that [`format::decode`](crate::format::decode) knows
/// but Q8_K, which no file stores weights in. Clones share the tiles.
#[derive(Clone)]
pub struct Packed {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    /// Bytes of a tile.
    stride: usize,
    held: Arc<Held>,
}

impl Packed {
    /// Rows of a tile.
    pub const TILE: usize = ROWS;

    /// Reads rows of a tensor, in parallel, and packs them.
    ///
    /// # Errors
    /// [`QuantError::NoKernel`] for a type without kernels, [`QuantError::ForeignTensor`] where
    /// `info` is not as the file describes it, and the reader's errors.
    pub fn load(gguf: &Gguf, info: &TensorInfo, rows: Range<usize>) -> Result<Self> {
        Self::load_telling(gguf, info, rows, &mut |_| ControlFlow::Continue(()))
    }

    /// [`load`](Self::load) that tells how many bytes of the file it has packed, and that may be
    /// stopped.
    fn load_telling(
        gguf: &Gguf,
        info: &TensorInfo,
        rows: Range<usize>,
        tell: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Self> {
        let shape = Shape::of_tensor(info, rows.len())?;
        let (row_bytes, stride) = (shape.row_bytes, shape.stride.max(1));
        let mut data = Aligned::for_weights(shape.bytes());
        let at_once = (STEP / stride).max(1);
        for (step, tiles) in data.bytes_mut().chunks_mut(at_once * stride).enumerate() {
            let tiles = tiles.par_chunks_mut(stride).enumerate();
            tiles.try_for_each_init(Vec::new, |buffer, (tile, to)| {
                let first = rows.start + (step * at_once + tile) * ROWS;
                gguf.read_rows(info, first..rows.end.min(first + ROWS), buffer)?;
                for (row, from) in buffer.chunks_exact(row_bytes).enumerate() {
                    (shape.layout.pack)(from, row, to);
                }
                Ok(())
            })?;
            let packed = rows.len().min((step + 1) * at_once * ROWS);
            if tell(packed * row_bytes).is_break() {
                return Err(QuantError::Cancelled);
            }
        }
        Ok(Self::new(&shape, Held::Owned(data)))
    }

    /// Packs a matrix that is in memory: `rows` rows of `cols` elements of type `ty`.
    ///
    /// # Errors
    /// [`QuantError::NoKernel`] for a type without kernels and [`QuantError::MatrixBytes`] where `bytes` are not so many rows of whole blocks.
    pub fn from_bytes(ty: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Result<Self> {
        let shape = Shape::new(ty, rows, cols)?;
        let row_bytes = shape.row_bytes;
        if row_bytes == 0 || row_bytes.checked_mul(rows) != Some(bytes.len()) {
            return Err(QuantError::MatrixBytes {
                ggml_type: ty,
                rows,
                cols,
                found: bytes.len(),
            });
        }
        let mut data = Aligned::for_weights(shape.bytes());
        let sources = bytes.chunks(row_bytes.saturating_mul(ROWS));
        let tiles = data.bytes_mut().chunks_mut(shape.stride.max(1));
        for (to, from) in tiles.zip(sources) {
            for (row, from) in from.chunks_exact(row_bytes).enumerate() {
                (shape.layout.pack)(from, row, to);
            }
        }
        Ok(Self::new(&shape, Held::Owned(data)))
    }

    /// `held` has the bytes of this shape.
    fn new(shape: &Shape, held: Held) -> Self {
        Self {
            ty: shape.ty,
            rows: shape.rows,
            cols: shape.cols,
            stride: shape.stride,
            held: Arc::new(held),
        }
    }

    /// The type that the weights have in the file.
    pub fn ggml_type(&self) -> GgmlType {
        self.ty
    }

    /// Length of an output.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Length of an input.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that the tiles take.
    pub fn bytes(&self) -> usize {
        self.held.bytes().len()
    }

    /// Whether products take activations as they are, in `f32`, instead of rounded to 8 bits.
    pub fn is_float(&self) -> bool {
        is_float(self.ty)
    }

    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    pub(crate) fn tile(&self, tile: usize) -> &[u8] {
        &self.held.bytes()[tile * self.stride..][..self.stride]
    }

    /// Decodes row `row` into `out`, which has `cols` elements: an embedding's row. The bits are the
    /// same at each `level`.
    ///
    /// # Errors
    /// [`QuantError::MatrixRow`] past the last row, [`QuantError::DecodeLength`] for another
    /// length of `out`.
    pub fn decode_row(&self, level: Level, row: usize, out: &mut [f32]) -> Result<()> {
        if row >= self.rows {
            return Err(QuantError::MatrixRow {
                row,
                rows: self.rows,
            });
        }
        if out.len() != self.cols {
            return Err(QuantError::DecodeLength {
                ggml_type: self.ty,
                expected: self.cols,
                found: out.len(),
            });
        }
        let tile = self.tile(row / ROWS);
        let row = row % ROWS;
        if self.is_float() {
            float::decode_row(self.ty, tile, row, out);
        } else {
            let work = tile::DecodeRow {
                level,
                tile,
                row,
                out,
            };
            visit(self.ty, work);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed")
            .field("type", &self.ty)
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .finish_non_exhaustive()
    }
}

/// What a matrix takes.
struct Shape {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    /// Bytes of a row in the file; 0 where the columns are no whole blocks.
    row_bytes: usize,
    /// Bytes of a tile.
    stride: usize,
    layout: Layout,
}

impl Shape {
    fn new(ty: GgmlType, rows: usize, cols: usize) -> Result<Self> {
        let layout = Layout::of(ty).ok_or(QuantError::NoKernel { ggml_type: ty })?;
        // Of no rows, columns may be any number.
        let stride = match rows {
            0 => 0,
            _ => cols.div_ceil(layout.unit).saturating_mul(layout.bytes),
        };
        Ok(Self {
            ty,
            rows,
            cols,
            row_bytes: ty.bytes_of(cols).unwrap_or(0),
            stride,
            layout,
        })
    }

    /// Of so many rows of a tensor. The fields of a description are public: nothing is taken for
    /// granted.
    fn of_tensor(info: &TensorInfo, rows: usize) -> Result<Self> {
        let shape = Self::new(info.ggml_type, rows, info.cols())?;
        let bytes = rows.checked_mul(shape.row_bytes);
        if shape.row_bytes == 0 || bytes.is_none_or(|bytes| bytes > info.bytes) {
            return Err(QuantError::ForeignTensor {
                tensor: info.name.clone(),
            });
        }
        Ok(shape)
    }

    /// Bytes of all tiles.
    fn bytes(&self) -> usize {
        self.rows.div_ceil(ROWS).saturating_mul(self.stride)
    }
}

/// Where the parts of a tile are.
struct Layout {
    /// Elements of a row that lie together.
    unit: usize,
    /// Bytes that sixteen rows of them take.
    bytes: usize,
    /// Puts a row of blocks into a tile.
    pack: fn(from: &[u8], row: usize, to: &mut [u8]),
}

impl Layout {
    fn of(ty: GgmlType) -> Option<Self> {
        struct Of;
        impl Visitor for Of {
            type Output = Layout;
            fn visit<T: TileFormat>(self) -> Layout {
                Layout {
                    unit: T::BLOCKS * BLOCK,
                    bytes: T::BYTES,
                    pack: tile::pack_row::<T>,
                }
            }
        }
        match ty {
            GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => Some(Self {
                unit: 1,
                bytes: ROWS * ty.block_bytes(),
                pack: match ty {
                    GgmlType::F32 => float::pack_row::<4>,
                    _ => float::pack_row::<2>,
                },
            }),
            _ => visit(ty, Of),
        }
    }
}

pub(crate) fn is_float(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16)
}

/// Hands the tile format of a quantized type to `visitor`; `None` for a type without kernels.
#[inline(always)]
pub(crate) fn visit<V: Visitor>(ty: GgmlType, visitor: V) -> Option<V::Output> {
    Some(match ty {
        GgmlType::Q4_0 => visitor.visit::<legacy::Q4_0>(),
        GgmlType::Q4_1 => visitor.visit::<legacy::Q4_1>(),
        GgmlType::Q5_0 => visitor.visit::<legacy::Q5_0>(),
        GgmlType::Q5_1 => visitor.visit::<legacy::Q5_1>(),
        GgmlType::Q8_0 => visitor.visit::<legacy::Q8_0>(),
        GgmlType::IQ4_NL => visitor.visit::<legacy::Iq4Nl>(),
        GgmlType::MXFP4 => visitor.visit::<legacy::Mxfp4>(),
        GgmlType::IQ4_XS => visitor.visit::<k_quants::Iq4Xs>(),
        GgmlType::Q2_K => visitor.visit::<k_quants::Q2K>(),
        GgmlType::Q3_K => visitor.visit::<k_quants::Q3K>(),
        GgmlType::Q4_K => visitor.visit::<k_quants::Q4K>(),
        GgmlType::Q5_K => visitor.visit::<k_quants::Q5K>(),
        GgmlType::Q6_K => visitor.visit::<k_quants::Q6K>(),
        _ => return None,
    })
}
