//! Q4_K: 256 numbers with 4-bit `q`, a 6-bit scale and a 6-bit minimum for each 32.

use half::f16;

use super::{Block, QK_K, field, half_field};
use crate::{GgmlType, Result};

/// One block, four quarters of 64 elements.
///
/// Quarter `i` uses the bytes `32i..32i + 32` of `qs`: the low halves are its first 32 elements,
/// the high halves its last 32.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale of the scales.
    pub d: f16,
    /// Scale of the minima, which are subtracted.
    pub dmin: f16,
    /// Eight scales and eight minima of 6 bits; see [`BlockQ4K::decode`].
    pub scales: [u8; 12],
    /// Two 4-bit numbers a byte.
    pub qs: [u8; 128],
}
const _: () = assert!(size_of::<BlockQ4K>() == 144);

impl Block<144, QK_K> for BlockQ4K {
    const TYPE: GgmlType = GgmlType::Q4_K;

    fn read(bytes: &[u8; 144]) -> Self {
        Self {
            d: half_field::<0, 144>(bytes),
            dmin: half_field::<2, 144>(bytes),
            scales: field::<4, 12, 144>(bytes),
            qs: field::<16, 128, 144>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; QK_K]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let scales = scales_and_mins(&self.scales);
        let quarters = self.qs.as_chunks::<32>().0.iter();
        for ((i, qs), out) in quarters.enumerate().zip(out.as_chunks_mut::<64>().0) {
            let (low, high) = out.split_at_mut(32);
            for (half, (out, shift)) in [(low, 0), (high, 4)].into_iter().enumerate() {
                let (scale, min) = scales[2 * i + half];
                let dl = d * f32::from(scale);
                let ml = dmin * f32::from(min);
                for (out, &q) in out.iter_mut().zip(qs) {
                    *out = dl * f32::from(q >> shift & 0x0f) - ml;
                }
            }
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockQ4K, _, _>(bytes, out)
}

/// The eight (scale, minimum) pairs, each 0 to 63, of Q4_K and Q5_K.
///
/// Byte `j < 4` holds scale `j` and byte `4 + j` minimum `j` in their low six bits. For `j ≥ 4` the
/// low four bits of the scale and of the minimum are the halves of byte `4 + j`, and the two high
/// bits are what is left on top of the bytes `j − 4` and `j`.
pub(super) fn scales_and_mins(packed: &[u8; 12]) -> [(u8, u8); 8] {
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
