//! Attention over caches of several depths, with the heads of a 1.5B model.
//!
//! ```text
//! cargo bench -p converge-benches --bench attention
//! ```
//!
//! One iteration is all 28 layers, each with pages of its own: keys and values come from memory as
//! they do in decoding. The table at the end has bytes of keys and values per second beside what the
//! threads can stream from memory, and multiply-adds per second beside the rate of the same kernel
//! over one page that stays in the cache.

use std::{hint::black_box, time::Duration};

use converge_benches::{Times, numbers, probe, threads};
use converge_quant::{
    Level, Pool, Result,
    kernels::{self, Heads, KvPage, PAGE, View},
};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

const LAYERS: usize = 28;
const DEPTHS: [usize; 4] = [0, 1024, 4096, 8192];

/// Decoding, checking a draft, a chunk of a prompt.
const TOKENS: [usize; 3] = [1, 8, 128];

/// A page as [`kernels::attention`] takes it.
struct Page(KvPage);

impl AsRef<KvPage> for Page {
    fn as_ref(&self) -> &KvPage {
        &self.0
    }
}

fn filled_page(heads: Heads) -> Result<KvPage> {
    let mut page = KvPage::new(heads);
    let len = heads.kv_row();
    let all = numbers(PAGE * len);
    for (slot, row) in all.chunks_exact(len).enumerate() {
        page.write(slot, row, row)?;
    }
    Ok(page)
}

fn view(heads: Heads, start: usize) -> View {
    View {
        start,
        window: None,
        scale: 1.0 / (heads.size() as f32).sqrt(),
        softcap: None,
    }
}

/// Positions that all queries of a pass see, together.
fn seen(depth: usize, tokens: usize) -> usize {
    (1..=tokens).map(|token| depth + token).sum()
}

/// Multiply-adds of a layer: queries with keys, and weights with values.
fn multiply_adds(heads: Heads, depth: usize, tokens: usize) -> f64 {
    (2 * heads.row() * seen(depth, tokens)) as f64
}

/// Multiply-adds per second where keys and values stay in the cache: each thread does the queries
/// of the last positions of a page of its own, again and again.
fn mix(pool: &Pool, level: Level, heads: Heads, page: &KvPage, tokens: usize) -> f64 {
    let start = PAGE - tokens;
    let queries = numbers(tokens * heads.row());
    let repeat = 2_000 / tokens;
    let mut times = Times::new();
    for _ in 0..20 {
        times.measure(1, || {
            pool.run(pool.threads(), &|_| {
                let (alone, pages) = (Pool::new(1), [Page(page.clone())]);
                let (level, mut out) = (level, vec![0.0; queries.len()]);
                for _ in 0..repeat {
                    let view = view(heads, start);
                    let done =
                        kernels::attention(&alone, level, heads, &view, &pages, &queries, &mut out);
                    let _ = black_box(done);
                }
            });
        });
    }
    (pool.threads() * repeat) as f64 * multiply_adds(heads, start, tokens) / times.best()
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let pool = Pool::new(threads());
    let level = Level::detect()?;
    let heads = Heads::new(12, 2, 128)?;
    let page = filled_page(heads)?;
    let mut rows = Vec::new();
    let mut group = criterion.benchmark_group("attention");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    for depth in DEPTHS {
        for tokens in TOKENS {
            let positions = depth + tokens;
            let bytes = LAYERS * positions * heads.page_bytes() / PAGE;
            let work = LAYERS as f64 * multiply_adds(heads, depth, tokens);
            let mut times = Times::new();
            group.throughput(Throughput::ElementsAndBytes {
                elements: work as u64,
                bytes: bytes as u64,
            });
            let id = BenchmarkId::new(format!("depth {depth}"), tokens);
            group.bench_function(id, |bencher| {
                let layers: Vec<Vec<Page>> = (0..LAYERS)
                    .map(|_| {
                        (0..positions.div_ceil(PAGE))
                            .map(|_| Page(page.clone()))
                            .collect()
                    })
                    .collect();
                let queries = numbers(tokens * heads.row());
                let mut out = vec![0.0; queries.len()];
                let view = view(heads, depth);
                bencher.iter_custom(|count| {
                    times.measure(count, || {
                        for pages in &layers {
                            let done = kernels::attention(
                                &pool, level, heads, &view, pages, &queries, &mut out,
                            );
                            let _ = black_box(done);
                        }
                    })
                });
            });
            if !times.is_empty() {
                rows.push((depth, tokens, times.median(), bytes as f64, work));
            }
        }
    }
    group.finish();
    criterion.final_summary();
    if rows.is_empty() {
        return Ok(());
    }
    let bandwidth = probe::Stream::new().map_or(f64::NAN, |stream| stream.bandwidth(&pool));
    println!(
        "\nAttention of {LAYERS} layers, {} threads, {}; memory {:.1} GB/s",
        pool.threads(),
        level.name(),
        bandwidth / 1e9
    );
    println!(
        "{:>7} {:>7} {:>10} {:>7} {:>7} {:>8} {:>7} {:>7}",
        "depth", "tokens", "µs", "GB/s", "memory", "GMAC/s", "mix", "limit"
    );
    for (depth, tokens, seconds, bytes, work) in rows {
        let (memory, arithmetic) = (
            bytes / bandwidth,
            work / mix(&pool, level, heads, &page, tokens),
        );
        println!(
            "{depth:>7} {tokens:>7} {:>10.1} {:>7.2} {:>6.0}% {:>8.2} {:>6.0}% {:>6.0}%",
            seconds * 1e6,
            bytes / seconds / 1e9,
            100.0 * memory / seconds,
            work / seconds / 1e9,
            100.0 * arithmetic / seconds,
            100.0 * memory.max(arithmetic) / seconds,
        );
    }
    Ok(())
}
