//! Products of packed weights with activations. A tile of sixteen rows goes by a panel of tokens, block by
//! block, and weights are asked for from memory [ahead](super::ahead) of their use.

use std::{marker::PhantomData, ops::Range};

use super::{
    activations::{Activations, SCALES, SECOND, SUMS, WHOLE, WORDS},
    ahead, float, vector,
};
use crate::{
    QuantError, Result,
    packed::{Block, Packed, ROWS, TileFormat, Visitor, visit},
    simd::{Kernel, LANES, Level, Simd, dispatch},
    threads::{Parts, Pool},
};

/// Bytes of tiles that a thread takes at a time, about: small enough to balance. The next ones it takes
/// follow them in memory.
const CHUNK: usize = 32 * 1024;

/// Bytes of activations that tiles go by in turn: half of 1 MB, a common second-level cache.
const TURN: usize = 512 * 1024;

/// `out[token][row] = Σ weights[row][i] · activations[token][i]`; `out` is row-major, one row of
/// `weights.rows()` numbers for each token.
///
/// # Errors
/// [`QuantError::OperandLength`] where shapes do not fit or `activations` were not
/// [set](Activations::set) for such weights and this level.
pub fn matmul(
    pool: &Pool,
    level: Level,
    weights: &Packed,
    activations: &Activations,
    out: &mut [f32],
) -> Result<()> {
    matmul_together(pool, level, activations, [(weights, out)])
}

/// [`matmul`] of several matrices with the same activations: threads wait for each other once, not
/// after each.
///
/// # Errors
/// As [`matmul`], before anything is written.
pub fn matmul_together<const N: usize>(
    pool: &Pool,
    level: Level,
    activations: &Activations,
    products: [(&Packed, &mut [f32]); N],
) -> Result<()> {
    run(pool, level, activations, Then::Put, products)
}

/// [`matmul`] whose outputs are added to what is there: `x = x + scale · product`, as
/// [`add_scaled`](super::add_scaled) does it.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_add(
    pool: &Pool,
    level: Level,
    weights: &Packed,
    activations: &Activations,
    x: &mut [f32],
    scale: f32,
) -> Result<()> {
    run(pool, level, activations, Then::Add(scale), [(weights, x)])
}

fn run<const N: usize>(
    pool: &Pool,
    level: Level,
    activations: &Activations,
    then: Then,
    products: [(&Packed, &mut [f32]); N],
) -> Result<()> {
    for (weights, out) in &products {
        check(level, weights, activations, out)?;
    }
    if activations.tokens() == 0 {
        return Ok(());
    }
    let products = products.map(|(weights, out)| (Cut::new(weights, activations), Parts::new(out)));
    let count = products.iter().map(|(cut, _)| cut.len).sum();
    pool.run(count, &|mut i| {
        for (cut, out) in &products {
            if i < cut.len {
                return cut.part(i, then, out).run(level);
            }
            i -= cut.len;
        }
    });
    Ok(())
}

/// What becomes of an output.
#[derive(Clone, Copy)]
enum Then {
    Put,
    /// Times this, it is added to what is there.
    Add(f32),
}

/// [`matmul`] for some rows only, given as ranges of tiles of [`Packed::TILE`] rows in ascending order.
/// The other outputs stay what they are. For few tokens: all of them go by each tile at once.
///
/// # Errors
/// As [`matmul`]; [`QuantError::OperandLength`] where ranges are not ascending or go past the end.
pub fn matmul_tiles(
    pool: &Pool,
    level: Level,
    weights: &Packed,
    ranges: &[Range<usize>],
    activations: &Activations,
    out: &mut [f32],
) -> Result<()> {
    check(level, weights, activations, out)?;
    // No tile twice: each is one thread's.
    let mut end = 0;
    for range in ranges {
        if range.start < end || range.end < range.start || range.end > weights.tiles() {
            return Err(QuantError::OperandLength {
                operand: "tiles, in ascending order,",
                expected: weights.tiles(),
                found: range.end,
            });
        }
        end = range.end;
    }
    if out.is_empty() {
        return Ok(());
    }
    let chunk = chunk(weights);
    let cut = |range: &Range<usize>| {
        let (start, end) = (range.start, range.end);
        (start..end)
            .step_by(chunk)
            .map(move |from| from..(from + chunk).min(end))
    };
    let chunks: Vec<_> = ranges.iter().flat_map(cut).collect();
    let out = Parts::new(out);
    pool.run(chunks.len(), &|i| {
        let work = Tiles {
            weights,
            activations,
            tiles: chunks[i].clone(),
            panels: 0..activations.panels(),
            then: Then::Put,
            out: &out,
        };
        work.run(level);
    });
    Ok(())
}

/// A product cut into parts: some panels with all tiles, then the next ones, so that a thread's
/// activations stay in its cache as tiles go by. Weights of plain numbers take all tokens at once.
struct Cut<'a> {
    weights: &'a Packed,
    activations: &'a Activations,
    /// Tiles of a part.
    tiles: usize,
    /// Panels of a part.
    panels: usize,
    /// Parts of the same panels.
    chunks: usize,
    /// Number of parts.
    len: usize,
}

impl<'a> Cut<'a> {
    fn new(weights: &'a Packed, activations: &'a Activations) -> Self {
        let all = activations.panels();
        let panels = match weights.is_float() {
            true => all,
            false => TURN / activations.panel_bytes().max(1),
        };
        let (tiles, panels) = (chunk(weights), panels.max(1));
        let chunks = weights.tiles().div_ceil(tiles);
        Self {
            weights,
            activations,
            tiles,
            panels,
            chunks,
            len: chunks * all.div_ceil(panels),
        }
    }

    fn part(&self, i: usize, then: Then, out: &'a Parts<f32>) -> Tiles<'a> {
        let (turn, chunk) = (i / self.chunks, i % self.chunks);
        let upto = |i: usize, len: usize, most: usize| i * len..((i + 1) * len).min(most);
        Tiles {
            weights: self.weights,
            activations: self.activations,
            tiles: upto(chunk, self.tiles, self.weights.tiles()),
            panels: upto(turn, self.panels, self.activations.panels()),
            then,
            out,
        }
    }
}

/// Refuses shapes that do not fit.
fn check(level: Level, weights: &Packed, activations: &Activations, out: &[f32]) -> Result<()> {
    let (rows, tokens) = (weights.rows(), activations.tokens());
    fits("columns of the weights", activations.cols(), weights.cols())?;
    fits("outputs", tokens.saturating_mul(rows), out.len())?;
    let ready = match weights.is_float() {
        true => activations.plain().len() == tokens * weights.cols(),
        false => activations.is_rounded(level),
    };
    match ready {
        true => Ok(()),
        false => Err(QuantError::OperandLength {
            operand: "activations prepared for such weights and this level",
            expected: tokens.saturating_mul(weights.cols()),
            found: 0,
        }),
    }
}

/// Tiles that a thread takes at a time.
fn chunk(weights: &Packed) -> usize {
    let tile_bytes = weights.bytes() / weights.tiles().max(1);
    (CHUNK / tile_bytes.max(1)).max(1)
}

pub(super) fn fits(operand: &'static str, expected: usize, found: usize) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(QuantError::OperandLength {
            operand,
            expected,
            found,
        }),
    }
}

/// Some tiles of a product.
pub(super) struct Tiles<'a> {
    pub(super) weights: &'a Packed,
    pub(super) activations: &'a Activations,
    pub(super) tiles: Range<usize>,
    /// Panels of rounded activations.
    panels: Range<usize>,
    then: Then,
    /// `tokens × rows`.
    pub(super) out: &'a Parts<f32>,
}

impl Tiles<'_> {
    /// Writes the outputs of a tile for one token, or adds them.
    #[inline(always)]
    pub(super) fn put<S: Simd>(&self, simd: S, tile: usize, token: usize, sums: S::F) {
        let rows = self.weights.rows();
        let first = tile * ROWS;
        let len = ROWS.min(rows - first);
        // SAFETY: each tile and token is one thread's, and who runs the region holds `out` until it
        // ends.
        let out = unsafe { self.out.part(token * rows + first, len) };
        let sums = match self.then {
            Then::Put => sums,
            Then::Add(scale) => simd.fma(sums, simd.splat(scale), vector::load(simd, out, 0)),
        };
        if len == ROWS {
            // SAFETY: sixteen numbers are there.
            unsafe { simd.store(sums, out.as_mut_ptr()) };
        } else {
            let mut all = [0.0; ROWS];
            // SAFETY: as above.
            unsafe { simd.store(sums, all.as_mut_ptr()) };
            out.copy_from_slice(&all[..len]);
        }
    }
}

impl Tiles<'_> {
    fn run(&self, level: Level) {
        if self.weights.is_float() {
            dispatch(level, float::Products(self));
        } else {
            visit(self.weights.ggml_type(), Rounded { level, work: self });
        }
    }
}

/// Products with rounded activations.
struct Rounded<'a> {
    level: Level,
    work: &'a Tiles<'a>,
}

impl Visitor for Rounded<'_> {
    type Output = ();

    fn visit<T: TileFormat>(self) {
        let Self { level, work } = self;
        for tile in work.tiles.clone() {
            dispatch(level, Product::<T>::new(work, tile));
        }
    }
}

/// One tile with some panels.
struct Product<'a, T> {
    work: &'a Tiles<'a>,
    tile: usize,
    format: PhantomData<T>,
}

impl<'a, T> Product<'a, T> {
    fn new(work: &'a Tiles<'a>, tile: usize) -> Self {
        Self {
            work,
            tile,
            format: PhantomData,
        }
    }
}

impl<T: TileFormat> Kernel for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { work, tile, .. } = self;
        let bytes = work.weights.tile(tile);
        for i in work.panels.clone() {
            let (tokens, panel) = work.activations.panel(i);
            // The first panel brings the tile into the caches for the others.
            let way = match i == work.panels.start {
                true => ahead::way(),
                false => ahead::NONE,
            };
            macro_rules! with {
                ($($n:literal)*) => {
                    match tokens.len() {
                        $($n if $n <= S::TOKENS => {
                            let sums = match way {
                                ahead::NONE => {
                                    tile_panel::<S, T, $n, { ahead::NONE }>(simd, bytes, panel)
                                }
                                ahead::INSTEAD => {
                                    tile_panel::<S, T, $n, { ahead::INSTEAD }>(simd, bytes, panel)
                                }
                                _ => tile_panel::<S, T, $n, { ahead::BESIDE }>(simd, bytes, panel),
                            };
                            for (token, sums) in tokens.zip(sums) {
                                work.put(simd, tile, token, sums);
                            }
                        })*
                        _ => debug_assert!(tokens.is_empty()),
                    }
                };
            }
            with!(1 2 3 4 5 6 7 8);
        }
    }
}

/// The products of a tile with a panel of `N` tokens; `WAY` is that of asking for weights [`ahead`].
#[inline(always)]
fn tile_panel<S: Simd, T: TileFormat, const N: usize, const WAY: u8>(
    simd: S,
    tile: &[u8],
    panel: &[u32],
) -> [S::F; N] {
    let units = tile.len() / T::BYTES;
    assert!(panel.len() >= units * T::BLOCKS * N * WORDS);
    let mut sums = [simd.splat(0.0); N];
    let (mut unit, mut words) = (tile.as_ptr(), panel.as_ptr());
    for _ in 0..units {
        // SAFETY: `unit` points to a whole unit, `words` to as many blocks of the panel: checked
        // above for all units.
        unsafe {
            macro_rules! step {
                ($($i:literal)*) => {$(
                    if $i < T::BLOCKS {
                        ahead::ask::<S, T, N, WAY>(simd, unit, $i);
                        let unit = apart(unit);
                        let block = T::block::<S, $i>(simd, unit);
                        add_block::<S, T, N>(simd, &block, words.add($i * N * WORDS), &mut sums);
                    }
                )*};
            }
            step!(0 1 2 3 4 5 6 7);
            unit = unit.add(T::BYTES);
            words = words.add(T::BLOCKS * N * WORDS);
        }
    }
    sums
}

/// Keeps the compiler from unpacking several blocks at once, which takes more registers than there are.
#[inline(always)]
fn apart(unit: *const u8) -> *const u8 {
    std::hint::black_box(unit)
}

/// Adds the products of a block with each of `N` tokens.
///
/// # Safety
/// `words` points to the block's `N · WORDS` words.
#[inline(always)]
unsafe fn add_block<S: Simd, T: TileFormat, const N: usize>(
    simd: S,
    block: &Block<S>,
    words: *const u32,
    sums: &mut [S::F; N],
) {
    let minus = -i32::from(T::OFFSET);
    for (token, sum) in sums.iter_mut().enumerate() {
        // SAFETY: every index below is below `N · WORDS`.
        unsafe {
            let words = words.add(token);
            let halves = word::<N>(words, SUMS).cast_signed();
            let first = start::<S, T>(simd, halves, minus & 0xffff);
            let first = quads::<S, T, N>(simd, first, block, words, 0);
            let second = start::<S, T>(simd, halves, minus << 16);
            let second = quads::<S, T, N>(simd, second, block, words, 4);
            let first = simd.mul(simd.to_f32(first), number::<S, N>(simd, words, SCALES[0]));
            let scale = number::<S, N>(simd, words, SCALES[1]);
            if T::SCALES == 1 {
                let part = simd.fma(simd.to_f32(second), scale, first);
                *sum = simd.fma(part, block.scales[0], *sum);
            } else {
                *sum = simd.fma(first, block.scales[0], *sum);
                let second = simd.mul(simd.to_f32(second), scale);
                *sum = simd.fma(second, block.scales[1], *sum);
            }
            if T::MINS > 0 {
                let whole = number::<S, N>(simd, words, WHOLE);
                *sum = simd.fma(block.mins[0], whole, *sum);
            }
            if T::MINS > 1 {
                let second = number::<S, N>(simd, words, SECOND);
                *sum = simd.fma(block.mins[1], second, *sum);
            }
        }
    }
}

/// A number of the token that `words` points to, in all lanes.
///
/// # Safety
/// There are so many words.
#[inline(always)]
unsafe fn number<S: Simd, const N: usize>(simd: S, words: *const u32, i: usize) -> S::F {
    // SAFETY: by this function's contract.
    simd.splat(f32::from_bits(unsafe { word::<N>(words, i) }))
}

/// Word `i` of the token that `words` points to.
///
/// # Safety
/// There are so many words.
#[inline(always)]
unsafe fn word<const N: usize>(words: *const u32, i: usize) -> u32 {
    // SAFETY: by this function's contract.
    unsafe { *words.add(i * N) }
}

/// Minus the offset of the weights, times the sums of the halves of the activations.
#[inline(always)]
fn start<S: Simd, T: TileFormat>(simd: S, halves: i32, minus: i32) -> S::I {
    match T::OFFSET {
        0 => simd.ints(0),
        _ => simd.dot2(simd.ints(0), simd.ints(minus), halves),
    }
}

/// Adds the products of sixteen elements from vector `from` on.
///
/// # Safety
/// `words` points to the token's words of the block.
#[inline(always)]
unsafe fn quads<S: Simd, T: TileFormat, const N: usize>(
    simd: S,
    mut dot: S::I,
    block: &Block<S>,
    words: *const u32,
    from: usize,
) -> S::I {
    let mut j = from;
    while j < from + 4 {
        // SAFETY: by this function's contract.
        let activations = unsafe { word::<N>(words, j) }.cast_signed();
        dot = if T::WIDE {
            simd.dot4::<true>(dot, block.weights[j], activations)
        } else {
            simd.dot4::<false>(dot, block.weights[j], activations)
        };
        j += 1;
    }
    dot
}

const _: () = assert!(ROWS == LANES);
