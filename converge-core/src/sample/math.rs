//! `exp` and `ln` of the path to a token.
//!
//! A platform's `libm` may round differently on another machine, and one last bit can change which
//! token wins. These use only IEEE additions, multiplications and divisions in one fixed order, so
//! they give the same bits everywhere; the error against the true value is a few units in the last
//! place.

use std::f64::consts::{LN_2, LOG2_E, SQRT_2};

/// The upper bits of ln 2; products with an exponent are exact. From Cody and Waite's reduction.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
/// ln 2 less [`LN_2_HIGH`].
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// 1/k! for k = 13 … 0, the Taylor coefficients of `exp`.
const EXP_TAYLOR: [f64; 14] = [
    1.0 / 6_227_020_800.0,
    1.0 / 479_001_600.0,
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// e to the power of `x`; 0 below the smallest subnormal, infinite above the largest double.
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 709.782_712_893_384 {
        return f64::INFINITY;
    }
    if x < -745.133_219_101_941_1 {
        return 0.0;
    }
    // x = k ln 2 + r with |r| ≤ ln 2 / 2.
    let k = (x * LOG2_E + if x < 0.0 { -0.5 } else { 0.5 }) as i32;
    let r = (x - f64::from(k) * LN_2_HIGH) - f64::from(k) * LN_2_LOW;
    let mut sum = 0.0;
    for coefficient in EXP_TAYLOR {
        sum = sum * r + coefficient;
    }
    // Two steps, so that neither factor overflows and subnormal results round once.
    let half = k / 2;
    sum * power_of_two(half) * power_of_two(k - half)
}

/// 2 to the power of `k`, for |k| ≤ 1022.
fn power_of_two(k: i32) -> f64 {
    f64::from_bits(((i64::from(k) + 1023) as u64) << 52)
}

/// The natural logarithm; minus infinity of 0, not a number of negative numbers.
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x.is_infinite() {
        return x;
    }
    // x = m 2^e with m in [√½, √2).
    let (scaled, shift) = if x < f64::MIN_POSITIVE {
        (x * 18_014_398_509_481_984.0, -54)
    } else {
        (x, 0)
    };
    let bits = scaled.to_bits();
    let mut e = ((bits >> 52) as i32) - 1023 + shift;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if m >= SQRT_2 {
        m *= 0.5;
        e += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let series = 2.0 * s * atanh_series::<12>(s * s);
    f64::from(e) * LN_2_HIGH + (series + f64::from(e) * LN_2_LOW)
}

/// The natural logarithm of `1 - d` for `d` in [0, 1/2], accurate where `d` is tiny.
pub fn ln_one_minus(d: f64) -> f64 {
    let s = d / (2.0 - d);
    -2.0 * s * atanh_series::<18>(s * s)
}

/// atanh(s)/s = 1 + z/3 + z²/5 + … with z = s², `N` terms.
fn atanh_series<const N: usize>(z: f64) -> f64 {
    let mut sum = 0.0;
    for k in (0..N).rev() {
        sum = sum * z + 1.0 / (2 * k + 1) as f64;
    }
    sum
}

/// ln Σ exp(xᵢ), in the order given; minus infinity of an empty or wholly masked row.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    log_sum_exp_of(row.iter().map(|&x| f64::from(x)))
}

/// [`log_sum_exp`] of values that come from elsewhere, twice.
pub fn log_sum_exp_of(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = values.map(|x| exp(x - max)).sum();
    max + ln(sum)
}

const _: () = assert!(LN_2_HIGH + LN_2_LOW == LN_2);

#[cfg(test)]
mod tests {
    use super::*;

    fn relative_error(got: f64, want: f64) -> f64 {
        if want == 0.0 {
            got.abs()
        } else {
            ((got - want) / want).abs()
        }
    }

    #[test]
    fn exp_is_accurate_over_its_whole_range() {
        let mut worst: f64 = 0.0;
        for i in -700_000..=709_000 {
            let x = f64::from(i) * 1e-3 + 1.234_5e-4;
            worst = worst.max(relative_error(exp(x), x.exp()));
        }
        assert!(worst < 1e-15, "worst relative error {worst:e}");
    }

    #[test]
    fn exp_at_its_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(-746.0), 0.0);
        assert_eq!(exp(710.0), f64::INFINITY);
        assert!(exp(f64::NAN).is_nan());
        assert!(exp(-740.0) > 0.0 && relative_error(exp(-740.0), (-740.0f64).exp()) < 1e-2);
        assert!(exp(709.7).is_finite());
    }

    #[test]
    fn ln_is_accurate() {
        let mut worst: f64 = 0.0;
        for i in 1..=2_000_000 {
            let x = f64::from(i) * 1e-6 + 1e-9;
            let want = x.ln();
            // Around 1 the result goes through zero: there the absolute error counts.
            worst = worst.max((ln(x) - want).abs() / want.abs().max(1e-3));
        }
        for e in -1070..1020 {
            let x = 1.37 * 2f64.powi(e);
            worst = worst.max(relative_error(ln(x), x.ln()));
        }
        assert!(worst < 1e-15, "worst error {worst:e}");
    }

    #[test]
    fn ln_at_its_edges() {
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert_eq!(ln(f64::INFINITY), f64::INFINITY);
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan());
        assert!(relative_error(ln(5e-324), 5e-324f64.ln()) < 1e-15);
    }

    #[test]
    fn ln_one_minus_keeps_tiny_arguments() {
        let mut worst: f64 = 0.0;
        for e in 1..60 {
            for m in [1.0, 1.1, 1.5, 1.9] {
                let d: f64 = (m * 2f64.powi(-e)).min(0.5);
                worst = worst.max(relative_error(ln_one_minus(d), (-d).ln_1p()));
            }
        }
        assert!(worst < 1e-15, "worst relative error {worst:e}");
    }

    #[test]
    fn log_sum_exp_does_not_overflow() {
        let row = [1000.0f32, 1000.0];
        assert!((log_sum_exp(&row) - (1000.0 + LN_2)).abs() < 1e-12);
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY]), f64::NEG_INFINITY);
    }
}
