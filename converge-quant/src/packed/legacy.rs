//! Tiles of the types with blocks of 32 elements. A unit is two blocks, their scales in front.

use super::{
    Block, TileFormat,
    tile::{VECTOR, eight, put, put_words},
};
use crate::{
    format::{iq4_nl, mxfp4},
    simd::Simd,
};

/// Sixteen halves.
const HALVES: usize = VECTOR / 2;
/// Four bits of 32 elements of sixteen rows.
const NIBBLES: usize = 4 * VECTOR;

/// Low halves of bytes are elements 0 to 15, high halves 16 to 31.
///
/// # Safety
/// `from` points to four vectors.
#[inline(always)]
pub(super) unsafe fn nibbles<S: Simd>(simd: S, from: *const u8) -> [S::B; 8] {
    let low = simd.bytes(0x0f);
    // SAFETY: four vectors are there.
    let (a, b, c, d) = unsafe {
        (
            simd.load_bytes(from),
            simd.load_bytes(from.add(VECTOR)),
            simd.load_bytes(from.add(2 * VECTOR)),
            simd.load_bytes(from.add(3 * VECTOR)),
        )
    };
    [
        simd.and(a, low),
        simd.and(b, low),
        simd.and(c, low),
        simd.and(d, low),
        simd.and(simd.shift_right::<4>(a), low),
        simd.and(simd.shift_right::<4>(b), low),
        simd.and(simd.shift_right::<4>(c), low),
        simd.and(simd.shift_right::<4>(d), low),
    ]
}

/// The table's entries.
#[inline(always)]
pub(super) fn looked_up<S: Simd>(simd: S, table: &[u8; 16], indices: [S::B; 8]) -> [S::B; 8] {
    eight!(J => simd.look_up(table, indices[J]))
}

/// Adds a fifth bit: bit `j` of a byte belongs to vector `j`.
///
/// # Safety
/// `from` points to a vector.
#[inline(always)]
unsafe fn fifth_bits<S: Simd>(simd: S, weights: [S::B; 8], from: *const u8) -> [S::B; 8] {
    let bit = simd.bytes(0x10);
    // SAFETY: by this function's contract.
    let all = unsafe { simd.load_bytes(from) };
    let moved = [
        simd.shift_left::<4>(all),
        simd.shift_left::<3>(all),
        simd.shift_left::<2>(all),
        simd.shift_left::<1>(all),
        all,
        simd.shift_right::<1>(all),
        simd.shift_right::<2>(all),
        simd.shift_right::<3>(all),
    ];
    eight!(J => simd.or(weights[J], simd.and(moved[J], bit)))
}

/// The file's bit `4j + k` becomes bit `j` of byte `k`.
fn transposed_bits(bits: [u8; 4]) -> [u8; 4] {
    let bits = u32::from_le_bytes(bits);
    std::array::from_fn(|k| (0..8).fold(0, |byte, j| byte | ((bits >> (4 * j + k) & 1) as u8) << j))
}

/// A half-precision scale for each block.
///
/// # Safety
/// `unit` points to the halves of `I + 1` blocks.
#[inline(always)]
unsafe fn scales<S: Simd>(simd: S, unit: *const u8, index: usize) -> [S::F; 2] {
    // SAFETY: by this function's contract.
    [unsafe { simd.load_f16(unit.add(index * HALVES).cast()) }; 2]
}

/// The parts of a unit of two blocks: `halves` sixteen-fold numbers of half precision for each,
/// then for each `bits` vectors of single bits, then its nibbles or bytes.
struct Parts {
    head: usize,
    block: usize,
}

impl Parts {
    const fn new(halves: usize, vectors: usize) -> Self {
        Self {
            head: 2 * halves * HALVES,
            block: vectors * VECTOR,
        }
    }

    const fn bytes(&self) -> usize {
        self.head + 2 * self.block
    }

    /// Where block `index` begins.
    const fn at(&self, index: usize) -> usize {
        self.head + index * self.block
    }
}

/// Puts a half into row `row` of the `index`-th sixteen.
fn put_half(number: &[u8], index: usize, row: usize, to: &mut [u8]) {
    put([number[0], number[1]], row, &mut to[index * HALVES..]);
}

macro_rules! symmetric_nibbles {
    ($(#[$doc:meta])* $name:ident, $offset:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl $name {
            const PARTS: Parts = Parts::new(1, 4);
        }

        impl TileFormat for $name {
            const BLOCKS: usize = 2;
            const BYTES: usize = Self::PARTS.bytes();
            const FILE_BLOCK: (usize, usize) = (32, 18);
            const OFFSET: i16 = $offset;
            const WIDE: bool = $offset == 128;
            const SCALES: usize = 1;
            const MINS: usize = 0;

            fn pack(from: &[u8], index: usize, row: usize, to: &mut [u8]) {
                put_half(from, index, row, to);
                put_words(&from[2..], row, &mut to[Self::PARTS.at(index)..]);
            }

            #[inline(always)]
            unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
                // SAFETY: the parts lie in the unit.
                unsafe {
                    Block::symmetric(simd, Self::weights(simd, unit.add(Self::PARTS.at(I))), scales(simd, unit, I))
                }
            }
        }
    };
}

symmetric_nibbles! {
    /// 4 bits, 8 means 0.
    Q4_0, 8
}

impl Q4_0 {
    #[inline(always)]
    unsafe fn weights<S: Simd>(simd: S, from: *const u8) -> [S::B; 8] {
        // SAFETY: the caller's.
        unsafe { nibbles(simd, from) }
    }
}

symmetric_nibbles! {
    /// 4 bits that point into a table; its values are stored larger by 128.
    Iq4Nl, 128
}

/// IQ4_NL's values, larger by 128.
pub(super) const IQ4_TABLE: [u8; 16] = raised(iq4_nl::VALUES, 128);

impl Iq4Nl {
    #[inline(always)]
    unsafe fn weights<S: Simd>(simd: S, from: *const u8) -> [S::B; 8] {
        // SAFETY: the caller's.
        looked_up(simd, &IQ4_TABLE, unsafe { nibbles(simd, from) })
    }
}

const fn raised(values: [i8; 16], by: i16) -> [u8; 16] {
    let mut out = [0; 16];
    let mut i = 0;
    while i < 16 {
        out[i] = (values[i] as i16 + by) as u8;
        i += 1;
    }
    out
}

/// 4 bits, a scale and a minimum.
pub(super) struct Q4_1;

impl Q4_1 {
    const PARTS: Parts = Parts::new(2, 4);
}

impl TileFormat for Q4_1 {
    const BLOCKS: usize = 2;
    const BYTES: usize = Self::PARTS.bytes();
    const FILE_BLOCK: (usize, usize) = (32, 20);
    const OFFSET: i16 = 0;
    const WIDE: bool = false;
    const SCALES: usize = 1;
    const MINS: usize = 1;

    fn pack(from: &[u8], index: usize, row: usize, to: &mut [u8]) {
        put_half(from, index, row, to);
        put_half(&from[2..], 2 + index, row, to);
        put_words(&from[4..], row, &mut to[Self::PARTS.at(index)..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            Block {
                weights: nibbles(simd, unit.add(Self::PARTS.at(I))),
                scales: scales(simd, unit, I),
                // The file's minimum is added.
                mins: scales(simd, unit, 2 + I),
            }
        }
    }
}

/// 5 bits, 16 means 0.
pub(super) struct Q5_0;

impl Q5_0 {
    const PARTS: Parts = Parts::new(1, 5);
}

impl TileFormat for Q5_0 {
    const BLOCKS: usize = 2;
    const BYTES: usize = Self::PARTS.bytes();
    const FILE_BLOCK: (usize, usize) = (32, 22);
    const OFFSET: i16 = 16;
    const WIDE: bool = false;
    const SCALES: usize = 1;
    const MINS: usize = 0;

    fn pack(from: &[u8], index: usize, row: usize, to: &mut [u8]) {
        put_half(from, index, row, to);
        let to = &mut to[Self::PARTS.at(index)..];
        put_words(&from[6..], row, to);
        put_words(&bits_of(&from[2..]), row, &mut to[NIBBLES..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let from = unit.add(Self::PARTS.at(I));
            Block::symmetric(
                simd,
                fifth_bits(simd, nibbles(simd, from), from.add(NIBBLES)),
                scales(simd, unit, I),
            )
        }
    }
}

fn bits_of(from: &[u8]) -> [u8; 4] {
    transposed_bits([from[0], from[1], from[2], from[3]])
}

/// 5 bits, a scale and a minimum.
pub(super) struct Q5_1;

impl Q5_1 {
    const PARTS: Parts = Parts::new(2, 5);
}

impl TileFormat for Q5_1 {
    const BLOCKS: usize = 2;
    const BYTES: usize = Self::PARTS.bytes();
    const FILE_BLOCK: (usize, usize) = (32, 24);
    const OFFSET: i16 = 0;
    const WIDE: bool = false;
    const SCALES: usize = 1;
    const MINS: usize = 1;

    fn pack(from: &[u8], index: usize, row: usize, to: &mut [u8]) {
        put_half(from, index, row, to);
        put_half(&from[2..], 2 + index, row, to);
        let to = &mut to[Self::PARTS.at(index)..];
        put_words(&from[8..], row, to);
        put_words(&bits_of(&from[4..]), row, &mut to[NIBBLES..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let from = unit.add(Self::PARTS.at(I));
            Block {
                weights: fifth_bits(simd, nibbles(simd, from), from.add(NIBBLES)),
                scales: scales(simd, unit, I),
                mins: scales(simd, unit, 2 + I),
            }
        }
    }
}

/// 8 bits with a sign, stored larger by 128.
pub(super) struct Q8_0;

impl Q8_0 {
    const PARTS: Parts = Parts::new(1, 8);
}

impl TileFormat for Q8_0 {
    const BLOCKS: usize = 2;
    const BYTES: usize = Self::PARTS.bytes();
    const FILE_BLOCK: (usize, usize) = (32, 34);
    const OFFSET: i16 = 128;
    const WIDE: bool = true;
    const SCALES: usize = 1;
    const MINS: usize = 0;

    fn pack(from: &[u8], index: usize, row: usize, to: &mut [u8]) {
        put_half(from, index, row, to);
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(&from[2..]) {
            *to = from ^ 0x80;
        }
        put_words(&bytes, row, &mut to[Self::PARTS.at(index)..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let from = unit.add(Self::PARTS.at(I));
            Block::symmetric(
                simd,
                eight!(J => simd.load_bytes(from.add(J * VECTOR))),
                scales(simd, unit, I),
            )
        }
    }
}

/// 4-bit floats as integers, larger by 12, and a power of two for each four blocks' worth of rows.
pub(super) struct Mxfp4;

/// MXFP4's doubled values, larger by 12.
const MXFP4_TABLE: [u8; 16] = raised(mxfp4::DOUBLED_VALUES, 12);

impl TileFormat for Mxfp4 {
    const BLOCKS: usize = 4;
    const BYTES: usize = VECTOR + 4 * NIBBLES;
    const FILE_BLOCK: (usize, usize) = (32, 17);
    const OFFSET: i16 = 12;
    const WIDE: bool = false;
    const SCALES: usize = 1;
    const MINS: usize = 0;

    fn pack(from: &[u8], index: usize, row: usize, to: &mut [u8]) {
        put([from[0]], row, &mut to[16 * index..]);
        put_words(&from[1..], row, &mut to[VECTOR + index * NIBBLES..]);
    }

    #[inline(always)]
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S> {
        // SAFETY: the parts lie in the unit.
        unsafe {
            let indices = nibbles(simd, unit.add(VECTOR + I * NIBBLES));
            let exponents = simd.to_f32(simd.load_u8(unit.add(16 * I)));
            Block::symmetric(
                simd,
                looked_up(simd, &MXFP4_TABLE, indices),
                [half_scale(simd, exponents); 2],
            )
        }
    }
}

/// `2^(e − 128)` for `e` from 0 to 255: in two factors, as the ends of the range need.
#[inline(always)]
fn half_scale<S: Simd>(simd: S, e: S::F) -> S::F {
    let first = simd.max(e, simd.splat(4.0));
    let first = simd.sub(first, simd.splat(128.0));
    let rest = simd.sub(simd.min(e, simd.splat(4.0)), simd.splat(4.0));
    simd.mul(simd.power_of_two(first), simd.power_of_two(rest))
}
