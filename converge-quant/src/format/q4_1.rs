//! Q4_1: 32 numbers `d·q + m` with 4-bit `q`.

use half::f16;

use super::q4_0::low_bits;
use super::{Block, Encode, field, half_field, round};
use crate::{GgmlType, Result};

/// One block: byte `j` holds element `j` in its low and element `j + 16` in its high half.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale.
    pub d: f16,
    /// Minimum, added.
    pub m: f16,
    /// Two 4-bit numbers a byte.
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ4_1>() == 20);

impl Block<20, 32> for BlockQ4_1 {
    const TYPE: GgmlType = GgmlType::Q4_1;

    fn read(bytes: &[u8; 20]) -> Self {
        Self {
            d: half_field::<0, 20>(bytes),
            m: half_field::<2, 20>(bytes),
            qs: field::<4, 16, 20>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; 32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (j, &q) in self.qs.iter().enumerate() {
            out[j] = f32::from(q & 0x0f) * d + m;
            out[j + 16] = f32::from(q >> 4) * d + m;
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockQ4_1, _, _>(bytes, out)
}

impl Encode<20, 32> for BlockQ4_1 {
    fn encode(numbers: &[f32; 32]) -> Self {
        let (d, m) = round::range(numbers, 15.0);
        let inverse = round::inverse(d);
        let q = numbers.map(|x| round::floor_byte((x - m) * inverse + 0.5).min(15));
        Self {
            d: f16::from_f32(d),
            m: f16::from_f32(m),
            qs: low_bits(&q),
        }
    }

    fn write(&self, out: &mut [u8; 20]) {
        out[0..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..4].copy_from_slice(&self.m.to_le_bytes());
        out[4..20].copy_from_slice(&self.qs);
    }
}

/// Encodes whole blocks; see [`super::encode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialRow`] and [`crate::QuantError::Unencodable`].
pub fn encode(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::encode_blocks::<BlockQ4_1, _, _>(numbers, out)
}
