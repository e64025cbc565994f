//! IQ4_NL: 32 numbers `d·table[q]` with 4-bit `q` and a table that is finer around zero.

use half::f16;

use super::{Block, field, half_field};
use crate::{GgmlType, Result};

/// The sixteen values of IQ4_NL and IQ4_XS (`kvalues_iq4nl` in ggml).
pub const VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// One block: byte `j` holds element `j` in its low and element `j + 16` in its high half.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// Scale.
    pub d: f16,
    /// Two indices into [`VALUES`] a byte.
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockIq4Nl>() == 18);

impl Block<18, 32> for BlockIq4Nl {
    const TYPE: GgmlType = GgmlType::IQ4_NL;

    fn read(bytes: &[u8; 18]) -> Self {
        Self {
            d: half_field::<0, 18>(bytes),
            qs: field::<2, 16, 18>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.to_f32();
        for (j, &q) in self.qs.iter().enumerate() {
            out[j] = d * f32::from(VALUES[usize::from(q & 0x0f)]);
            out[j + 16] = d * f32::from(VALUES[usize::from(q >> 4)]);
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockIq4Nl, _, _>(bytes, out)
}
