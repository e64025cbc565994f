//! IQ4_XS: 256 numbers with the table of IQ4_NL and a signed 6-bit scale for each 32.

use half::f16;

use super::iq4_nl::VALUES;
use super::{Block, QK_K, field, half_field};
use crate::{GgmlType, Result};

/// One block, eight groups of 32 elements.
///
/// Group `i` uses the bytes `16i..16i + 16` of `qs`, laid out as in IQ4_NL.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockIq4Xs {
    /// Scale of the scales.
    pub d: f16,
    /// Bits `2i` and `2i + 1`: the high bits of scale `i`.
    pub scales_h: u16,
    /// Half `i`, low one first: the four low bits of scale `i`.
    pub scales_l: [u8; 4],
    /// Two indices into the table a byte.
    pub qs: [u8; 128],
}
const _: () = assert!(size_of::<BlockIq4Xs>() == 136);

impl Block<136, QK_K> for BlockIq4Xs {
    const TYPE: GgmlType = GgmlType::IQ4_XS;

    fn read(bytes: &[u8; 136]) -> Self {
        Self {
            d: half_field::<0, 136>(bytes),
            scales_h: u16::from_le_bytes(field::<2, 2, 136>(bytes)),
            scales_l: field::<4, 4, 136>(bytes),
            qs: field::<8, 128, 136>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; QK_K]) {
        let d = self.d.to_f32();
        let groups = self.qs.as_chunks::<16>().0.iter();
        for ((i, qs), out) in groups.enumerate().zip(out.as_chunks_mut::<32>().0) {
            let low = self.scales_l[i / 2 % 4] >> (i % 2 * 4) & 0x0f;
            let high = self.scales_h >> (2 * i) & 3;
            let dl = d * (f32::from(u16::from(low) | high << 4) - 32.0);
            for (j, &q) in qs.iter().enumerate() {
                out[j] = dl * f32::from(VALUES[usize::from(q & 0x0f)]);
                out[j + 16] = dl * f32::from(VALUES[usize::from(q >> 4)]);
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
    super::decode_blocks::<BlockIq4Xs, _, _>(bytes, out)
}
