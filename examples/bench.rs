//! Measures how fast a model reads, writes, and checks several tokens in one pass.
//!
//! ```text
//! cargo run --release --example bench -- --prompt 512 --gen 64
//! cargo run --release --example bench -- smollm2-135m --passes 1,2,4,8,16 --depth 256 --reps 5
//! ```
//!
//! Only the parts whose options are given are measured. Each repetition is one JSON line on stdout,
//! after one that is not counted; the medians go to stderr. Token ids are a fixed sequence: the
//! time does not depend on them.
//!
//! - `prefill`: a prompt of `n` tokens in chunks as a session reads it, logits for the last.
//! - `decode`: `n` tokens one after the other.
//! - `pass`: `n` tokens at once, logits for the last (for all with `--all-logits`), as in checking
//!   a draft of `n - 1` tokens.

use std::{
    io::{Write as _, stdout},
    process::ExitCode,
    time::Instant,
};

use anyhow::ensure;
use clap::{ArgGroup, Parser};
use converge_core::{
    TokenId,
    generate::{Cancel, Session},
    model::{Decoder, Rows},
};
use converge_examples::{
    cli,
    engine::{self, EngineArgs, ModelArg},
};
use serde_json::json;

/// Measure prefill, decode, and passes over several tokens.
#[derive(Parser)]
#[command(name = "bench")]
#[command(group(ArgGroup::new("what").args(["prompt", "gen_tokens", "passes"]).required(true).multiple(true)))]
struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    engine: EngineArgs,
    /// Read prompts of this many tokens
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = count)]
    prompt: Vec<usize>,
    /// Generate this many tokens
    #[arg(long = "gen", value_name = "N", value_delimiter = ',', value_parser = count)]
    gen_tokens: Vec<usize>,
    /// Passes over this many tokens at once
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = count)]
    passes: Vec<usize>,
    /// Tokens that are in the context before
    #[arg(long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Repetitions of each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count)]
    reps: usize,
    /// In passes, logits for every token instead of the last
    #[arg(long, requires = "passes")]
    all_logits: bool,
    /// Only the JSON lines, no medians on stderr
    #[arg(long)]
    json: bool,
}

/// A number of at least one.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err("not a number".to_owned()),
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum Test {
    Prefill,
    Decode,
    Pass,
}

impl Test {
    fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Pass => "pass",
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run_on(args.engine.threads, || run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let each =
        |test: Test, sizes: &[usize]| -> Vec<_> { sizes.iter().map(|&n| (test, n)).collect() };
    let tests = [
        each(Test::Prefill, &args.prompt),
        each(Test::Decode, &args.gen_tokens),
        each(Test::Pass, &args.passes),
    ]
    .concat();
    let longest = tests.iter().map(|&(_, n)| n).max().unwrap_or(0);
    let needed = args.depth.saturating_add(longest);

    let gguf = engine::open(args.model.name())?;
    let mut decoder = args.engine.decoder(&gguf, needed)?;
    // A first run that writes packed weights to disk is not what is to be measured.
    decoder.settle();
    ensure!(
        decoder.context() >= needed,
        "--depth {} and {longest} tokens are more than the context of {}",
        args.depth,
        decoder.context()
    );
    let tokens = sequence(needed, decoder.vocab());
    let (before, after) = tokens.split_at(args.depth);
    prefill(decoder.as_mut(), before)?;

    let mut out = stdout().lock();
    for (test, n) in tests {
        let after = after.get(..n).unwrap_or_default();
        let mut rates = Vec::with_capacity(args.reps);
        for rep in 0..=args.reps {
            let start = Instant::now();
            match test {
                Test::Prefill => prefill(decoder.as_mut(), after)?,
                Test::Decode => {
                    for token in after.chunks(1) {
                        let logits = decoder.forward(token, Rows::Last, &Cancel::new())?;
                        decoder.reuse(logits);
                    }
                }
                Test::Pass => {
                    let rows = if args.all_logits {
                        Rows::All
                    } else {
                        Rows::Last
                    };
                    let logits = decoder.forward(after, rows, &Cancel::new())?;
                    decoder.reuse(logits);
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            decoder.truncate(args.depth)?;
            // The first one warms up.
            let Some(rep) = rep.checked_sub(1) else {
                continue;
            };
            let rate = n as f64 / seconds.max(1e-9);
            rates.push(rate);
            let line = json!({
                "test": test.name(), "n": n, "depth": args.depth, "rep": rep,
                "tokens_per_second": rate,
            });
            writeln!(out, "{line}")?;
        }
        if !args.json {
            rates.sort_by(f64::total_cmp);
            let median = rates.get(rates.len() / 2).copied().unwrap_or_default();
            let (name, depth) = (test.name(), args.depth);
            eprintln!("{name:>7} {n:>5} tokens at depth {depth}: {median:8.1} tok/s");
        }
    }
    Ok(())
}

/// Reads tokens as a session does: in chunks, with logits for the very last.
fn prefill(decoder: &mut dyn Decoder, tokens: &[TokenId]) -> anyhow::Result<()> {
    let mut chunks = tokens.chunks(Session::PREFILL_CHUNK).peekable();
    while let Some(chunk) = chunks.next() {
        let rows = match chunks.peek() {
            Some(_) => Rows::None,
            None => Rows::Last,
        };
        decoder.forward(chunk, rows, &Cancel::new())?;
    }
    Ok(())
}

/// Token ids spread over the vocabulary, the same in every run.
fn sequence(len: usize, vocab: usize) -> Vec<TokenId> {
    let mut state = 1u64;
    let mut next = || {
        // Knuth's MMIX generator; its high bits are good enough here.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab.max(1) as u64) as TokenId
    };
    (0..len).map(|_| next()).collect()
}
