//! Rounding, and the extremes of some numbers: what every encoder needs.
//!
//! Written so that the compiler makes vector instructions of it that every processor has: no calls,
//! no early ends, no saturating casts.

/// Groups whose numbers are all nearer to zero than this are zero.
pub(super) const LEAST: f32 = 1e-15;

/// Where the distance of neighbouring numbers is 1, so that adding it rounds.
const WHOLE: f32 = 12_582_912.0;

/// Where it is 1, too, and nothing below may be: adding it to a number from 0 to 2²³ rounds.
const WHOLE_POSITIVE: f32 = 8_388_608.0;

/// The nearest whole number, ties to even, of a number up to 2²² from zero; farther out it is only
/// far out. Unlike `round_ties_even` it needs no instruction that a processor may lack, nor a call.
#[inline]
pub(super) fn nearest(x: f32) -> f32 {
    (x + WHOLE) - WHOLE
}

/// The low byte of the nearest whole number, ties to even, of a number up to 2²² from zero: the
/// number itself, as `u8` or in two's complement, if a byte holds it.
#[inline]
pub(super) fn nearest_byte(x: f32) -> u8 {
    (x + WHOLE).to_bits() as u8
}

/// The whole number at or below `x`, which is from 0 to 255.
#[inline]
pub(super) fn floor_byte(x: f32) -> u8 {
    let shifted = x + WHOLE_POSITIVE;
    let above = shifted - WHOLE_POSITIVE > x;
    (shifted.to_bits() as u8).wrapping_sub(u8::from(above))
}

/// The nearest whole number, ties away from zero, of a number from −127 to 127.
#[inline]
pub(super) fn nearest_away(x: f32) -> i8 {
    // With the number just below a half, nothing below a tie is lifted over it.
    const BELOW_HALF: f32 = 0.499_999_97;
    let away = floor_byte(x.abs() + BELOW_HALF).cast_signed();
    // All ones for a negative number: then this is the two's complement.
    let sign = ((x.to_bits() as i32) >> 31) as i8;
    (away ^ sign).wrapping_sub(sign)
}

/// `x` where it is between `low` and `high`; a number that is none stays one.
#[inline]
pub(super) fn between(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// 1/d, and 0 where that is no number.
pub(super) fn inverse(d: f32) -> f32 {
    let inverse = d.recip();
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The least and the greatest number.
pub(super) fn extremes(numbers: &[f32; 32]) -> (f32, f32) {
    const LANES: usize = 8;
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for numbers in numbers.as_chunks::<LANES>().0 {
        for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(numbers) {
            *low = if x < *low { x } else { *low };
            *high = if x > *high { x } else { *high };
        }
    }
    let low = low.into_iter().fold(f32::INFINITY, f32::min);
    (low, high.into_iter().fold(f32::NEG_INFINITY, f32::max))
}

/// The first number with the greatest magnitude, with its sign.
pub(super) fn greatest(numbers: &[f32; 32]) -> f32 {
    let (low, high) = extremes(numbers);
    if high == -low {
        return first_greatest(numbers);
    }
    if high > -low { high } else { low }
}

/// The same of any count of numbers, one by one; 0 of none.
pub(super) fn first_greatest(numbers: &[f32]) -> f32 {
    let farther = |most: f32, &x: &f32| if x.abs() > most.abs() { x } else { most };
    numbers.iter().fold(0.0, farther)
}

/// Step and minimum of `steps` equal steps from the least number to the greatest.
pub(super) fn range(numbers: &[f32; 32], steps: f32) -> (f32, f32) {
    let (low, high) = extremes(numbers);
    ((high - low) / steps, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_casts() {
        let mut x = 0.0f32;
        while x < 127.4 {
            assert_eq!(floor_byte(2.0 * x), (2.0 * x) as u8, "{x}");
            for x in [x, -x] {
                assert_eq!(nearest_away(x), x.round() as i8, "{x}");
                assert_eq!(nearest_byte(x), x.round_ties_even() as i8 as u8, "{x}");
            }
            // Every tie, its neighbours, and many numbers between.
            x = match x.fract() {
                0.5 => x.next_up(),
                _ if (x.next_up()).fract() == 0.5 => x.next_up(),
                f if f < 0.49 => x + 0.007_812_5,
                f if f < 0.5 => x.trunc() + 0.5f32.next_down(),
                _ => (x + 0.007_812_5).min(x.trunc() + 1.0),
            };
        }
    }

    #[test]
    fn extremes_are_found_wherever_they_are() {
        for at in 0..32 {
            for value in [-3.0, 3.0, 0.5, -0.5] {
                let mut numbers: [f32; 32] = std::array::from_fn(|i| i as f32 / 64.0 - 0.25);
                numbers[at] = value;
                assert_eq!(greatest(&numbers), first_greatest(&numbers));
                let low = numbers.iter().copied().fold(f32::INFINITY, f32::min);
                let high = numbers.iter().copied().fold(-f32::INFINITY, f32::max);
                assert_eq!(extremes(&numbers), (low, high));
                numbers[31 - at] = -value;
                assert_eq!(greatest(&numbers), first_greatest(&numbers));
            }
        }
    }
}
