//! The CPU engine on real models: reading a prompt, decoding, passes over several tokens, loading.
//!
//! ```text
//! cargo bench -p converge-benches --bench engine
//! CONVERGE_BENCH_MODELS=smollm2-135m cargo bench -p converge-benches --bench engine -- pass
//! ```
//!
//! In the passes every token has its logits computed, as in checking a draft. The table at the end
//! has the share of the limit, probed in the same run (the slower of streaming all weights from
//! memory and of the products at the kernels' own rate), and what a pass over m tokens costs of a
//! pass over one beside `max(1, m · t_arithmetic / t_memory)`.

use std::{cell::RefCell, path::Path, time::Duration};

use converge_benches::{
    Times,
    model::{self, Work},
    probe, threads,
};
use converge_core::{
    backend::cpu::{CpuModel, CpuOptions},
    generate::Cancel,
    model::{Decoder as _, Rows},
};
use converge_quant::{Gguf, Pool};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

const PROMPT: usize = 512;
const DECODE: usize = 16;
const PASSES: [usize; 5] = [1, 2, 4, 8, 16];

type Error = Box<dyn std::error::Error>;

/// What was measured: `tokens` in `seconds`, in `passes` passes, with logits for `rows` of each.
struct Row {
    test: &'static str,
    tokens: usize,
    passes: usize,
    rows: usize,
    seconds: f64,
}

fn options(context: usize) -> CpuOptions {
    CpuOptions {
        context,
        threads: threads().try_into().ok(),
        ..CpuOptions::default()
    }
}

fn measure(criterion: &mut Criterion, name: &str, path: &Path) -> Result<(), Error> {
    let gguf = Gguf::open(path)?;
    // Loaded by the first bench that is asked for.
    let loaded = RefCell::new(None);
    let failure = RefCell::new(None);
    let mut rows: Vec<Row> = Vec::new();

    let mut group = criterion.benchmark_group(name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(2));
    let tests = [("prefill", PROMPT), ("decode", DECODE)]
        .into_iter()
        .chain(PASSES.map(|m| ("pass", m)));
    for (test, tokens) in tests {
        let mut times = Times::new();
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(BenchmarkId::new(test, tokens), |bencher| {
            let mut slot = loaded.borrow_mut();
            if slot.is_none() {
                match CpuModel::load(&gguf, &options(PROMPT + DECODE)) {
                    Ok(model) => *slot = Some(model.decoder()),
                    Err(error) => {
                        failure.replace(Some(error));
                    }
                }
            }
            let Some(decoder) = slot.as_mut() else {
                // Something must be measured.
                return bencher.iter(|| ());
            };
            let tokens = model::sequence(tokens, decoder.vocab());
            bencher.iter_custom(|count| {
                times.measure(count, || {
                    let done = match test {
                        "prefill" => model::prefill(decoder, &tokens),
                        "decode" => model::decode(decoder, &tokens),
                        _ => decoder
                            .forward(&tokens, Rows::All, &Cancel::new())
                            .map(|logits| decoder.reuse(logits)),
                    };
                    // Forgetting takes no time: a length is set.
                    if let Err(error) = done.and_then(|()| decoder.truncate(0)) {
                        failure.replace(Some(error));
                    }
                })
            });
        });
        let (passes, logits) = match test {
            "prefill" => (1, 1),
            "decode" => (DECODE, 1),
            _ => (1, tokens),
        };
        if !times.is_empty() {
            rows.push(Row {
                test,
                tokens,
                passes,
                rows: logits,
                seconds: times.median(),
            });
        }
    }
    group.throughput(Throughput::Bytes(gguf.file_bytes()));
    group.bench_function("load", |bencher| {
        loaded.borrow_mut().take();
        bencher.iter_with_large_drop(|| {
            let file = Gguf::open(path)?;
            CpuModel::load(&file, &options(PROMPT))
        });
    });
    group.finish();
    if let Some(error) = failure.into_inner() {
        return Err(error.into());
    }
    if rows.is_empty() {
        return Ok(());
    }
    print(name, &Work::of(&gguf)?, &rows)
}

/// The table of one model, with limits probed now.
fn print(name: &str, work: &Work, rows: &[Row]) -> Result<(), Error> {
    let pool = Pool::new(threads());
    let rates = work.probe(&pool, &probe::Stream::new()?)?;
    println!(
        "\n{name}: {} threads, memory {:.1} GB/s, raw {:.0} GMAC/s; a pass streams {:.0} MB, a token \
         is {:.2} G multiply-adds: {:.2} ms and {:.2} ms",
        pool.threads(),
        rates.bandwidth / 1e9,
        rates.raw / 1e9,
        work.bytes() / 1e6,
        work.multiply_adds() / 1e9,
        work.memory(&rates) * 1e3,
        work.arithmetic(&rates, 1, 1) * 1e3,
    );
    println!(
        "{:>8} {:>7} {:>10} {:>8} {:>7} {:>6} {:>8} {:>6}",
        "test", "tokens", "ms", "tok/s", "limit", "c(m)", "formula", ""
    );
    let one = rows
        .iter()
        .find(|row| row.test == "pass" && row.tokens == 1);
    for row in rows {
        let each = row.tokens / row.passes;
        let limit = row.passes as f64 * work.limit(&rates, each, row.rows);
        let cost = match row.test {
            "pass" => one.map(|one| row.seconds / one.seconds),
            _ => None,
        };
        let formula = work.cost(&rates, row.tokens);
        println!(
            "{:>8} {:>7} {:>10.2} {:>8.1} {:>6.0}% {:>6} {:>8} {:>6}",
            row.test,
            row.tokens,
            row.seconds * 1e3,
            row.tokens as f64 / row.seconds,
            100.0 * limit / row.seconds,
            cost.map_or(String::new(), |cost| format!("{cost:.2}")),
            cost.map_or(String::new(), |_| format!("{formula:.2}")),
            cost.map_or(String::new(), |cost| format!("×{:.2}", cost / formula)),
        );
    }
    Ok(())
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for name in model::chosen() {
        let done = match model::find(&name) {
            Ok(path) => measure(&mut criterion, &name, &path),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            eprintln!("{name}: left out: {error}");
        }
    }
    criterion.final_summary();
}
