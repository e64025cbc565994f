//! What sessions save on real models: branches of one prompt, generations in one batch, sessions that
//! come back from a file.
//!
//! ```text
//! cargo bench -p converge-benches --bench sessions
//! CONVERGE_BENCH_MODELS=smollm2-135m cargo bench -p converge-benches --bench sessions
//! ```
//!
//! What is compared is measured in turn, in one run, and the medians count. Texts are of random tokens
//! and never end by themselves.

use std::{path::Path, time::Instant};

use converge_benches::{Times, model, threads};
use converge_core::{
    LoadOptions, TokenId,
    cache::Transcript,
    generate::{Batch, Generate as _, Request, Session},
    load,
    sample::Sampling,
};

const ROUNDS: usize = 5;
/// A question, and how many answers it gets, each of so many tokens.
const PROMPT: usize = 1000;
const ANSWERS: usize = 5;
const ANSWER: usize = 32;
/// Generations in a batch, each of so many tokens.
const BATCH: usize = 4;
const TOKENS: usize = 64;
/// A conversation that comes back.
const LONG: usize = 4000;

type Error = Box<dyn std::error::Error>;

/// A request for `tokens` tokens, in a way of its own for each branch.
fn request(session: &Session, prompt: &[TokenId], tokens: usize, branch: u64) -> Request {
    let ids = 0..session.tokenizer().vocab() as TokenId;
    let ends = ids.filter(|&id| session.tokenizer().is_end(id));
    let mut sampling = Sampling::at(0.8, 7).branch(branch);
    sampling.logit_bias = ends.map(|id| (id, f32::NEG_INFINITY)).collect();
    Request {
        sampling,
        max_tokens: tokens,
        ..Request::new(prompt.to_vec())
    }
}

/// One generation, from nothing.
fn alone(session: &mut Session, prompt: &[TokenId], tokens: usize) -> Result<f64, Error> {
    session.clear()?;
    let request = request(session, prompt, tokens, 0);
    let start = Instant::now();
    session.generate(&request, &mut |_| ())?;
    Ok(start.elapsed().as_secs_f64())
}

/// Several answers to one prompt: it is read once, and branches go on together. Also gives the bytes
/// of the cache.
fn branches(
    session: &mut Session,
    prompt: &[TokenId],
    tokens: usize,
) -> Result<(f64, usize), Error> {
    session.clear()?;
    let start = Instant::now();
    let read = request(session, prompt, 0, 0);
    session.generate(&read, &mut |_| ())?;
    let mut batch = Batch::new();
    for branch in 0..ANSWERS {
        let branched = request(session, prompt, tokens, branch as u64);
        batch.join(session.fork()?, branched);
    }
    let done = batch.finish(&mut |_, _| ());
    let seconds = start.elapsed().as_secs_f64();
    let used = session.cache().map_or(0, |cache| cache.arena().used());
    for finished in done {
        finished.result?;
    }
    Ok((seconds, used))
}

/// Seconds of decoding `TOKENS` tokens in each of `count` sessions at once, after a short prompt.
fn together(session: &mut Session, prompt: &[TokenId], count: usize) -> Result<f64, Error> {
    session.clear()?;
    session.generate(&request(session, prompt, 0, 0), &mut |_| ())?;
    let mut batch = Batch::new();
    for branch in 0..count {
        let branched = request(session, prompt, TOKENS, branch as u64);
        batch.join(session.fork()?, branched);
    }
    let start = Instant::now();
    for finished in batch.finish(&mut |_, _| ()) {
        finished.result?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Reads a long text and keeps it in a file; then goes on from there in a new session: seconds of
/// reading, and from opening the file to the next token.
fn come_back(session: &mut Session, path: &Path, file: &Path) -> Result<(f64, f64), Error> {
    let text = model::sequence(LONG, session.tokenizer().vocab());
    let read = alone(session, &text, 1)?;
    let transcript = Transcript {
        tokens: text.clone(),
        ..Transcript::default()
    };
    session.save(file, &transcript)?;
    // Another process: nothing is there but the model.
    let mut fresh = open(path)?;
    let start = Instant::now();
    let back = fresh.open(file)?;
    let request = request(&fresh, &back.tokens, 1, 0);
    let generation = fresh.generate(&request, &mut |_| ())?;
    let seconds = start.elapsed().as_secs_f64();
    if generation.usage.prefilled > 1 {
        return Err("the session did not come back whole".into());
    }
    Ok((read, seconds))
}

fn open(path: &Path) -> Result<Session, Error> {
    let options = LoadOptions {
        context: LONG + 96,
        threads: threads().try_into().ok(),
        ..LoadOptions::default()
    };
    Ok(load(path, &options)?)
}

fn measure(name: &str, path: &Path) -> Result<(), Error> {
    let mut session = open(path)?;
    let text = model::sequence(PROMPT, session.tokenizer().vocab());
    let (prompt, short) = (&text[..], &text[..16]);
    let mut times = [(); 6].map(|()| Times::new());
    let mut bytes = (0, 0);
    for _ in 0..ROUNDS {
        let [first, firsts, one, five, single, batched] = &mut times;
        first.add(alone(&mut session, prompt, 1)?);
        bytes.0 = session.cache().map_or(0, |cache| cache.arena().used());
        firsts.add(branches(&mut session, prompt, 1)?.0);
        one.add(alone(&mut session, prompt, ANSWER)?);
        let (seconds, used) = branches(&mut session, prompt, ANSWER)?;
        five.add(seconds);
        bytes.1 = used;
        single.add(together(&mut session, short, 1)?);
        batched.add(together(&mut session, short, BATCH)?);
    }
    let [first, firsts, one, five, single, batched] = times.map(|times| times.median());
    println!("{name}: {} threads, medians of {ROUNDS} rounds", threads());
    println!("  first token after {PROMPT} tokens             {first:.3} s");
    println!(
        "  first tokens of {ANSWERS} branches               {firsts:.3} s: {:.2} of one",
        firsts / first
    );
    println!("  an answer of {ANSWER} tokens                  {one:.3} s");
    println!(
        "  {ANSWERS} answers of {ANSWER} tokens                  {five:.3} s: {:.2} of one, {:.2} of the first token",
        five / one,
        five / first
    );
    println!(
        "  cache: {:.1} MB with one answer, {:.1} MB with {ANSWERS}",
        bytes.0 as f64 / 1e6,
        bytes.1 as f64 / 1e6
    );
    println!(
        "  decoding alone, {BATCH} together             {:.1}, {:.1} tokens/s: {:.2} times",
        TOKENS as f64 / single,
        (BATCH * TOKENS) as f64 / batched,
        BATCH as f64 * single / batched
    );
    let folder = std::env::temp_dir().join(format!("converge-sessions-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let done = come_back(&mut session, path, &folder.join("session"));
    std::fs::remove_dir_all(&folder)?;
    let (read, back) = done?;
    println!(
        "  {LONG} tokens read in {read:.2} s; back from a file, with the next token, in {back:.3} s"
    );
    Ok(())
}

fn main() -> Result<(), Error> {
    // Where tests are run, benches are only built.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    for name in model::chosen() {
        let path = model::find(&name)?;
        measure(&name, &path)?;
    }
    Ok(())
}
