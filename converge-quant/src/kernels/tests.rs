use half::f16;

use super::*;
use crate::{GgmlType, Level, Packed, Pool, format};

/// Numbers that look random: a linear congruential generator's upper bits.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// From −1 to 1.
    pub(super) fn number(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Where the halves of a block are that scale it, and whether there are any.
fn halves(ty: GgmlType) -> &'static [usize] {
    match ty {
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        GgmlType::Q6_K => &[208],
        GgmlType::MXFP4 => &[],
        _ => &[0],
    }
}

/// Random bits in every field of every block, with scales that are numbers of a reasonable size.
pub(super) fn random_weights(ty: GgmlType, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let len = rows * ty.bytes_of(cols).unwrap();
    let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_exact_mut(ty.block_bytes()) {
        match ty {
            GgmlType::F32 => block.copy_from_slice(&random.number().to_le_bytes()),
            GgmlType::F16 => {
                block.copy_from_slice(&f16::from_f32(random.number()).to_le_bytes());
            }
            GgmlType::BF16 => {
                block.copy_from_slice(&half::bf16::from_f32(random.number()).to_le_bytes());
            }
            GgmlType::MXFP4 => block[0] = 120 + (random.next() % 8) as u8,
            _ => {
                for &at in halves(ty) {
                    let half = f16::from_f32(random.number() / 64.0).to_le_bytes();
                    block[at..at + 2].copy_from_slice(&half);
                }
            }
        }
    }
    bytes
}

pub(super) fn shapes(ty: GgmlType) -> Vec<(usize, usize)> {
    let blocks = if ty.block_len() == 1 {
        40
    } else {
        ty.block_len()
    };
    vec![
        (16, 2 * blocks),
        (33, 3 * blocks),
        (5, blocks),
        (64, 7 * blocks),
    ]
}

pub(super) fn product(level: Level, pool: &Pool, weights: &Packed, rows: &[f32]) -> Vec<f32> {
    let mut activations = Activations::new();
    activations
        .set(pool, level, rows, weights.cols(), &[weights])
        .unwrap();
    let mut out = vec![f32::NAN; activations.tokens() * weights.rows()];
    matmul(pool, level, weights, &activations, &mut out).unwrap();
    out
}

pub(super) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// The activations as they are after rounding, in double precision.
fn rounded(row: &[f32]) -> Vec<f64> {
    row.chunks(16)
        .flat_map(|block| {
            let largest = block.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            let scale = largest / 127.0;
            block.iter().map(move |x| {
                f64::from(scale) * f64::from((x / scale).round_ties_even().clamp(-127.0, 127.0))
            })
        })
        .collect()
}

#[test]
fn products_are_those_of_the_decoded_weights() {
    let pool = Pool::new(2);
    for ty in GgmlType::with_kernels() {
        for (rows, cols) in shapes(ty) {
            let bytes = random_weights(ty, rows, cols, rows as u64);
            let weights = Packed::from_bytes(ty, rows, cols, &bytes).unwrap();
            let mut decoded = vec![0.0; rows * cols];
            format::decode(ty, &bytes, &mut decoded).unwrap();
            let mut random = Random::new(cols as u64);
            let x: Vec<f32> = (0..3 * cols).map(|_| random.number()).collect();
            let found = product(Level::detect().unwrap(), &pool, &weights, &x);
            for (token, x) in x.chunks(cols).enumerate() {
                let x: Vec<f64> = match weights.is_float() {
                    true => x.iter().map(|&x| f64::from(x)).collect(),
                    false => rounded(x),
                };
                for (row, decoded) in decoded.chunks(cols).enumerate() {
                    let terms = x.iter().zip(decoded).map(|(x, &w)| x * f64::from(w));
                    let (sum, size) = terms.fold((0.0, 0.0), |(a, b), t| (a + t, b + t.abs()));
                    let found = f64::from(found[token * rows + row]);
                    // Rounding of an activation may fall to the other side of a half once in a while.
                    assert!(
                        (found - sum).abs() <= 2e-3 * size,
                        "{ty} {rows}×{cols}: row {row} of token {token}: {found}, expected {sum}"
                    );
                }
            }
        }
    }
}

#[test]
fn bits_depend_on_nothing_but_row_and_token() {
    let pools = [1, 2, 4].map(Pool::new);
    for ty in GgmlType::with_kernels() {
        for (rows, cols) in shapes(ty) {
            let bytes = random_weights(ty, rows, cols, 7);
            let weights = Packed::from_bytes(ty, rows, cols, &bytes).unwrap();
            let mut random = Random::new(11);
            let x: Vec<f32> = (0..33 * cols).map(|_| random.number()).collect();
            let golden: Vec<u32> = x
                .chunks(cols)
                .flat_map(|x| bits(&product(Level::Scalar, &pools[0], &weights, x)))
                .collect();
            for level in Level::available() {
                for n in (1..=33).filter(|n| *n < 15 || *n > 23) {
                    let pool = &pools[n % 3];
                    let first = (33 - n) / 2;
                    let found = product(level, pool, &weights, &x[first * cols..][..n * cols]);
                    assert!(
                        bits(&found) == golden[first * rows..][..n * rows],
                        "{ty} {rows}×{cols} at {level:?}, {n} tokens"
                    );
                }
            }
        }
    }
}

/// A panel of eight tokens takes more than half of a turn, so that a turn has one; of narrower panels
/// there are several turns, too.
#[test]
fn panels_of_several_turns_give_the_same_bits() {
    let (ty, rows, cols, tokens) = (GgmlType::Q4_K, 33, 20_480, 27);
    let bytes = random_weights(ty, rows, cols, 3);
    let weights = Packed::from_bytes(ty, rows, cols, &bytes).unwrap();
    let mut random = Random::new(4);
    let x: Vec<f32> = (0..tokens * cols).map(|_| random.number()).collect();
    for pool in [1, 2].map(Pool::new) {
        for level in Level::available() {
            let found = product(level, &pool, &weights, &x);
            for (token, x) in x.chunks(cols).enumerate() {
                let alone = product(level, &pool, &weights, x);
                assert!(
                    bits(&found[token * rows..][..rows]) == bits(&alone),
                    "{level:?}, token {token}"
                );
            }
        }
    }
}

#[test]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges, some of one"
)]
fn some_tiles_give_the_bits_of_all() {
    let level = Level::detect().unwrap();
    for (ty, pool) in GgmlType::with_kernels().zip([1, 2, 4].map(Pool::new).iter().cycle()) {
        let (rows, cols) = (16 * 9 + 5, 256);
        let bytes = random_weights(ty, rows, cols, 5);
        let weights = Packed::from_bytes(ty, rows, cols, &bytes).unwrap();
        let mut random = Random::new(2);
        let x: Vec<f32> = (0..9 * cols).map(|_| random.number()).collect();
        for tokens in [1, 9] {
            let x = &x[..tokens * cols];
            let golden = product(level, pool, &weights, x);
            let mut activations = Activations::new();
            activations.set(pool, level, x, cols, &[&weights]).unwrap();
            for ranges in [
                &[][..],
                &[0..10],
                &[0..0, 1..2],
                &[0..3, 3..4, 6..6, 7..10],
                &[9..10],
            ] {
                let mut out = vec![9.0; golden.len()];
                matmul_tiles(pool, level, &weights, ranges, &activations, &mut out).unwrap();
                for (i, (found, golden)) in out.iter().zip(&golden).enumerate() {
                    let tile = i % rows / Packed::TILE;
                    let asked = ranges.iter().any(|range| range.contains(&tile));
                    let want = if asked { *golden } else { 9.0 };
                    assert_eq!(found.to_bits(), want.to_bits(), "{ty} {ranges:?} {i}");
                }
            }
            let mut out = golden.clone();
            #[expect(clippy::reversed_empty_ranges, reason = "a range that must be refused")]
            for ranges in [
                &[0..11][..],
                &[0..3, 2..4],
                &[4..5, 0..1],
                &[3..2],
                &[usize::MAX..usize::MAX],
            ] {
                let done = matmul_tiles(pool, level, &weights, ranges, &activations, &mut out);
                assert!(done.is_err(), "{ranges:?}");
            }
            assert!(
                matmul_tiles(pool, level, &weights, &[0..1], &activations, &mut out[1..]).is_err()
            );
        }
    }
}

#[test]
fn rows_are_decoded_from_tiles() {
    for ty in GgmlType::with_kernels() {
        let (rows, cols) = shapes(ty)[1];
        let bytes = random_weights(ty, rows, cols, 3);
        let weights = Packed::from_bytes(ty, rows, cols, &bytes).unwrap();
        let mut decoded = vec![0.0; rows * cols];
        format::decode(ty, &bytes, &mut decoded).unwrap();
        let mut row = vec![0.0; cols];
        for (i, decoded) in decoded.chunks(cols).enumerate() {
            weights.decode_row(Level::Scalar, i, &mut row).unwrap();
            for (found, expected) in row.iter().zip(decoded) {
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs().max(1e-2),
                    "{ty}: {found} for {expected}"
                );
            }
            for level in Level::available() {
                let mut same = vec![f32::NAN; cols];
                weights.decode_row(level, i, &mut same).unwrap();
                assert!(bits(&same) == bits(&row), "{ty} at {level:?}");
            }
        }
        assert!(weights.decode_row(Level::Scalar, rows, &mut row).is_err());
        assert!(weights.decode_row(Level::Scalar, 0, &mut row[1..]).is_err());
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let pool = Pool::new(1);
    let level = Level::detect().unwrap();
    let bytes = random_weights(GgmlType::Q4_0, 16, 64, 1);
    let weights = Packed::from_bytes(GgmlType::Q4_0, 16, 64, &bytes).unwrap();
    let mut activations = Activations::new();
    let set = |activations: &mut Activations, rows: &[f32], cols| {
        activations.set(&pool, level, rows, cols, &[&weights])
    };
    assert!(set(&mut activations, &[0.0; 63], 64).is_err());
    assert!(set(&mut activations, &[0.0; 64], 32).is_err());
    assert!(set(&mut activations, &[0.0; 64], 0).is_err());
    set(&mut activations, &[1.0; 128], 64).unwrap();
    assert!(matmul(&pool, level, &weights, &activations, &mut [0.0; 31]).is_err());
    matmul(&pool, level, &weights, &activations, &mut [0.0; 32]).unwrap();
    assert!(Packed::from_bytes(GgmlType::Q4_0, 16, 64, &bytes[1..]).is_err());
    assert!(Packed::from_bytes(GgmlType::Q4_0, 16, 65, &bytes).is_err());
    assert!(Packed::from_bytes(GgmlType::Q8_K, 1, 256, &[0; 292]).is_err());
    let floats = Packed::from_bytes(GgmlType::F32, 16, 64, &[0; 16 * 64 * 4]).unwrap();
    assert!(matmul(&pool, level, &floats, &activations, &mut [0.0; 32]).is_err());
}

#[test]
fn activations_of_another_level_are_refused_or_as_good() {
    let pool = Pool::new(1);
    let bytes = random_weights(GgmlType::Q4_0, 16, 64, 1);
    let weights = Packed::from_bytes(GgmlType::Q4_0, 16, 64, &bytes).unwrap();
    let mut random = Random::new(5);
    let x: Vec<f32> = (0..64 * 9).map(|_| random.number()).collect();
    let golden = bits(&product(Level::Scalar, &pool, &weights, &x));
    for (set, used) in Level::available().flat_map(|a| Level::available().map(move |b| (a, b))) {
        let mut activations = Activations::new();
        activations.set(&pool, set, &x, 64, &[&weights]).unwrap();
        let mut out = vec![f32::NAN; golden.len()];
        match matmul(&pool, used, &weights, &activations, &mut out) {
            Ok(()) => assert!(bits(&out) == golden, "{set:?}, {used:?}"),
            Err(_) => assert_ne!(set, used),
        }
    }
}

#[test]
fn matrices_without_rows_may_have_any_columns() {
    let pool = Pool::new(1);
    let level = Level::detect().unwrap();
    for ty in GgmlType::with_kernels() {
        let most = usize::MAX / ty.block_bytes() * ty.block_len();
        for cols in [ty.block_len(), most, 1 << 58, 1 << 60] {
            let Ok(weights) = Packed::from_bytes(ty, 0, cols, &[]) else {
                assert!(ty.bytes_of(cols).is_none(), "{ty} {cols}");
                continue;
            };
            assert_eq!((weights.rows(), weights.cols()), (0, cols));
            assert!(weights.decode_row(level, 0, &mut []).is_err());
            let mut activations = Activations::new();
            assert!(matmul(&pool, level, &weights, &activations, &mut []).is_err());
            if cols < 1000 {
                let x = vec![1.0; cols];
                activations
                    .set(&pool, level, &x, cols, &[&weights])
                    .unwrap();
                matmul(&pool, level, &weights, &activations, &mut []).unwrap();
                let none = std::slice::from_ref(&(0..0));
                matmul_tiles(&pool, level, &weights, none, &activations, &mut []).unwrap();
            }
        }
        for rows in [1, 1 << 58, usize::MAX] {
            assert!(Packed::from_bytes(ty, rows, ty.block_len(), &[]).is_err());
            assert!(Packed::from_bytes(ty, rows, 0, &[]).is_err());
        }
    }
}

#[test]
fn heads_that_cannot_be_are_refused() {
    let most = usize::MAX;
    for (heads, kv_heads, size) in [
        (0, 1, 16),
        (1, 0, 16),
        (4, 2, 0),
        (3, 2, 16),
        (1, 2, 16),
        (most, 1, 2),
        (1, 1, most),
        (1, 1, most - 100),
        (1, 1, most / 1024),
        (most, most, 1),
        (most / 2048, most / 2048, 16),
        (1 << 62, 1, 1 << 2),
    ] {
        assert!(
            Heads::new(heads, kv_heads, size).is_err(),
            "{heads} {kv_heads} {size}"
        );
    }
}

#[test]
fn attention_refuses_what_does_not_fit() {
    let pool = Pool::new(2);
    let level = Level::detect().unwrap();
    let heads = Heads::new(4, 2, 24).unwrap();
    let mut page = KvPage::new(heads);
    let row = vec![0.5; heads.kv_row()];
    page.write(0, &row, &row).unwrap();
    for slot in [PAGE, usize::MAX] {
        assert!(page.write(slot, &row, &row).is_err());
    }
    assert!(page.write(0, &row[1..], &row).is_err());
    assert!(page.write(0, &row, &row[1..]).is_err());
    assert!(page.write(0, &[], &[]).is_err());
    let mut copy = page.clone();
    assert_eq!(copy.as_bytes(), page.as_bytes());
    copy.as_bytes_mut().fill(0);
    assert_ne!(copy.as_bytes(), page.as_bytes());
    let page = std::sync::Arc::new(page);
    let view = |start, window| View {
        start,
        window,
        scale: 1.0,
        softcap: None,
    };
    let run = |view: &View, pages: &[std::sync::Arc<KvPage>], queries: usize, out: usize| {
        let (queries, mut out) = (vec![1.0; queries], vec![0.0; out]);
        attention(&pool, level, heads, view, pages, &queries, &mut out)
    };
    let n = heads.row();
    let one = std::slice::from_ref(&page);
    run(&view(0, None), one, n, n).unwrap();
    run(&view(0, Some(usize::MAX)), one, n, n).unwrap();
    run(&view(255, Some(1)), one, n, n).unwrap();
    run(&view(9999, None), &[], 0, 0).unwrap();
    assert!(run(&view(0, None), one, n - 1, n - 1).is_err());
    assert!(run(&view(0, None), one, n, n - 1).is_err());
    assert!(run(&view(0, None), one, n, 2 * n).is_err());
    assert!(run(&view(0, None), &[], n, n).is_err());
    assert!(run(&view(255, None), one, 2 * n, 2 * n).is_err());
    for start in [256, usize::MAX, usize::MAX - 1] {
        assert!(run(&view(start, None), one, n, n).is_err());
        assert!(run(&view(start, Some(1)), one, n, n).is_err());
    }
    for start in [0, 255] {
        assert!(run(&view(start, Some(0)), one, n, n).is_err());
    }
    // As many numbers, but other heads; the same heads, stored otherwise.
    let other = |kv_heads, size| Heads::new(4, kv_heads, size).unwrap();
    for other in [
        other(1, 48),
        other(1, 24),
        other(4, 24),
        other(2, 23),
        heads.stored_as(KvType::Q8_0),
    ] {
        let pages = [page.clone(), std::sync::Arc::new(KvPage::new(other))];
        assert!(run(&view(0, None), &pages, n, n).is_err(), "{other:?}");
    }
}

#[test]
fn rows_and_turns_that_do_not_fit_are_refused() {
    let pool = Pool::new(1);
    let level = Level::detect().unwrap();
    let mut x = [1.0; 12];
    let y = [1.0; 12];
    assert!(rms_norm(&pool, level, &y, &[], 1e-5, &mut x).is_err());
    assert!(rms_norm(&pool, level, &y, &[1.0; 5], 1e-5, &mut x).is_err());
    assert!(rms_norm(&pool, level, &y, &[1.0; 4], 1e-5, &mut x[1..]).is_err());
    assert!(rms_norm_in_place(&pool, level, &mut x, &[], 1e-5).is_err());
    assert!(rms_norm_in_place(&pool, level, &mut x, &[1.0; 13], 1e-5).is_err());
    assert!(gate(&pool, level, Activation::Silu, &mut x, &y[1..]).is_err());
    assert!(add_scaled(&pool, level, &mut x, &y[1..], 1.0).is_err());
    assert!(add_bias(&Pool::new(2), &mut x, &[]).is_err());
    assert!(add_bias(&Pool::new(2), &mut x, &[1.0; 5]).is_err());
    let turns = |cos: usize, sin: usize| Turns {
        cos: vec![1.0; cos],
        sin: vec![0.0; sin],
    };
    for pairs in [Pairs::Halves, Pairs::Interleaved] {
        rotate(&Pool::new(2), &mut x, 3, 4, pairs, &turns(6, 6)).unwrap();
        rotate(&Pool::new(2), &mut x, 3, 4, pairs, &turns(0, 0)).unwrap();
        rotate(&Pool::new(2), &mut [], 3, 4, pairs, &turns(6, 6)).unwrap();
        for (positions, size, cos, sin) in [
            (0, 4, 0, 0),
            (3, 0, 6, 6),
            (3, 3, 6, 6),
            (3, 5, 6, 6),
            (3, 4, 5, 5),
            (3, 4, 6, 5),
            (3, 4, 9, 9),
            (5, 4, 10, 10),
            (3, usize::MAX, 6, 6),
            (usize::MAX, 4, 0, 0),
        ] {
            let done = rotate(
                &Pool::new(2),
                &mut x,
                positions,
                size,
                pairs,
                &turns(cos, sin),
            );
            assert!(done.is_err(), "{positions} {size} {cos} {sin}");
        }
    }
}

#[test]
fn zeros_and_tiny_numbers_are_no_trouble() {
    let pool = Pool::new(1);
    let bytes = random_weights(GgmlType::Q4_K, 16, 256, 1);
    let weights = Packed::from_bytes(GgmlType::Q4_K, 16, 256, &bytes).unwrap();
    for tiny in [0.0, f32::MIN_POSITIVE, 1e-45, -1e-40] {
        for level in Level::available() {
            let found = product(level, &pool, &weights, &[tiny; 256]);
            assert!(found.iter().all(|x| x.abs() < 1e-30), "{tiny}: {found:?}");
        }
    }
}

/// What is read of numbers that were written.
fn stored(heads: Heads, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let head = |head: &[f32]| -> Vec<f32> {
        match heads.stored() {
            KvType::F16 => head.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
            KvType::Q8_0 => {
                let mut whole = head.to_vec();
                whole.resize(head.len().next_multiple_of(32), 0.0);
                let (mut bytes, mut back) = (Vec::new(), vec![0.0; whole.len()]);
                crate::format::q8_0::encode(&whole, &mut bytes).unwrap();
                crate::format::q8_0::decode(&bytes, &mut back).unwrap();
                back.truncate(head.len());
                back
            }
        }
    };
    let row = |row: &Vec<f32>| row.chunks(heads.size()).flat_map(head).collect();
    rows.iter().map(row).collect()
}

/// Attention by its definition, in double precision.
fn attention_oracle(
    heads: Heads,
    view: &View,
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
    queries: &[f32],
) -> Vec<f64> {
    let (size, group) = (heads.size(), heads.heads() / heads.kv_heads());
    let mut out = Vec::new();
    for (i, row) in queries.chunks(heads.row()).enumerate() {
        let end = view.start + i + 1;
        let first = view.window.map_or(0, |window| end.saturating_sub(window));
        for (head, query) in row.chunks(size).enumerate() {
            let at = head / group * size;
            let scores: Vec<f64> = (first..end)
                .map(|j| {
                    let dot: f64 = (0..size)
                        .map(|k| f64::from(query[k]) * f64::from(keys[j][at + k]))
                        .sum();
                    let score = dot * f64::from(view.scale);
                    match view.softcap.map(f64::from) {
                        Some(cap) => cap * (score / cap).tanh(),
                        None => score,
                    }
                })
                .collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let powers: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = powers.iter().sum();
            out.extend((0..size).map(|k| {
                let mixed = powers.iter().zip(first..end);
                mixed
                    .map(|(p, j)| p * f64::from(values[j][at + k]))
                    .sum::<f64>()
                    / sum
            }));
        }
    }
    out
}

#[test]
fn attention_is_its_definition_whatever_the_pass() {
    let pools = [1, 2, 4].map(Pool::new);
    let cases = [
        (4, 2, 16, None, None),
        (6, 1, 64, Some(100), None),
        (3, 3, 40, None, Some(5.0)),
        (12, 1, 128, Some(300), None),
        (2, 1, 256, None, None),
        (9, 1, 25, None, None),
    ];
    let types = [KvType::F16, KvType::Q8_0];
    for ((query_heads, kv_heads, size, window, softcap), ty) in cases
        .into_iter()
        .flat_map(|case| types.map(|ty| (case, ty)))
    {
        let heads = Heads::new(query_heads, kv_heads, size)
            .unwrap()
            .stored_as(ty);
        let mut random = Random::new(size as u64);
        let mut rows = |n: usize, len: usize| -> Vec<Vec<f32>> {
            (0..n)
                .map(|_| (0..len).map(|_| random.number()).collect())
                .collect()
        };
        const N: usize = 515;
        let keys = rows(N, kv_heads * size);
        let values = rows(N, kv_heads * size);
        let queries = rows(N, query_heads * size);
        let mut pages = Vec::new();
        pages.resize_with(N.div_ceil(PAGE), || std::sync::Arc::new(KvPage::new(heads)));
        for (i, (key, value)) in keys.iter().zip(&values).enumerate() {
            let page = std::sync::Arc::make_mut(&mut pages[i / PAGE]);
            page.write(i % PAGE, key, value).unwrap();
        }
        let view = |start| View {
            start,
            window,
            scale: 1.0 / (size as f32).sqrt(),
            softcap,
        };
        let run = |level, pool: &Pool, from: usize, to: usize| {
            let queries: Vec<f32> = queries[from..to].concat();
            let mut out = vec![f32::NAN; queries.len()];
            let view = view(from);
            attention(pool, level, heads, &view, &pages, &queries, &mut out).unwrap();
            out
        };
        let golden = run(Level::Scalar, &pools[0], 0, N);
        let all = queries.concat();
        let (keys, values) = (stored(heads, &keys), stored(heads, &values));
        let expected = attention_oracle(heads, &view(0), &keys, &values, &all);
        for (found, expected) in golden.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 2e-5);
        }
        let row = query_heads * size;
        for level in Level::available() {
            for (from, to) in [(0, N), (0, 1), (254, 258), (255, 256), (256, 257), (500, N)] {
                for pool in &pools {
                    let found = run(level, pool, from, to);
                    assert!(
                        bits(&found) == bits(&golden[from * row..to * row]),
                        "{heads:?} at {level:?}, {from} to {to}"
                    );
                }
            }
        }
    }
}

#[test]
fn row_functions_are_their_definitions_on_every_machine() {
    let pool = Pool::new(2);
    let mut random = Random::new(5);
    for width in [1, 16, 40, 576, 9000] {
        let mut numbers =
            |scale: f32| -> Vec<f32> { (0..2 * width).map(|_| scale * random.number()).collect() };
        let (x, up) = (numbers(4.0), numbers(1.0));
        let weight = &up[..width];
        for level in Level::available() {
            let mut normed = vec![0.0; x.len()];
            rms_norm(&pool, level, &x, weight, 1e-6, &mut normed).unwrap();
            let mut in_place = x.clone();
            rms_norm_in_place(&pool, level, &mut in_place, weight, 1e-6).unwrap();
            assert_eq!(bits(&normed), bits(&in_place));
            let mut golden = x.clone();
            rms_norm_in_place(&pool, Level::Scalar, &mut golden, weight, 1e-6).unwrap();
            assert_eq!(bits(&normed), bits(&golden));
            for (x, normed) in x.chunks(width).zip(normed.chunks(width)) {
                let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
                let size = (squares / width as f64 + 1e-6).sqrt();
                for ((x, w), found) in x.iter().zip(weight).zip(normed) {
                    let expected = f64::from(*x) / size * f64::from(*w);
                    assert!((f64::from(*found) - expected).abs() < 1e-5);
                }
            }
            for activation in [Activation::Silu, Activation::GeluTanh] {
                let run = |level| {
                    let mut gated = x.clone();
                    gate(&pool, level, activation, &mut gated, &up).unwrap();
                    gated
                };
                assert_eq!(bits(&run(level)), bits(&run(Level::Scalar)));
                for ((found, x), up) in run(level).iter().zip(&x).zip(&up) {
                    let x = f64::from(*x);
                    let y = match activation {
                        Activation::Silu => x / (1.0 + (-x).exp()),
                        Activation::GeluTanh => {
                            let u =
                                (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                            0.5 * x * (1.0 + u.tanh())
                        }
                    };
                    assert!((f64::from(*found) - y * f64::from(*up)).abs() < 3e-6);
                }
            }
            let run = |level| {
                let mut bounded = x.clone();
                scale_and_bound(&pool, level, &mut bounded, 20.0, Some(30.0));
                add_scaled(&pool, level, &mut bounded, &up, 0.3).unwrap();
                bounded
            };
            assert_eq!(bits(&run(level)), bits(&run(Level::Scalar)));
            for ((found, x), up) in run(level).iter().zip(&x).zip(&up) {
                let bounded = 30.0 * (20.0 * f64::from(*x) / 30.0).tanh();
                let expected = bounded + 0.3 * f64::from(*up);
                assert!((f64::from(*found) - expected).abs() < 2e-5);
            }
        }
    }
}

#[test]
fn heads_turn_by_their_angles() {
    let (cos, sin): (Vec<f32>, Vec<f32>) = [0.1f32, 1.2, 2.0, 0.7]
        .iter()
        .map(|angle| (angle.cos(), angle.sin()))
        .unzip();
    let turns = Turns { cos, sin };
    let x: Vec<f32> = (0..20).map(|i| i as f32).collect();
    let mut halves = x.clone();
    rotate(&Pool::new(2), &mut halves, 2, 5, Pairs::Halves, &turns).unwrap();
    let mut interleaved = x.clone();
    rotate(
        &Pool::new(2),
        &mut interleaved,
        2,
        5,
        Pairs::Interleaved,
        &turns,
    )
    .unwrap();
    for position in 0..2 {
        for head in 0..2 {
            let at = position * 10 + head * 5;
            for pair in 0..2 {
                let (cos, sin) = (
                    turns.cos[2 * position + pair],
                    turns.sin[2 * position + pair],
                );
                for (found, a, b) in [
                    (&halves, at + pair, at + pair + 2),
                    (&interleaved, at + 2 * pair, at + 2 * pair + 1),
                ] {
                    assert!((found[a] - (x[a] * cos - x[b] * sin)).abs() < 1e-5);
                    assert!((found[b] - (x[a] * sin + x[b] * cos)).abs() < 1e-5);
                }
            }
            assert_eq!(halves[at + 4], x[at + 4]);
        }
    }
    assert!(rotate(&Pool::new(2), &mut halves, 2, 3, Pairs::Halves, &turns).is_err());
    assert!(rotate(&Pool::new(2), &mut halves[1..], 2, 5, Pairs::Halves, &turns).is_err());
}
