//! MXFP4: 32 floats of 4 bits (E2M1) that share a power of two (E8M0), as in the Open Compute
//! Project's microscaling (MX) specification 1.0; the layout is ggml's.

use super::{Block, field};
use crate::{GgmlType, Result};

/// Twice the sixteen E2M1 values, which makes them integers (`kvalues_mxfp4` in ggml). The negative
/// zero (index 8) is a plain zero here, as in ggml.
pub const DOUBLED_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// One block: byte `j` holds element `j` in its low and element `j + 16` in its high half.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockMxfp4 {
    /// The exponent, biased by 127.
    pub e: u8,
    /// Two indices into [`DOUBLED_VALUES`] a byte.
    pub qs: [u8; 16],
}
const _: () = assert!(size_of::<BlockMxfp4>() == 17);

impl Block<17, 32> for BlockMxfp4 {
    const TYPE: GgmlType = GgmlType::MXFP4;

    fn read(bytes: &[u8; 17]) -> Self {
        Self {
            e: bytes[0],
            qs: field::<1, 16, 17>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; 32]) {
        let d = half_scale(self.e);
        for (j, &q) in self.qs.iter().enumerate() {
            out[j] = f32::from(DOUBLED_VALUES[usize::from(q & 0x0f)]) * d;
            out[j + 16] = f32::from(DOUBLED_VALUES[usize::from(q >> 4)]) * d;
        }
    }
}

/// Decodes whole blocks; see [`super::decode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialBlock`] and [`crate::QuantError::DecodeLength`] on wrong lengths.
pub fn decode(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    super::decode_blocks::<BlockMxfp4, _, _>(bytes, out)
}

/// Half of the scale, `2^(e − 128)`, which makes up for the doubled values
/// (`ggml_e8m0_to_fp32_half`). The two smallest are subnormal. 255, NaN in the specification, is
/// `2^127` here, as in ggml.
fn half_scale(e: u8) -> f32 {
    f32::from_bits(match e {
        0 | 1 => 0x0020_0000 << e,
        _ => u32::from(e - 1) << 23,
    })
}
