//! Says how well a model predicts a text, or the log-probabilities of given tokens.
//!
//! ```text
//! cargo run --release --example score -- --text README.md
//! cargo run --release --example score -- smollm2-135m --jsonl tokens.jsonl --f32 > scored.jsonl
//! ```
//!
//! `--text` gives the perplexity: the exponential of the mean negative log-probability of each
//! token after the ones before it. A text longer than the context is read in windows that overlap
//! by half, so that every token but the first ones has at least half a context before it.
//!
//! `--jsonl` takes objects with `tokens` (or else a `text`), one a line, and writes each again with
//! the model's `positions`: after each token, the log-probability of the token that really follows
//! (`next`, null at the end) and the five likeliest (`top`: pairs of id and log-probability).

use std::{
    fs::File,
    io::{BufRead, BufReader, Write as _, stdin, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use clap::{ArgGroup, Parser};
use converge_core::{
    TokenId,
    generate::{Cancel, log_prob, top_log_probs},
    hub,
    model::{Decoder, Rows},
    tokenizer::{Special, Tokenizer},
};
use converge_examples::{
    cli::{self, Unit},
    engine::{self, DEFAULT_CONTEXT, EngineArgs, ModelArg},
};
use converge_quant::Gguf;
use serde_json::{Map, Value, json};

/// Tokens in one pass: bounds the logits that are held at once.
const CHUNK: usize = 64;
/// Likeliest tokens told of each position.
const TOP: usize = 5;

/// Perplexity of a text, or log-probabilities of given tokens.
#[derive(Parser)]
#[command(name = "score")]
#[command(group(ArgGroup::new("what").args(["text", "jsonl"]).required(true)))]
struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    engine: EngineArgs,
    /// File whose perplexity is wanted; `-` is stdin
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// File of JSON objects with `tokens`, one a line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// With --text: one JSON object on stdout
    #[arg(long, requires = "text")]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run_on(args.engine.threads, || match (&args.text, &args.jsonl) {
        (Some(path), _) => text(&args, path),
        (None, Some(path)) => jsonl(&args, path),
        (None, None) => bail!("give --text or --jsonl"),
    })
}

fn text(args: &Args, path: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    let read = reader(path)?.read_to_string(&mut text);
    read.with_context(|| format!("cannot read {}", path.display()))?;

    let gguf = engine::open(args.model.name())?;
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
    let tokens = encode(&tokenizer, &text)?;
    ensure!(
        tokens.len() >= 2,
        "{} is too short: there is no token that follows another",
        path.display()
    );
    let mut decoder = args
        .engine
        .decoder(&gguf, tokens.len().min(DEFAULT_CONTEXT))?;
    let context = decoder.context();
    ensure!(context >= 2, "--ctx {context} is too small: give 2 or more");

    let start = Instant::now();
    let scored = tokens.len() - 1;
    let bar = cli::progress("scoring", Unit::Tokens, scored as u64);
    let mut sum = 0.0;
    let mut next = 1;
    let mut from = 0;
    while next < tokens.len() {
        let to = tokens.len().min(from + context);
        let window = &tokens[from..to];
        // Tokens that the window before has scored are only context.
        let known = next - from;
        each_row(decoder.as_mut(), window, |i, logits| {
            if let Some(&token) = window.get(i + 1).filter(|_| i + 1 >= known) {
                sum -= log_prob(logits, token)?;
                bar.inc(1);
            }
            Ok(())
        })?;
        next = to;
        from = to - context / 2;
    }
    bar.finish_and_clear();
    let mean = sum / scored as f64;
    let bits_per_byte = sum / text.len() as f64 / std::f64::consts::LN_2;
    let (seconds, perplexity) = (start.elapsed().as_secs_f64(), mean.exp());
    let mut out = stdout().lock();
    if args.json {
        let line = json!({
            "tokens": tokens.len(), "scored": scored, "context": context,
            "mean_negative_log_probability": mean, "perplexity": perplexity,
            "bits_per_byte": bits_per_byte, "seconds": seconds,
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "perplexity {perplexity:.4}")?;
        writeln!(
            out,
            "{mean:.4} nats a token, {bits_per_byte:.4} bits a byte; {scored} tokens in windows of \
             {context}, {seconds:.1} s"
        )?;
    }
    Ok(())
}

fn jsonl(args: &Args, path: &Path) -> anyhow::Result<()> {
    let gguf = engine::open(args.model.name())?;
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
    let rows = read_rows(path, &tokenizer)?;
    let longest = rows.iter().map(|(_, tokens)| tokens.len()).max();
    let mut decoder = args.engine.decoder(&gguf, longest.unwrap_or(1).max(1))?;
    let sha256 = model_sha256(args.model.name(), &gguf)?;

    let total = rows.iter().map(|(_, tokens)| tokens.len() as u64).sum();
    let bar = cli::progress("scoring", Unit::Tokens, total);
    let mut out = stdout().lock();
    for (mut row, tokens) in rows {
        if row
            .get("model_sha256")
            .is_some_and(|given| *given != json!(sha256))
        {
            eprintln!("note: {} was made with another model file", name(&row));
        }
        let context = decoder.context();
        ensure!(
            tokens.len() <= context,
            "{} has {} tokens, more than the context of {context}: give --ctx {} or more",
            name(&row),
            tokens.len(),
            tokens.len()
        );
        let mut positions = Vec::with_capacity(tokens.len());
        each_row(decoder.as_mut(), &tokens, |i, logits| {
            let next = tokens.get(i + 1);
            let found = top_log_probs(logits, next.copied().unwrap_or(0), TOP)?;
            let top: Vec<_> = found
                .top
                .iter()
                .map(|&(id, log_prob)| json!([id, rounded(log_prob)]))
                .collect();
            positions.push(json!({"next": next.map(|_| rounded(found.log_prob)), "top": top}));
            bar.inc(1);
            Ok(())
        })
        .with_context(|| name(&row))?;
        row.insert("model_sha256".to_owned(), json!(sha256));
        row.insert("tokens".to_owned(), json!(tokens));
        row.insert("positions".to_owned(), Value::Array(positions));
        writeln!(out, "{}", Value::Object(row))?;
        out.flush()?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Runs tokens from an empty cache and hands over the logits after each.
fn each_row(
    decoder: &mut dyn Decoder,
    tokens: &[TokenId],
    mut use_row: impl FnMut(usize, &[f32]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    decoder.truncate(0)?;
    let mut position = 0;
    for chunk in tokens.chunks(CHUNK) {
        let logits = decoder.forward(chunk, Rows::All, &Cancel::new())?;
        for i in 0..logits.rows() {
            use_row(
                position,
                logits.row(i).context("a row of logits is missing")?,
            )?;
            position += 1;
        }
    }
    Ok(())
}

/// The tokens of data: nothing in it becomes a control token.
fn encode(tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Vec<TokenId>> {
    let mut tokens = Vec::from_iter(tokenizer.bos().filter(|_| tokenizer.adds_bos()));
    tokens.extend(tokenizer.encode(text, Special::Text)?);
    Ok(tokens)
}

/// A line of `--jsonl` with its tokens.
type Row = (Map<String, Value>, Vec<TokenId>);

fn read_rows(path: &Path, tokenizer: &Tokenizer) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (line, number) in reader(path)?.lines().zip(1..) {
        let place = || format!("{}, line {number}", path.display());
        let line = line.with_context(place)?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Map<String, Value> = serde_json::from_str(&line).with_context(place)?;
        let tokens: Vec<TokenId> = match (row.get("tokens"), row.get("text")) {
            (Some(tokens), _) => serde_json::from_value(tokens.clone())
                .with_context(|| format!("{}: `tokens` must be token ids", place()))?,
            (None, Some(Value::String(text))) => encode(tokenizer, text).with_context(place)?,
            _ => bail!("{}: neither `tokens` nor `text`", place()),
        };
        rows.push((row, tokens));
    }
    Ok(rows)
}

fn reader(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(stdin().lock()));
    }
    ensure!(!path.is_dir(), "{} is a folder, not a file", path.display());
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

/// The SHA-256 of the model's file: the catalogue's where the file came from there.
fn model_sha256(name: &str, gguf: &Gguf) -> anyhow::Result<String> {
    let known = hub::find(name).and_then(|entry| entry.files.first());
    Ok(match known {
        Some(file) => file.sha256.to_owned(),
        None => hub::sha256(gguf.path(), &mut |_, _| ())?,
    })
}

fn name(row: &Map<String, Value>) -> String {
    match row.get("id").and_then(Value::as_str) {
        Some(id) => format!("row `{id}`"),
        None => "a row without `id`".to_owned(),
    }
}

/// Six digits after the point.
fn rounded(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}
