//! Products of packed weights with activations, for each type and several numbers of tokens, beside
//! what the machine can do in the same run.
//!
//! ```text
//! cargo bench -p converge-benches --bench kernels
//! cargo bench -p converge-benches --bench kernels -- Q4_K          one type
//! ```
//!
//! The matrix has the shape of a 1.5B model's feed-forward; as many copies as no cache holds take
//! turns, so that weights come from memory as in decoding. The table at the end has for each
//! product
//!
//! - bytes of weights per second, and the share of what the threads can stream from memory,
//! - multiply-adds per second, with the share of the kernel's own rate where weights stay in the
//!   cache ("mix") and that of bare `vpdpbusd` ("raw"),
//! - the share of the limit: of the slower of the two, memory and mix,
//! - what it costs of the product with one token, beside `max(1, m · t_arithmetic / t_memory)`
//!   with `t_arithmetic` from the mix at 8 tokens.

use std::{cell::OnceCell, hint::black_box, time::Duration};

use converge_benches::{Times, numbers, probe, threads};
use converge_quant::{
    GgmlType, Level, Packed, Pool, Result,
    kernels::{self, Activations},
};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

const ROWS: usize = 8960;
const COLS: usize = 1536;
const TOKENS: [usize; 6] = [1, 2, 4, 8, 16, 512];

/// Tokens of the mix that the formula takes.
const PANEL: usize = 8;

/// Bytes of weights that take turns, at least.
const RING: usize = 192 << 20;

/// What was measured of one type.
struct Measured {
    ty: GgmlType,
    bytes: f64,
    bandwidth: f64,
    raw: f64,
    /// Multiply-adds per second from the cache with [`PANEL`] tokens.
    panel: f64,
    /// Tokens, seconds, multiply-adds per second from the cache.
    products: Vec<(usize, f64, f64)>,
}

fn products(c: &mut Criterion, pool: &Pool, ty: GgmlType) -> Result<Option<Measured>> {
    let level = Level::detect()?;
    let ring = OnceCell::new();
    let mut times = Vec::new();
    let mut group = c.benchmark_group("product");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    for tokens in TOKENS {
        let mut of_tokens = Times::new();
        group.throughput(Throughput::ElementsAndBytes {
            elements: (tokens * ROWS * COLS) as u64,
            bytes: (ROWS * ty.bytes_of(COLS).unwrap_or(0)) as u64,
        });
        group.bench_function(BenchmarkId::new(ty.name(), tokens), |bencher| {
            let ring = ring.get_or_init(|| matrices(ty));
            let Ok(ring) = ring else {
                // Something must be measured.
                return bencher.iter(|| ());
            };
            let mut turn = ring.iter().cycle();
            let mut activations = Activations::new();
            let x = numbers(tokens * COLS);
            let ready = activations.set(pool, level, &x, COLS, &[&ring[0]]);
            let mut out = vec![0.0; tokens * ROWS];
            bencher.iter_custom(|count| {
                of_tokens.measure(count, || {
                    if let (Ok(()), Some(matrix)) = (&ready, turn.next()) {
                        let done = kernels::matmul(pool, level, matrix, &activations, &mut out);
                        let _ = black_box(done);
                    }
                })
            });
        });
        if !of_tokens.is_empty() {
            times.push((tokens, of_tokens.median()));
        }
    }
    group.finish();
    let Some(ring) = ring.into_inner() else {
        return Ok(None);
    };
    let bytes = ring?.first().map_or(0, Packed::bytes) as f64;
    let mix = |tokens| probe::mix(pool, level, ty, tokens);
    let with_mix = |(tokens, seconds)| Ok((tokens, seconds, mix(tokens)?));
    Ok(Some(Measured {
        ty,
        bytes,
        bandwidth: stream(pool),
        raw: probe::raw(pool),
        panel: mix(PANEL)?,
        products: times.into_iter().map(with_mix).collect::<Result<_>>()?,
    }))
}

/// Copies of the matrix that take turns.
fn matrices(ty: GgmlType) -> Result<Vec<Packed>> {
    let first = probe::matrix(ty, ROWS, COLS)?;
    let copies = RING.div_ceil(first.bytes().max(1)).max(2);
    let mut ring = vec![first];
    for _ in 1..copies {
        ring.push(probe::matrix(ty, ROWS, COLS)?);
    }
    Ok(ring)
}

/// Bytes per second from memory; no number where there is no memory to try it with.
fn stream(pool: &Pool) -> f64 {
    probe::Stream::new().map_or(f64::NAN, |stream| stream.bandwidth(pool))
}

impl Measured {
    fn print(&self) {
        println!(
            "\n{}: memory {:.1} GB/s, raw {:.0} GMAC/s, mix of {PANEL} {:.0} GMAC/s",
            self.ty.name(),
            self.bandwidth / 1e9,
            self.raw / 1e9,
            self.panel / 1e9,
        );
        println!(
            "{:>7} {:>10} {:>7} {:>7} {:>8} {:>7} {:>7} {:>7} {:>6} {:>8} {:>6}",
            "tokens",
            "µs",
            "GB/s",
            "memory",
            "GMAC/s",
            "mix",
            "raw",
            "limit",
            "c(m)",
            "formula",
            ""
        );
        let one = self.products.iter().find(|(tokens, ..)| *tokens == 1);
        for &(tokens, seconds, mix) in &self.products {
            let work = (tokens * ROWS * COLS) as f64;
            let (memory, arithmetic) = (self.bytes / self.bandwidth, work / mix);
            let formula = (work / self.panel / memory).max(1.0);
            let cost = one.map(|&(_, one, _)| seconds / one);
            println!(
                "{tokens:>7} {:>10.1} {:>7.1} {:>6.0}% {:>8.1} {:>6.0}% {:>6.0}% {:>6.0}% {:>6} {formula:>8.2} {:>6}",
                seconds * 1e6,
                self.bytes / seconds / 1e9,
                100.0 * memory / seconds,
                work / seconds / 1e9,
                100.0 * arithmetic / seconds,
                100.0 * work / self.raw / seconds,
                100.0 * memory.max(arithmetic) / seconds,
                cost.map_or(String::new(), |cost| format!("{cost:.2}")),
                cost.map_or(String::new(), |cost| format!("×{:.2}", cost / formula)),
            );
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let pool = Pool::new(threads());
    let mut measured = Vec::new();
    for ty in GgmlType::with_kernels() {
        match products(&mut criterion, &pool, ty) {
            Ok(found) => measured.extend(found),
            Err(error) => eprintln!("{}: {error}", ty.name()),
        }
    }
    criterion.final_summary();
    if !measured.is_empty() {
        let level = Level::detect().map_or("unknown", Level::name);
        println!("\n{} threads, {level}", pool.threads());
    }
    measured.iter().for_each(Measured::print);
}
