//! candle's decoders as the oracle.

use candle_core::{
    Device,
    quantized::{GgmlDType, QStorage, QTensor},
};

use super::*;

/// The types candle decodes too.
const SHARED: &[(GgmlType, GgmlDType)] = &[
    (GgmlType::F32, GgmlDType::F32),
    (GgmlType::F16, GgmlDType::F16),
    (GgmlType::BF16, GgmlDType::BF16),
    (GgmlType::Q4_0, GgmlDType::Q4_0),
    (GgmlType::Q4_1, GgmlDType::Q4_1),
    (GgmlType::Q5_0, GgmlDType::Q5_0),
    (GgmlType::Q5_1, GgmlDType::Q5_1),
    (GgmlType::Q8_0, GgmlDType::Q8_0),
    (GgmlType::Q2_K, GgmlDType::Q2K),
    (GgmlType::Q3_K, GgmlDType::Q3K),
    (GgmlType::Q4_K, GgmlDType::Q4K),
    (GgmlType::Q5_K, GgmlDType::Q5K),
    (GgmlType::Q6_K, GgmlDType::Q6K),
    (GgmlType::Q8_K, GgmlDType::Q8K),
];

/// Where the half-precision scales of a block are.
fn half_scales(ggml_type: GgmlType) -> &'static [usize] {
    match ggml_type {
        GgmlType::Q4_0 | GgmlType::Q5_0 | GgmlType::Q8_0 => &[0],
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        GgmlType::Q6_K => &[208],
        _ => &[],
    }
}

/// The bytes in memory that is aligned for any of candle's blocks.
fn candle_decoded(dtype: GgmlDType, bytes: &[u8]) -> Vec<f32> {
    let mut memory = vec![0_u8; bytes.len() + 16];
    let start = memory.as_ptr().align_offset(16);
    memory[start..start + bytes.len()].copy_from_slice(bytes);
    let aligned = &memory[start..start + bytes.len()];
    let storage = QStorage::from_data(aligned.into(), &Device::Cpu, dtype).unwrap();
    let elements = bytes.len() / dtype.type_size() * dtype.block_size();
    let tensor = QTensor::new(storage, elements).unwrap();
    tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap()
}

#[test]
fn geometry_is_that_of_candle() {
    for &(ours, theirs) in SHARED {
        assert_eq!(ours.block_len(), theirs.block_size(), "{ours}");
        assert_eq!(ours.block_bytes(), theirs.type_size(), "{ours}");
    }
}

#[test]
fn all_halves_and_brain_floats_are_candles() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (ours, theirs) in [
        (GgmlType::F16, GgmlDType::F16),
        (GgmlType::BF16, GgmlDType::BF16),
    ] {
        assert_same(
            ours,
            &decoded(ours, &bytes),
            &candle_decoded(theirs, &bytes),
        );
    }
}

/// A type, and blocks of it: random bytes, some with scales at the borders of half precision.
fn blocks() -> impl Strategy<Value = (usize, Vec<u8>)> {
    const WEIRD: [u16; 10] = [
        0, 0x8000, 1, 0x83ff, 0x0400, 0x3c00, 0x7bff, 0xfbff, 0x7c00, 0x7e00,
    ];
    (0..SHARED.len(), 1_usize..5).prop_flat_map(|(which, count)| {
        let (ggml_type, _) = SHARED[which];
        let bytes = prop::collection::vec(any::<u8>(), count * ggml_type.block_bytes());
        let scales = prop::option::of(prop::collection::vec(prop::sample::select(&WEIRD), 2));
        (Just(which), bytes, scales).prop_map(move |(which, mut bytes, scales)| {
            for block in bytes.chunks_mut(ggml_type.block_bytes()) {
                for (&at, scale) in half_scales(ggml_type).iter().zip(scales.iter().flatten()) {
                    block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                }
            }
            (which, bytes)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn any_block_decodes_to_candles_bits((which, bytes) in blocks()) {
        let (ours, theirs) = SHARED[which];
        assert_same(ours, &decoded(ours, &bytes), &candle_decoded(theirs, &bytes));
    }
}
