//! Tensors of small files: every type, every shape, what is refused. Real models are read in
//! `tests/candle_models.rs`.

use std::io::Write;

use tempfile::NamedTempFile;

use super::*;

/// A tensor to write: name, type, shape (row length last), bytes.
struct Entry {
    name: String,
    ggml_type: GgmlType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Writes a GGUF file (version 3) that holds nothing but tensors.
fn write(entries: &[Entry]) -> NamedTempFile {
    const ALIGN: usize = 32;
    let mut header = b"GGUF".to_vec();
    header.extend(3_u32.to_le_bytes());
    header.extend((entries.len() as u64).to_le_bytes());
    header.extend(0_u64.to_le_bytes());
    let mut data = Vec::new();
    for Entry {
        name,
        ggml_type,
        shape,
        bytes,
    } in entries
    {
        header.extend((name.len() as u64).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend((shape.len() as u32).to_le_bytes());
        for &dimension in shape.iter().rev() {
            header.extend((dimension as u64).to_le_bytes());
        }
        header.extend(ggml_type.code().to_le_bytes());
        header.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(ALIGN), 0);
    }
    header.resize(header.len().next_multiple_of(ALIGN), 0);
    let mut file = NamedTempFile::with_suffix(".gguf").unwrap();
    file.write_all(&header).unwrap();
    file.write_all(&data).unwrap();
    file.flush().unwrap();
    file
}

/// Bytes without a pattern, the same each time; no scale made of them is NaN or infinite.
fn noise(ggml_type: GgmlType, rows: usize, cols: usize) -> Vec<u8> {
    let len = ggml_type.bytes_of(rows * cols).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(ggml_type.code());
    let bytes = (0..len).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // An exponent that is not all ones has a zero among bits 2 to 6 of its upper byte.
        (state >> 56) as u8 & 0xef
    });
    bytes.collect()
}

/// One tensor of every type, of more rows than are decoded at a time.
fn every_type() -> Vec<Entry> {
    let types = GgmlType::ALL.iter().filter(|ty| ty.is_supported());
    let entries = types.map(|&ggml_type| {
        let (rows, cols) = (CHUNK / 512 * 2 + 3, 512);
        let (name, bytes) = (format!("a {ggml_type}"), noise(ggml_type, rows, cols));
        Entry {
            name,
            ggml_type,
            shape: vec![rows, cols],
            bytes,
        }
    });
    entries.collect()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let numbers = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    numbers.into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_type_in_every_form() {
    let entries = every_type();
    assert_eq!(entries.len(), 17);
    let file = write(&entries);
    let gguf = Gguf::open(file.path()).unwrap();
    for Entry {
        name,
        ggml_type,
        shape,
        bytes,
    } in &entries
    {
        let mut expected = vec![0.0; shape.iter().product()];
        format::decode(*ggml_type, bytes, &mut expected).unwrap();
        assert!(expected.iter().all(|number| number.is_finite()), "{name}");

        let full = tensor(&gguf, name, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(full.dims(), shape.as_slice());
        let as_bits: Vec<u32> = expected.iter().map(|number| number.to_bits()).collect();
        assert!(bits(&full) == as_bits, "{name} in f32");

        let half = tensor(&gguf, name, DType::F16, &Device::Cpu).unwrap();
        let half: Vec<f16> = half.flatten_all().unwrap().to_vec1().unwrap();
        let same = |(half, &number): (&f16, &f32)| *half == f16::from_f32(number);
        assert!(half.iter().zip(&expected).all(same), "{name} in f16");

        let brain = tensor(&gguf, name, DType::BF16, &Device::Cpu).unwrap();
        let brain: Vec<bf16> = brain.flatten_all().unwrap().to_vec1().unwrap();
        let same = |(brain, &number): (&bf16, &f32)| *brain == bf16::from_f32(number);
        assert!(brain.iter().zip(&expected).all(same), "{name} in bf16");

        let double = tensor(&gguf, name, DType::F64, &Device::Cpu).unwrap();
        let double: Vec<f64> = double.flatten_all().unwrap().to_vec1().unwrap();
        let same = |(double, &number): (&f64, &f32)| *double == f64::from(number);
        assert!(double.iter().zip(&expected).all(same), "{name} in f64");

        let quantized = qtensor(&gguf, name, &Device::Cpu).unwrap();
        let stored = candle_type(*ggml_type).unwrap_or(GgmlDType::F32);
        assert_eq!(quantized.dtype(), stored, "{name}");
        assert_eq!(quantized.shape().dims(), shape.as_slice());
        assert!(
            bits(&quantized.dequantize(&Device::Cpu).unwrap()) == as_bits,
            "{name} as QTensor"
        );
        if candle_type(*ggml_type).is_some() {
            assert!(
                quantized.data().unwrap() == bytes.as_slice(),
                "{name}: other bytes"
            );
        }
    }
}

#[test]
fn shapes_of_one_to_four_dimensions() {
    let shapes: [&[usize]; 5] = [&[64], &[1, 64], &[3, 64], &[2, 3, 32], &[2, 1, 3, 96]];
    let entries = shapes.iter().map(|shape| {
        let elements: usize = shape.iter().product();
        let bytes = noise(GgmlType::Q8_0, 1, elements);
        let (name, shape) = (format!("{shape:?}"), shape.to_vec());
        Entry {
            name,
            ggml_type: GgmlType::Q8_0,
            shape,
            bytes,
        }
    });
    let entries: Vec<_> = entries.collect();
    let file = write(&entries);
    let gguf = Gguf::open(file.path()).unwrap();
    for Entry { name, shape, .. } in &entries {
        let full = tensor(&gguf, name, DType::F32, &Device::Cpu).unwrap();
        let quantized = qtensor(&gguf, name, &Device::Cpu).unwrap();
        assert_eq!(full.dims(), shape.as_slice());
        assert_eq!(quantized.shape().dims(), shape.as_slice());
        assert!(bits(&full) == bits(&quantized.dequantize(&Device::Cpu).unwrap()));
    }
}

#[test]
fn an_unsupported_type_names_tensor_type_and_what_there_is() {
    let (name, ggml_type) = ("blk.7.ffn_up.weight".to_owned(), GgmlType::IQ2_XXS);
    let bytes = noise(ggml_type, 2, 256);
    let file = write(&[Entry {
        name: name.clone(),
        ggml_type,
        shape: vec![2, 256],
        bytes,
    }]);
    let gguf = Gguf::open(file.path()).unwrap();
    let tensor = tensor(&gguf, &name, DType::F32, &Device::Cpu).unwrap_err();
    let quantized = qtensor(&gguf, &name, &Device::Cpu).unwrap_err();
    for error in [tensor, quantized] {
        assert!(
            matches!(&error, QuantError::UnsupportedType { .. }),
            "{error:?}"
        );
        let message = error.to_string();
        for part in [name.as_str(), "IQ2_XXS", "Q4_K", "MXFP4"] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_missing_tensor_is_an_error() {
    let file = write(&every_type()[..1]);
    let gguf = Gguf::open(file.path()).unwrap();
    for error in [
        tensor(&gguf, "absent", DType::F32, &Device::Cpu).unwrap_err(),
        qtensor(&gguf, "absent", &Device::Cpu).unwrap_err(),
    ] {
        assert!(matches!(&error, QuantError::MissingTensor { name, .. } if name == "absent"));
    }
}

#[test]
fn a_file_that_shrank_is_an_error() {
    let file = write(&every_type());
    let gguf = Gguf::open(file.path()).unwrap();
    let last = &gguf.tensors().last().unwrap().name;
    file.as_file()
        .set_len(gguf.file_bytes() - u64::from(u16::MAX))
        .unwrap();
    for error in [
        tensor(&gguf, last, DType::F32, &Device::Cpu).unwrap_err(),
        tensor(&gguf, last, DType::F16, &Device::Cpu).unwrap_err(),
        qtensor(&gguf, last, &Device::Cpu).unwrap_err(),
    ] {
        assert!(matches!(error, QuantError::Io { .. }), "{error:?}");
    }
}

#[test]
fn unaligned_bytes_are_moved() {
    let numbers = [1.5_f32, -2.25, 1e-30];
    for start in 0..2 * ALIGNMENT {
        let mut bytes = vec![0xff; start];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let storage = from_bytes(&bytes[start..], &Device::Cpu, GgmlDType::F32).unwrap();
        let tensor = QTensor::new(storage, 3).unwrap();
        let tensor = tensor.dequantize(&Device::Cpu).unwrap();
        assert_eq!(tensor.to_vec1::<f32>().unwrap(), numbers);
    }
}
