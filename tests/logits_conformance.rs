//! The portable path in f32 against log-probabilities that another engine computed in f32.
//!
//! Weights are dequantized and the KV cache is f32 on both sides, so what differs is the order of
//! sums: the architecture is right when the mean error is far below what quantization costs.
//! Gemma's reference took GELU from ggml's table over f16, so ours does too: with an exact one the
//! mean error is 0.0006, and what is left with the table are arguments that the order of the sums
//! pushes over a border between two of its entries.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use converge_core::{
    TokenId,
    backend::candle::{CandleModel, CandleOptions, WeightMode},
    generate::Cancel,
    model::{Decoder, Rows},
};
use converge_quant::Gguf;
use serde::Deserialize;

/// Mean absolute error of log-probabilities, in nats, that proves the architecture.
const MEAN: f64 = 0.0005;

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
    conform("smollm2-135m");
}

/// Its window is 512, some of the texts are longer.
#[test]
fn logits_conformance_of_gemma3() {
    conform("gemma-3-270m");
}

#[test]
fn logits_conformance_of_qwen2() {
    conform("qwen2.5-coder-0.5b");
}

#[test]
fn logits_conformance_of_the_larger_qwen2() {
    conform("qwen2.5-coder-1.5b");
}

fn conform(name: &str) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = converge_tests::model(name);
    let texts = texts(&path);
    let gguf = Gguf::open(&path).expect("the model opens");
    let options = CandleOptions {
        mode: WeightMode::F32,
        context: 2048,
        ..Default::default()
    };
    let mut decoder = CandleModel::load(&gguf, &options)
        .expect("the model loads")
        .with_gelu_of_ggml()
        .decoder();

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
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    let top = agreeing as f64 / errors.len() as f64;
    println!(
        "{name}: {} positions, mean error {mean:.6}, largest {:.5} ({}), same top {top:.4}",
        errors.len(),
        worst.0,
        worst.1
    );
    assert!(
        errors.len() > 2_000,
        "{name}: only {} positions",
        errors.len()
    );
    assert!(mean < MEAN, "{name}: mean error {mean} of {}", errors.len());
    assert!(
        top > 0.998,
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
