//! Q8_K: 256 numbers `d·q` with signed 8-bit `q`; ggml's format for activations.

use super::{Block, QK_K, field};
use crate::{GgmlType, Result};

/// One block.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ8K {
    /// Scale, in single precision.
    pub d: f32,
    /// The numbers, in order.
    pub qs: [i8; 256],
    /// Sums of each 16 of `qs`: for dot products, not needed to decode.
    pub bsums: [i16; 16],
}
const _: () = assert!(size_of::<BlockQ8K>() == 292);

impl Block<292, QK_K> for BlockQ8K {
    const TYPE: GgmlType = GgmlType::Q8_K;

    fn read(bytes: &[u8; 292]) -> Self {
        Self {
            d: f32::from_le_bytes(field::<0, 4, 292>(bytes)),
            qs: field::<4, 256, 292>(bytes).map(u8::cast_signed),
            bsums: std::array::from_fn(|i| {
                i16::from_le_bytes([bytes[260 + 2 * i], bytes[261 + 2 * i]])
            }),
        }
    }

    fn decode(&self, out: &mut [f32; QK_K]) {
        for (out, &q) in out.iter_mut().zip(&self.qs) {
            *out = self.d * f32::from(q);
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockQ8K, _, _>(bytes, out)
}
