//! What a block of sixteen rows is to a kernel.

use std::marker::PhantomData;

use super::ROWS;
use crate::simd::{Kernel, LANES, Level, Simd, dispatch};

/// Eight values of an expression of `j`. A closure might not be inlined, and then not be compiled for
/// the instruction set.
macro_rules! eight {
    ($j:ident => $value:expr) => {
        eight!($j => $value; 0 1 2 3 4 5 6 7)
    };
    ($j:ident => $value:expr; $($i:literal)*) => {
        [$({
            const $j: usize = $i;
            $value
        }),*]
    };
}
pub(super) use eight;

/// Bytes of a vector of weights.
pub(crate) const VECTOR: usize = 4 * LANES;

/// 32 elements of sixteen rows, unpacked.
#[derive(Clone, Copy)]
pub(crate) struct Block<S: Simd> {
    /// Elements `4j..4j + 4` of all rows in vector `j`, without a sign.
    pub(crate) weights: [S::B; 8],
    /// The scales of 32 elements in the first, or of 16 elements each.
    pub(crate) scales: [S::F; 2],
    /// What is added to each of 32 elements, and what to each of the last 16 beside.
    pub(crate) mins: [S::F; 2],
}

impl<S: Simd> Block<S> {
    /// A block of a type without minima.
    #[inline(always)]
    pub(super) fn symmetric(simd: S, weights: [S::B; 8], scales: [S::F; 2]) -> Self {
        Self {
            weights,
            scales,
            mins: [simd.splat(0.0); 2],
        }
    }
}

/// How a type's blocks lie in a tile.
pub(crate) trait TileFormat {
    /// Blocks of 32 elements in a unit.
    const BLOCKS: usize;
    /// Bytes that a unit of sixteen rows takes: a multiple of 64.
    const BYTES: usize;
    /// Elements of a block in the file, and its bytes.
    const FILE_BLOCK: (usize, usize);
    /// What stored weights are larger by than those meant.
    const OFFSET: i16;
    /// Whether stored weights may exceed 127.
    const WIDE: bool;
    /// Scales of 32 elements: 1 or 2.
    const SCALES: usize;
    /// Minima of 32 elements: 0, 1 or 2.
    const MINS: usize;

    /// Puts block `index` of a unit, as the file has it, into row `row` of the tile's unit.
    fn pack(from: &[u8], index: usize, row: usize, to: &mut [u8]);

    /// Unpacks block `I` of a unit.
    ///
    /// # Safety
    /// `unit` points to `BYTES` bytes.
    unsafe fn block<S: Simd, const I: usize>(simd: S, unit: *const u8) -> Block<S>;
}

/// Something to do with a tile format.
pub(crate) trait Visitor {
    /// What it gives.
    type Output;

    /// Does it.
    fn visit<T: TileFormat>(self) -> Self::Output;
}

/// Packs a row of whole blocks into a tile.
pub(super) fn pack_row<T: TileFormat>(from: &[u8], row: usize, to: &mut [u8]) {
    let (elements, bytes) = T::FILE_BLOCK;
    let in_unit = T::BLOCKS * super::BLOCK / elements;
    let units = from.chunks(in_unit * bytes);
    for (from, to) in units.zip(to.chunks_exact_mut(T::BYTES)) {
        for (index, from) in from.chunks_exact(bytes).enumerate() {
            T::pack(from, index, row, to);
        }
    }
}

/// Puts the four-byte words of `from` into row `row` of consecutive vectors of `to`.
#[inline(always)]
pub(super) fn put_words(from: &[u8], row: usize, to: &mut [u8]) {
    let vectors = to.as_chunks_mut::<VECTOR>().0.iter_mut();
    for (word, vector) in from.as_chunks::<4>().0.iter().zip(vectors) {
        vector[4 * row..4 * row + 4].copy_from_slice(word);
    }
}

/// Puts a number of `N` bytes at place `row` of a vector of sixteen.
#[inline(always)]
pub(super) fn put<const N: usize>(number: [u8; N], row: usize, to: &mut [u8]) {
    if let Some(place) = to.as_chunks_mut::<N>().0.get_mut(row) {
        *place = number;
    }
}

/// Decodes one row of a tile.
pub(super) struct DecodeRow<'a> {
    pub(super) level: Level,
    pub(super) tile: &'a [u8],
    pub(super) row: usize,
    pub(super) out: &'a mut [f32],
}

impl Visitor for DecodeRow<'_> {
    type Output = ();

    fn visit<T: TileFormat>(self) {
        dispatch(self.level, DecodeRowOf::<T>(self, PhantomData));
    }
}

/// The same for a known type.
struct DecodeRowOf<'a, T>(DecodeRow<'a>, PhantomData<T>);

impl<T: TileFormat> Kernel for DecodeRowOf<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for (i, unit) in self.0.tile.chunks_exact(T::BYTES).enumerate() {
            macro_rules! step {
                ($($j:literal)*) => {$(
                    if $j < T::BLOCKS {
                        // SAFETY: `unit` is a whole one.
                        let block = unsafe { T::block::<S, $j>(simd, unit.as_ptr()) };
                        self.put(simd, i * T::BLOCKS + $j, &block);
                    }
                )*};
            }
            step!(0 1 2 3 4 5 6 7);
        }
    }
}

impl<T: TileFormat> DecodeRowOf<'_, T> {
    /// Writes the row's elements of block `index`, if it has them.
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, index: usize, block: &Block<S>) {
        let row = self.0.row;
        let at = index * super::BLOCK;
        let Some(out) = self.0.out.get_mut(at..at + super::BLOCK) else {
            return;
        };
        let mut weights = [[0; VECTOR]; 8];
        let mut floats = [[0.0; LANES]; 4];
        // SAFETY: each place has the bytes of a vector, or sixteen numbers.
        unsafe {
            for (to, vector) in weights.iter_mut().zip(block.weights) {
                simd.store_bytes(vector, to.as_mut_ptr());
            }
            for (to, vector) in floats
                .iter_mut()
                .zip(block.scales.into_iter().chain(block.mins))
            {
                simd.store(vector, to.as_mut_ptr());
            }
        }
        let [scales @ .., min, second_min] = floats.map(|lanes| lanes[row]);
        for (i, out) in out.iter_mut().enumerate() {
            let half = i / LANES;
            let scale = scales[if T::SCALES == 2 { half } else { 0 }];
            let minimum = match (T::MINS, half) {
                (0, _) => 0.0,
                (2, 1) => min + second_min,
                _ => min,
            };
            let weight = weights[i / 4][4 * row + i % 4];
            *out = scale * (f32::from(weight) - f32::from(T::OFFSET)) + minimum;
        }
    }
}

const _: () = assert!(ROWS == LANES);
