//! GGUF files and block-quantized weights: read, check, decode, hand to candle.
//!
//! ```text
//!   model.gguf (or its parts)
//!        │  open: the header read and checked in full, under Limits
//!        ▼
//!   ┌── Gguf ───────────────────────────────────────────────┐
//!   │ Metadata     key → typed value      get, find, iter   │
//!   │ TensorInfo   name, GgmlType, shape  tensor, tensors   │
//!   │ bytes        by position, owned     read, read_rows   │
//!   └────────┬──────────────────────────────────┬───────────┘
//!            │ bytes                            │ bytes, unchanged
//!            ├───────────────────┐              ├─────────────────────┐
//!            ▼                   ▼              ▼                     ▼
//!   format::decode → f32   Packed: tiles   candle::qtensor    quantize, gguf::Writer
//!            │                   │          QTensor on a Device   to a new file
//!            ▼                   ▼
//!   candle::tensor         kernels::matmul, attention, rope, …
//!    Tensor on a Device     on f32 slices, by a Pool of threads
//! ```
//!
//! - [`gguf`] trusts nothing in a file: counts, lengths, offsets and types are checked before
//!   anything is allocated for them, and what is wrong is a [`QuantError`] with field and offset.
//! - [`format`](mod@format) decodes each block format bit for bit as ggml's reference does, and
//!   encodes most of them by llama.cpp's searches.
//! - [`Packed`] holds a matrix as tiles of sixteen rows, one row to a lane; [`kernels`] multiply
//!   with it on AVX-512, AVX2 or plain arrays with the same bits ([`Level`]), on the threads of a
//!   [`Pool`]. [`Matrices`] loads those of a file, from a [`PackedStore`] where they were packed
//!   before.
//! - [`mod@quantize`] makes files of fewer bits by llama.cpp's recipes.
//! - [`folder`] writes files that appear whole or not at all, in folders that stay below a size.
//! - `candle` (feature `candle`, on by default) is the only module that knows candle.
//!
//! Nothing here knows what a model is: names of tensors and keys mean nothing to this crate.
//!
#![cfg_attr(feature = "candle", doc = "```no_run")]
#![cfg_attr(not(feature = "candle"), doc = "```ignore")]
//! use candle_core::{DType, Device};
//! use converge_quant::{Gguf, candle};
//!
//! # fn main() -> Result<(), converge_quant::QuantError> {
//! let gguf = Gguf::open("model.gguf")?;
//! let architecture: String = gguf.metadata().get("general.architecture")?;
//! println!("{architecture}, {} tensors, {} bytes", gguf.tensors().len(), gguf.file_bytes());
//!
//! // Decoded, to compute with in f32 …
//! let norm = candle::tensor(&gguf, "output_norm.weight", DType::F32, &Device::Cpu)?;
//! // … or as stored, for candle's quantized matrix product.
//! let query = candle::qtensor(&gguf, "blk.0.attn_q.weight", &Device::Cpu)?;
//! println!("{:?} {:?}", norm.shape(), query.dtype());
//!
//! // Without candle: any bytes of a type.
//! let info = gguf.tensor("blk.0.attn_q.weight")?;
//! let mut row = vec![0.0; info.cols()];
//! let mut bytes = Vec::new();
//! gguf.read_rows(info, 0..1, &mut bytes)?;
//! converge_quant::format::decode(info.ggml_type, &bytes, &mut row)?;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "candle")]
pub mod candle;
mod cores;
pub mod error;
pub mod folder;
pub mod format;
mod ggml_type;
pub mod gguf;
#[cfg(feature = "safetensors")]
pub mod hf;
pub mod kernels;
mod memory;
mod packed;
pub mod quantize;
mod simd;
mod threads;

pub use error::{QuantError, Result};
pub use ggml_type::GgmlType;
pub use gguf::{Gguf, Limits, Metadata, TensorInfo};
pub use packed::{Matrices, Packed, PackedEntry, PackedMode, PackedStore, PackedWriting};
pub use simd::Level;
pub use threads::Pool;
