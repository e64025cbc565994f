//! Q4_0: 32 numbers `d·(q − 8)` with 4-bit `q`.

use half::f16;

use super::{Block, field, half_field};
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
