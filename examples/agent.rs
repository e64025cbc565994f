//! An agent over a folder of private files: plan, execute, observe, refine.
//!
//! ```text
//! cargo run --release --example agent
//! cargo run --release --example agent -- --dir DIR --question "When does the lease end?"
//! cargo run --release --example agent -- --dir DIR --eval questions.jsonl
//! ```
//!
//! Without arguments it answers the first question of `examples/questions/archive.jsonl` over
//! `examples/data`. The model checks guesses of what it says next, several at a time (`--plain`: none):
//! the answers are the same, sooner. With `--json` every event is a line of standard output, and the last line holds
//! the `"answer"`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Parser;
use converge_agent::{
    Agent, Event, Report, Settings,
    policy::Budget,
    run::StopReason,
    tool::{Folder, Toolbox},
};
use converge_core::{LoadOptions, generate::Generate, sample::Sampling, tokenizer::Tokenizer};
use converge_examples::{cli, engine, models};
use converge_spec::{Drafter, ModelDrafter, Speculative, SuffixDrafter};
use serde::Deserialize;

#[derive(Parser)]
#[command(about = "Answers questions over a folder of private files, on this machine")]
struct Args {
    /// The folder to read; nothing outside of it is touched
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data"))]
    dir: PathBuf,
    /// The question; the first one of the example archive if left out
    #[arg(long, conflicts_with = "eval")]
    question: Option<String>,
    /// Run a list of {"question", "expect", "sources"} (JSON lines or an array) and count
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    /// A model of the catalogue, or the path of a GGUF file
    #[arg(long, default_value = models::DEFAULT)]
    model: String,
    /// A small model of the same vocabulary that drafts, or `none`; the default model has one
    #[arg(long, value_name = "MODEL")]
    draft: Option<String>,
    /// No drafts: each token costs a pass
    #[arg(long, conflicts_with = "draft")]
    plain: bool,
    /// Positions of the KV cache
    #[arg(long, default_value_t = 8192)]
    ctx: usize,
    /// 0 takes the likeliest token each time
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Seed of the sampling noise
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Calls to the model that a question may take
    #[arg(long, default_value_t = 60)]
    max_calls: u64,
    /// Seconds that a question may take
    #[arg(long, default_value_t = 1200.0)]
    max_seconds: f64,
    /// Dollars that one call would cost elsewhere
    #[arg(long, default_value_t = 0.03)]
    price: f64,
    /// Write the trace (all events, as JSON) to this file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Events as JSON lines
    #[arg(long)]
    json: bool,
}

/// One line of an `--eval` file.
#[derive(Deserialize)]
struct Case {
    question: String,
    /// Each must occur in the answer; `a|b` are alternatives.
    #[serde(default)]
    expect: Vec<String>,
    /// Files that must be cited.
    #[serde(default)]
    sources: Vec<String>,
}

fn main() -> ExitCode {
    cli::run(|| run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    // What can be wrong with the arguments is said before a model is fetched or loaded.
    let folder = Folder::open(&args.dir)?;
    let cases = match (&args.eval, &args.question) {
        (Some(path), _) => cases(path)?,
        (None, Some(question)) => vec![Case {
            question: question.clone(),
            expect: Vec::new(),
            sources: Vec::new(),
        }],
        (None, None) => {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/questions/archive.jsonl");
            cases(Path::new(path))?.into_iter().take(1).collect()
        }
    };
    let cancel = cli::interrupt();
    let path = models::ensure(&args.model)?;
    if !args.json {
        eprintln!("loading {}", path.display());
    }
    let options = LoadOptions {
        context: args.ctx,
        progress: Some(engine::loading()),
        ..LoadOptions::default()
    };
    let session = converge_core::load(&path, &options)?;
    let mut model: Box<dyn Generate> = match args.plain {
        true => Box::new(session),
        false => {
            let drafters = drafters(args, &options, session.tokenizer())?;
            Box::new(Speculative::new(session, drafters))
        }
    };
    let tools = Toolbox::read_only(&folder)?;
    let mut agent = Agent::new(model.as_mut(), &tools);
    agent.cancel = cancel.clone();
    agent.settings = Settings::default();
    agent.sampling = Sampling {
        temperature: args.temperature,
        seed: args.seed,
        ..Sampling::default()
    };
    agent.budget = Budget {
        calls: Some(args.max_calls),
        seconds: Some(args.max_seconds),
        ..Budget::unlimited()
    };
    let mut traces = Vec::new();
    let mut right = 0;
    for (at, case) in cases.iter().enumerate() {
        if args.eval.is_some() && !args.json {
            println!("\n[{}/{}] {}", at + 1, cases.len(), case.question);
        } else if !args.json {
            println!("\n{}", case.question);
        }
        let report = agent.ask(&case.question, &mut |event| {
            if args.json {
                line(event);
            } else {
                show(event);
            }
        })?;
        let verdict = args.eval.is_some().then(|| judge(case, &report));
        right += usize::from(verdict.as_ref().is_some_and(Result::is_ok));
        if args.json {
            line(&serde_json::json!({
                "question": report.question,
                "answer": report.outcome.answer,
                "stop": report.outcome.stop,
                "citations": report.outcome.citations,
                "calculations": report.outcome.calculations,
                "ledger": report.ledger,
                "right": verdict.as_ref().map(Result::is_ok),
            }));
        } else {
            summary(&report, args.price);
            match &verdict {
                Some(Ok(())) => println!("right"),
                Some(Err(why)) => println!("WRONG: {why}"),
                None => {}
            }
        }
        let cancelled = report.outcome.stop == StopReason::Cancelled;
        traces.push(report);
        if let Some(path) = &args.trace {
            save(path, &traces)?;
        }
        if cancelled {
            break;
        }
    }
    if args.eval.is_some() {
        if args.json {
            line(&serde_json::json!({"right": right, "of": cases.len()}));
        } else {
            println!("\n{right}/{}", cases.len());
        }
    }
    if cancel.is_cancelled() {
        bail!(cli::Interrupted);
    }
    Ok(())
}

/// Where guesses come from: what was said before, and a small model.
fn drafters(
    args: &Args,
    options: &LoadOptions,
    target: &Tokenizer,
) -> anyhow::Result<Vec<Box<dyn Drafter>>> {
    let mut drafters: Vec<Box<dyn Drafter>> = vec![Box::new(SuffixDrafter::new())];
    let small = match args.draft.as_deref() {
        Some("none") => None,
        None => (args.model == models::DEFAULT).then_some(models::DRAFT),
        named => named,
    };
    if let Some(name) = small {
        let drafter = ModelDrafter::load(&engine::open(name)?, options, target);
        drafters.push(Box::new(
            drafter.context("give another --draft, or `--draft none`")?,
        ));
    }
    Ok(drafters)
}

/// The questions of a file: JSON lines or an array.
fn cases(path: &Path) -> anyhow::Result<Vec<Case>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text)
            .with_context(|| format!("{}: not a list of questions", path.display()));
    }
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}:{}: not a question", path.display(), at + 1))
        })
        .collect()
}

/// Whether a report holds what the case expects; why not, otherwise.
fn judge(case: &Case, report: &Report) -> Result<(), String> {
    let answer = report.outcome.answer.to_lowercase();
    for expect in &case.expect {
        if !expect
            .split('|')
            .any(|one| answer.contains(&one.trim().to_lowercase()))
        {
            return Err(format!("expected {expect:?} in the answer"));
        }
    }
    for source in &case.sources {
        let cited = report
            .outcome
            .citations
            .iter()
            .any(|citation| citation.source.path == *source);
        if !cited {
            return Err(format!("{source} is not cited"));
        }
    }
    Ok(())
}

fn line(value: &impl serde::Serialize) {
    // A reader that went away ends the program at the next write of its own accord.
    if let Ok(text) = serde_json::to_string(value) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// One event as a person reads it.
fn show(event: &Event) {
    match event {
        Event::Phase { phase } => println!("── {} ──", phase.name()),
        Event::ToolCall { tool, args } => println!("  {tool} {args}"),
        Event::ToolResult { text, failed, .. } => {
            let first = text.lines().next().unwrap_or("");
            let lines = text.lines().count();
            let more = if lines > 1 {
                format!(" (+{} lines)", lines - 1)
            } else {
                String::new()
            };
            println!(
                "    {}{first}{more}",
                if *failed { "refused: " } else { "" }
            );
        }
        Event::Record {
            about,
            record,
            seconds,
            ..
        } => println!("  {about} [{seconds:.1} s] {record}"),
        Event::Computed { calculation } => {
            println!(
                "  computed {} = {}",
                calculation.expression, calculation.result
            );
        }
        Event::Rejected { answer, reason } => println!("  not accepted: {answer:?}: {reason}"),
        _ => {}
    }
}

fn summary(report: &Report, price: f64) {
    println!("\nAnswer: {}", report.outcome.answer);
    for citation in &report.outcome.citations {
        println!("  {}: {}", citation.source, citation.quote);
    }
    match &report.outcome.stop {
        StopReason::Done => {}
        StopReason::Overflow => println!("stopped: a step did not fit the context; raise --ctx"),
        other => println!("stopped: {other:?}"),
    }
    println!("\n{}", report.ledger);
    println!(
        "at ${price:.2} a call this would have cost ${:.2}; here it cost nothing",
        report.ledger.price(price)
    );
}

/// Writes the traces so that a stop in between leaves the old file or the new one.
fn save(path: &Path, traces: &[Report]) -> anyhow::Result<()> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))
        .with_context(|| format!("cannot write beside {}", path.display()))?;
    serde_json::to_writer_pretty(&mut file, traces)?;
    file.persist(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
