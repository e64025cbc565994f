//! The eight 6-bit scales and eight 6-bit minima that Q4_K and Q5_K keep in twelve bytes, and how
//! they are found.

use half::f16;

use super::QK_K;
use super::round::{between, nearest, nearest_byte};
use super::search::{self, Steps};

/// The eight (scale, minimum) pairs, each 0 to 63, of Q4_K and Q5_K.
///
/// Byte `j < 4` holds scale `j` and byte `4 + j` minimum `j` in their low six bits. For `j ≥ 4` the
/// low four bits of the scale and of the minimum are the halves of byte `4 + j`, and the two high
/// bits are what is left on top of the bytes `j − 4` and `j`.
pub(crate) fn unpack(packed: &[u8; 12]) -> [(u8, u8); 8] {
    std::array::from_fn(|j| {
        if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            (
                packed[j + 4] & 0x0f | packed[j - 4] >> 6 << 4,
                packed[j + 4] >> 4 | packed[j] >> 6 << 4,
            )
        }
    })
}

/// The twelve bytes of eight (scale, minimum) pairs, each 0 to 63: what [`unpack`] reads.
pub(super) fn pack(pairs: &[(u8, u8); 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        let ((scale, min), (late_scale, late_min)) = (pairs[j], pairs[j + 4]);
        packed[j] = scale & 63 | late_scale >> 4 << 6;
        packed[j + 4] = min & 63 | late_min >> 4 << 6;
        packed[j + 8] = late_scale & 0x0f | late_min << 4;
    }
    packed
}

/// A super-block of eight groups of 32 numbers, each with a scale and a minimum.
pub(super) struct Groups {
    pub(super) d: f16,
    pub(super) dmin: f16,
    pub(super) scales: [u8; 12],
    /// A number each, 0 to the greatest.
    pub(super) q: [u8; QK_K],
}

/// Finds scale and minimum of each group by search, rounds them to 6 bits, and rounds the numbers
/// to what these can say.
pub(super) fn encode(numbers: &[f32; QK_K], greatest: u8, steps: &Steps) -> Groups {
    let groups = numbers.as_chunks::<32>().0;
    let turned: [[f32; 8]; 32] = search::by_group(groups);
    // Large weights matter most, small ones not nothing.
    let mut squares = [0.0f32; 8];
    for x in &turned {
        for (sum, x) in squares.iter_mut().zip(x) {
            *sum += x * x;
        }
    }
    let mean = squares.map(|sum| (sum / 32.0).sqrt());
    let weights = turned.map(|x| std::array::from_fn(|g| mean[g] + x[g].abs()));
    let found = steps.affine(&turned, &weights, greatest);
    let greatest_scale = found.iter().fold(0.0f32, |most, one| most.max(one.scale));
    let greatest_min = found.iter().fold(0.0f32, |most, one| most.max(one.min));
    let six_bits = |x: f32, most: f32| match most > 0.0 {
        true => between(nearest(63.0 / most * x), 0.0, 63.0) as u8,
        false => 0,
    };
    let pairs = found.map(|one| {
        let scale = six_bits(one.scale, greatest_scale);
        (scale, six_bits(one.min, greatest_min))
    });
    let d = f16::from_f32(greatest_scale / 63.0);
    let dmin = f16::from_f32(greatest_min / 63.0);
    let mut q = [0; QK_K];
    let outs = q.as_chunks_mut::<32>().0.iter_mut();
    for ((out, group), (scale, min)) in outs.zip(groups).zip(pairs) {
        let dl = d.to_f32() * f32::from(scale);
        let ml = dmin.to_f32() * f32::from(min);
        if dl != 0.0 {
            *out = group.map(|x| {
                let q = nearest((x + ml) / dl);
                nearest_byte(between(q, 0.0, f32::from(greatest)))
            });
        }
    }
    Groups {
        d,
        dmin,
        scales: pack(&pairs),
        q,
    }
}

/// The low four bits of all numbers as Q4_K and Q5_K store them: 64 elements in 32 bytes.
pub(super) fn low_bits(q: &[u8; QK_K]) -> [u8; 128] {
    let mut qs = [0; 128];
    let quarters = q.as_chunks::<64>().0;
    for (qs, q) in qs.as_chunks_mut::<32>().0.iter_mut().zip(quarters) {
        *qs = std::array::from_fn(|l| q[l] & 0x0f | q[l + 32] << 4);
    }
    qs
}
