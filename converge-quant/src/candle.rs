//! Tensors of a file as candle tensors, on any candle device.
//!
//! ```text
//!            ┌─ tensor ──→ Tensor   decoded: f32, or rounded to f16, bf16, …
//! Gguf ──────┤
//!            └─ qtensor ─→ QTensor  the file's own blocks, where candle has the type
//! ```
//!
//! Both follow this crate's decoders: a `QTensor` that candle dequantizes on the CPU has the very
//! bits that [`tensor`] gives.

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
    let info = gguf.tensor(name)?;
    let shape = info.shape.as_slice();
    match dtype {
        DType::F16 => {
            let numbers = decoded(gguf, info, f16::ZERO, |from: &[f32], to: &mut [f16]| {
                to.convert_from_f32_slice(from);
            })?;
            Tensor::from_vec(numbers, shape, device)
        }
        DType::BF16 => {
            let numbers = decoded(gguf, info, bf16::ZERO, |from: &[f32], to: &mut [bf16]| {
                to.convert_from_f32_slice(from);
            })?;
            Tensor::from_vec(numbers, shape, device)
        }
        _ => {
            let numbers = decoded_f32(gguf, info)?;
            Tensor::from_vec(numbers, shape, device).and_then(|tensor| tensor.to_dtype(dtype))
        }
    }
    .map_err(|source| refused(info, source))
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
    let info = gguf.tensor(name)?;
    let storage = match (candle_type(info.ggml_type), device) {
        // candle's storage on the CPU can be the very vector that was decoded.
        (None | Some(GgmlDType::F32), Device::Cpu) => {
            Ok(QStorage::Cpu(Box::new(decoded_f32(gguf, info)?)))
        }
        (None, _) => from_bytes(
            &native_bytes(decoded_f32(gguf, info)?),
            device,
            GgmlDType::F32,
        ),
        (Some(dtype), _) => from_bytes(&gguf.read(info)?, device, dtype),
    };
    storage
        .and_then(|storage| QTensor::new(storage, info.shape.as_slice()))
        .map_err(|source| refused(info, source))
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

/// All numbers of a tensor.
fn decoded_f32(gguf: &Gguf, info: &TensorInfo) -> Result<Vec<f32>> {
    let mut numbers = room(info, 0.0)?;
    for_each_chunk(gguf, info, &mut numbers, |bytes, out, _| {
        format::decode(info.ggml_type, bytes, out)
    })?;
    Ok(numbers)
}

/// All numbers of a tensor as another type, without a second tensor in f32.
fn decoded<T: Clone + Send>(
    gguf: &Gguf,
    info: &TensorInfo,
    zero: T,
    convert: impl Fn(&[f32], &mut [T]) + Sync,
) -> Result<Vec<T>> {
    let mut numbers = room(info, zero)?;
    for_each_chunk(gguf, info, &mut numbers, |bytes, out, scratch| {
        scratch.resize(out.len(), 0.0);
        format::decode(info.ggml_type, bytes, scratch)?;
        convert(scratch, out);
        Ok(())
    })?;
    Ok(numbers)
}

/// Calls `decode(bytes, out, scratch)` for some rows at a time, in parallel.
fn for_each_chunk<T: Send>(
    gguf: &Gguf,
    info: &TensorInfo,
    out: &mut [T],
    decode: impl Fn(&[u8], &mut [T], &mut Vec<f32>) -> Result<()> + Sync,
) -> Result<()> {
    let cols = info.cols();
    if out.is_empty() || cols == 0 {
        return Ok(());
    }
    let rows = (CHUNK / cols).max(1);
    out.par_chunks_mut(rows.saturating_mul(cols))
        .enumerate()
        .try_for_each_init(
            || (Vec::new(), Vec::new()),
            |(bytes, scratch), (i, out)| {
                let first = i * rows;
                gguf.read_rows(info, first..first + out.len() / cols, bytes)?;
                decode(bytes, out, scratch)
            },
        )
}

/// A zeroed vector for all elements of a tensor of a supported type.
fn room<T: Clone>(info: &TensorInfo, zero: T) -> Result<Vec<T>> {
    info.check_supported()?;
    let elements = info.elements();
    // `vec!` takes untouched zero pages but aborts when there are none: ask first.
    if Vec::<T>::new().try_reserve_exact(elements).is_err() {
        let bytes = elements.saturating_mul(size_of::<T>());
        return Err(QuantError::OutOfMemory {
            tensor: info.name.clone(),
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
