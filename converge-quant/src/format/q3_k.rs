//! Q3_K: 256 numbers with signed 3-bit `q` and a signed 6-bit scale for each 16.

use half::f16;

use super::q2_k::two_bits_of;
use super::{Block, QK_K, field, half_field};
use crate::{GgmlType, Result};

/// One block: the low two bits lie as in Q2_K.
///
/// The third bit of element `32i + l` is bit `i` of byte `l` of `hmask`, and means 0 when set,
/// −4 when not.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ3K {
    /// The third bits.
    pub hmask: [u8; 32],
    /// Four times two low bits a byte.
    pub qs: [u8; 64],
    /// Sixteen scales of 6 bits: eight bytes of low halves, four bytes of high pairs.
    pub scales: [u8; 12],
    /// Scale of the scales.
    pub d: f16,
}
const _: () = assert!(size_of::<BlockQ3K>() == 110);

impl Block<110, QK_K> for BlockQ3K {
    const TYPE: GgmlType = GgmlType::Q3_K;

    fn read(bytes: &[u8; 110]) -> Self {
        Self {
            hmask: field::<0, 32, 110>(bytes),
            qs: field::<32, 64, 110>(bytes),
            scales: field::<96, 12, 110>(bytes),
            d: half_field::<108, 110>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; QK_K]) {
        let d = self.d.to_f32();
        let scales = scales(&self.scales);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let dl = d * (f32::from(scales[group % 16]) - 32.0);
            let (first, shift) = two_bits_of(group);
            let third = 1 << (group / 2 % 8);
            let masks = &self.hmask[group % 2 * 16..][..16];
            for ((out, &q), mask) in out.iter_mut().zip(&self.qs[first..first + 16]).zip(masks) {
                let offset = if mask & third == 0 { 4.0 } else { 0.0 };
                *out = dl * (f32::from(q >> shift & 3) - offset);
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
    super::decode_blocks::<BlockQ3K, _, _>(bytes, out)
}

/// The scale of each 16 elements, 0 to 63; 32 means zero.
pub(crate) fn scales(packed: &[u8; 12]) -> [u8; 16] {
    std::array::from_fn(|group| {
        let low = packed[group % 8] >> (group / 8 % 2 * 4) & 0x0f;
        let high = packed[8 + group % 4] >> (group / 4 % 4 * 2) & 3;
        low | high << 4
    })
}
