//! Functions of sixteen numbers, by the same operations on every machine.

use crate::simd::Simd;

/// ln 2 in two parts: products of the first with a small integer are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `e^x`, to about two units in the last place, for `x` from −87 to 88; numbers outside count as
/// the nearer end.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    let splat = |x| simd.splat(x);
    let x = simd.max(simd.min(x, splat(88.0)), splat(-87.0));
    // x = n ln 2 + r with |r| ≤ ln 2 / 2.
    let n = simd.round(simd.mul(x, splat(std::f32::consts::LOG2_E)));
    let r = simd.fma(n, splat(-LN_2_HIGH), x);
    let r = simd.fma(n, splat(-LN_2_LOW), r);
    // Taylor's series: the first term left out is below 2⁻²⁷ of the result.
    let mut sum = splat(1.0 / 5040.0);
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = simd.fma(sum, r, splat(coefficient));
    }
    simd.mul(sum, simd.power_of_two(n))
}

/// `1 / (1 + e^(−x))`.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(simd: S, x: S::F) -> S::F {
    let e = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(simd.splat(1.0), simd.add(simd.splat(1.0), e))
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(super) fn silu<S: Simd>(simd: S, x: S::F) -> S::F {
    simd.mul(x, sigmoid(simd, x))
}

/// `x · Φ(x)` by the tanh formula of Hendrycks and Gimpel (2016).
#[inline(always)]
pub(super) fn gelu_tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    // (1 + tanh u) / 2 = sigmoid(2u)
    const TWICE_ROOT: f32 = 2.0 * 0.797_884_6;
    let cube = simd.mul(simd.mul(x, x), x);
    let u = simd.fma(simd.splat(0.044_715), cube, x);
    simd.mul(x, sigmoid(simd, simd.mul(simd.splat(TWICE_ROOT), u)))
}

/// `cap · tanh(x / cap)`.
#[inline(always)]
pub(super) fn bounded<S: Simd>(simd: S, x: S::F, cap: f32) -> S::F {
    // tanh y = 1 − 2 / (e^(2y) + 1)
    let e = exp(simd, simd.mul(x, simd.splat(2.0 / cap)));
    let part = simd.div(simd.splat(2.0), simd.add(e, simd.splat(1.0)));
    simd.mul(simd.splat(cap), simd.sub(simd.splat(1.0), part))
}
