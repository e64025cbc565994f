//! F32, F16 and BF16: numbers as they are, a block of one element.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::{GgmlType, QuantError, Result};

/// Decodes little-endian single-precision numbers.
///
/// # Errors
///
/// [`QuantError::PartialBlock`] and [`QuantError::DecodeLength`] on wrong lengths.
pub fn decode_f32(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let numbers = numbers::<4>(GgmlType::F32, bytes, out.len())?;
    for (out, &number) in out.iter_mut().zip(numbers) {
        *out = f32::from_le_bytes(number);
    }
    Ok(())
}

/// Decodes little-endian half-precision numbers (IEEE 754 binary16).
///
/// # Errors
///
/// [`QuantError::PartialBlock`] and [`QuantError::DecodeLength`] on wrong lengths.
pub fn decode_f16(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    /// Converting many at once finds the processor's instruction once.
    const MANY: usize = 64;
    let numbers = numbers::<2>(GgmlType::F16, bytes, out.len())?;
    let mut halves = [f16::ZERO; MANY];
    for (out, numbers) in out.chunks_mut(MANY).zip(numbers.chunks(MANY)) {
        let halves = &mut halves[..numbers.len()];
        for (half, &number) in halves.iter_mut().zip(numbers) {
            *half = f16::from_le_bytes(number);
        }
        halves.convert_to_f32_slice(out);
    }
    Ok(())
}

/// Decodes little-endian brain floats: the upper halves of single-precision numbers.
///
/// # Errors
///
/// [`QuantError::PartialBlock`] and [`QuantError::DecodeLength`] on wrong lengths.
pub fn decode_bf16(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let numbers = numbers::<2>(GgmlType::BF16, bytes, out.len())?;
    for (out, &number) in out.iter_mut().zip(numbers) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(number)) << 16);
    }
    Ok(())
}

/// Encodes single-precision numbers as they are.
///
/// # Errors
///
/// [`QuantError::Unencodable`]: a number is not finite.
pub fn encode_f32(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::check(GgmlType::F32, numbers, f32::MAX)?;
    out.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    Ok(())
}

/// Encodes numbers rounded to half precision, ties to even.
///
/// # Errors
///
/// [`QuantError::Unencodable`]: a number is not finite, or beyond ±65504.
pub fn encode_f16(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::check(GgmlType::F16, numbers, f16::MAX.to_f32())?;
    out.extend(numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
    Ok(())
}

/// Encodes numbers rounded to brain floats, ties to even.
///
/// # Errors
///
/// [`QuantError::Unencodable`]: a number is not finite, or beyond what a brain float can say.
pub fn encode_bf16(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::check(GgmlType::BF16, numbers, bf16::MAX.to_f32())?;
    out.extend(
        numbers
            .iter()
            .flat_map(|&x| bf16::from_f32(x).to_le_bytes()),
    );
    Ok(())
}

/// The bytes as numbers of `N` bytes, as many as `out`.
fn numbers<const N: usize>(ggml_type: GgmlType, bytes: &[u8], out: usize) -> Result<&[[u8; N]]> {
    let (numbers, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(QuantError::PartialBlock {
            ggml_type,
            bytes: bytes.len(),
            block_bytes: N,
        });
    }
    if numbers.len() != out {
        return Err(QuantError::DecodeLength {
            ggml_type,
            expected: numbers.len(),
            found: out,
        });
    }
    Ok(numbers)
}
