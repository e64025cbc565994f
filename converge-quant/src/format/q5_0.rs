//! Q5_0: 32 numbers `d·(q − 16)` with 5-bit `q`.

use half::f16;

use super::q4_0::low_bits;
use super::{Block, Encode, field, half_field, round};
use crate::{GgmlType, Result};

/// One block: the low four bits as in Q4_0, the fifth bit of element `j` is bit `j` of `qh`.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale.
    pub d: f16,
    /// The fifth bits, a little-endian `u32`.
    pub qh: [u8; 4],
    /// Two times four low bits a byte.
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockQ5_0>() == 22);

impl Block<22, 32> for BlockQ5_0 {
    const TYPE: GgmlType = GgmlType::Q5_0;

    fn read(bytes: &[u8; 22]) -> Self {
        Self {
            d: half_field::<0, 22>(bytes),
            qh: field::<2, 4, 22>(bytes),
            qs: field::<6, 16, 22>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        let qh = u32::from_le_bytes(self.qh);
        for (j, &q) in self.qs.iter().enumerate() {
            let (low, high) = with_fifth_bit(q, qh, j);
            out[j] = (f32::from(low) - 16.0) * d;
            out[j + 16] = (f32::from(high) - 16.0) * d;
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockQ5_0, _, _>(bytes, out)
}

impl Encode<22, 32> for BlockQ5_0 {
    fn encode(numbers: &[f32; 32]) -> Self {
        // The farthest number becomes −16 exactly.
        let d = round::greatest(numbers) / -16.0;
        let inverse = round::inverse(d);
        let q = numbers.map(|x| round::floor_byte(x * inverse + 16.5).min(31));
        Self {
            d: f16::from_f32(d),
            qh: fifth_bits(&q),
            qs: low_bits(&q),
        }
    }

    fn write(&self, out: &mut [u8; 22]) {
        out[0..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..6].copy_from_slice(&self.qh);
        out[6..22].copy_from_slice(&self.qs);
    }
}

/// Encodes whole blocks; see [`super::encode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialRow`] and [`crate::QuantError::Unencodable`].
pub fn encode(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::encode_blocks::<BlockQ5_0, _, _>(numbers, out)
}

/// Elements `j` and `j + 16` of a block, 0 to 31, from their low bits `q` and all fifth bits `qh`.
pub(super) fn with_fifth_bit(q: u8, qh: u32, j: usize) -> (u8, u8) {
    let bit = |at: usize| if qh >> at & 1 == 1 { 0x10 } else { 0 };
    (q & 0x0f | bit(j), q >> 4 | bit(j + 16))
}

/// The fifth bits of 32 numbers, as [`with_fifth_bit`] reads them.
pub(super) fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    // The product's high byte gathers one bit of each byte.
    let gather = |eight: &[u8; 8]| {
        let bits = u64::from_le_bytes(*eight) >> 4 & 0x0101_0101_0101_0101;
        (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
    };
    let eights = q.as_chunks::<8>().0;
    std::array::from_fn(|byte| gather(&eights[byte]))
}
