//! Q5_1: 32 numbers `d·q + m` with 5-bit `q`.

use half::f16;

use super::q4_0::low_bits;
use super::q5_0::{fifth_bits, with_fifth_bit};
use super::{Block, Encode, field, half_field, round};
use crate::{GgmlType, Result};

/// One block: the low four bits as in Q4_1, the fifth bit of element `j` is bit `j` of `qh`.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale.
    pub d: f16,
    /// Minimum, added.
    pub m: f16,
    /// The fifth bits, a little-endian `u32`.
    pub qh: [u8; 4],
    /// Two times four low bits a byte.
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ5_1>() == 24);

impl Block<24, 32> for BlockQ5_1 {
    const TYPE: GgmlType = GgmlType::Q5_1;

    fn read(bytes: &[u8; 24]) -> Self {
        Self {
            d: half_field::<0, 24>(bytes),
            m: half_field::<2, 24>(bytes),
            qh: field::<4, 4, 24>(bytes),
            qs: field::<8, 16, 24>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; 32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let qh = u32::from_le_bytes(self.qh);
        for (j, &q) in self.qs.iter().enumerate() {
            let (low, high) = with_fifth_bit(q, qh, j);
            out[j] = f32::from(low) * d + m;
            out[j + 16] = f32::from(high) * d + m;
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockQ5_1, _, _>(bytes, out)
}

impl Encode<24, 32> for BlockQ5_1 {
    fn encode(numbers: &[f32; 32]) -> Self {
        let (d, m) = round::range(numbers, 31.0);
        let inverse = round::inverse(d);
        let q = numbers.map(|x| round::floor_byte((x - m) * inverse + 0.5).min(31));
        Self {
            d: f16::from_f32(d),
            m: f16::from_f32(m),
            qh: fifth_bits(&q),
            qs: low_bits(&q),
        }
    }

    fn write(&self, out: &mut [u8; 24]) {
        out[0..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..4].copy_from_slice(&self.m.to_le_bytes());
        out[4..8].copy_from_slice(&self.qh);
        out[8..24].copy_from_slice(&self.qs);
    }
}

/// Encodes whole blocks; see [`super::encode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialRow`] and [`crate::QuantError::Unencodable`].
pub fn encode(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::encode_blocks::<BlockQ5_1, _, _>(numbers, out)
}
