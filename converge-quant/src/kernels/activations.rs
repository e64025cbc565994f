//! Activations as the products take them.

use std::ops::Range;

use super::{
    matmul::fits,
    vector::{self, Activation},
};
use crate::{
    QuantError, Result,
    packed::{BLOCK, Packed},
    simd::{Kernel, LANES, Level, Simd, dispatch},
    threads::{Parts, Pool},
};

/// Numbers of a block of one token: eight words of four 8-bit integers, a word with the sums of the
/// two halves, the scales of the halves, the sum of what the integers stand for, and that of the
/// second half alone.
pub(crate) const WORDS: usize = 13;
pub(crate) const SUMS: usize = 8;
pub(crate) const SCALES: [usize; 2] = [9, 10];
pub(crate) const WHOLE: usize = 11;
pub(crate) const SECOND: usize = 12;

/// Numbers of a panel that a thread rounds at a time, at least: waking another takes as long as half
/// of them.
const SLICE: usize = 1024;

/// Blocks of a row that are rounded before those of the next row: what is made of them first stays in
/// the nearest cache.
const PIECE: usize = 16;

/// Rounding is to integers of at most this size.
const LARGEST: f32 = 127.0;

/// Rows of activations, prepared once for all matrices that take them: rounded to 8 bits with a
/// scale for each 16, in panels of as many tokens as a kernel works on at a time; or as they are,
/// for weights of plain numbers.
///
/// ```text
///   panel    block 0: [word 0 of each token][word 1 …] … [sums][scales][weighted sums]
///            block 1: …
/// ```
#[derive(Debug, Default)]
pub struct Activations {
    tokens: usize,
    cols: usize,
    /// Most tokens of a panel.
    width: usize,
    rounded: Vec<u32>,
    /// Whether `rounded` holds these rows, and not those of an earlier time.
    is_rounded: bool,
    plain: Vec<f32>,
}

impl Activations {
    /// No rows yet; room is made by the first [`set`](Self::set) and kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows that are held.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Elements of a row.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Takes over rows of `cols` numbers each, for products with `matrices`.
    ///
    /// # Errors
    /// [`QuantError::OperandLength`] where `rows` are no whole rows, or a matrix has other columns.
    pub fn set(
        &mut self,
        pool: &Pool,
        level: Level,
        rows: &[f32],
        cols: usize,
        matrices: &[&Packed],
    ) -> Result<()> {
        self.begin(level, rows.len(), cols, matrices)?;
        self.plain.clear();
        if matrices.iter().any(|matrix| matrix.is_float()) {
            self.plain.extend_from_slice(rows);
        }
        self.is_rounded = matrices.iter().any(|matrix| !matrix.is_float());
        if self.is_rounded {
            self.round(pool, level, &Plain(rows));
        }
        Ok(())
    }

    /// [`set`](Self::set) of the rows of `activation(gate) · up`, for products with `matrix`. `gate`
    /// is left as it may be.
    ///
    /// # Errors
    /// As [`set`](Self::set), and where `up` has another length than `gate`.
    pub fn set_gated(
        &mut self,
        pool: &Pool,
        level: Level,
        activation: Activation,
        gate: &mut [f32],
        up: &[f32],
        matrix: &Packed,
    ) -> Result<()> {
        let cols = matrix.cols();
        if matrix.is_float() {
            vector::gate(pool, level, activation, gate, up)?;
            return self.set(pool, level, gate, cols, &[matrix]);
        }
        fits("what the gate multiplies", gate.len(), up.len())?;
        self.begin(level, gate.len(), cols, &[matrix])?;
        self.plain.clear();
        self.is_rounded = true;
        let gate = Parts::new(gate);
        self.round(
            pool,
            level,
            &Gated {
                activation,
                gate,
                up,
            },
        );
        Ok(())
    }

    /// Takes over the shape of the next rows.
    fn begin(&mut self, level: Level, len: usize, cols: usize, matrices: &[&Packed]) -> Result<()> {
        if cols == 0 || !len.is_multiple_of(cols) {
            return Err(QuantError::OperandLength {
                operand: "activations",
                expected: len.next_multiple_of(cols.max(1)),
                found: len,
            });
        }
        for matrix in matrices {
            fits("columns of the weights", cols, matrix.cols())?;
        }
        self.tokens = len / cols;
        self.cols = cols;
        self.width = dispatch(level, Width);
        Ok(())
    }

    fn round<R: Rows>(&mut self, pool: &Pool, level: Level, rows: &R) {
        if self.tokens == 0 {
            return self.rounded.clear();
        }
        let blocks = self.blocks();
        // All of it is written below.
        self.rounded.resize(self.tokens * blocks * WORDS, 0);
        let parts = Parts::new(&mut self.rounded);
        let (tokens, width, cols) = (self.tokens, self.width, self.cols);
        let count = tokens.div_ceil(width.max(1));
        // A panel is one thread's; one panel alone is split by blocks.
        let slices = match count {
            1 => (tokens * cols / SLICE).clamp(1, blocks),
            _ => 1,
        };
        pool.run(count * slices, &|i| {
            let (panel, slice) = (panel(tokens, count, i / slices), i % slices);
            let range = slice * blocks / slices..(slice + 1) * blocks / slices;
            let n = panel.len();
            let at = (panel.start * blocks + range.start * n) * WORDS;
            // SAFETY: panels and slices of a panel do not overlap, and the buffer outlives the
            // region.
            let to = unsafe { parts.part(at, range.len() * n * WORDS) };
            dispatch(
                level,
                Round {
                    rows,
                    cols,
                    panel,
                    blocks: range,
                    to,
                },
            );
        });
    }

    fn blocks(&self) -> usize {
        // Whole units of every tile format.
        self.cols.next_multiple_of(8 * BLOCK) / BLOCK
    }

    /// Whether products at `level` can take them: panels are as wide as its kernels.
    pub(crate) fn is_rounded(&self, level: Level) -> bool {
        self.tokens == 0 || (self.is_rounded && self.width == dispatch(level, Width))
    }

    /// The plain rows, where a matrix asked for them.
    pub(crate) fn plain(&self) -> &[f32] {
        &self.plain
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.tokens.div_ceil(self.width.max(1))
    }

    /// Bytes of a panel, at most.
    pub(crate) fn panel_bytes(&self) -> usize {
        self.width * self.blocks() * WORDS * size_of::<u32>()
    }

    /// Tokens and words of panel `i`.
    pub(crate) fn panel(&self, i: usize) -> (Range<usize>, &[u32]) {
        let words = self.blocks() * WORDS;
        let panel = panel(self.tokens, self.panels(), i);
        let at = panel.start * words..panel.end * words;
        (panel, &self.rounded[at])
    }
}

/// Panel `i` of `count`: their sizes differ by one at most.
fn panel(tokens: usize, count: usize, i: usize) -> Range<usize> {
    i * tokens / count..(i + 1) * tokens / count
}

/// How many tokens a panel has at most.
struct Width;

impl Kernel for Width {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::TOKENS
    }
}

/// Rows of numbers to be rounded.
trait Rows: Sync {
    /// The numbers at places `at`, which are part of a row; must be `#[inline(always)]`.
    ///
    /// # Safety
    /// No place is asked for twice in a region, and what the rows are of is borrowed until it ends.
    unsafe fn piece<S: Simd>(&self, simd: S, at: Range<usize>) -> &[f32];
}

/// Numbers as they are.
struct Plain<'a>(&'a [f32]);

impl Rows for Plain<'_> {
    #[inline(always)]
    unsafe fn piece<S: Simd>(&self, _: S, at: Range<usize>) -> &[f32] {
        &self.0[at]
    }
}

/// `activation(gate) · up`, in place of `gate`.
struct Gated<'a> {
    activation: Activation,
    gate: Parts<f32>,
    up: &'a [f32],
}

impl Rows for Gated<'_> {
    #[inline(always)]
    unsafe fn piece<S: Simd>(&self, simd: S, at: Range<usize>) -> &[f32] {
        // SAFETY: by this function's contract no other part overlaps; `set_gated` borrows what they
        // are parts of until the region ends.
        let gate = unsafe { self.gate.part(at.start, at.len()) };
        vector::gate_piece(simd, self.activation, gate, &self.up[at]);
        gate
    }
}

/// Rounds some blocks of a panel's rows.
struct Round<'a, R> {
    rows: &'a R,
    cols: usize,
    panel: Range<usize>,
    blocks: Range<usize>,
    to: &'a mut [u32],
}

impl<R: Rows> Kernel for Round<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (n, cols) = (self.panel.len(), self.cols);
        let pieces = self.to.chunks_mut(PIECE * n * WORDS);
        for (first, to) in self.blocks.step_by(PIECE).zip(pieces) {
            let start = (first * BLOCK).min(cols);
            let end = (first * BLOCK + to.len() / (n * WORDS) * BLOCK).min(cols);
            for (i, token) in self.panel.clone().enumerate() {
                // SAFETY: slices and panels are one call's each, and pieces of them do not
                // overlap; who rounds them holds the rows until the region ends.
                let from = unsafe {
                    self.rows
                        .piece(simd, token * cols + start..token * cols + end)
                };
                // Weights that are rounded for have rows of whole blocks.
                let (whole, _) = from.as_chunks::<BLOCK>();
                for (block, to) in to.chunks_exact_mut(n * WORDS).enumerate() {
                    let numbers = whole.get(block).unwrap_or(&[0.0; BLOCK]);
                    for (j, word) in round_block(simd, numbers).into_iter().enumerate() {
                        to[j * n + i] = word;
                    }
                }
            }
        }
    }
}

/// The words of one block: the scale of each half is its largest absolute value over 127.
#[inline(always)]
fn round_block<S: Simd>(simd: S, numbers: &[f32; BLOCK]) -> [u32; WORDS] {
    let mut bytes = [0i8; BLOCK];
    // SAFETY: each half is sixteen numbers and bytes.
    let [(first_scale, first), (second_scale, second)] = unsafe {
        [
            round_half(simd, numbers.as_ptr(), bytes.as_mut_ptr()),
            round_half(
                simd,
                numbers.as_ptr().add(LANES),
                bytes.as_mut_ptr().add(LANES),
            ),
        ]
    };
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(bytes.map(i8::cast_unsigned));
    }
    words[SUMS] = (first as i32 as u32 & 0xffff) | (second as i32 as u32) << 16;
    words[SCALES[0]] = first_scale.to_bits();
    words[SCALES[1]] = second_scale.to_bits();
    let (first, second) = (first_scale * first, second_scale * second);
    words[WHOLE] = (first + second).to_bits();
    words[SECOND] = second.to_bits();
    words
}

/// Rounds sixteen numbers to integers, and gives their scale and the integers' sum.
///
/// # Safety
/// `from` points to sixteen numbers, `to` to sixteen bytes.
#[inline(always)]
unsafe fn round_half<S: Simd>(simd: S, from: *const f32, to: *mut i8) -> (f32, f32) {
    // SAFETY: by this function's contract.
    let numbers = unsafe { simd.load(from) };
    let scale = simd.largest(simd.abs(numbers)) / LARGEST;
    // 0 for zeros, and for numbers so small that the inverse overflows.
    let inverse = if scale > f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    };
    let integers = simd.round(simd.mul(numbers, simd.splat(inverse)));
    let integers = simd.min(integers, simd.splat(LARGEST));
    let integers = simd.max(integers, simd.splat(-LARGEST));
    // SAFETY: by this function's contract; the numbers are at most 127.
    unsafe { simd.store_i8(integers, to) };
    // Sums of so few small integers are exact.
    (scale, simd.sum(integers))
}
