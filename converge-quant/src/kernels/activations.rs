//! Activations as the products take them.

use std::ops::Range;

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
        if cols == 0 || !rows.len().is_multiple_of(cols) {
            return Err(QuantError::OperandLength {
                operand: "activations",
                expected: rows.len().next_multiple_of(cols.max(1)),
                found: rows.len(),
            });
        }
        for matrix in matrices {
            super::matmul::fits("columns of the weights", cols, matrix.cols())?;
        }
        self.tokens = rows.len() / cols;
        self.cols = cols;
        self.width = dispatch(level, Width);
        self.plain.clear();
        if matrices.iter().any(|matrix| matrix.is_float()) {
            self.plain.extend_from_slice(rows);
        }
        self.is_rounded = matrices.iter().any(|matrix| !matrix.is_float());
        if self.is_rounded {
            self.round(pool, level, rows);
        }
        Ok(())
    }

    fn round(&mut self, pool: &Pool, level: Level, rows: &[f32]) {
        let blocks = self.blocks();
        // All of it is written below.
        self.rounded.resize(self.tokens * blocks * WORDS, 0);
        let parts = Parts::new(&mut self.rounded);
        let (tokens, width, cols) = (self.tokens, self.width, self.cols);
        let count = tokens.div_ceil(width.max(1));
        // A panel is one thread's; one panel alone is split by blocks.
        let slices = if count == 1 { blocks.div_ceil(64) } else { 1 };
        pool.run(count * slices, &|i| {
            let (panel, slice) = (panel(tokens, count, i / slices), i % slices);
            let range = slice * blocks / slices..(slice + 1) * blocks / slices;
            let n = panel.len();
            let at = (panel.start * blocks + range.start * n) * WORDS;
            // SAFETY: panels and slices of a panel do not overlap, and the buffer outlives the
            // region.
            let to = unsafe { parts.part(at, range.len() * n * WORDS) };
            let rows = &rows[panel.start * cols..panel.end * cols];
            dispatch(
                level,
                Round {
                    rows,
                    cols,
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

/// Rounds some blocks of a panel's rows.
struct Round<'a> {
    rows: &'a [f32],
    cols: usize,
    blocks: Range<usize>,
    to: &'a mut [u32],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let n = self.rows.len() / self.cols;
        let blocks = self.to.chunks_exact_mut(n * WORDS);
        for (block, to) in self.blocks.zip(blocks) {
            for (token, row) in self.rows.chunks_exact(self.cols).enumerate() {
                let start = (block * BLOCK).min(self.cols);
                let end = (start + BLOCK).min(self.cols);
                let mut numbers = [0.0; BLOCK];
                numbers[..end - start].copy_from_slice(&row[start..end]);
                let words = round_block(simd, &numbers);
                for (word, to) in words.into_iter().zip(to[token..].iter_mut().step_by(n)) {
                    *to = word;
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
    let scales = unsafe {
        [
            round_half(simd, numbers.as_ptr(), bytes.as_mut_ptr()),
            round_half(
                simd,
                numbers.as_ptr().add(LANES),
                bytes.as_mut_ptr().add(LANES),
            ),
        ]
    };
    let (mut first, mut second) = (0, 0);
    for (&a, &b) in bytes[..LANES].iter().zip(&bytes[LANES..]) {
        first += i32::from(a);
        second += i32::from(b);
    }
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(bytes.map(i8::cast_unsigned));
    }
    words[SUMS] = (first as u32 & 0xffff) | (second as u32) << 16;
    for (at, scale) in SCALES.into_iter().zip(scales) {
        words[at] = scale.to_bits();
    }
    let (first, second) = (scales[0] * first as f32, scales[1] * second as f32);
    words[WHOLE] = (first + second).to_bits();
    words[SECOND] = second.to_bits();
    words
}

/// Rounds sixteen numbers to integers, and gives their scale.
///
/// # Safety
/// `from` points to sixteen numbers, `to` to sixteen bytes.
#[inline(always)]
unsafe fn round_half<S: Simd>(simd: S, from: *const f32, to: *mut i8) -> f32 {
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
    // SAFETY: by this function's contract; the numbers are at most 127.
    unsafe { simd.store_i8(simd.max(integers, simd.splat(-LARGEST)), to) };
    scale
}
