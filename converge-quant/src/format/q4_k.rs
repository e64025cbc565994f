//! Q4_K: 256 numbers with 4-bit `q`, a 6-bit scale and a 6-bit minimum for each 32.

use half::f16;

use super::search::Steps;
use super::{Block, Encode, QK_K, field, half_field, scales_mins};
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
    /// Eight scales and eight minima of 6 bits.
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
        let scales = scales_mins::unpack(&self.scales);
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

impl Encode<144, QK_K> for BlockQ4K {
    fn encode(numbers: &[f32; QK_K]) -> Self {
        let steps = Steps {
            first: -1.0,
            count: 20,
        };
        let found = scales_mins::encode(numbers, 15, &steps);
        Self {
            d: found.d,
            dmin: found.dmin,
            scales: found.scales,
            qs: scales_mins::low_bits(&found.q),
        }
    }

    fn write(&self, out: &mut [u8; 144]) {
        out[0..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..4].copy_from_slice(&self.dmin.to_le_bytes());
        out[4..16].copy_from_slice(&self.scales);
        out[16..144].copy_from_slice(&self.qs);
    }
}

/// Encodes whole blocks; see [`super::encode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialRow`] and [`crate::QuantError::Unencodable`].
pub fn encode(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::encode_blocks::<BlockQ4K, _, _>(numbers, out)
}
