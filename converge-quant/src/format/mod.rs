//! Block formats of ggml: how the bytes of a tensor become numbers, and numbers bytes.
//!
//! A format stores a row as a sequence of blocks, each of a fixed number of elements in a fixed
//! number of bytes. Every format has a module with its block as a struct whose size is checked at
//! compile time, and a `decode` that follows ggml's reference (`dequantize_row_*` in
//! `ggml-quants.c`) operation by operation, so that the result is equal to it bit for bit. All
//! fields are little-endian. What is in the bytes is data: no byte pattern makes a decoder fail,
//! a scale that is NaN or infinite gives NaN or infinite numbers.
//!
//! | format | elements | bytes | bits per weight | a number is |
//! |---|---|---|---|---|
//! | F32, F16, BF16 | 1 | 4, 2, 2 | 32, 16, 16 | itself |
//! | Q4_0, Q5_0, Q8_0 | 32 | 18, 22, 34 | 4.5, 5.5, 8.5 | `d·q`, signed `q` |
//! | Q4_1, Q5_1 | 32 | 20, 24 | 5, 6 | `d·q + m` |
//! | Q2_K | 256 | 84 | 2.625 | `(d·scale)·q − dmin·min`, one scale and min for 16 |
//! | Q3_K | 256 | 110 | 3.4375 | `(d·scale)·q`, one scale for 16 |
//! | Q4_K, Q5_K | 256 | 144, 176 | 4.5, 5.5 | `(d·scale)·q − dmin·min`, one scale and min for 32 |
//! | Q6_K | 256 | 210 | 6.5625 | `(d·scale)·q`, one scale for 16 |
//! | Q8_K | 256 | 292 | 9.125 | `d·q` |
//! | IQ4_NL | 32 | 18 | 4.5 | `d·table[q]` |
//! | IQ4_XS | 256 | 136 | 4.25 | `(d·scale)·table[q]`, one scale for 32 |
//! | MXFP4 | 32 | 17 | 4.25 | a 4-bit float times a power of two |

pub mod iq4_nl;
pub mod iq4_xs;
pub mod mxfp4;
pub mod plain;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod q8_k;
mod round;
pub(crate) mod scales_mins;
mod search;

use half::f16;

use crate::{GgmlType, QuantError, Result};

/// Elements of a block of the K formats, of Q8_K and of IQ4_XS.
pub const QK_K: usize = 256;

/// A block of `BYTES` bytes that holds `LEN` numbers.
pub trait Block<const BYTES: usize, const LEN: usize>: Sized {
    /// The type whose rows consist of these blocks.
    const TYPE: GgmlType;

    /// Reads the fields.
    fn read(bytes: &[u8; BYTES]) -> Self;

    /// Writes the numbers, in the order of the row.
    fn decode(&self, out: &mut [f32; LEN]);
}

/// Decodes whole blocks of `ggml_type` from `bytes` into `out`: any number of them, so a row, some
/// rows or a whole tensor.
///
/// # Errors
///
/// - [`QuantError::NoDecoder`]: there is no decoder for the type.
/// - [`QuantError::PartialBlock`]: `bytes` is not a whole number of blocks.
/// - [`QuantError::DecodeLength`]: `out` is not as long as the blocks have elements.
pub fn decode(ggml_type: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    match ggml_type {
        GgmlType::F32 => plain::decode_f32(bytes, out),
        GgmlType::F16 => plain::decode_f16(bytes, out),
        GgmlType::BF16 => plain::decode_bf16(bytes, out),
        GgmlType::Q4_0 => q4_0::decode(bytes, out),
        GgmlType::Q4_1 => q4_1::decode(bytes, out),
        GgmlType::Q5_0 => q5_0::decode(bytes, out),
        GgmlType::Q5_1 => q5_1::decode(bytes, out),
        GgmlType::Q8_0 => q8_0::decode(bytes, out),
        GgmlType::Q2_K => q2_k::decode(bytes, out),
        GgmlType::Q3_K => q3_k::decode(bytes, out),
        GgmlType::Q4_K => q4_k::decode(bytes, out),
        GgmlType::Q5_K => q5_k::decode(bytes, out),
        GgmlType::Q6_K => q6_k::decode(bytes, out),
        GgmlType::Q8_K => q8_k::decode(bytes, out),
        GgmlType::IQ4_NL => iq4_nl::decode(bytes, out),
        GgmlType::IQ4_XS => iq4_xs::decode(bytes, out),
        GgmlType::MXFP4 => mxfp4::decode(bytes, out),
        _ => Err(QuantError::NoDecoder { ggml_type }),
    }
}

/// A block that numbers can be rounded to.
pub trait Encode<const BYTES: usize, const LEN: usize>: Block<BYTES, LEN> {
    /// The block nearest to these numbers, as the format's search finds it; they must be finite.
    fn encode(numbers: &[f32; LEN]) -> Self;

    /// Writes the fields, as [`Block::read`] reads them.
    fn write(&self, out: &mut [u8; BYTES]);
}

/// Encodes numbers as whole blocks of `ggml_type` and appends them to `out`: the inverse of
/// [`decode`], up to rounding. The result depends on nothing but the numbers of each block.
///
/// Roundings and searches follow llama.cpp's `quantize_row_*_ref`, without an importance
/// matrix.
///
/// # Errors
///
/// - [`QuantError::NoEncoder`]: there is no encoder for the type.
/// - [`QuantError::PartialRow`]: the numbers are no whole blocks.
/// - [`QuantError::Unencodable`]: a number is not finite, or beyond half precision where the type
///   keeps its scales in it. What was appended before the error is to be thrown away.
pub fn encode(ggml_type: GgmlType, numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    match ggml_type {
        GgmlType::F32 => plain::encode_f32(numbers, out),
        GgmlType::F16 => plain::encode_f16(numbers, out),
        GgmlType::BF16 => plain::encode_bf16(numbers, out),
        GgmlType::Q4_0 => q4_0::encode(numbers, out),
        GgmlType::Q4_1 => q4_1::encode(numbers, out),
        GgmlType::Q5_0 => q5_0::encode(numbers, out),
        GgmlType::Q5_1 => q5_1::encode(numbers, out),
        GgmlType::Q8_0 => q8_0::encode(numbers, out),
        GgmlType::Q4_K => q4_k::encode(numbers, out),
        GgmlType::Q5_K => q5_k::encode(numbers, out),
        GgmlType::Q6_K => q6_k::encode(numbers, out),
        _ => Err(QuantError::NoEncoder { ggml_type }),
    }
}

/// Encodes blocks of one format, numbers checked.
fn encode_blocks<B, const BYTES: usize, const LEN: usize>(
    numbers: &[f32],
    out: &mut Vec<u8>,
) -> Result<()>
where
    B: Encode<BYTES, LEN>,
{
    let (blocks, rest) = numbers.as_chunks::<LEN>();
    if !rest.is_empty() {
        return Err(QuantError::PartialRow {
            ggml_type: B::TYPE,
            numbers: numbers.len(),
            block_len: LEN,
        });
    }
    check(B::TYPE, numbers, f16::MAX.to_f32())?;
    out.reserve(blocks.len() * BYTES);
    let mut bytes = [0; BYTES];
    for block in blocks {
        B::encode(block).write(&mut bytes);
        out.extend_from_slice(&bytes);
    }
    Ok(())
}

/// Numbers must be finite and at most `most`, which is finite, away from zero.
fn check(ggml_type: GgmlType, numbers: &[f32], most: f32) -> Result<()> {
    let held = |x: &f32| x.abs() <= most;
    // Without an early end, which would make it one by one.
    if numbers.iter().fold(true, |all, x| all & held(x)) {
        return Ok(());
    }
    match numbers.iter().position(|x| !held(x)) {
        None => Ok(()),
        Some(position) => Err(QuantError::Unencodable {
            ggml_type,
            position,
            value: numbers[position],
        }),
    }
}

/// Decodes blocks of one format, lengths checked.
fn decode_blocks<B, const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
) -> Result<()>
where
    B: Block<BYTES, LEN>,
{
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    if !rest.is_empty() {
        return Err(QuantError::PartialBlock {
            ggml_type: B::TYPE,
            bytes: bytes.len(),
            block_bytes: BYTES,
        });
    }
    let found = out.len();
    let (outs, rest) = out.as_chunks_mut::<LEN>();
    if outs.len() != blocks.len() || !rest.is_empty() {
        return Err(QuantError::DecodeLength {
            ggml_type: B::TYPE,
            expected: blocks.len().saturating_mul(LEN),
            found,
        });
    }
    for (block, out) in blocks.iter().zip(outs) {
        B::read(block).decode(out);
    }
    Ok(())
}

/// The `N` bytes of a block that start at byte `AT`; that they are inside is checked when the
/// program is compiled.
fn field<const AT: usize, const N: usize, const BYTES: usize>(bytes: &[u8; BYTES]) -> [u8; N] {
    const { assert!(AT + N <= BYTES) };
    std::array::from_fn(|i| bytes[AT + i])
}

/// The half-precision number at byte `AT`.
fn half_field<const AT: usize, const BYTES: usize>(bytes: &[u8; BYTES]) -> f16 {
    f16::from_le_bytes(field::<AT, 2, BYTES>(bytes))
}

#[cfg(test)]
mod tests;
