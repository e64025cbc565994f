//! Attention over pages of keys and values.
//!
//! A query goes through its pages one by one, each with a softmax of its own, and the pages are
//! merged in ascending order: what comes out depends on the query and on the keys and values that it
//! sees, on nothing else.

use std::{cell::Cell, ops::Range};

use super::{
    ahead,
    kv::{Halves, Heads, KvPage, KvType, PAGE, Q8, Stored},
    math,
    matmul::fits,
};
use crate::{
    Result,
    simd::{Kernel, LANES, Level, Simd, dispatch},
    threads::{Parts, Pool},
};

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
    fn seen(&self, position: usize) -> Range<usize> {
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
    let row = heads.row();
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
    for page in pages {
        page.as_ref().of(heads)?;
    }
    let group = heads.heads() / heads.kv_heads();
    let block = (dispatch(level, MostQueries) / group).clamp(1, tokens);
    let out = &Parts::new(out);
    pool.run(tokens.div_ceil(block) * heads.kv_heads(), &|i| {
        let (first, kv_head) = (i / heads.kv_heads() * block, i % heads.kv_heads());
        let mut scratch = SCRATCH.take();
        let attend = Attend {
            heads,
            kv_head,
            view,
            tokens: first..tokens.min(first + block),
            pages,
            queries,
            out,
            scratch: &mut scratch,
        };
        match heads.stored() {
            KvType::F16 => dispatch(level, OfType(attend, Halves)),
            KvType::Q8_0 => dispatch(level, OfType(attend, Q8)),
        }
        SCRATCH.set(scratch);
    });
    Ok(())
}

/// How many queries go through a page's keys together, at most.
struct MostQueries;

impl Kernel for MostQueries {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::QUERIES
    }
}

thread_local! {
    /// Buffers, kept: fresh memory for each call would cost more than a short context.
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::new()) };
}

/// What a thread needs beside its operands.
#[derive(Default)]
struct Scratch {
    /// Element 0 of each query, element 1, …
    queries: Vec<f32>,
    scores: Vec<[f32; PAGE]>,
    mixed: Vec<f32>,
    of_page: Vec<f32>,
}

impl Scratch {
    const fn new() -> Self {
        Self {
            queries: Vec::new(),
            scores: Vec::new(),
            mixed: Vec::new(),
            of_page: Vec::new(),
        }
    }
}

/// The query heads of some tokens that share keys and values.
struct Attend<'a, P> {
    heads: Heads,
    kv_head: usize,
    view: &'a View,
    tokens: Range<usize>,
    pages: &'a [P],
    /// Those of all tokens: `tokens × heads · size`.
    queries: &'a [f32],
    out: &'a Parts<f32>,
    scratch: &'a mut Scratch,
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
struct OfType<'a, P, T>(Attend<'a, P>, T);

impl<P: AsRef<KvPage>, T: Stored> Kernel for OfType<'_, P, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let group = self.0.heads.heads() / self.0.heads.kv_heads();
        // Of one token's heads there may be more than go together.
        let all = self.0.tokens.len() * group;
        let mut first = 0;
        while first < all {
            let n = (all - first).min(S::QUERIES);
            macro_rules! with {
                ($($n:literal)*) => {
                    match n {
                        $($n if $n <= S::QUERIES => self.0.some::<S, T, $n>(simd, first),)*
                        _ => debug_assert_eq!(n, 0),
                    }
                };
            }
            with!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
            first += n;
        }
    }
}

impl<P: AsRef<KvPage>> Attend<'_, P> {
    /// The `N` queries from number `first` on, those of a token following each other.
    #[inline(always)]
    fn some<S: Simd, T: Stored, const N: usize>(&mut self, simd: S, first: usize) {
        let Self { heads, view, .. } = *self;
        let (size, padded) = (heads.size(), heads.padded());
        let group = heads.heads() / heads.kv_heads();
        let place = |query: usize| {
            let (token, head) = ((first + query) / group, (first + query) % group);
            let token = self.tokens.start + token;
            (token * heads.heads() + self.kv_head * group + head) * size
        };
        let seen: [_; N] = std::array::from_fn(|query| {
            view.seen(view.start + self.tokens.start + (first + query) / group)
        });
        let Scratch {
            queries,
            scores,
            mixed,
            of_page,
        } = &mut *self.scratch;
        queries.resize(N * size, 0.0);
        scores.resize(N, [0.0; PAGE]);
        mixed.clear();
        mixed.resize(N * padded, 0.0);
        of_page.resize(N * padded, 0.0);
        for query in 0..N {
            let from = &self.queries[place(query)..][..size];
            let to = queries.iter_mut().skip(query).step_by(N);
            to.zip(from).for_each(|(to, from)| *to = *from);
        }
        let mut gathered = [Gathered {
            max: f32::NEG_INFINITY,
            sum: 0.0,
        }; N];
        // Later queries see as far back as earlier ones, or less, and further on.
        let (earliest, latest) = (seen[0].start / PAGE, seen[N - 1].end.div_ceil(PAGE));
        let (key_len, value_len) = heads.parts();
        for index in earliest..latest {
            let start = index * PAGE;
            let within = |at: usize| at.saturating_sub(start).min(PAGE);
            let seen: [_; N] =
                std::array::from_fn(|query| within(seen[query].start)..within(seen[query].end));
            let page = self.pages[index].as_ref().as_bytes();
            let page = &page[self.kv_head * (key_len + value_len)..][..key_len + value_len];
            let (keys, values) = page.split_at(key_len);
            let all = seen[0].start..seen[N - 1].end;
            score::<S, T, N>(simd, keys, queries, size, all, scores);
            of_page.fill(0.0);
            let mut new = [Gathered { max: 0.0, sum: 0.0 }; N];
            for ((new, scores), seen) in new.iter_mut().zip(&mut *scores).zip(&seen) {
                *new = softmax(simd, scores, seen.clone(), view);
            }
            mix::<S, T>(simd, values, padded, &seen, scores, of_page);
            for (query, new) in new.into_iter().enumerate() {
                if seen[query].is_empty() {
                    continue;
                }
                let place = query * padded..(query + 1) * padded;
                let (mixed, of_page) = (&mut mixed[place.clone()], &of_page[place]);
                gathered[query] = merge(simd, gathered[query], new, mixed, of_page);
            }
        }
        for (query, gathered) in gathered.into_iter().enumerate() {
            // SAFETY: each token's group of heads is one call's, and `out` is borrowed until the
            // region ends.
            let out = unsafe { self.out.part(place(query), size) };
            for (out, x) in out.iter_mut().zip(&mixed[query * padded..]) {
                *out = x / gathered.sum;
            }
        }
    }
}

/// Products of `N` queries with keys of a page, sixteen keys in the lanes: of those that are seen, and
/// of others beside them.
#[inline(always)]
fn score<S: Simd, T: Stored, const N: usize>(
    simd: S,
    keys: &[u8],
    queries: &[f32],
    size: usize,
    seen: Range<usize>,
    scores: &mut [[f32; PAGE]],
) {
    assert!(queries.len() == N * size && scores.len() == N);
    let far = ahead::is_far();
    let blocks = keys.chunks_exact(T::keys(size)).enumerate();
    let first = seen.start / LANES;
    let count = seen.end.div_ceil(LANES).saturating_sub(first);
    for (block, keys) in blocks.skip(first).take(count) {
        let mut sums = [simd.splat(0.0); N];
        for first in (0..size).step_by(T::GROUP) {
            // SAFETY: a block has `size` elements of sixteen keys, there are `N` queries of as many,
            // and `i` is below it.
            unsafe {
                let group = keys.as_ptr().add(T::keys(first));
                let scales = T::key_scales(simd, group);
                for i in first..size.min(first + T::GROUP) {
                    if far && i.is_multiple_of(T::IN_LINE) {
                        ahead::ask_far(simd, keys.as_ptr().wrapping_add(T::keys(i)));
                    }
                    let keys = T::load_keys(simd, group, i - first, scales);
                    let queries = queries.as_ptr().add(i * N);
                    for (query, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.fma(keys, simd.splat(*queries.add(query)), *sum);
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
    seen: Range<usize>,
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

/// Adds the values of the positions that each query sees, times their weights, in ascending order.
#[inline(always)]
fn mix<S: Simd, T: Stored>(
    simd: S,
    values: &[u8],
    padded: usize,
    seen: &[Range<usize>],
    weights: &[[f32; PAGE]],
    out: &mut [f32],
) {
    let queries = seen.chunks(TOGETHER).zip(weights.chunks(TOGETHER));
    for ((seen, weights), out) in queries.zip(out.chunks_mut(TOGETHER * padded)) {
        if let ([a, .., d], Ok(weights)) = (seen, <&[_; TOGETHER]>::try_from(weights))
            && d.start < a.end
        {
            // What all four see is read once for them, what only some see for each.
            let all = d.start..a.end;
            mix_alone::<S, T>(
                simd,
                values,
                padded,
                seen,
                |one| one.start..all.start,
                weights,
                out,
            );
            mix_rows::<S, T, TOGETHER, 4>(simd, values, padded, all.clone(), weights, out);
            mix_alone::<S, T>(
                simd,
                values,
                padded,
                seen,
                |one| all.end..one.end,
                weights,
                out,
            );
        } else {
            mix_alone::<S, T>(simd, values, padded, seen, Range::clone, weights, out);
        }
    }
}

/// Queries that read a value together.
const TOGETHER: usize = 4;

/// Each query by itself, over a part of what it sees.
#[inline(always)]
fn mix_alone<S: Simd, T: Stored>(
    simd: S,
    values: &[u8],
    padded: usize,
    seen: &[Range<usize>],
    part: impl Fn(&Range<usize>) -> Range<usize>,
    weights: &[[f32; PAGE]],
    out: &mut [f32],
) {
    let outs = out.chunks_exact_mut(padded);
    for ((seen, weights), out) in seen.iter().zip(weights).zip(outs) {
        let weights = std::array::from_ref(weights);
        mix_rows::<S, T, 1, 8>(simd, values, padded, part(seen), weights, out);
    }
}

/// `N` queries over positions that all of them see, `V` vectors of elements at a time.
#[inline(always)]
fn mix_rows<S: Simd, T: Stored, const N: usize, const V: usize>(
    simd: S,
    values: &[u8],
    padded: usize,
    seen: Range<usize>,
    weights: &[[f32; PAGE]; N],
    out: &mut [f32],
) {
    if seen.is_empty() {
        return;
    }
    let mut at = 0;
    while at + V * LANES <= padded {
        mix_block::<S, T, N, V>(simd, values, padded, at, &seen, weights, out);
        at += V * LANES;
    }
    while at < padded {
        mix_block::<S, T, N, 1>(simd, values, padded, at, &seen, weights, out);
        at += LANES;
    }
}

/// `V` vectors of elements from `at` on, of `N` queries.
#[inline(always)]
fn mix_block<S: Simd, T: Stored, const N: usize, const V: usize>(
    simd: S,
    values: &[u8],
    padded: usize,
    at: usize,
    seen: &Range<usize>,
    weights: &[[f32; PAGE]; N],
    out: &mut [f32],
) {
    assert!(values.len() >= PAGE * T::values(padded) && at + V * LANES <= padded);
    assert!(seen.end <= PAGE && out.len() >= N * padded);
    // SAFETY: checked above.
    unsafe {
        let far = ahead::is_far();
        let place = |query: usize, v: usize| query * padded + at + v * LANES;
        let mut sums = [[simd.splat(0.0); V]; N];
        for (query, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = simd.load(out.as_ptr().add(place(query, v)));
            }
        }
        for position in seen.clone() {
            let row = values.as_ptr().add(position * T::values(padded));
            for v in 0..V {
                if far && (at / LANES + v).is_multiple_of(T::IN_LINE) {
                    ahead::ask_far(simd, row.wrapping_add(T::values(at + v * LANES)));
                }
                let value = T::load_values(simd, row, at + v * LANES);
                for (sums, weights) in sums.iter_mut().zip(weights) {
                    let weight = simd.splat(*weights.get_unchecked(position));
                    sums[v] = simd.fma(value, weight, sums[v]);
                }
            }
        }
        for (query, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                simd.store(sum, out.as_mut_ptr().add(place(query, v)));
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
