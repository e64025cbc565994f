//! Steps that are computed in one are the steps one by one, to the bit.

use super::{
    tests::{Random, bits, product, random_weights, shapes},
    *,
};
use crate::{GgmlType, Level, Packed, Pool};

/// Gate and rounding, and product and sum, in one each and one by one.
fn check(ty: GgmlType, (rows, cols): (usize, usize), tokens: &[usize]) {
    let bytes = random_weights(ty, rows, cols, 4);
    let weights = Packed::from_bytes(ty, rows, cols, &bytes).unwrap();
    let mut random = Random::new(8);
    for (&tokens, activation) in tokens
        .iter()
        .zip([Activation::Silu, Activation::GeluTanh].iter().cycle())
    {
        let mut numbers = |len| -> Vec<f32> { (0..len).map(|_| 3.0 * random.number()).collect() };
        let (x, up) = (numbers(tokens * cols), numbers(tokens * cols));
        let before = numbers(tokens * rows);
        for pool in [1, 2, 3].map(Pool::new) {
            for level in Level::available() {
                let mut gated = x.clone();
                gate(&pool, level, *activation, &mut gated, &up).unwrap();
                let out = product(level, &pool, &weights, &gated);
                let mut expected = before.clone();
                add_scaled(&pool, level, &mut expected, &out, 0.7).unwrap();

                let (mut activations, mut in_place) = (Activations::new(), x.clone());
                activations
                    .set_gated(&pool, level, *activation, &mut in_place, &up, &weights)
                    .unwrap();
                let mut found = before.clone();
                matmul_add(&pool, level, &weights, &activations, &mut found, 0.7).unwrap();
                assert!(
                    bits(&found) == bits(&expected),
                    "{ty} {rows}×{cols}, {tokens} tokens, {level:?}, {pool:?}"
                );
            }
        }
    }
}

#[test]
fn of_every_type() {
    for ty in GgmlType::with_kernels() {
        for shape in shapes(ty) {
            check(ty, shape, &[1, 3, 8, 17]);
        }
    }
}

#[test]
fn of_rows_that_are_rounded_in_slices_with_padding_and_part_of_a_piece() {
    for cols in [576, 1056, 1120] {
        check(GgmlType::Q8_0, (33, cols), &[1, 2, 7, 8, 9]);
    }
}

#[test]
fn of_panels_in_several_turns() {
    check(GgmlType::Q4_K, (33, 20_480), &[27, 26]);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let (pool, level) = (Pool::new(2), Level::detect().unwrap());
    let (ty, rows, cols) = (GgmlType::Q4_0, 16, 64);
    let weights = Packed::from_bytes(ty, rows, cols, &random_weights(ty, rows, cols, 1)).unwrap();
    let mut activations = Activations::new();
    let mut set = |gate: &mut [f32], up: &[f32]| {
        activations.set_gated(&pool, level, Activation::Silu, gate, up, &weights)
    };
    let (mut x, up) = (vec![1.0; 2 * cols], vec![1.0; 2 * cols]);
    assert!(set(&mut x, &up[1..]).is_err());
    assert!(set(&mut x[1..], &up[1..]).is_err());
    assert!(x.iter().all(|x| *x == 1.0));
    set(&mut x, &up).unwrap();
    for len in [0, 2 * rows - 1, 2 * rows + 1, rows] {
        let mut sum = vec![5.0; len];
        assert!(matmul_add(&pool, level, &weights, &activations, &mut sum, 1.0).is_err());
        assert!(sum.iter().all(|x| *x == 5.0));
    }
    let mut none = Activations::new();
    none.set_gated(&pool, level, Activation::Silu, &mut [], &[], &weights)
        .unwrap();
    matmul_add(&pool, level, &weights, &none, &mut [], 1.0).unwrap();
}
