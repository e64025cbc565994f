//! Tiles of the types with blocks of 256 elements: a unit is one block, its scales in front.

use super::{
    Block, TileFormat,
    legacy::{IQ4_TABLE, looked_up, nibbles},
    tile::{VECTOR, eight, put, put_words},
};
use crate::{
    format::{q3_k, scales_mins},
    simd::{LANES, Simd},
};

/// Bytes of 32 elements of sixteen rows.
const PLANE: usize = 8 * VECTOR;
/// Where scales of groups begin, behind the halves `d` and `dmin`.
const GROUPS: usize = VECTOR;
/// Where `dmin` begins.
const DMIN: usize = VECTOR / 2;

/// Eight vectors, each byte shifted right by `right`, or left where that is negative, and masked.
///
/// # Safety
/// `from` points to a plane.
#[inline(always)]
unsafe fn plane<S: Simd>(simd: S, from: *const u8, right: i32, mask: u8) -> [S::B; 8] {
    let mask = simd.bytes(mask);
    // SAFETY: the plane's eight vectors.
    let all = unsafe { eight!(J => simd.load_bytes(from.add(J * VECTOR))) };
    match right {
        -4 => eight!(J => simd.and(simd.shift_left::<4>(all[J]), mask)),
        -3 => eight!(J => simd.and(simd.shift_left::<3>(all[J]), mask)),
        -2 => eight!(J => simd.and(simd.shift_left::<2>(all[J]), mask)),
        -1 => eight!(J => simd.and(simd.shift_left::<1>(all[J]), mask)),
        1 => eight!(J => simd.and(simd.shift_right::<1>(all[J]), mask)),
        2 => eight!(J => simd.and(simd.shift_right::<2>(all[J]), mask)),
        3 => eight!(J => simd.and(simd.shift_right::<3>(all[J]), mask)),
        4 => eight!(J => simd.and(simd.shift_right::<4>(all[J]), mask)),
        5 => eight!(J => simd.and(simd.shift_right::<5>(all[J]), mask)),
        6 => eight!(J => simd.and(simd.shift_right::<6>(all[J]), mask)),
        _ => eight!(J => simd.and(all[J], mask)),
    }
}

#[inline(always)]
fn joined<S: Simd>(simd: S, low: [S::B; 8], high: [S::B; 8]) -> [S::B; 8] {
    eight!(J => simd.or(low[J], high[J]))
}

/// `d` times the signed 8-bit scale of group `index`.
///
/// # Safety
/// `unit` points to a unit with the scales of `index + 1` groups.
#[inline(always)]
unsafe fn signed_scale<S: Simd>(simd: S, unit: *const u8, index: usize) -> S::F {
    // SAFETY: by this function's contract.
    unsafe {
        let d = simd.load_f16(unit.cast());
        simd.mul(d, simd.load_i8(unit.add(GROUPS + LANES * index)))
    }
}

/// `d` times the signed 8-bit scales of the halves of block `index`.
///
/// # Safety
/// `unit` points to a unit with the scales of so many blocks.
#[inline(always)]
unsafe fn signed_scales<S: Simd>(simd: S, unit: *const u8, index: usize) -> [S::F; 2] {
    // SAFETY: by this function's contract.
    unsafe {
        [
            signed_scale(simd, unit, 2 * index),
            signed_scale(simd, unit, 2 * index + 1),
        ]
    }
}

/// A half-precision number times the unsigned 8-bit one of group `index`.
///
/// # Safety
/// `halves` points to sixteen halves and `unit` to a unit with so many groups.
#[inline(always)]
unsafe fn scaled<S: Simd>(simd: S, halves: *const u8, unit: *const u8, index: usize) -> S::F {
    // SAFETY: by this function's contract.
    unsafe {
        let factor = simd.load_f16(halves.cast());
        simd.mul(
            factor,
            simd.to_f32(simd.load_u8(unit.add(GROUPS + LANES * index))),
        )
    }
}

fn put_half(from: &[u8], row: usize, to: &mut [u8]) {
    put([from[0], from[1]], row, to);
}

/// Puts minus a half, to be added.
fn put_negative_half(from: &[u8], row: usize, to: &mut [u8]) {
    put([from[0], from[1] ^ 0x80], row, to);
}

/// Puts the scales and the minima of eight groups.
fn put_scales_mins(from: &[u8], row: usize, to: &mut [u8]) {
    let packed = from.first_chunk::<12>().copied().unwrap_or_default();
    for (i, (scale, min)) in scales_mins::unpack(&packed).into_iter().enumerate() {
        to[GROUPS + LANES * i + row] = scale;
        to[GROUPS + LANES * (8 + i) + row] = min;
    }
}

/// 4 bits; a 6-bit scale and minimum for each 32.
pub(super) struct Q4K;

impl Q4K {
    const QS: usize = GROUPS + 16 * LANES;
}

impl TileFormat for Q4K {
    const BLOCKS: usize = 8;
    const BYTES: usize = Self::QS + 4 * PLANE;
    const FILE_BLOCK: (usize, usize) = (256, 144);
    const OFFSET: i16 = 0;
    const WIDE: bool = false;
    const SCALES: usize = 1;
    const MINS: usize = 1;

    fn pack(from: &[u8], _index: usize, row: usize, to: &mut [u8]) {
        put_half(from, row, to);
        put_negative_half(&from[2..], row, &mut to[DMIN..]);
        put_scales_mins(&from[4..], row, to);
        put_words(&from[16..144], row, &mut to[Self::QS..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let qs = unit.add(Self::QS + I / 2 * PLANE);
            Block {
                weights: plane(simd, qs, I as i32 % 2 * 4, 0x0f),
                scales: [scaled(simd, unit, unit, I); 2],
                mins: [scaled(simd, unit.add(DMIN), unit, 8 + I); 2],
            }
        }
    }
}

/// 5 bits; a 6-bit scale and minimum for each 32.
pub(super) struct Q5K;

impl Q5K {
    const QH: usize = GROUPS + 16 * LANES;
    const QS: usize = Self::QH + PLANE;
}

impl TileFormat for Q5K {
    const BLOCKS: usize = 8;
    const BYTES: usize = Self::QS + 4 * PLANE;
    const FILE_BLOCK: (usize, usize) = (256, 176);
    const OFFSET: i16 = 0;
    const WIDE: bool = false;
    const SCALES: usize = 1;
    const MINS: usize = 1;

    fn pack(from: &[u8], _index: usize, row: usize, to: &mut [u8]) {
        put_half(from, row, to);
        put_negative_half(&from[2..], row, &mut to[DMIN..]);
        put_scales_mins(&from[4..], row, to);
        put_words(&from[16..176], row, &mut to[Self::QH..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let low = plane(
                simd,
                unit.add(Self::QS + I / 2 * PLANE),
                I as i32 % 2 * 4,
                0x0f,
            );
            let high = plane(simd, unit.add(Self::QH), I as i32 - 4, 0x10);
            Block {
                weights: joined(simd, low, high),
                scales: [scaled(simd, unit, unit, I); 2],
                mins: [scaled(simd, unit.add(DMIN), unit, 8 + I); 2],
            }
        }
    }
}

/// 6 bits, 32 means 0; a signed 8-bit scale for each 16.
pub(super) struct Q6K;

impl Q6K {
    /// Where the first half begins: its high bits, then its low ones, as they are read.
    const HALVES: usize = GROUPS + 16 * LANES;
    /// Bytes of a half.
    const HALF: usize = 3 * PLANE;
}

impl TileFormat for Q6K {
    const BLOCKS: usize = 8;
    const BYTES: usize = Self::HALVES + 2 * Self::HALF;
    const FILE_BLOCK: (usize, usize) = (256, 210);
    const OFFSET: i16 = 32;
    const WIDE: bool = false;
    const SCALES: usize = 2;
    const MINS: usize = 0;

    fn pack(from: &[u8], _index: usize, row: usize, to: &mut [u8]) {
        put_half(&from[208..], row, to);
        for (i, &scale) in from[192..208].iter().enumerate() {
            to[GROUPS + LANES * i + row] = scale;
        }
        for (half, to) in to[Self::HALVES..].chunks_exact_mut(Self::HALF).enumerate() {
            put_words(&from[128 + 32 * half..][..32], row, to);
            put_words(&from[64 * half..][..64], row, &mut to[PLANE..]);
        }
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let (half, quarter) = (I / 4, I % 4);
            let high = unit.add(Self::HALVES + half * Self::HALF);
            let low = high.add((1 + quarter % 2) * PLANE);
            let low = plane(simd, low, quarter as i32 / 2 * 4, 0x0f);
            let high = plane(simd, high, 2 * quarter as i32 - 4, 0x30);
            Block::symmetric(simd, joined(simd, low, high), signed_scales(simd, unit, I))
        }
    }
}

/// 2 bits; a 4-bit scale and minimum for each 16.
pub(super) struct Q2K;

impl Q2K {
    const QS: usize = GROUPS + 16 * LANES;
}

impl TileFormat for Q2K {
    const BLOCKS: usize = 8;
    const BYTES: usize = Self::QS + 2 * PLANE;
    const FILE_BLOCK: (usize, usize) = (256, 84);
    const OFFSET: i16 = 0;
    const WIDE: bool = false;
    const SCALES: usize = 2;
    const MINS: usize = 2;

    fn pack(from: &[u8], _index: usize, row: usize, to: &mut [u8]) {
        put_half(&from[80..], row, to);
        put_negative_half(&from[82..], row, &mut to[DMIN..]);
        for (i, &both) in from[..16].iter().enumerate() {
            to[GROUPS + LANES * i + row] = both;
        }
        put_words(&from[16..80], row, &mut to[Self::QS..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let qs = unit.add(Self::QS + I / 4 * PLANE);
            let d = simd.load_f16(unit.cast());
            let first = simd.load_u8(unit.add(GROUPS + LANES * 2 * I));
            let second = simd.load_u8(unit.add(GROUPS + LANES * (2 * I + 1)));
            let dmin = simd.load_f16(unit.add(DMIN).cast());
            let min = simd.mul(dmin, simd.to_f32(simd.high_part(first)));
            let second_min = simd.mul(dmin, simd.to_f32(simd.high_part(second)));
            Block {
                weights: plane(simd, qs, I as i32 % 4 * 2, 0x03),
                scales: [
                    simd.mul(d, simd.to_f32(simd.low_nibble(first))),
                    simd.mul(d, simd.to_f32(simd.low_nibble(second))),
                ],
                mins: [min, simd.sub(second_min, min)],
            }
        }
    }
}

/// 3 bits, 4 means 0; a signed 6-bit scale for each 16.
pub(super) struct Q3K;

impl Q3K {
    const HIGH: usize = GROUPS + 16 * LANES;
    const QS: usize = Self::HIGH + PLANE;
}

impl TileFormat for Q3K {
    const BLOCKS: usize = 8;
    const BYTES: usize = Self::QS + 2 * PLANE;
    const FILE_BLOCK: (usize, usize) = (256, 110);
    const OFFSET: i16 = 4;
    const WIDE: bool = false;
    const SCALES: usize = 2;
    const MINS: usize = 0;

    fn pack(from: &[u8], _index: usize, row: usize, to: &mut [u8]) {
        put_half(&from[108..], row, to);
        let packed = from[96..].first_chunk::<12>().copied().unwrap_or_default();
        for (i, scale) in q3_k::scales(&packed).into_iter().enumerate() {
            // Six bits, 32 means 0: a signed byte.
            to[GROUPS + LANES * i + row] = scale.wrapping_sub(32);
        }
        put_words(&from[..96], row, &mut to[Self::HIGH..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let low = unit.add(Self::QS + I / 4 * PLANE);
            let low = plane(simd, low, I as i32 % 4 * 2, 0x03);
            let high = plane(simd, unit.add(Self::HIGH), I as i32 - 2, 0x04);
            Block::symmetric(simd, joined(simd, low, high), signed_scales(simd, unit, I))
        }
    }
}

/// 4 bits that point into IQ4_NL's table; a signed 6-bit scale for each 32.
pub(super) struct Iq4Xs;

impl Iq4Xs {
    const QS: usize = GROUPS + 8 * LANES;
}

impl TileFormat for Iq4Xs {
    const BLOCKS: usize = 8;
    const BYTES: usize = Self::QS + 4 * PLANE;
    const FILE_BLOCK: (usize, usize) = (256, 136);
    const OFFSET: i16 = 128;
    const WIDE: bool = true;
    const SCALES: usize = 1;
    const MINS: usize = 0;

    fn pack(from: &[u8], _index: usize, row: usize, to: &mut [u8]) {
        put_half(from, row, to);
        let high = u16::from_le_bytes([from[2], from[3]]);
        for i in 0..8 {
            let low = from[4 + i / 2] >> (i % 2 * 4) & 0x0f;
            let scale = low | ((high >> (2 * i) & 3) << 4) as u8;
            to[GROUPS + LANES * i + row] = scale.wrapping_sub(32);
        }
        put_words(&from[8..136], row, &mut to[Self::QS..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let indices = nibbles(simd, unit.add(Self::QS + I * PLANE / 2));
            Block::symmetric(
                simd,
                looked_up(simd, &IQ4_TABLE, indices),
                [signed_scale(simd, unit, I); 2],
            )
        }
    }
}
