//! Q4_0: 32 numbers `d·(q − 8)` with 4-bit `q`.

use half::f16;

use super::{Block, Encode, field, half_field, round};
use crate::{GgmlType, Result};

/// One block: byte `j` holds element `j` in its low and element `j + 16` in its high half.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale.
    pub d: f16,
    /// Two 4-bit numbers a byte.
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ4_0>() == 18);

impl Block<18, 32> for BlockQ4_0 {
    const TYPE: GgmlType = GgmlType::Q4_0;

    fn read(bytes: &[u8; 18]) -> Self {
        Self {
            d: half_field::<0, 18>(bytes),
            qs: field::<2, 16, 18>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        for (j, &q) in self.qs.iter().enumerate() {
            out[j] = (f32::from(q & 0x0f) - 8.0) * d;
            out[j + 16] = (f32::from(q >> 4) - 8.0) * d;
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockQ4_0, _, _>(bytes, out)
}

impl Encode<18, 32> for BlockQ4_0 {
    fn encode(numbers: &[f32; 32]) -> Self {
        // The farthest number becomes −8 exactly.
        let d = round::greatest(numbers) / -8.0;
        let inverse = round::inverse(d);
        let q = numbers.map(|x| round::floor_byte(x * inverse + 8.5).min(15));
        Self {
            d: f16::from_f32(d),
            qs: low_bits(&q),
        }
    }

    fn write(&self, out: &mut [u8; 18]) {
        out[0..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..18].copy_from_slice(&self.qs);
    }
}

/// Encodes whole blocks; see [`super::encode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialRow`] and [`crate::QuantError::Unencodable`].
pub fn encode(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::encode_blocks::<BlockQ4_0, _, _>(numbers, out)
}

/// The low four bits of 32 numbers: elements `j` and `j + 16` are the halves of byte `j`.
pub(super) fn low_bits(q: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|j| q[j] & 0x0f | q[j + 16] << 4)
}
