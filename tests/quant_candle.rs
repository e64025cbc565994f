//! Tensors of the real models against what candle alone makes of the same files.

#![cfg(test)] // so that the lints know the helpers for tests, too

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;

use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use converge_quant::candle::{qtensor, tensor};
use converge_quant::{GgmlType, Gguf};
use converge_tests::model;

fn bits(tensor: &Tensor) -> Vec<u32> {
    let numbers = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    numbers.into_iter().map(f32::to_bits).collect()
}

/// Compares a few tensors of each type in a model with what candle makes of the file alone:
/// its reader, its offsets, its decoders.
fn as_candle_reads_it(name: &str, types: &[GgmlType]) {
    let path = model(name);
    let gguf = Gguf::open(&path).unwrap();
    let mut reader = BufReader::new(File::open(&path).unwrap());
    let content = gguf_file::Content::read(&mut reader).unwrap();
    assert_eq!(content.tensor_infos.len(), gguf.tensors().len());
    for &ggml_type in types {
        let mut infos: Vec<_> = gguf
            .tensors()
            .iter()
            .filter(|info| info.ggml_type == ggml_type)
            .collect();
        assert!(!infos.is_empty(), "{name} has no {ggml_type}");
        // The smallest, the middle, and the largest that is no embedding.
        infos.sort_by_key(|info| info.elements());
        infos.retain(|info| info.elements() < 40_000_000);
        let picked = [0, infos.len() / 2, infos.len().saturating_sub(1)];
        for info in picked.iter().filter_map(|&i| infos.get(i)) {
            let theirs = content
                .tensor(&mut reader, &info.name, &Device::Cpu)
                .unwrap();
            let ours = qtensor(&gguf, &info.name, &Device::Cpu).unwrap();
            assert_eq!(ours.shape(), theirs.shape(), "{}", info.name);
            assert_eq!(ours.dtype(), theirs.dtype(), "{}", info.name);
            assert!(
                ours.data().unwrap() == theirs.data().unwrap(),
                "{}",
                info.name
            );
            let expected = bits(&theirs.dequantize(&Device::Cpu).unwrap());
            drop((ours, theirs));
            let ours = tensor(&gguf, &info.name, DType::F32, &Device::Cpu).unwrap();
            assert!(bits(&ours) == expected, "{} ({ggml_type})", info.name);
        }
    }
    let present: BTreeSet<_> = gguf.tensors().iter().map(|info| info.ggml_type).collect();
    assert_eq!(
        present,
        types.iter().copied().collect(),
        "the types in {name}"
    );
}

#[test]
fn smollm2_135m() {
    let types = [GgmlType::F32, GgmlType::Q4_1, GgmlType::Q8_0];
    as_candle_reads_it("smollm2-135m", &types);
}

#[test]
fn gemma_3_270m() {
    let types = [
        GgmlType::F32,
        GgmlType::Q8_0,
        GgmlType::Q5_0,
        GgmlType::Q4_K,
        GgmlType::Q6_K,
    ];
    as_candle_reads_it("gemma-3-270m", &types);
}

#[test]
fn qwen_coder_half_billion() {
    let types = [
        GgmlType::F32,
        GgmlType::Q5_0,
        GgmlType::Q8_0,
        GgmlType::Q6_K,
        GgmlType::Q4_K,
    ];
    as_candle_reads_it("qwen2.5-coder-0.5b", &types);
}

#[test]
fn qwen_coder_one_and_a_half_billion() {
    let types = [GgmlType::F32, GgmlType::Q4_K, GgmlType::Q6_K];
    as_candle_reads_it("qwen2.5-coder-1.5b", &types);
}
