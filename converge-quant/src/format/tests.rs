//! Every format against what its description says: written-out blocks, and candle's own decoder
//! where it has one.

use proptest::prelude::*;

use super::*;

#[cfg(feature = "candle")]
mod candle;

fn decoded(ggml_type: GgmlType, bytes: &[u8]) -> Vec<f32> {
    let elements = bytes.len() / ggml_type.block_bytes() * ggml_type.block_len();
    let mut out = vec![f32::NAN; elements];
    decode(ggml_type, bytes, &mut out).unwrap();
    out
}

/// Equal bits; one NaN is as good as another, except where numbers are only copied.
#[track_caller]
fn assert_same(ggml_type: GgmlType, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(same, "{ggml_type} element {i}: {a:e} is not {b:e}");
    }
}

#[test]
fn every_supported_type_has_a_decoder_of_its_geometry_and_no_other_has() {
    for &ggml_type in GgmlType::ALL {
        let bytes = vec![0; 3 * ggml_type.block_bytes()];
        let mut out = vec![f32::NAN; 3 * ggml_type.block_len()];
        let result = decode(ggml_type, &bytes, &mut out);
        if ggml_type.is_supported() {
            result.unwrap();
            assert!(out.iter().all(|&number| number == 0.0), "{ggml_type}");
        } else {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(ggml_type.name()), "{message}");
            assert!(message.contains("Q4_0, Q4_1, Q5_0"), "{message}");
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    for ggml_type in GgmlType::supported() {
        let (block_len, block_bytes) = (ggml_type.block_len(), ggml_type.block_bytes());
        let bytes = vec![1; 2 * block_bytes];
        for cut in [1, block_bytes - 1, block_bytes + 1, 2 * block_bytes - 1] {
            let mut out = vec![0.0; 2 * block_len];
            match decode(ggml_type, &bytes[..cut], &mut out) {
                Err(QuantError::PartialBlock {
                    ggml_type: ty,
                    bytes,
                    block_bytes: whole,
                }) => {
                    assert_eq!((ty, bytes, whole), (ggml_type, cut, block_bytes));
                }
                other => panic!("{ggml_type}, {cut} bytes: {other:?}"),
            }
        }
        for wrong in [
            0,
            1,
            block_len,
            2 * block_len - 1,
            2 * block_len + 1,
            3 * block_len,
        ] {
            if wrong == 2 * block_len {
                continue;
            }
            let mut out = vec![0.0; wrong];
            match decode(ggml_type, &bytes, &mut out) {
                Err(QuantError::DecodeLength {
                    ggml_type: ty,
                    expected,
                    found,
                }) => {
                    assert_eq!((ty, expected, found), (ggml_type, 2 * block_len, wrong));
                }
                other => panic!("{ggml_type}, room for {wrong}: {other:?}"),
            }
        }
        decode(ggml_type, &[], &mut []).unwrap();
    }
}

#[test]
fn all_halves_and_brain_floats() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    // A brain float is the upper half of a number.
    let numbers = (0..=u16::MAX).map(|bits| f32::from_bits(u32::from(bits) << 16));
    let numbers: Vec<f32> = numbers.collect();
    assert_same(GgmlType::BF16, &decoded(GgmlType::BF16, &bytes), &numbers);
    // Halves by arithmetic of our own: sign, exponent, fraction.
    for (i, number) in decoded(GgmlType::F16, &bytes).into_iter().enumerate() {
        let (sign, exponent, fraction) = (i >> 15, i >> 10 & 0x1f, (i & 0x3ff) as f64);
        let magnitude = match exponent {
            0 => fraction * 2_f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2_f64.powi(exponent as i32 - 25),
        };
        let expected = if sign == 1 { -magnitude } else { magnitude };
        assert_same(GgmlType::F16, &[number], &[expected as f32]);
    }
    // An unaligned start and a length that is no multiple of the inner step.
    let odd = &decoded(GgmlType::F16, &bytes[2..2 + 2 * 131]);
    assert_same(GgmlType::F16, odd, &decoded(GgmlType::F16, &bytes)[1..132]);
}

#[test]
fn single_precision_keeps_every_bit() {
    let bits = [
        0,
        1,
        0x8000_0000,
        0x7f80_0001,
        0xffc0_1234,
        0x7f7f_ffff,
        0x3f80_0000,
    ];
    let bytes: Vec<u8> = bits
        .iter()
        .flat_map(|bits: &u32| bits.to_le_bytes())
        .collect();
    let found: Vec<u32> = decoded(GgmlType::F32, &bytes)
        .iter()
        .map(|x| x.to_bits())
        .collect();
    assert_eq!(found, bits);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_bytes_stop_the_decoders_candle_lacks(
        bytes in prop::collection::vec(any::<u8>(), 136),
    ) {
        decoded(GgmlType::IQ4_XS, &bytes);
        decoded(GgmlType::IQ4_NL, &bytes[..7 * 18]);
        decoded(GgmlType::MXFP4, &bytes);
    }
}

/// The 4-bit codes of a golden block: element `i` of 32 has code `CODES[i]`.
const CODES: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // the low halves
    15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, // the high halves
];

/// `CODES` as 16 bytes, written out: element `j` low, element `j + 16` high.
const PACKED: [u8; 16] = [
    0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f,
];

#[test]
fn iq4_nl_golden_block() {
    // d = 0.5, half precision 0x3800.
    let mut block = vec![0x00, 0x38];
    block.extend(PACKED);
    let low = [
        -63.5, -52.0, -41.5, -32.5, -24.5, -17.5, -11.0, -5.0, 0.5, 6.5, 12.5, 19.0, 26.5, 34.5,
        44.5, 56.5,
    ];
    let mut expected = low.to_vec();
    expected.extend(low.iter().rev());
    assert_eq!(decoded(GgmlType::IQ4_NL, &block), expected);

    // A negative subnormal scale: −3 · 2^−24.
    block[..2].copy_from_slice(&[0x03, 0x80]);
    let scale = -3.0 / 16_777_216.0;
    let expected: Vec<f32> = expected.iter().map(|&x| x * 2.0 * scale).collect();
    assert_eq!(decoded(GgmlType::IQ4_NL, &block), expected);
}

#[test]
fn iq4_xs_golden_block() {
    // The table as published, doubled nowhere; scales from −32 to 31 around zero.
    let table: [f64; 16] = [
        -127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.,
    ];
    let scales: [i32; 8] = [-32, 31, 0, -1, 1, -17, 16, 9];
    // Stored with 32 added: 0, 63, 32, 31, 33, 15, 48, 41.
    // Low halves 0, f, 0, f, 1, f, 0, 9; high pairs 0, 3, 2, 1, 2, 0, 3, 2.
    let scales_l = [0xf0, 0xf0, 0xf1, 0x90];
    let scales_h: u16 = 0b10_11_00_10_01_10_11_00;
    // d = −1.5 · 2^−9, half precision 1_00110_1000000000.
    let d = -1.5 / 512.0;
    let mut block = vec![0x00, 0x9a];
    block.extend(scales_h.to_le_bytes());
    block.extend(scales_l);
    for group in 0..8 {
        // Each group has its codes rotated by its number, so that no two are alike.
        let code = |i: usize| CODES[i / 16 * 16 + (i % 16 + group) % 16];
        block.extend((0..16).map(|j| code(j) | code(j + 16) << 4));
    }
    assert_eq!(block.len(), 136);
    let found = decoded(GgmlType::IQ4_XS, &block);
    for (e, found) in found.into_iter().enumerate() {
        let (group, i) = (e / 32, e % 32);
        let code = CODES[i / 16 * 16 + (i % 16 + group) % 16];
        // 11 + 5 + 7 bits: exact in either precision.
        let expected = d * f64::from(scales[group]) * table[usize::from(code)];
        assert_eq!(f64::from(found), expected, "element {e}");
    }
}

#[test]
fn mxfp4_golden_blocks() {
    // The E2M1 values of the specification; ggml has no negative zero.
    let e2m1 = [
        0., 0.5, 1., 1.5, 2., 3., 4., 6., 0., -0.5, -1., -1.5, -2., -3., -4., -6.,
    ];
    let mut block = vec![127];
    block.extend(PACKED);
    let mut expected = e2m1.to_vec();
    expected.extend(e2m1.iter().rev());
    assert_eq!(decoded(GgmlType::MXFP4, &block), expected);
    // Every exponent, the subnormal scales 2^−127 (e = 0) and 2^−126 (e = 1) included; for 255
    // ggml does not follow the specification (NaN) but goes on with 2^128.
    for e in 0..=u8::MAX {
        block[0] = e;
        for (code, found) in CODES.into_iter().zip(decoded(GgmlType::MXFP4, &block)) {
            let expected = f64::from(e2m1[usize::from(code)]) * 2_f64.powi(i32::from(e) - 127);
            assert_eq!(
                found.to_bits(),
                (expected as f32).to_bits(),
                "exponent {e}, code {code}"
            );
        }
    }
}

#[test]
fn q4_k_scales_by_hand() {
    // Scales 1 to 8 times 8 minus 1, minima 62 down by 7: all eight bits of both halves in use.
    let scales = [7, 15, 23, 31, 39, 47, 55, 63];
    let mins = [62, 55, 48, 41, 34, 27, 20, 13];
    let mut packed = [0_u8; 12];
    for j in 0..4 {
        packed[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        packed[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6;
        packed[j + 8] = scales[j + 4] & 15 | (mins[j + 4] & 15) << 4;
    }
    let found = scales_mins::unpack(&packed);
    assert_eq!(scales_mins::pack(&found), packed);
    let expected: Vec<_> = scales.into_iter().zip(mins).collect();
    assert_eq!(found.to_vec(), expected);
}
