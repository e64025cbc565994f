//! Q5_K: 256 numbers with 5-bit `q`, a 6-bit scale and a 6-bit minimum for each 32.

use half::f16;

use super::search::Steps;
use super::{Block, Encode, QK_K, field, half_field, scales_mins};
use crate::{GgmlType, Result};

/// One block: scales and low four bits as in Q4_K; the fifth bit of element `32i + l` is bit `i`
/// of byte `l` of `qh`.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the scales.
    pub d: f16,
    /// Scale of the minima, which are subtracted.
    pub dmin: f16,
    /// Eight scales and eight minima of 6 bits, packed as in Q4_K.
    pub scales: [u8; 12],
    /// The fifth bits.
    pub qh: [u8; 32],
    /// Two times four low bits a byte.
    pub qs: [u8; 128],
}
const _: () = assert!(size_of::<BlockQ5K>() == 176);

impl Block<176, QK_K> for BlockQ5K {
    const TYPE: GgmlType = GgmlType::Q5_K;

    fn read(bytes: &[u8; 176]) -> Self {
        Self {
            d: half_field::<0, 176>(bytes),
            dmin: half_field::<2, 176>(bytes),
            scales: field::<4, 12, 176>(bytes),
            qh: field::<16, 32, 176>(bytes),
            qs: field::<48, 128, 176>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; QK_K]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let scales = scales_mins::unpack(&self.scales);
        let quarters = self.qs.as_chunks::<32>().0.iter();
        for ((i, qs), out) in quarters.enumerate().zip(out.as_chunks_mut::<64>().0) {
            let (low, high) = out.split_at_mut(32);
            for (half, (out, shift)) in [(low, 0), (high, 4)].into_iter().enumerate() {
                let group = 2 * i + half;
                let (scale, min) = scales[group];
                let dl = d * f32::from(scale);
                let ml = dmin * f32::from(min);
                for ((out, &q), &fifth) in out.iter_mut().zip(qs).zip(&self.qh) {
                    let q = q >> shift & 0x0f | (fifth >> group & 1) << 4;
                    *out = dl * f32::from(q) - ml;
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
    super::decode_blocks::<BlockQ5K, _, _>(bytes, out)
}

impl Encode<176, QK_K> for BlockQ5K {
    fn encode(numbers: &[f32; QK_K]) -> Self {
        let steps = Steps {
            first: -0.5,
            count: 15,
        };
        let found = scales_mins::encode(numbers, 31, &steps);
        let fifth =
            |l: usize| (0..8).fold(0u8, |bits, i| bits | (found.q[32 * i + l] >> 4 & 1) << i);
        Self {
            d: found.d,
            dmin: found.dmin,
            scales: found.scales,
            qh: std::array::from_fn(fifth),
            qs: scales_mins::low_bits(&found.q),
        }
    }

    fn write(&self, out: &mut [u8; 176]) {
        out[0..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..4].copy_from_slice(&self.dmin.to_le_bytes());
        out[4..16].copy_from_slice(&self.scales);
        out[16..48].copy_from_slice(&self.qh);
        out[48..176].copy_from_slice(&self.qs);
    }
}

/// Encodes whole blocks; see [`super::encode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialRow`] and [`crate::QuantError::Unencodable`].
pub fn encode(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::encode_blocks::<BlockQ5K, _, _>(numbers, out)
}
