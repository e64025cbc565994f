//! Q8_0: 32 numbers `d·q` with signed 8-bit `q`.

use half::f16;

use super::{Block, Encode, field, half_field, round};
use crate::{GgmlType, Result};

/// One block.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale.
    pub d: f16,
    /// The numbers, in order.
    pub qs: [i8; 32],
}
const _: () = assert!(size_of::<BlockQ8_0>() == 34);

impl Block<34, 32> for BlockQ8_0 {
    const TYPE: GgmlType = GgmlType::Q8_0;

    fn read(bytes: &[u8; 34]) -> Self {
        Self {
            d: half_field::<0, 34>(bytes),
            qs: field::<2, 32, 34>(bytes).map(u8::cast_signed),
        }
    }

    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        for (out, &q) in out.iter_mut().zip(&self.qs) {
            *out = f32::from(q) * d;
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockQ8_0, _, _>(bytes, out)
}

impl Encode<34, 32> for BlockQ8_0 {
    fn encode(numbers: &[f32; 32]) -> Self {
        let d = round::greatest(numbers).abs() / 127.0;
        let inverse = round::inverse(d);
        Self {
            d: f16::from_f32(d),
            qs: numbers.map(|x| round::nearest_away(x * inverse)),
        }
    }

    fn write(&self, out: &mut [u8; 34]) {
        out[0..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..34].copy_from_slice(&self.qs.map(i8::cast_unsigned));
    }
}

/// Encodes whole blocks; see [`super::encode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialRow`] and [`crate::QuantError::Unencodable`].
pub fn encode(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::encode_blocks::<BlockQ8_0, _, _>(numbers, out)
}
