//! Attention over pages of keys and values.
//!
//! A query goes through its pages one by one, each with a softmax of its own, and the pages are
//! merged in ascending order: what comes out depends on the query and on the keys and values that it
//! sees, on nothing else.

use super::{
    kv::{Halves, Heads, KvPage, KvType, PAGE, Q8, Stored},
    math,
    matmul::fits,
};
use crate::{
    Result,
    simd::{Kernel, LANES, Level, Simd, dispatch},
    threads::{Parts, Pool},
};

/// Query heads that go through a page's keys together.
const QUERIES: usize = 8;

/// How a query sees keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Position of the first query.
    pub start: usize,
    /// The most positions that a query sees, its own included: at least 1.
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
/// [`OperandLength`](crate::QuantError::OperandLength) where shapes do not fit, pages
/// are of other heads or fewer than positions, or a window is 0.
pub fn attention<P: AsRef<KvPage> + Sync>(
    pool: &Pool,
    level: Level,
    heads: Heads,
    view: &View,
    pages: &[P],
    queries: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let (row, span) = (heads.row(), heads.row() / heads.kv_heads());
    fits(
        "queries",
        queries.len().next_multiple_of(row),
        queries.len(),
    )?;
    fits("attention's output", queries.len(), out.len())?;
    let window = view.window.unwrap_or(1);
    fits("positions that are seen", window.max(1), window)?;
    let tokens = queries.len() / row;
    if tokens == 0 {
        return Ok(());
    }
    let held = pages.len().saturating_mul(PAGE);
    let end = view.start.saturating_add(tokens);
    fits("positions in pages", end.max(held), held)?;
    let pages: Vec<&[u8]> = pages
        .iter()
        .map(|page| page.as_ref().of(heads))
        .collect::<Result<_>>()?;
    let pages = &pages;
    let parts = Parts::new(out);
    pool.run(tokens * heads.kv_heads(), &|i| {
        let (token, kv_head) = (i / heads.kv_heads(), i % heads.kv_heads());
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
        match heads.stored() {
            KvType::F16 => dispatch(level, OfType(attend, Halves)),
            KvType::Q8_0 => dispatch(level, OfType(attend, Q8)),
        }
    });
    Ok(())
}

/// One token's query heads that share keys and values.
struct Attend<'a> {
    heads: Heads,
    kv_head: usize,
    view: &'a View,
    seen: std::ops::Range<usize>,
    pages: &'a [&'a [u8]],
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

/// The same, over keys and values that are stored in a certain way.
struct OfType<'a, T>(Attend<'a>, T);

impl<T: Stored> Kernel for OfType<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.0.run::<S, T>(simd);
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn run<S: Simd, T: Stored>(self, simd: S) {
        let size = self.heads.size();
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
                let page = &page[self.kv_head * (key_len + value_len)..];
                let (keys, values) = page[..key_len + value_len].split_at(key_len);
                macro_rules! with {
                    ($($n:literal)*) => {
                        match n {
                            $($n => score::<S, T, $n>(simd, keys, queries, size, to, &mut scores),)*
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
                mix::<S, T>(simd, values, padded, from..to, &scores[..n], &mut of_page);
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
fn score<S: Simd, T: Stored, const N: usize>(
    simd: S,
    keys: &[u8],
    queries: &[f32],
    size: usize,
    to: usize,
    scores: &mut [[f32; PAGE]],
) {
    let blocks = keys.chunks_exact(T::keys(size)).take(to.div_ceil(LANES));
    assert!(queries.len() >= N * size && scores.len() >= N);
    for (block, keys) in blocks.enumerate() {
        let mut sums = [simd.splat(0.0); N];
        for first in (0..size).step_by(T::GROUP) {
            // SAFETY: a block has `size` elements of sixteen keys, and `i` is below it.
            unsafe {
                let group = keys.as_ptr().add(T::keys(first));
                let scales = T::key_scales(simd, group);
                for i in first..size.min(first + T::GROUP) {
                    let keys = T::load_keys(simd, group, i - first, scales);
                    for (query, sum) in sums.iter_mut().enumerate() {
                        let x = simd.splat(*queries.get_unchecked(query * size + i));
                        *sum = simd.fma(keys, x, *sum);
                    }
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
fn mix<S: Simd, T: Stored>(
    simd: S,
    values: &[u8],
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
                            mix_block::<S, T, 2, $v>(simd, values, padded, at, &seen, [a, b], out);
                        }
                        [a] => mix_block::<S, T, 1, $v>(simd, values, padded, at, &seen, [a], out),
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
fn mix_block<S: Simd, T: Stored, const N: usize, const V: usize>(
    simd: S,
    values: &[u8],
    padded: usize,
    at: usize,
    seen: &std::ops::Range<usize>,
    weights: [&[f32; PAGE]; N],
    out: &mut [f32],
) {
    assert!(values.len() >= PAGE * T::values(padded) && at + V * LANES <= padded);
    assert!(seen.end <= PAGE && out.len() >= N * padded);
    let mut sums = [[simd.splat(0.0); V]; N];
    for position in seen.clone() {
        for v in 0..V {
            // SAFETY: checked above.
            unsafe {
                let row = values.as_ptr().add(position * T::values(padded));
                let value = T::load_values(simd, row, at + v * LANES);
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
