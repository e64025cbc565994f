//! Sampling noise as a pure function of (seed, position, token).
//!
//! No generator state exists: the noise of a token at a position is the same whether it is drawn
//! by the target, by a drafter, after a restart or in another order. That makes
//! argmax(logit / T + noise) a coupling that speculation and replay can share.

use super::math;

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014; constants: Stafford's variant 13).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 2⁶⁴ divided by the golden ratio, odd: Weyl increments that keep inputs apart.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// 64 uniform bits of (seed, position, token). Each input goes through a full mixing round before
/// the next one enters, so neighbours in any of the three are unrelated.
pub const fn bits(seed: u64, position: u64, token: u32) -> u64 {
    row(seed, position).bits(token)
}

/// The noise of one position: what is common to all of its tokens is mixed once.
#[derive(Clone, Copy, Debug)]
pub struct Row(u64);

/// The noise of `position` under `seed`.
pub const fn row(seed: u64, position: u64) -> Row {
    let s = mix(seed.wrapping_add(GOLDEN));
    Row(mix(
        mix(s ^ position.wrapping_mul(GOLDEN)).wrapping_add(GOLDEN)
    ))
}

impl Row {
    /// 64 uniform bits of `token`.
    pub const fn bits(self, token: u32) -> u64 {
        mix(mix(self.0 ^ (token as u64 + 1).wrapping_mul(GOLDEN)).wrapping_add(GOLDEN))
    }

    /// A draw from the standard Gumbel distribution, −ln(−ln u).
    pub fn gumbel(self, token: u32) -> f64 {
        gumbel(self.bits(token))
    }

    /// [`gumbel`](Self::gumbel), or `None` where it is certainly below `least`: found out from the
    /// leading bits, without a logarithm.
    pub fn gumbel_from(self, token: u32, least: f64) -> Option<f64> {
        let bits = self.bits(token);
        (bound(bits) >= least).then(|| gumbel(bits))
    }
}

/// A bound on [`gumbel`] of these bits: with n leading ones 1 − u is at least 2⁻⁽ⁿ⁺¹⁾, and
/// −ln(−ln u) is at most −ln(1 − u). The margin is for rounding.
fn bound(bits: u64) -> f64 {
    f64::from(bits.leading_ones().min(53) + 1) * std::f64::consts::LN_2 + 1e-9
}

/// Turns 64 uniform bits into a standard Gumbel draw, using 53 of them.
///
/// u = (2k + 1) / 2⁵⁴ with k of 53 bits is never 0 or 1. Near 1, where doubles are too coarse for
/// it and where the large draws are, −ln u is computed from 1 − u, which is exact.
pub fn gumbel(bits: u64) -> f64 {
    const HALF: u64 = 1 << 53;
    const STEP: f64 = 1.0 / (1u64 << 54) as f64;
    let v = ((bits >> 11) << 1) | 1;
    let exponential = if v < HALF {
        -math::ln(v as f64 * STEP)
    } else {
        -math::ln_one_minus(((1u64 << 54) - v) as f64 * STEP)
    };
    -math::ln(exponential)
}

/// The seed of a fork's own stream: a fork and its parent draw unrelated noise.
pub const fn fork_seed(seed: u64, branch: u64) -> u64 {
    mix(mix(seed ^ GOLDEN)
        .wrapping_add(branch.wrapping_mul(GOLDEN))
        .wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(seed: u64, position: u64, token: u32) -> f64 {
        (bits(seed, position, token) >> 11) as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn the_extremes_are_finite() {
        let top = gumbel(u64::MAX);
        let bottom = gumbel(0);
        assert!(top > 36.0 && top < 37.5, "{top}");
        assert!(bottom > -3.7 && bottom < -3.5, "{bottom}");
    }

    #[test]
    fn gumbel_rises_with_its_bits_also_over_the_seam() {
        let mut last = f64::NEG_INFINITY;
        for i in 0..=4096u64 {
            let g = gumbel(i.saturating_mul(1 << 52).saturating_add(i * 1000));
            assert!(g > last, "step {i}: {g} after {last}");
            last = g;
        }
        let below = gumbel((1u64 << 63) - 1);
        let above = gumbel(1u64 << 63);
        assert!(above > below && above - below < 1e-12, "{below} {above}");
    }

    #[test]
    fn the_bound_holds() {
        let ones = (0..64).flat_map(|n| {
            let head = if n == 0 { 0 } else { u64::MAX << (64 - n) };
            [head, head | (u64::MAX >> n >> 1), head | (1 << 11) | 0x7ff]
        });
        let hashed = (0..200_000).map(|i| bits(1, 2, i));
        for b in ones
            .chain(hashed)
            .chain([0, u64::MAX, 1 << 63, (1 << 63) - 1])
        {
            assert!(
                gumbel(b) <= bound(b),
                "{b:#x}: {} above {}",
                gumbel(b),
                bound(b)
            );
        }
        let row = row(1, 2);
        assert_eq!(row.gumbel_from(3, f64::NEG_INFINITY), Some(row.gumbel(3)));
        assert_eq!(row.gumbel_from(3, 40.0), None);
    }

    #[test]
    fn mean_and_variance_are_those_of_a_gumbel() {
        let n = 400_000u64;
        let draws: Vec<f64> = (0..n).map(|p| row(7, p).gumbel(3)).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let variance = draws.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / n as f64;
        assert!((mean - 0.577_215_66).abs() < 0.01, "mean {mean}");
        assert!((variance - 1.644_934).abs() < 0.03, "variance {variance}");
    }

    /// Chi-square of 256 equal bins; 99.99 % of fair runs stay below 346.
    fn uniformity(values: impl Iterator<Item = f64>) -> f64 {
        let mut bins = [0u32; 256];
        let mut n = 0u32;
        for u in values {
            bins[(u * 256.0) as usize] += 1;
            n += 1;
        }
        let expected = f64::from(n) / 256.0;
        bins.iter()
            .map(|&c| (f64::from(c) - expected).powi(2) / expected)
            .sum()
    }

    #[test]
    fn noise_is_uniform_along_each_input() {
        let n = 200_000u32;
        for (name, chi) in [
            (
                "seeds",
                uniformity((0..n).map(|i| unit(u64::from(i), 5, 9))),
            ),
            (
                "positions",
                uniformity((0..n).map(|i| unit(1, u64::from(i), 9))),
            ),
            ("tokens", uniformity((0..n).map(|i| unit(1, 5, i)))),
            (
                "high seeds",
                uniformity((0..n).map(|i| unit(u64::from(i) << 44, 5, 9))),
            ),
        ] {
            assert!(chi < 346.0, "{name}: {chi}");
        }
    }

    #[test]
    fn neighbours_are_uncorrelated() {
        let n = 100_000u32;
        let correlation = |pair: &dyn Fn(u32) -> (f64, f64)| {
            let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
            for i in 0..n {
                let (x, y) = pair(i);
                let (x, y) = (x - 0.5, y - 0.5);
                xy += x * y;
                xx += x * x;
                yy += y * y;
            }
            xy / (xx * yy).sqrt()
        };
        let at = |s: u32, p: u32, t: u32| unit(u64::from(s), u64::from(p), t);
        for (name, r) in [
            (
                "positions",
                correlation(&|i| (at(3, i, 8), at(3, i + 1, 8))),
            ),
            ("seeds", correlation(&|i| (at(i, 4, 8), at(i + 1, 4, 8)))),
            ("tokens", correlation(&|i| (at(3, 4, i), at(3, 4, i + 1)))),
            (
                "swapped inputs",
                correlation(&|i| (at(i, 4, 8), at(4, i, 8))),
            ),
            ("diagonal", correlation(&|i| (at(3, i + 1, 8), at(3, i, 9)))),
            ("fork", {
                correlation(&|i| {
                    (
                        unit(11, u64::from(i), 2),
                        unit(fork_seed(11, 1), u64::from(i), 2),
                    )
                })
            }),
        ] {
            // Five standard deviations.
            assert!(r.abs() < 5.0 / f64::from(n).sqrt(), "{name}: {r}");
        }
    }

    #[test]
    fn every_bit_of_the_inputs_matters() {
        let base = bits(0x1234_5678_9abc_def0, 77, 1000);
        for b in 0..64 {
            for other in [
                bits(0x1234_5678_9abc_def0 ^ (1 << b), 77, 1000),
                bits(0x1234_5678_9abc_def0, 77 ^ (1 << b), 1000),
                bits(0x1234_5678_9abc_def0, 77, 1000 ^ (1 << (b % 32))),
            ] {
                let flipped = (base ^ other).count_ones();
                assert!((12..=52).contains(&flipped), "bit {b}: {flipped} flipped");
            }
        }
        assert_ne!(fork_seed(1, 0), 1);
        assert_ne!(fork_seed(1, 0), fork_seed(1, 1));
    }
}
