//! Both engines against log-probabilities that another engine computed in f32.
//!
//! The portable path in f32: weights are dequantized and the KV cache is f32 on both sides, so what
//! differs is the order of sums: the architecture is right when the mean error is far below what
//! quantization costs. Gemma's reference took GELU from ggml's table over f16, so ours does too:
//! with an exact one the mean error is 0.0006, and what is left with the table are arguments that
//! the order of the sums pushes over a border between two of its entries.
//!
//! The CPU engine with the file's own weights: activations of 8 bits and an f16 KV cache cost
//! something, which must be no more than what they cost llama.cpp on the same positions.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use converge_core::{
    TokenId,
    backend::{
        candle::{CandleModel, CandleOptions, WeightMode},
        cpu::{CpuModel, CpuOptions},
    },
    generate::Cancel,
    model::{Decoder, Rows},
};
use converge_quant::Gguf;
use serde::Deserialize;

/// What proves the architecture.
const EXACT: Bounds = Bounds {
    mean: 0.0005,
    p99: 0.005,
    top: 0.998,
};

/// How far from the reference an engine may be.
struct Bounds {
    /// Mean absolute error of log-probabilities, in nats.
    mean: f64,
    /// Its 99th percentile.
    p99: f64,
    /// Share of positions whose likeliest token agrees, at least.
    top: f64,
}

/// Tokens to a pass: long texts take several, so the growth of the cache is on trial too.
const PASS: usize = 500;

#[derive(Deserialize)]
struct Text {
    id: String,
    tokens: Vec<TokenId>,
    /// Position `i` predicts `tokens[i + 1]`.
    positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    /// Log-probability of the token that follows; none after the last.
    next: Option<f64>,
    /// The five likeliest tokens with their log-probabilities, likeliest first.
    top: Vec<(TokenId, f64)>,
}

/// One model after the other: the largest takes 7 GB.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn logits_conformance_of_smollm2() {
    conform("smollm2-135m", candle, &EXACT);
}

/// Its window is 512, some of the texts are longer.
#[test]
fn logits_conformance_of_gemma3() {
    conform("gemma-3-270m", candle, &EXACT);
}

#[test]
fn logits_conformance_of_qwen2() {
    conform("qwen2.5-coder-0.5b", candle, &EXACT);
}

#[test]
fn logits_conformance_of_the_larger_qwen2() {
    conform("qwen2.5-coder-1.5b", candle, &EXACT);
}

/// llama.cpp's own distance, measured with its f16 KV cache.
#[test]
fn quantized_logits_conformance() {
    for (name, mean, p99, top) in [
        ("smollm2-135m", 0.0596, 0.301, 0.964),
        ("gemma-3-270m", 0.0677, 0.404, 0.963),
        ("qwen2.5-coder-0.5b", 0.0364, 0.248, 0.976),
        ("qwen2.5-coder-1.5b", 0.0459, 0.444, 0.985),
    ] {
        conform(name, cpu, &Bounds { mean, p99, top });
    }
}

fn candle(gguf: &Gguf) -> Box<dyn Decoder> {
    let options = CandleOptions {
        mode: WeightMode::F32,
        context: 2048,
        ..Default::default()
    };
    let model = CandleModel::load(gguf, &options).expect("the model loads");
    Box::new(model.with_gelu_of_ggml().decoder())
}

fn cpu(gguf: &Gguf) -> Box<dyn Decoder> {
    let options = CpuOptions {
        context: 2048,
        ..Default::default()
    };
    let model = CpuModel::load(gguf, &options).expect("the model loads");
    Box::new(model.decoder())
}

fn conform(name: &str, engine: fn(&Gguf) -> Box<dyn Decoder>, bounds: &Bounds) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = converge_tests::model(name);
    let texts = texts(&path);
    let gguf = Gguf::open(&path).expect("the model opens");
    let mut decoder = engine(&gguf);

    let (mut errors, mut agreeing, mut worst) = (Vec::new(), 0, (0.0, String::new()));
    for text in &texts {
        assert_eq!(text.tokens.len(), text.positions.len(), "{}", text.id);
        decoder.truncate(0).expect("truncate");
        let mut positions = text.positions.iter().zip(1..);
        for tokens in text.tokens.chunks(PASS) {
            let logits = decoder
                .forward(tokens, Rows::All, &Cancel::new())
                .expect("a pass");
            assert_eq!(logits.rows(), tokens.len());
            for row in (0..logits.rows()).filter_map(|i| logits.row(i)) {
                let (position, i) = positions.next().expect("a position for every row");
                let (Some(next), Some(&id)) = (position.next, text.tokens.get(i)) else {
                    continue;
                };
                let norm = log_sum_exp(row);
                let error = (f64::from(row[id as usize]) - norm - next).abs();
                if error > worst.0 {
                    worst = (error, format!("{} at {}", text.id, i - 1));
                }
                errors.push(error);
                agreeing += usize::from(position.top[0].0 as usize == argmax(row));
            }
        }
        assert!(positions.next().is_none(), "{}: rows are missing", text.id);
    }
    let n = errors.len();
    assert!(n > 2_000, "{name}: only {n} positions");
    let mean = errors.iter().sum::<f64>() / n as f64;
    let top = agreeing as f64 / n as f64;
    errors.sort_by(f64::total_cmp);
    let p99 = errors[n * 99 / 100];
    println!(
        "{name}: {n} positions, mean error {mean:.6}, p99 {p99:.5}, largest {:.5} ({}), same top \
         {top:.4}",
        worst.0, worst.1
    );
    assert!(mean < bounds.mean, "{name}: mean error {mean}");
    assert!(p99 <= bounds.p99, "{name}: 99th percentile {p99}");
    assert!(
        top >= bounds.top,
        "{name}: only {top} of the likeliest tokens agree"
    );
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(max) + sum.ln()
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// The reference's values for the file of a model.
fn texts(model: &Path) -> Vec<Text> {
    let stem = model.file_stem().expect("a file name").to_string_lossy();
    let path = converge_tests::conformance("logits").join(format!("{stem}.jsonl"));
    let lines = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}\nCONVERGE_CONFORMANCE names the folder of the data",
            path.display()
        )
    });
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a text with its positions"))
        .collect()
}
