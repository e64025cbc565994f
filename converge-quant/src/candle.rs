//! Tensors of a file as candle tensors, on any candle device.
//!
//! ```text
//!            ┌─ tensor ──→ Tensor   decoded: f32, or rounded to f16, bf16, …
//! Gguf ──────┤
//!            └─ qtensor ─→ QTensor  the file's own blocks, where candle has the type
//! ```
//!
//! [`tensor_rows`] and [`qtensor_rows`] are the same for some of the rows. All follow this crate's
//! decoders: a `QTensor` that candle dequantizes on the CPU has the very bits that [`tensor`] gives.

use std::ops::Range;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::{GgmlType, Gguf, QuantError, Result, TensorInfo, format};

/// Numbers decoded at a time by one thread: their bytes and their f32 stay in its cache.
const CHUNK: usize = 64 * 1024;

/// Alignment that candle asks of the bytes of any of its types.
const ALIGNMENT: usize = 16;

/// Reads a tensor and decodes it to `dtype`, in the shape of [`TensorInfo::shape`].
///
/// Rows are read and decoded in parallel, some at a time, so that next to the result only a few
/// megabytes are needed. f16 and bf16 are rounded to nearest, ties to even, on the way; other
/// types than f32, f16 and bf16 are converted by candle from f32.
///
/// # Errors
///
/// - what [`Gguf::tensor`] and [`Gguf::read_rows`] say: no such tensor, or it cannot be read;
/// - [`QuantError::UnsupportedType`]: there is no decoder for its type;
/// - [`QuantError::OutOfMemory`]: no room for the result;
/// - [`QuantError::Candle`]: the device or `dtype` refuses it.
pub fn tensor(gguf: &Gguf, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
    decoded_tensor(gguf, &Part::whole(gguf.tensor(name)?), dtype, device)
}

/// Reads some rows of a tensor and decodes them to `dtype`, as a matrix `rows.len() × columns`.
///
/// Rows count over all dimensions but the last, so that a matrix of a three-dimensional tensor is
/// a range of them.
///
/// # Errors
///
/// As for [`tensor`], and [`QuantError::RowRange`] for rows that the tensor does not have.
pub fn tensor_rows(
    gguf: &Gguf,
    name: &str,
    rows: Range<usize>,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    decoded_tensor(gguf, &Part::rows(gguf.tensor(name)?, rows), dtype, device)
}

fn decoded_tensor(gguf: &Gguf, part: &Part<'_>, dtype: DType, device: &Device) -> Result<Tensor> {
    let shape = part.shape.as_slice();
    match dtype {
        DType::F16 => {
            let numbers = decoded(gguf, part, f16::ZERO, |from: &[f32], to: &mut [f16]| {
                to.convert_from_f32_slice(from);
            })?;
            Tensor::from_vec(numbers, shape, device)
        }
        DType::BF16 => {
            let numbers = decoded(gguf, part, bf16::ZERO, |from: &[f32], to: &mut [bf16]| {
                to.convert_from_f32_slice(from);
            })?;
            Tensor::from_vec(numbers, shape, device)
        }
        _ => {
            let numbers = decoded_f32(gguf, part)?;
            Tensor::from_vec(numbers, shape, device).and_then(|tensor| tensor.to_dtype(dtype))
        }
    }
    .map_err(|source| refused(part.info, source))
}

/// Reads a tensor as it is in the file, for candle's quantized matrix product.
///
/// Where candle has the type, its `QTensor` holds the file's blocks unchanged. The types it lacks
/// (IQ4_NL, IQ4_XS, MXFP4) are decoded into a `QTensor` of type F32, which takes 32 bits a weight.
///
/// # Errors
///
/// As for [`tensor`].
pub fn qtensor(gguf: &Gguf, name: &str, device: &Device) -> Result<QTensor> {
    stored_tensor(gguf, &Part::whole(gguf.tensor(name)?), device)
}

/// Reads some rows of a tensor as they are in the file, as a matrix `rows.len() × columns`.
///
/// # Errors
///
/// As for [`tensor_rows`].
pub fn qtensor_rows(
    gguf: &Gguf,
    name: &str,
    rows: Range<usize>,
    device: &Device,
) -> Result<QTensor> {
    stored_tensor(gguf, &Part::rows(gguf.tensor(name)?, rows), device)
}

fn stored_tensor(gguf: &Gguf, part: &Part<'_>, device: &Device) -> Result<QTensor> {
    let storage = match (candle_type(part.info.ggml_type), device) {
        // candle's storage on the CPU can be the very vector that was decoded.
        (None | Some(GgmlDType::F32), Device::Cpu) => {
            Ok(QStorage::Cpu(Box::new(decoded_f32(gguf, part)?)))
        }
        (None, _) => from_bytes(
            &native_bytes(decoded_f32(gguf, part)?),
            device,
            GgmlDType::F32,
        ),
        (Some(dtype), _) => {
            part.info.check_supported()?;
            let mut bytes = Vec::new();
            gguf.read_rows(part.info, part.rows.clone(), &mut bytes)?;
            from_bytes(&bytes, device, dtype)
        }
    };
    storage
        .and_then(|storage| QTensor::new(storage, part.shape.as_slice()))
        .map_err(|source| refused(part.info, source))
}

/// A tensor, or some rows of it.
struct Part<'a> {
    info: &'a TensorInfo,
    rows: Range<usize>,
    /// The shape of the result.
    shape: Vec<usize>,
}

impl<'a> Part<'a> {
    fn whole(info: &'a TensorInfo) -> Self {
        Self {
            info,
            rows: 0..info.rows(),
            shape: info.shape.clone(),
        }
    }

    fn rows(info: &'a TensorInfo, rows: Range<usize>) -> Self {
        Self {
            info,
            shape: vec![rows.len(), info.cols()],
            rows,
        }
    }

    /// Numbers in it.
    fn elements(&self) -> usize {
        self.rows.len().saturating_mul(self.info.cols())
    }

    /// Fails for a type without a decoder and for rows that the tensor does not have.
    fn check(&self) -> Result<()> {
        self.info.check_supported()?;
        if self.rows.start > self.rows.end || self.rows.end > self.info.rows() {
            return Err(QuantError::RowRange {
                tensor: self.info.name.clone(),
                start: self.rows.start,
                end: self.rows.end,
                rows: self.info.rows(),
            });
        }
        Ok(())
    }
}

/// candle's name of a type, if it has it.
pub fn candle_type(ggml_type: GgmlType) -> Option<GgmlDType> {
    Some(match ggml_type {
        GgmlType::F32 => GgmlDType::F32,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::BF16 => GgmlDType::BF16,
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2_K => GgmlDType::Q2K,
        GgmlType::Q3_K => GgmlDType::Q3K,
        GgmlType::Q4_K => GgmlDType::Q4K,
        GgmlType::Q5_K => GgmlDType::Q5K,
        GgmlType::Q6_K => GgmlDType::Q6K,
        GgmlType::Q8_K => GgmlDType::Q8K,
        _ => return None,
    })
}

/// All numbers of a part.
fn decoded_f32(gguf: &Gguf, part: &Part<'_>) -> Result<Vec<f32>> {
    let mut numbers = room(part, 0.0)?;
    for_each_chunk(gguf, part, &mut numbers, |bytes, out, _| {
        format::decode(part.info.ggml_type, bytes, out)
    })?;
    Ok(numbers)
}

/// All numbers of a part as another type, without a second copy in f32.
fn decoded<T: Clone + Send>(
    gguf: &Gguf,
    part: &Part<'_>,
    zero: T,
    convert: impl Fn(&[f32], &mut [T]) + Sync,
) -> Result<Vec<T>> {
    let mut numbers = room(part, zero)?;
    for_each_chunk(gguf, part, &mut numbers, |bytes, out, scratch| {
        scratch.resize(out.len(), 0.0);
        format::decode(part.info.ggml_type, bytes, scratch)?;
        convert(scratch, out);
        Ok(())
    })?;
    Ok(numbers)
}

/// Calls `decode(bytes, out, scratch)` for some rows at a time, in parallel.
fn for_each_chunk<T: Send>(
    gguf: &Gguf,
    part: &Part<'_>,
    out: &mut [T],
    decode: impl Fn(&[u8], &mut [T], &mut Vec<f32>) -> Result<()> + Sync,
) -> Result<()> {
    let cols = part.info.cols();
    if out.is_empty() || cols == 0 {
        return Ok(());
    }
    let rows = (CHUNK / cols).max(1);
    out.par_chunks_mut(rows.saturating_mul(cols))
        .enumerate()
        .try_for_each_init(
            || (Vec::new(), Vec::new()),
            |(bytes, scratch), (i, out)| {
                let first = part.rows.start + i * rows;
                gguf.read_rows(part.info, first..first + out.len() / cols, bytes)?;
                decode(bytes, out, scratch)
            },
        )
}

/// A zeroed vector for all elements of a part of a tensor of a supported type.
fn room<T: Clone>(part: &Part<'_>, zero: T) -> Result<Vec<T>> {
    part.check()?;
    let elements = part.elements();
    // `vec!` takes untouched zero pages but aborts when there are none: ask first.
    if Vec::<T>::new().try_reserve_exact(elements).is_err() {
        let bytes = elements.saturating_mul(size_of::<T>());
        return Err(QuantError::OutOfMemory {
            tensor: part.info.name.clone(),
            bytes,
        });
    }
    Ok(vec![zero; elements])
}

/// The numbers as bytes in the machine's order.
fn native_bytes(numbers: Vec<f32>) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(numbers.as_slice())];
    for (bytes, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *bytes = number.to_ne_bytes();
    }
    bytes
}

/// candle's storage of a copy of `bytes`.
fn from_bytes(bytes: &[u8], device: &Device, dtype: GgmlDType) -> candle_core::Result<QStorage> {
    // candle asserts that the bytes are aligned for its block; a vector's are in practice.
    if bytes.as_ptr().align_offset(ALIGNMENT) == 0 {
        return QStorage::from_data(bytes.into(), device, dtype);
    }
    let mut moved = vec![0; bytes.len() + ALIGNMENT];
    let start = moved.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let aligned = &mut moved[start..start + bytes.len()];
    aligned.copy_from_slice(bytes);
    QStorage::from_data((&*aligned).into(), device, dtype)
}

/// candle's refusal with the tensor's name.
fn refused(info: &TensorInfo, source: candle_core::Error) -> QuantError {
    QuantError::Candle {
        tensor: info.name.clone(),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests;
