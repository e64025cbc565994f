//! Searches for the scale (and minimum) with the least weighted squared error.
//!
//! The methods are those of llama.cpp's `make_qkx2_quants` and `make_qx_quants`: try roundings with
//! slightly different steps, fit the line through each by weighted least squares, keep the best.
//!
//! All groups of a block are searched at once: `numbers[i][g]` is number `i` of group `g`. Every
//! group adds up in its own order, so the result has the bits of a search one by one, and the
//! compiler gets loops over groups that it can do with vectors.

use std::array::from_fn;

use super::round::{LEAST, between, nearest};

/// A scale and a minimum, which is subtracted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) min: f32,
}

/// The roundings to try: `greatest + first + 0.1·i` steps over the range, `i` up to `count`.
pub(super) struct Steps {
    pub(super) first: f32,
    pub(super) count: u8,
}

impl Steps {
    /// For each of `G` groups the best `scale·q − min` with `q` from 0 to `greatest` and `min` at
    /// least 0.
    pub(super) fn affine<const N: usize, const G: usize>(
        &self,
        numbers: &[[f32; G]; N],
        weights: &[[f32; G]; N],
        greatest: u8,
    ) -> [Affine; G] {
        let greatest = f32::from(greatest);
        let (mut low, mut high) = ([0.0f32; G], [f32::NEG_INFINITY; G]);
        let (mut sum_w, mut sum_x) = ([0.0f32; G], [0.0f32; G]);
        for (x, w) in numbers.iter().zip(weights) {
            for g in 0..G {
                low[g] = if x[g] < low[g] { x[g] } else { low[g] };
                high[g] = if x[g] > high[g] { x[g] } else { high[g] };
                sum_w[g] += w[g];
                sum_x[g] += w[g] * x[g];
            }
        }
        let flat: [bool; G] = from_fn(|g| {
            let range = high[g] - low[g];
            range <= 0.0 || !(greatest / range).is_finite()
        });
        let lowest = low;

        let mut q = [[0.0f32; G]; N];
        // Steps of the plain rounding; its scale is not fitted.
        let steps: [f32; G] = from_fn(|g| greatest / (high[g] - low[g]));
        let mut scale: [f32; G] = from_fn(|g| 1.0 / steps[g]);
        for (q, x) in q.iter_mut().zip(numbers) {
            *q = from_fn(|g| between(nearest(steps[g] * (x[g] - low[g])), 0.0, greatest));
        }
        let mut least = errors(numbers, weights, &q, &scale, &low);
        for i in 0..=self.count {
            let wanted = self.first + 0.1 * f32::from(i) + greatest;
            // From the best minimum so far, not from the lowest number.
            let steps: [f32; G] = from_fn(|g| wanted / (high[g] - low[g]));
            let (mut sum_q, mut sum_qq, mut sum_xq) = ([0.0f32; G], [0.0f32; G], [0.0f32; G]);
            for ((q, x), w) in q.iter_mut().zip(numbers).zip(weights) {
                for g in 0..G {
                    let rounded = nearest(steps[g] * (x[g] - low[g]));
                    q[g] = between(rounded, 0.0, greatest);
                    let wq = w[g] * q[g];
                    sum_q[g] += wq;
                    sum_qq[g] += wq * q[g];
                    sum_xq[g] += wq * x[g];
                }
            }
            let (mut this_scale, mut this_min) = ([0.0f32; G], [0.0f32; G]);
            let mut fits = [false; G];
            for g in 0..G {
                let determinant = sum_w[g] * sum_qq[g] - sum_q[g] * sum_q[g];
                let fitted = (sum_w[g] * sum_xq[g] - sum_x[g] * sum_q[g]) / determinant;
                let min = (sum_qq[g] * sum_x[g] - sum_q[g] * sum_xq[g]) / determinant;
                let above = min > 0.0;
                this_scale[g] = if above { sum_xq[g] / sum_qq[g] } else { fitted };
                this_min[g] = if above { 0.0 } else { min };
                fits[g] = determinant > 0.0;
            }
            let this = errors(numbers, weights, &q, &this_scale, &this_min);
            for g in 0..G {
                if fits[g] && this[g] < least[g] {
                    (least[g], scale[g], low[g]) = (this[g], this_scale[g], this_min[g]);
                }
            }
        }
        from_fn(|g| match flat[g] {
            true => Affine {
                scale: 0.0,
                min: -lowest[g],
            },
            false => Affine {
                scale: scale[g],
                min: -low[g],
            },
        })
    }
}

/// The weighted squared errors of `scale·q + min`.
fn errors<const N: usize, const G: usize>(
    numbers: &[[f32; G]; N],
    weights: &[[f32; G]; N],
    q: &[[f32; G]; N],
    scale: &[f32; G],
    min: &[f32; G],
) -> [f32; G] {
    let mut sum = [0.0; G];
    for ((x, w), q) in numbers.iter().zip(weights).zip(q) {
        for g in 0..G {
            let error = scale[g] * q[g] + min[g] - x[g];
            sum[g] += w[g] * (error * error);
        }
    }
    sum
}

/// For each of `G` groups the best scale of `scale·q` with `q` from `−levels` to `levels − 1`;
/// errors of large numbers weigh more, by their squares.
pub(super) fn symmetric<const N: usize, const G: usize>(
    numbers: &[[f32; G]; N],
    levels: f32,
) -> [f32; G] {
    let mut most = [0.0f32; G];
    for x in numbers {
        for g in 0..G {
            most[g] = if x[g].abs() > most[g].abs() {
                x[g]
            } else {
                most[g]
            };
        }
    }
    let (mut scale, mut best) = ([0.0f32; G], [0.0f32; G]);
    // The plain rounding first: a later one must be better.
    for i in std::iter::once(0i8).chain((-9..=9).filter(|&i| i != 0)) {
        let wanted = -(levels + 0.1 * f32::from(i));
        let steps: [f32; G] = from_fn(|g| wanted / most[g]);
        let (mut sum_xq, mut sum_qq) = ([0.0f32; G], [0.0f32; G]);
        for x in numbers {
            for g in 0..G {
                let q = between(nearest(steps[g] * x[g]), -levels, levels - 1.0);
                let w = x[g] * x[g];
                sum_xq[g] += w * x[g] * q;
                sum_qq[g] += w * q * q;
            }
        }
        for g in 0..G {
            let better = i == 0 || sum_xq[g] * sum_xq[g] > best[g] * sum_qq[g];
            if sum_qq[g] > 0.0 && better {
                scale[g] = sum_xq[g] / sum_qq[g];
                best[g] = scale[g] * sum_xq[g];
            }
        }
    }
    from_fn(|g| if most[g].abs() < LEAST { 0.0 } else { scale[g] })
}

/// Numbers of a block by group: `groups[g][i]` becomes `[i][g]`.
pub(super) fn by_group<const N: usize, const G: usize>(groups: &[[f32; N]]) -> [[f32; G]; N] {
    let mut turned = [[0.0; G]; N];
    for (g, group) in groups.iter().take(G).enumerate() {
        for (turned, &x) in turned.iter_mut().zip(group) {
            turned[g] = x;
        }
    }
    turned
}
