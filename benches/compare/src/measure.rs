//! What processes of this program do: measure one engine in process, and print it.

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use converge_benches::{
    model::{self, Work},
    probe,
};
use converge_core::{
    Backend, LoadOptions,
    backend::candle::{CandleOptions, WeightMode},
    generate::{Cancel, Generate as _, Request},
    model::{Decoder, Rows},
    tokenizer::Special,
};
use converge_quant::{Gguf, Pool};
use serde::{Deserialize, Serialize};

use crate::{
    engine::Engine,
    record::{Limits, Run, Samples, Test},
};

/// Positions of the context where the first token is measured.
pub(crate) const CONTEXT: usize = 4096;

/// The prompt of the first token: about sixteen tokens.
pub(crate) const PROMPT: &str = "The quick brown fox jumps over the lazy dog and then runs back to";

/// What a process is to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) engine: Engine,
    pub(crate) path: PathBuf,
    pub(crate) threads: usize,
    pub(crate) reps: u32,
    pub(crate) prompt: usize,
    pub(crate) decode: usize,
    pub(crate) passes: Vec<usize>,
    pub(crate) depth: usize,
    pub(crate) probe: bool,
}

impl Plan {
    fn options(&self, context: usize) -> Result<LoadOptions> {
        Ok(LoadOptions {
            context,
            threads: self.threads.try_into().ok(),
            backend: match self.engine {
                Engine::Ours => Backend::Cpu,
                Engine::Candle => Backend::Candle {
                    mode: WeightMode::Quantized,
                    device: CandleOptions::default().device,
                },
                engine => bail!("{} is not measured in process", engine.name()),
            },
            ..LoadOptions::default()
        })
    }

    /// Everything that is measured.
    fn tests(&self) -> Vec<Test> {
        let some = |n: usize| Some(n).filter(|&n| n > 0);
        let mut tests = Vec::new();
        tests.extend(some(self.prompt).map(Test::Prefill));
        tests.extend(some(self.decode).map(Test::Decode));
        tests.extend(
            some(self.depth)
                .filter(|_| self.decode > 0)
                .map(Test::DecodeAt),
        );
        let passes = || self.passes.iter().copied().filter(|&n| n > 0);
        tests.extend(passes().map(Test::Pass));
        if self.engine == Engine::Ours && passes().next().is_some() {
            tests.push(Test::Check(1));
            tests.extend(passes().filter(|&n| n > 1).map(Test::Check));
        }
        tests
    }
}

/// Measures speeds.
pub(crate) fn measure(plan: &str) -> Result<()> {
    let plan: Plan = serde_json::from_str(plan).context("what to measure")?;
    let tests = plan.tests();
    let longest = plan
        .passes
        .iter()
        .copied()
        .chain([plan.prompt, plan.decode])
        .max();
    let needed = plan.depth + longest.unwrap_or(0).max(1);
    let gguf = Gguf::open(&plan.path)?;
    let mut decoder = plan.options(needed)?.decoder(&gguf)?;
    let mut samples = Vec::new();
    for &test in &tests {
        samples.push(speeds(decoder.as_mut(), &plan, test)?);
    }
    let limits = match plan.probe {
        true => Some(limits(&plan, &gguf, &tests)?),
        false => None,
    };
    let run = Run {
        engine: plan.engine,
        setting: String::new(),
        beside: String::new(),
        version: String::new(),
        samples,
        limits,
    };
    writeln!(stdout(), "{}", serde_json::to_string(&run)?)?;
    Ok(())
}

/// Tokens per second of each repetition, after one that is not counted.
fn speeds(decoder: &mut dyn Decoder, plan: &Plan, test: Test) -> Result<Samples> {
    let tokens = match test {
        Test::Prefill(n) | Test::Decode(n) | Test::Pass(n) | Test::Check(n) => n,
        Test::DecodeAt(_) => plan.decode,
        Test::Load | Test::Memory => 0,
    };
    let depth = match test {
        Test::DecodeAt(depth) => depth,
        _ => 0,
    };
    let all = model::sequence(depth + tokens, decoder.vocab());
    let (before, tokens) = all.split_at(depth);
    decoder.truncate(0)?;
    model::prefill(decoder, before)?;
    let mut values = Vec::new();
    for rep in 0..=plan.reps {
        let start = Instant::now();
        match test {
            Test::Prefill(_) => model::prefill(decoder, tokens)?,
            Test::Pass(_) => {
                let logits = decoder.forward(tokens, Rows::Last, &Cancel::new())?;
                decoder.reuse(logits);
            }
            Test::Check(_) => {
                let logits = decoder.forward(tokens, Rows::All, &Cancel::new())?;
                decoder.reuse(logits);
            }
            _ => model::decode(decoder, tokens)?,
        }
        let seconds = start.elapsed().as_secs_f64();
        decoder.truncate(depth)?;
        if rep > 0 {
            values.push(tokens.len() as f64 / seconds.max(1e-9));
        }
    }
    Ok(Samples { test, values })
}

/// What the machine could do at best.
fn limits(plan: &Plan, gguf: &Gguf, tests: &[Test]) -> Result<Limits> {
    let work = Work::of(gguf)?;
    let pool = Pool::new(plan.threads);
    let rates = work.probe(&pool, &probe::Stream::new()?)?;
    // Attention is not counted: at depth it takes its share.
    let speed = |&test: &Test| {
        let (tokens, rows) = match test {
            Test::Prefill(n) | Test::Pass(n) => (n, 1),
            Test::Check(n) => (n, n),
            _ => (1, 1),
        };
        (test, tokens as f64 / work.limit(&rates, tokens, rows))
    };
    Ok(Limits {
        bandwidth: rates.bandwidth,
        raw: rates.raw,
        memory_seconds: work.memory(&rates),
        arithmetic_seconds: work.arithmetic(&rates, 1, 1),
        speeds: tests.iter().map(speed).collect(),
    })
}

/// Loads the model and writes one token: whoever started the process takes the time.
pub(crate) fn load(plan: &str) -> Result<()> {
    let plan: Plan = serde_json::from_str(plan).context("what to load")?;
    let mut session = converge_core::load(&plan.path, &plan.options(CONTEXT)?)?;
    let prompt = session.tokenizer().encode(PROMPT, Special::Text)?;
    let mut request = Request::new(prompt);
    request.max_tokens = 1;
    let generation = session.generate(&request, &mut |_| {})?;
    let mut out = stdout().lock();
    writeln!(out, "{}", generation.text)?;
    out.flush()?;
    Ok(())
}
