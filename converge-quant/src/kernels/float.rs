//! Products with weights of plain numbers: sixteen outputs at a time, elements in ascending order.

use super::matmul::Tiles;
use crate::{
    GgmlType,
    packed::ROWS,
    simd::{Kernel, Simd},
};

/// Tokens whose sums are kept in registers.
const TOKENS: usize = 4;

/// The products of some tiles.
pub(super) struct Products<'a>(pub(super) &'a Tiles<'a>);

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        run(simd, self.0);
    }
}

#[inline(always)]
fn run<S: Simd>(simd: S, work: &Tiles<'_>) {
    match work.weights.ggml_type() {
        GgmlType::F32 => tiles::<S, F32>(simd, work),
        GgmlType::F16 => tiles::<S, F16>(simd, work),
        _ => tiles::<S, Bf16>(simd, work),
    }
}

/// A type of plain numbers.
trait Number {
    /// What one takes.
    const BYTES: usize;

    /// # Safety
    /// `from` points to sixteen numbers.
    unsafe fn load<S: Simd>(simd: S, from: *const u8) -> S::F;
}

struct F32;
struct F16;
struct Bf16;

impl Number for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u8) -> S::F {
        // SAFETY: the caller's.
        unsafe { simd.load(from.cast()) }
    }
}

impl Number for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u8) -> S::F {
        // SAFETY: the caller's.
        unsafe { simd.load_f16(from.cast()) }
    }
}

impl Number for Bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u8) -> S::F {
        // SAFETY: the caller's.
        unsafe { simd.load_bf16(from.cast()) }
    }
}

#[inline(always)]
fn tiles<S: Simd, W: Number>(simd: S, work: &Tiles<'_>) {
    let cols = work.weights.cols();
    let rows = work.activations.plain();
    for tile in work.tiles.clone() {
        let from = work.weights.tile(tile);
        for (group, rows) in rows.chunks(TOKENS * cols).enumerate() {
            macro_rules! with {
                ($($n:literal)*) => {
                    match rows.len() / cols {
                        $($n => {
                            let sums = sums::<S, W, $n>(simd, from, rows, cols);
                            for (i, sum) in sums.into_iter().enumerate() {
                                work.put(simd, tile, group * TOKENS + i, sum);
                            }
                        })*
                        _ => debug_assert!(rows.is_empty()),
                    }
                };
            }
            with!(1 2 3 4);
        }
    }
}

#[inline(always)]
fn sums<S: Simd, W: Number, const N: usize>(
    simd: S,
    tile: &[u8],
    rows: &[f32],
    cols: usize,
) -> [S::F; N] {
    assert!(tile.len() >= cols * ROWS * W::BYTES && rows.len() >= N * cols);
    let mut sums = [simd.splat(0.0); N];
    for i in 0..cols {
        // SAFETY: checked above.
        unsafe {
            let weights = W::load(simd, tile.as_ptr().add(i * ROWS * W::BYTES));
            for (token, sum) in sums.iter_mut().enumerate() {
                let x = simd.splat(*rows.get_unchecked(token * cols + i));
                *sum = simd.fma(weights, x, *sum);
            }
        }
    }
    sums
}
