//! Q6_K: 256 numbers with signed 6-bit `q` and a signed 8-bit scale for each 16.

use half::f16;

use super::{Block, Encode, QK_K, field, half_field, round, search};
use crate::{GgmlType, Result};

/// One block, two halves of 128 elements.
///
/// Half `h` uses the bytes `64h..64h + 64` of `ql` and `32h..32h + 32` of `qh`. Its elements
/// `l`, `32 + l`, `64 + l`, `96 + l` take their low four bits from the low halves of bytes `l`
/// and `32 + l`, then from their high halves, and their two high bits from byte `l` of `qh`.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub struct BlockQ6K {
    /// Two times four low bits a byte.
    pub ql: [u8; 128],
    /// Four times two high bits a byte.
    pub qh: [u8; 64],
    /// One scale for each 16 elements.
    pub scales: [i8; 16],
    /// Scale of the scales.
    pub d: f16,
}
const _: () = assert!(size_of::<BlockQ6K>() == 210);

impl Block<210, QK_K> for BlockQ6K {
    const TYPE: GgmlType = GgmlType::Q6_K;

    fn read(bytes: &[u8; 210]) -> Self {
        Self {
            ql: field::<0, 128, 210>(bytes),
            qh: field::<128, 64, 210>(bytes),
            scales: field::<192, 16, 210>(bytes).map(u8::cast_signed),
            d: half_field::<208, 210>(bytes),
        }
    }

    fn decode(&self, out: &mut [f32; QK_K]) {
        let d = self.d.to_f32();
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let dl = d * f32::from(self.scales[group % 16]);
            let (half, quarter, at) = (group / 8 % 2, group / 2 % 4, group % 2 * 16);
            let low = &self.ql[64 * half + 32 * (quarter % 2) + at..][..16];
            let high = &self.qh[32 * half + at..][..16];
            let (low_shift, high_shift) = (quarter / 2 * 4, quarter * 2);
            for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
                let q = low >> low_shift & 0x0f | (high >> high_shift & 3) << 4;
                *out = dl * (f32::from(q) - 32.0);
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
    super::decode_blocks::<BlockQ6K, _, _>(bytes, out)
}

impl Encode<210, QK_K> for BlockQ6K {
    fn encode(numbers: &[f32; QK_K]) -> Self {
        let groups = numbers.as_chunks::<16>().0;
        let found = search::symmetric(&search::by_group::<16, 16>(groups), 32.0);
        let most = round::first_greatest(&found);
        let steps = match most.abs() < round::LEAST {
            true => 0.0,
            false => -128.0 / most,
        };
        let d = f16::from_f32(round::inverse(steps));
        let scales = found.map(|scale| round::nearest(steps * scale).min(127.0) as i8);
        let (mut ql, mut qh) = ([0; 128], [0; 64]);
        for ((group, numbers), scale) in groups.iter().enumerate().zip(scales) {
            let dl = d.to_f32() * f32::from(scale);
            if dl == 0.0 {
                continue;
            }
            let (half, quarter, at) = (group / 8 % 2, group / 2 % 4, group % 2 * 16);
            let low = &mut ql[64 * half + 32 * (quarter % 2) + at..][..16];
            let high = &mut qh[32 * half + at..][..16];
            let (low_shift, high_shift) = (quarter / 2 * 4, quarter * 2);
            for ((&x, low), high) in numbers.iter().zip(low).zip(high) {
                let q = round::nearest(x / dl);
                let q = round::nearest_byte(round::between(q, -32.0, 31.0) + 32.0);
                *low |= (q & 0x0f) << low_shift;
                *high |= (q >> 4) << high_shift;
            }
        }
        Self { ql, qh, scales, d }
    }

    fn write(&self, out: &mut [u8; 210]) {
        out[0..128].copy_from_slice(&self.ql);
        out[128..192].copy_from_slice(&self.qh);
        out[192..208].copy_from_slice(&self.scales.map(i8::cast_unsigned));
        out[208..210].copy_from_slice(&self.d.to_le_bytes());
    }
}

/// Encodes whole blocks; see [`super::encode`].
///
/// # Errors
///
/// [`crate::QuantError::PartialRow`] and [`crate::QuantError::Unencodable`].
pub fn encode(numbers: &[f32], out: &mut Vec<u8>) -> Result<()> {
    super::encode_blocks::<BlockQ6K, _, _>(numbers, out)
}
