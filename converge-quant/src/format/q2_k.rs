//! Q2_K: 256 numbers with 2-bit `q`, a 4-bit scale and a 4-bit minimum for each 16.

use half::f16;

use super::{Block, QK_K, field, half_field};
use crate::{GgmlType, Result};

/// One block, two halves of 128 elements.
///
/// Half `h` uses the bytes `32h..32h + 32` of `qs`; bits `2j` and `2j + 1` of its byte `l` are
/// element `128h + 32j + l`.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ2K {
    /// Of each 16 elements: the scale in the low, the minimum in the high half.
    pub scales: [u8; 16],
    /// Four 2-bit numbers a byte.
    pub qs: [u8; 64],
    /// Scale of the scales.
    pub d: f16,
    /// Scale of the minima, which are subtracted.
    pub dmin: f16,
}
const _: () = assert!(size_of::<BlockQ2K>() == 84);

impl Block<84, QK_K> for BlockQ2K {
    const TYPE: GgmlType = GgmlType::Q2_K;

    fn read(bytes: &[u8; 84]) -> Self {
        Self {
            scales: field::<0, 16, 84>(bytes),
            qs: field::<16, 64, 84>(bytes),
            d: half_field::<80, 84>(bytes),
            dmin: half_field::<82, 84>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; QK_K]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = self.scales[group % 16];
            let dl = d * f32::from(scale & 0x0f);
            let ml = dmin * f32::from(scale >> 4);
            let (first, shift) = two_bits_of(group);
            for (out, &q) in out.iter_mut().zip(&self.qs[first..first + 16]) {
                *out = dl * f32::from(q >> shift & 3) - ml;
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
    super::decode_blocks::<BlockQ2K, _, _>(bytes, out)
}

/// Where the low two bits of the 16 elements of `group` (0 to 15) are: the first byte, and the shift.
pub(super) fn two_bits_of(group: usize) -> (usize, usize) {
    let (half, in_half) = (group / 8 % 2, group % 8);
    (32 * half + 16 * (in_half % 2), in_half / 2 * 2)
}
