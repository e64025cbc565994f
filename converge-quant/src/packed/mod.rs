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

mod aligned;
mod float;
mod k_quants;
mod legacy;
pub(crate) mod tile;

use std::ops::Range;

use rayon::prelude::*;

use crate::{GgmlType, Gguf, QuantError, Result, TensorInfo, simd::LANES};
pub(crate) use aligned::Aligned;
use tile::Flat;
pub(crate) use tile::{Block, TileFormat, Unpacked, VECTOR, Visitor};

/// Rows of a tile.
pub(crate) const ROWS: usize = LANES;

/// Elements of a row that kernels take at a time: with two scales of the activations, one for each 16.
pub(crate) const BLOCK: usize = 32;

/// A matrix in tiles: `rows × cols`, any type that [`format::decode`](crate::format::decode) knows
/// but Q8_K, which no file stores weights in.
pub struct Packed {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    /// Bytes of a tile.
    stride: usize,
    data: Aligned,
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
        let ggml_type = info.ggml_type;
        let layout = Layout::of(ggml_type).ok_or(QuantError::NoKernel { ggml_type })?;
        // The fields of a description are public: nothing is taken for granted.
        let row_bytes = ggml_type.bytes_of(info.cols()).unwrap_or(0);
        let bytes = rows.len().checked_mul(row_bytes);
        if row_bytes == 0 || bytes.is_none_or(|bytes| bytes > info.bytes) {
            return Err(QuantError::ForeignTensor {
                tensor: info.name.clone(),
            });
        }
        let mut packed = Self::empty(ggml_type, &layout, rows.len(), info.cols());
        let stride = packed.stride;
        let tiles = packed.data.bytes_mut().par_chunks_mut(stride.max(1));
        tiles
            .enumerate()
            .try_for_each_init(Vec::new, |buffer, (tile, to)| {
                let first = rows.start + tile * ROWS;
                gguf.read_rows(info, first..rows.end.min(first + ROWS), buffer)?;
                for (row, from) in buffer.chunks_exact(row_bytes).enumerate() {
                    (layout.pack)(from, row, to);
                }
                Ok(())
            })?;
        Ok(packed)
    }

    /// Packs a matrix that is in memory: `rows` rows of `cols` elements of type `ty`.
    ///
    /// # Errors
    /// [`QuantError::NoKernel`] for a type without kernels and [`QuantError::MatrixBytes`] where `bytes` are not so many rows of whole blocks.
    pub fn from_bytes(ty: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Result<Self> {
        let layout = Layout::of(ty).ok_or(QuantError::NoKernel { ggml_type: ty })?;
        let row_bytes = ty.bytes_of(cols).filter(|bytes| *bytes > 0);
        let Some(row_bytes) = row_bytes.filter(|&n| n.checked_mul(rows) == Some(bytes.len()))
        else {
            return Err(QuantError::MatrixBytes {
                ggml_type: ty,
                rows,
                cols,
                found: bytes.len(),
            });
        };
        let mut packed = Self::empty(ty, &layout, rows, cols);
        let stride = packed.stride.max(1);
        let sources = bytes.chunks(row_bytes.saturating_mul(ROWS));
        for (to, from) in packed.data.bytes_mut().chunks_mut(stride).zip(sources) {
            for (row, from) in from.chunks_exact(row_bytes).enumerate() {
                (layout.pack)(from, row, to);
            }
        }
        Ok(packed)
    }

    fn empty(ty: GgmlType, layout: &Layout, rows: usize, cols: usize) -> Self {
        // Of no rows, columns may be any number.
        let stride = match rows {
            0 => 0,
            _ => cols.div_ceil(layout.unit) * layout.bytes,
        };
        Self {
            ty,
            rows,
            cols,
            stride,
            data: Aligned::for_weights(rows.div_ceil(ROWS) * stride),
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
        self.data.bytes().len()
    }

    /// Whether products take activations as they are, in `f32`, instead of rounded to 8 bits.
    pub fn is_float(&self) -> bool {
        is_float(self.ty)
    }

    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    pub(crate) fn tile(&self, tile: usize) -> &[u8] {
        &self.data.bytes()[tile * self.stride..][..self.stride]
    }

    /// Decodes row `row` into `out`, which has `cols` elements: an embedding's row.
    ///
    /// # Errors
    /// [`QuantError::MatrixRow`] past the last row, [`QuantError::DecodeLength`] for another
    /// length of `out`.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
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
            visit(self.ty, tile::DecodeRow { tile, row, out });
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
