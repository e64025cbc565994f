//! Decoding with and without guesses, on real models.
//!
//! ```text
//! cargo bench -p converge-benches --bench speculation
//! ```
//!
//! One iteration is an answer of 64 tokens by the 1.5B model; reading the prompt does not count. The
//! text is the same in all ways, and the table at the end says how many passes it took. The example
//! `speculative` measures whole suites of prompts.

use std::{error::Error, time::Duration};

use converge_benches::{Times, model, threads};
use converge_core::{
    LoadOptions, TokenId,
    chat::{Message, RenderOptions},
    generate::{Generate, Generation, Request, Session},
    load,
};
use converge_quant::Gguf;
use converge_spec::{Drafter, ModelDrafter, Speculative, SuffixDrafter};
use criterion::{Criterion, SamplingMode, Throughput};

const TARGET: &str = "qwen2.5-coder-1.5b";
const DRAFT: &str = "qwen2.5-coder-0.5b";
/// Tokens of the draft model's head.
const FREQUENT: usize = 32_768;
const TOKENS: usize = 64;

const TASKS: [(&str, &str); 3] = [
    (
        "edit",
        "Rename `total` to `sum` and give back the whole function, nothing else:\n\n\
         ```python\ndef total(rows):\n    result = 0\n    for row in rows:\n        if row.kind == \
         \"sale\":\n            result += row.amount * row.price\n        elif row.kind == \
         \"return\":\n            result -= row.amount * row.price\n    return result\n```",
    ),
    (
        "code",
        "Write a Python function that merges two sorted lists into one.",
    ),
    ("prose", "Tell a story of a fox and a clock."),
];

/// What guesses.
#[derive(Clone, Copy)]
enum Way {
    Plain,
    Suffix,
    Model,
    Both,
}

const WAYS: [(&str, Way); 4] = [
    ("plain", Way::Plain),
    ("suffix", Way::Suffix),
    ("model", Way::Model),
    ("both", Way::Both),
];

fn options() -> LoadOptions {
    LoadOptions {
        context: 1024,
        threads: threads().try_into().ok(),
        ..LoadOptions::default()
    }
}

fn drafters(way: Way, session: &Session) -> Result<Vec<Box<dyn Drafter>>, Box<dyn Error>> {
    let mut drafters: Vec<Box<dyn Drafter>> = Vec::new();
    if matches!(way, Way::Suffix | Way::Both) {
        drafters.push(Box::new(SuffixDrafter::new()));
    }
    if matches!(way, Way::Model | Way::Both) {
        let draft = Gguf::open(model::find(DRAFT)?)?;
        let draft = ModelDrafter::load(&draft, &options(), session.tokenizer())?;
        drafters.push(Box::new(draft.with_frequent(FREQUENT)));
    }
    Ok(drafters)
}

/// The answer, from a prompt that is there already, and the tokens of a pass. All guesses are of a
/// source that has not seen the answer before.
fn answer(
    target: &Session,
    way: Way,
    prompt: &[TokenId],
) -> Result<(Generation, f64), Box<dyn Error>> {
    let session = target.fork()?;
    let drafters = drafters(way, &session)?;
    let mut model = Speculative::new(session, drafters);
    let mut request = Request::new(prompt.to_vec());
    request.max_tokens = TOKENS;
    let generation = model.generate(&request, &mut |_| ())?;
    let pass = model.stats().tokens_per_pass();
    Ok((generation, pass))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    // Where tests are run, benches are only built.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let mut target = load(&model::find(TARGET)?, &options())?;
    let mut rows = Vec::new();
    for (task, question) in TASKS {
        let messages = [Message::user(question)];
        let chat = target.chat();
        let prompt = chat.encode(target.tokenizer(), &messages, &RenderOptions::default())?;
        let mut read = Request::new(prompt.clone());
        read.max_tokens = 0;
        target.generate(&read, &mut |_| ())?;
        let mut group = criterion.benchmark_group(task);
        group
            .sampling_mode(SamplingMode::Flat)
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(5))
            .throughput(Throughput::Elements(TOKENS as u64));
        let mut text = None;
        for (name, way) in WAYS {
            let (first, pass) = answer(&target, way, &prompt)?;
            let first = first.text;
            if *text.get_or_insert_with(|| first.clone()) != first {
                return Err(format!("{task}: the text of {name} is another one").into());
            }
            let mut times = Times::new();
            let mut failed = None;
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|count| {
                    let mut all = Duration::ZERO;
                    for _ in 0..count {
                        match answer(&target, way, &prompt) {
                            Ok((done, _)) => {
                                times.add(done.usage.decode_seconds);
                                all += Duration::from_secs_f64(done.usage.decode_seconds);
                            }
                            Err(error) => failed = Some(error),
                        }
                    }
                    all
                });
            });
            if let Some(error) = failed {
                return Err(error);
            }
            if !times.is_empty() {
                rows.push((task, name, times.median(), pass));
            }
        }
        group.finish();
    }
    criterion.final_summary();
    println!(
        "\n{TARGET}, {} threads, answers of {TOKENS} tokens, medians",
        threads()
    );
    println!(
        "{:<8} {:<8} {:>8} {:>7} {:>7}",
        "task", "guesses", "tok/s", "times", "a pass"
    );
    let mut plain = f64::NAN;
    for (task, name, seconds, pass) in rows {
        if name == "plain" {
            plain = seconds;
        }
        println!(
            "{task:<8} {name:<8} {:>8.1} {:>7.2} {pass:>7.2}",
            TOKENS as f64 / seconds,
            plain / seconds
        );
    }
    Ok(())
}
