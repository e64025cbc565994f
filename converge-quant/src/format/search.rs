//! Searches for the scale (and minimum) with the least weighted squared error.
//!
//! The methods follow llama.cpp's `make_qkx2_quants` and `make_qx_quants`: try roundings with
//! slightly different steps, fit the line through each by weighted least squares, keep the best.

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
    /// The best `scale·q − min` with `q` from 0 to `greatest` and `min` at least 0.
    pub(super) fn affine<const N: usize>(
        &self,
        numbers: &[f32; N],
        weights: &[f32; N],
        greatest: u8,
    ) -> Affine {
        let greatest = f32::from(greatest);
        let low = numbers.iter().fold(0.0f32, |low, &x| low.min(x));
        let high = numbers.iter().fold(f32::NEG_INFINITY, |a, &x| a.max(x));
        let range = high - low;
        if range <= 0.0 || !(greatest / range).is_finite() {
            return Affine {
                scale: 0.0,
                min: -low,
            };
        }
        let rounded = |steps: f32| {
            numbers.map(|x| (steps * (x - low)).round_ties_even().clamp(0.0, greatest))
        };
        let error = |q: &[f32; N], scale: f32, min: f32| -> f32 {
            let each = numbers.iter().zip(weights).zip(q);
            each.map(|((x, w), q)| w * (scale * q + min - x).powi(2))
                .sum()
        };
        let sum_w: f32 = weights.iter().sum();
        let sum_x: f32 = numbers.iter().zip(weights).map(|(x, w)| w * x).sum();
        let (mut scale, mut min) = (range / greatest, low);
        let mut least = error(&rounded(greatest / range), scale, min);
        for i in 0..=self.count {
            let q = rounded((self.first + 0.1 * f32::from(i) + greatest) / range);
            let (mut sum_q, mut sum_qq, mut sum_xq) = (0.0, 0.0, 0.0);
            for ((x, w), q) in numbers.iter().zip(weights).zip(&q) {
                sum_q += w * q;
                sum_qq += w * q * q;
                sum_xq += w * q * x;
            }
            let determinant = sum_w * sum_qq - sum_q * sum_q;
            if determinant <= 0.0 {
                continue;
            }
            let mut this_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
            let mut this_min = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xq / sum_qq;
            }
            let this = error(&q, this_scale, this_min);
            if this < least {
                (least, scale, min) = (this, this_scale, this_min);
            }
        }
        Affine { scale, min: -min }
    }
}

/// The number with the greatest magnitude, with its sign; 0 of none.
pub(super) fn greatest(numbers: &[f32]) -> f32 {
    let farther = |most: f32, &x: &f32| if x.abs() > most.abs() { x } else { most };
    numbers.iter().fold(0.0, farther)
}

/// The best scale of `scale·q` with `q` from `−levels` to `levels − 1`; errors of large numbers
/// weigh more, by their squares.
pub(super) fn symmetric<const N: usize>(numbers: &[f32; N], levels: f32) -> f32 {
    let most = greatest(numbers);
    if most.abs() < LEAST {
        return 0.0;
    }
    let (mut scale, mut best) = (0.0, 0.0);
    // The plain rounding first: a later one must be better.
    for i in std::iter::once(0i8).chain((-9..=9).filter(|&i| i != 0)) {
        let steps = -(levels + 0.1 * f32::from(i)) / most;
        let (mut sum_xq, mut sum_qq) = (0.0, 0.0);
        for &x in numbers {
            let q = (steps * x).round_ties_even().clamp(-levels, levels - 1.0);
            let w = x * x;
            sum_xq += w * x * q;
            sum_qq += w * q * q;
        }
        if sum_qq > 0.0 && (i == 0 || sum_xq * sum_xq > best * sum_qq) {
            scale = sum_xq / sum_qq;
            best = scale * sum_xq;
        }
    }
    scale
}

/// Groups whose numbers are all nearer to zero than this are zero.
pub(super) const LEAST: f32 = 1e-15;

/// 1/d, and 0 where that is no number.
pub(super) fn inverse(d: f32) -> f32 {
    let inverse = d.recip();
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Step and minimum of `steps` equal steps from the least number to the greatest.
pub(super) fn range(numbers: &[f32; 32], steps: f32) -> (f32, f32) {
    let low = numbers.iter().fold(f32::INFINITY, |low, &x| low.min(x));
    let high = numbers.iter().fold(f32::NEG_INFINITY, |a, &x| a.max(x));
    ((high - low) / steps, low)
}
