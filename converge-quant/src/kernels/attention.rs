//! Keys and values of past positions, and attention over them.
//!
//! Positions lie in pages of 256, anchored at position 0. A query goes through them page by page,
//! each with a softmax of its own, and the pages are merged in ascending order: what comes out
//! depends on the query and on the keys and values that it sees, on nothing else.

use half::f16;

use super::{math, matmul::fits};
use crate::{
    Result,
    simd::{Kernel, LANES, Level, Simd, dispatch},
    threads::{Parts, Pool},
};

/// Positions of a page.
pub const PAGE: usize = 256;

/// Query heads that go through a page's keys together.
const QUERIES: usize = 8;

/// Sizes of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads: a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values, above 0.
    pub kv_heads: usize,
    /// Elements of a head, above 0.
    pub size: usize,
}

impl Heads {
    fn padded(&self) -> usize {
        self.size.next_multiple_of(LANES)
    }

    /// Halves of a head's keys, and of its values.
    fn parts(&self) -> (usize, usize) {
        (PAGE * self.size, PAGE * self.padded())
    }

    fn page_len(&self) -> usize {
        let (keys, values) = self.parts();
        self.kv_heads * (keys + values)
    }

    /// Bytes of a page of one layer.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.page_len() * size_of::<u16>()
    }
}

/// Keys and values of 256 positions of one layer, in half precision.
///
/// ```text
///   head 0   keys     16 positions: [element 0 of each][element 1 …] …, the next 16, …
///            values   position 0: [element 0, 1, …], position 1, …
///   head 1   …
/// ```
#[derive(Clone)]
pub struct KvPage {
    heads: Heads,
    halves: Vec<u16>,
}

impl KvPage {
    /// A page of zeros.
    #[must_use]
    pub fn new(heads: Heads) -> Self {
        Self {
            heads,
            halves: vec![0; heads.page_len()],
        }
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.heads.page_bytes()
    }

    /// Rounds keys and values of the position `slot` (below [`PAGE`]) to halves and keeps them:
    /// `kv_heads · size` numbers each.
    ///
    /// # Errors
    /// [`QuantError::OperandLength`](crate::QuantError::OperandLength) for other lengths, or a slot
    /// past the page's end.
    pub fn write(&mut self, slot: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let heads = self.heads;
        fits("keys", heads.kv_heads * heads.size, keys.len())?;
        fits("values", keys.len(), values.len())?;
        fits("slot of the page", slot % PAGE, slot)?;
        let (key_len, value_len) = heads.parts();
        let pairs = keys
            .chunks_exact(heads.size)
            .zip(values.chunks_exact(heads.size));
        let pages = self.halves.chunks_exact_mut(key_len + value_len);
        for (page, (key, value)) in pages.zip(pairs) {
            let (key_page, value_page) = page.split_at_mut(key_len);
            let block = &mut key_page[slot / LANES * LANES * heads.size..];
            let places = block.iter_mut().skip(slot % LANES).step_by(LANES);
            for (place, &x) in places.zip(key) {
                *place = f16::from_f32(x).to_bits();
            }
            let row = &mut value_page[slot * heads.padded()..];
            for (place, &x) in row.iter_mut().zip(value) {
                *place = f16::from_f32(x).to_bits();
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for KvPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvPage")
            .field("heads", &self.heads)
            .finish_non_exhaustive()
    }
}

/// How a query sees keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Position of the first query.
    pub start: usize,
    /// The most positions that a query sees, its own included.
    pub window: Option<usize>,
    /// What products of queries and keys are multiplied by.
    pub scale: f32,
    /// Bound of the scaled products: `cap · tanh(x / cap)`.
    pub softcap: Option<f32>,
}

impl View {
    /// Positions that the query at `position` sees.
    fn seen(&self, position: usize) -> std::ops::Range<usize> {
        let end = position + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

/// Attention of queries at consecutive positions over the pages of one layer: `queries` and `out`
/// are `tokens × heads · size`. The queries' own keys and values must have been written.
///
/// # Errors
/// [`QuantError::OperandLength`](crate::QuantError::OperandLength) where shapes do not fit, or
/// there are fewer pages than positions.
pub fn attention<P: AsRef<KvPage> + Sync>(
    pool: &Pool,
    level: Level,
    heads: Heads,
    view: &View,
    pages: &[P],
    queries: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let row = heads.heads * heads.size;
    let group = heads.heads / heads.kv_heads.max(1);
    fits("query heads", group * heads.kv_heads, heads.heads)?;
    fits(
        "queries",
        queries.len().next_multiple_of(row.max(1)),
        queries.len(),
    )?;
    fits("attention's output", queries.len(), out.len())?;
    let tokens = queries.len() / row.max(1);
    if tokens == 0 {
        return Ok(());
    }
    let needed = (view.start + tokens).div_ceil(PAGE);
    fits("pages", needed, pages.len().min(needed))?;
    for page in pages {
        fits(
            "elements of a page",
            heads.page_len(),
            page.as_ref().halves.len(),
        )?;
    }
    let parts = Parts::new(out);
    let span = group * heads.size;
    pool.run(tokens * heads.kv_heads, &|i| {
        let (token, kv_head) = (i / heads.kv_heads, i % heads.kv_heads);
        let at = token * row + kv_head * span;
        // SAFETY: each token's group of heads is one call's, and `out` is borrowed until the
        // region ends.
        let out = unsafe { parts.part(at, span) };
        let seen = view.seen(view.start + token);
        let attend = Attend {
            heads,
            kv_head,
            view,
            seen,
            pages,
            queries: &queries[at..][..span],
            out,
        };
        dispatch(level, attend);
    });
    Ok(())
}

/// One token's query heads that share keys and values.
struct Attend<'a, P> {
    heads: Heads,
    kv_head: usize,
    view: &'a View,
    seen: std::ops::Range<usize>,
    pages: &'a [P],
    /// `group × size`.
    queries: &'a [f32],
    out: &'a mut [f32],
}

/// What a query has gathered so far.
#[derive(Clone, Copy)]
struct Gathered {
    /// The largest score.
    max: f32,
    /// Sum of `e^(score − max)`.
    sum: f32,
}

impl<P: AsRef<KvPage>> Kernel for Attend<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let size = self.heads.size;
        let padded = self.heads.padded();
        let (key_len, value_len) = self.heads.parts();
        let mut mixed = vec![0.0f32; QUERIES * padded];
        let mut of_page = vec![0.0f32; QUERIES * padded];
        let mut scores = vec![[0.0f32; PAGE]; QUERIES];
        let group = self
            .queries
            .chunks(QUERIES * size)
            .zip(self.out.chunks_mut(QUERIES * size));
        for (queries, out) in group {
            let n = queries.len() / size;
            let mut gathered = [Gathered {
                max: f32::NEG_INFINITY,
                sum: 0.0,
            }; QUERIES];
            mixed.fill(0.0);
            let first = self.seen.start / PAGE;
            for (index, page) in self.pages.iter().enumerate().skip(first) {
                let start = index * PAGE;
                if start >= self.seen.end {
                    break;
                }
                let from = self.seen.start.saturating_sub(start);
                let to = (self.seen.end - start).min(PAGE);
                let page = &page.as_ref().halves[self.kv_head * (key_len + value_len)..];
                let (keys, values) = page[..key_len + value_len].split_at(key_len);
                macro_rules! with {
                    ($($n:literal)*) => {
                        match n {
                            $($n => score::<S, $n>(simd, keys, queries, size, to, &mut scores),)*
                            _ => debug_assert_eq!(n, 0),
                        }
                    };
                }
                with!(1 2 3 4 5 6 7 8);
                of_page[..n * padded].fill(0.0);
                let mut new = [Gathered { max: 0.0, sum: 0.0 }; QUERIES];
                for (scores, new) in scores.iter_mut().zip(&mut new).take(n) {
                    *new = softmax(simd, scores, from..to, self.view);
                }
                mix(simd, values, padded, from..to, &scores[..n], &mut of_page);
                for (i, new) in new.iter().enumerate().take(n) {
                    let place = i * padded..(i + 1) * padded;
                    let (mixed, of_page) = (&mut mixed[place.clone()], &of_page[place]);
                    gathered[i] = merge(simd, gathered[i], *new, mixed, of_page);
                }
            }
            for ((out, mixed), gathered) in out
                .chunks_exact_mut(size)
                .zip(mixed.chunks_exact(padded))
                .zip(gathered)
            {
                for (out, x) in out.iter_mut().zip(mixed) {
                    *out = x / gathered.sum;
                }
            }
        }
    }
}

/// Products of `N` queries with the first `to` keys of a page, sixteen keys in the lanes.
#[inline(always)]
fn score<S: Simd, const N: usize>(
    simd: S,
    keys: &[u16],
    queries: &[f32],
    size: usize,
    to: usize,
    scores: &mut [[f32; PAGE]],
) {
    let blocks = keys.chunks_exact(LANES * size).take(to.div_ceil(LANES));
    assert!(queries.len() >= N * size && scores.len() >= N);
    for (block, keys) in blocks.enumerate() {
        let mut sums = [simd.splat(0.0); N];
        for (i, keys) in keys.chunks_exact(LANES).enumerate() {
            // SAFETY: sixteen halves are there, and `i` is below `size`.
            unsafe {
                let keys = simd.load_f16(keys.as_ptr());
                for (query, sum) in sums.iter_mut().enumerate() {
                    let x = simd.splat(*queries.get_unchecked(query * size + i));
                    *sum = simd.fma(keys, x, *sum);
                }
            }
        }
        for (scores, sum) in scores.iter_mut().zip(sums) {
            // SAFETY: a page has sixteen blocks of sixteen.
            unsafe { simd.store(sum, scores[block * LANES..][..LANES].as_mut_ptr()) };
        }
    }
}

/// Turns the scores of positions `seen` into `e^(score − max)` and those of others into 0.
#[inline(always)]
fn softmax<S: Simd>(
    simd: S,
    scores: &mut [f32; PAGE],
    seen: std::ops::Range<usize>,
    view: &View,
) -> Gathered {
    let end = seen.end.next_multiple_of(LANES);
    let vectors = seen.start / LANES * LANES..end;
    // What is not seen may be anything, even no number.
    scores[vectors.start..seen.start].fill(f32::MIN);
    scores[seen.end..end].fill(f32::MIN);
    let mut largest = simd.splat(f32::MIN);
    for at in vectors.clone().step_by(LANES) {
        // SAFETY: `vectors` lies inside the page.
        unsafe {
            let place = scores[at..][..LANES].as_mut_ptr();
            let mut score = simd.mul(simd.load(place), simd.splat(view.scale));
            if let Some(cap) = view.softcap {
                score = math::bounded(simd, score, cap);
            }
            simd.store(score, place);
        }
    }
    scores[vectors.start..seen.start].fill(f32::MIN);
    scores[seen.end..end].fill(f32::MIN);
    for at in vectors.clone().step_by(LANES) {
        // SAFETY: as above.
        largest = simd.max(largest, unsafe {
            simd.load(scores[at..][..LANES].as_ptr())
        });
    }
    let max = simd.largest(largest);
    for at in vectors.clone().step_by(LANES) {
        // SAFETY: as above.
        unsafe {
            let place = scores[at..][..LANES].as_mut_ptr();
            let below = simd.sub(simd.load(place), simd.splat(max));
            simd.store(math::exp(simd, below), place);
        }
    }
    scores[vectors.start..seen.start].fill(0.0);
    scores[seen.end..end].fill(0.0);
    let mut sum = simd.splat(0.0);
    for at in vectors.step_by(LANES) {
        // SAFETY: as above.
        sum = simd.add(sum, unsafe { simd.load(scores[at..][..LANES].as_ptr()) });
    }
    Gathered {
        max,
        sum: simd.sum(sum),
    }
}

/// Adds the values of positions `seen`, each times its weight, for each query.
#[inline(always)]
fn mix<S: Simd>(
    simd: S,
    values: &[u16],
    padded: usize,
    seen: std::ops::Range<usize>,
    weights: &[[f32; PAGE]],
    out: &mut [f32],
) {
    for (weights, out) in weights.chunks(2).zip(out.chunks_mut(2 * padded)) {
        let mut at = 0;
        while at < padded {
            let left = (padded - at) / LANES;
            macro_rules! with {
                ($v:literal) => {{
                    match weights {
                        [a, b] => {
                            mix_block::<S, 2, $v>(simd, values, padded, at, &seen, [a, b], out);
                        }
                        [a] => mix_block::<S, 1, $v>(simd, values, padded, at, &seen, [a], out),
                        _ => {}
                    }
                    at += $v * LANES;
                }};
            }
            match left {
                8.. => with!(8),
                4.. => with!(4),
                _ => with!(1),
            }
        }
    }
}

/// `V` vectors of elements from `at` on, of `N` queries.
#[inline(always)]
fn mix_block<S: Simd, const N: usize, const V: usize>(
    simd: S,
    values: &[u16],
    padded: usize,
    at: usize,
    seen: &std::ops::Range<usize>,
    weights: [&[f32; PAGE]; N],
    out: &mut [f32],
) {
    assert!(values.len() >= PAGE * padded && at + V * LANES <= padded);
    assert!(seen.end <= PAGE && out.len() >= N * padded);
    let mut sums = [[simd.splat(0.0); V]; N];
    for position in seen.clone() {
        for v in 0..V {
            // SAFETY: checked above.
            unsafe {
                let from = values.as_ptr().add(position * padded + at + v * LANES);
                let value = simd.load_f16(from);
                for (sums, weights) in sums.iter_mut().zip(weights) {
                    let weight = simd.splat(*weights.get_unchecked(position));
                    sums[v] = simd.fma(value, weight, sums[v]);
                }
            }
        }
    }
    for (query, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: checked above.
            unsafe {
                let to = out.as_mut_ptr().add(query * padded + at + v * LANES);
                simd.store(sum, to);
            }
        }
    }
}

/// Merges what a page gave into what the pages before it gave.
#[inline(always)]
fn merge<S: Simd>(
    simd: S,
    old: Gathered,
    new: Gathered,
    mixed: &mut [f32],
    of_page: &[f32],
) -> Gathered {
    let max = if new.max > old.max { new.max } else { old.max };
    // Nothing was gathered before the first page: its weight is that of the smallest exponent, times
    // zeros.
    let of_old = weight(simd, old.max - max);
    let of_new = weight(simd, new.max - max);
    let vectors = mixed
        .as_chunks_mut::<LANES>()
        .0
        .iter_mut()
        .zip(of_page.as_chunks::<LANES>().0);
    for (mixed, of_page) in vectors {
        // SAFETY: sixteen numbers are there.
        unsafe {
            let scaled = simd.mul(simd.load(mixed.as_ptr()), simd.splat(of_old));
            let sum = simd.fma(simd.load(of_page.as_ptr()), simd.splat(of_new), scaled);
            simd.store(sum, mixed.as_mut_ptr());
        }
    }
    Gathered {
        max,
        sum: new.sum.mul_add(of_new, old.sum * of_old),
    }
}

/// `e^x`.
#[inline(always)]
fn weight<S: Simd>(simd: S, x: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    // SAFETY: sixteen numbers are there.
    unsafe { simd.store(math::exp(simd, simd.splat(x)), lanes.as_mut_ptr()) };
    lanes[0]
}
