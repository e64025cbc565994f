//! Plain and speculative decoding in turn, on the same prompts: the same tokens, and how much sooner.
//!
//! ```text
//! cargo run --release --example speculative -- "Write a binary search in Rust."
//! cargo run --release --example speculative -- --draft none --suite examples/prompts/edits.jsonl
//! cargo run --release --example speculative -- --suite examples/prompts/code.jsonl --rounds 3 --json
//! cargo run --release --example speculative -- --suite examples/prompts/code.jsonl --plot code.svg
//! cargo run --release --example speculative -- --suite examples/prompts/code.jsonl --llama DIR
//! ```
//!
//! A suite has one prompt a line: `{"name", "messages", "max_tokens"}`, and a JSON `schema` that the
//! answer is held to, or none. Those in `examples/prompts` are edits of whole files, calls of tools in
//! an agent's transcript, fresh code (of HumanEval, <https://github.com/openai/human-eval>, MIT) and
//! prose. Each prompt is generated once without and once with drafts, in changing order, and any
//! difference is an error. Rates are those of decoding: the prompt is read once for both. As in an agent's
//! run, later prompts of a suite draft from earlier answers, too. With `--rounds` the suite is measured so
//! often, each time with drafters that know nothing yet, and the round of the median ratio counts, prompt by
//! prompt; of an even number, the lower of the two in the middle.
//!
//! With `--llama` llama.cpp's server answers each prompt after ours: the same token ids, as many tokens
//! as ours answered (an end of text does not count), its most likely ones, plain and in each of its
//! speculative modes that needs no model made for it, with repacked weights or without, whichever is
//! quicker in plain decoding. Where ours is held to a schema, the server answers with it (until the
//! schema ends the answer) and without. Rates are those that the server tells. A server for each mode
//! stays through the run, 1.2 to 1.8 GB each with the default model.

mod plot;
mod rival;

use std::{
    fmt::Write as _,
    fs::File,
    io::{Write as _, stdout},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use converge_core::{
    chat::{Message, RenderOptions},
    generate::{Generate, Generation, Request, StopReason},
    tokenizer::Tokenizer,
};
use converge_examples::{
    cli::{self, Interrupted, SamplingArgs},
    engine::{self, EngineArgs},
    models,
};
use converge_quant::Gguf;
use converge_spec::{Drafter, ModelDrafter, Position, Speculative, Stats, SuffixDrafter};
use rival::{Measure, Rival, Setting, Summary};
use serde::Deserialize;
use serde_json::{Value, json};

/// Compare plain and speculative decoding.
#[derive(Parser)]
#[command(name = "speculative")]
struct Args {
    /// A message
    #[arg(required_unless_present = "suite", conflicts_with = "suite")]
    prompt: Option<String>,
    /// File of prompts, one JSON object a line with "name", "messages", and if wanted "max_tokens" and a
    /// JSON "schema"; may be repeated
    #[arg(long, value_name = "FILE")]
    suite: Vec<PathBuf>,
    /// Name of a known model (see `fetch --list`) or path of a GGUF file
    #[arg(short, long, default_value = models::DEFAULT)]
    model: String,
    /// A small model of the same vocabulary that drafts, or `none`
    #[arg(long, value_name = "MODEL", default_value = models::DRAFT)]
    draft: String,
    /// Tokens below this go through the draft model's head, with those of the text
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    frequent: usize,
    /// Draft without looking for what was said before
    #[arg(long)]
    no_suffix: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// The most tokens to generate where the suite does not say
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Measure each suite so often: medians
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    rounds: NonZeroUsize,
    /// Draw how far drafts went, in each suite, as SVG to this file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Also measure llama.cpp: the folder of `llama-server`
    #[arg(long, value_name = "DIR")]
    llama: Option<PathBuf>,
    /// Of llama.cpp's speculative modes, only these
    #[arg(long, value_name = "MODE,…", value_delimiter = ',', requires = "llama")]
    llama_modes: Vec<String>,
    /// One JSON object for each prompt and round, and with --llama for each suite, on stdout instead
    /// of the tables
    #[arg(long)]
    json: bool,
}

/// One line of a suite.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    name: String,
    messages: Vec<Message>,
    #[serde(default)]
    schema: Option<Value>,
    #[serde(default)]
    max_tokens: Option<usize>,
}

/// Both ways of one prompt.
struct Pair {
    name: String,
    plain: Generation,
    drafted: Generation,
    stats: Stats,
    /// llama.cpp, in its modes.
    rival: Vec<Measure>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run_on(args.engine.threads, || run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    args.sampling.sampling()?;
    let suites = suites(args)?;
    if let Some(path) = &args.plot {
        // Rather now than after minutes.
        let file = File::options().create(true).append(true).open(path);
        file.with_context(|| format!("cannot write {}", path.display()))?;
    }
    let gguf = engine::open(&args.model)?;
    let session = args.engine.session(&gguf)?;
    session.settle();
    if !session.exact() {
        eprintln!("[this engine is not exact: the two texts may differ]");
    }
    // What does not fit together is told now.
    let sources = drafters(args, session.tokenizer())?;
    ensure!(
        !sources.is_empty(),
        "nothing drafts: leave out --no-suffix, or give a --draft"
    );
    let mut speculative = Speculative::new(session, sources);
    for task in suites.iter().flat_map(|(_, tasks)| tasks) {
        request(args, &speculative, task)?;
    }

    let rival = match &args.llama {
        Some(dir) => Some(rival(args, dir, &gguf, &speculative, &suites)?),
        None => None,
    };
    let mut out = stdout().lock();
    let mut panels = Vec::new();
    for (name, tasks) in suites {
        let mut rounds: Vec<Vec<Pair>> = tasks.iter().map(|_| Vec::new()).collect();
        let mut ended = Ok(());
        'rounds: for round in 0..args.rounds.get() {
            let session = speculative.into_session();
            let sources = drafters(args, session.tokenizer())?;
            speculative = Speculative::new(session, sources);
            for (i, task) in tasks.iter().enumerate() {
                let measured = measure(args, &mut speculative, rival.as_ref(), task, round + i);
                let pair = match measured {
                    Ok(pair) => pair,
                    Err(error) => {
                        ended = Err(error);
                        break 'rounds;
                    }
                };
                match args.json {
                    true => writeln!(out, "{}", pair.json(&name, round))?,
                    false => eprintln!("[{name} {}: {:.2}]", pair.name, pair.ratio()),
                }
                rounds[i].push(pair);
            }
        }
        let pairs: Vec<_> = rounds.into_iter().filter_map(middle).collect();
        // What is finished is kept, whatever came then.
        if !args.json && !pairs.is_empty() {
            write!(out, "{}", table(&name, &pairs)?)?;
        }
        if let Some(rival) = &rival
            && let Some(summary) = Summary::of(&pairs)
        {
            match args.json {
                true => writeln!(out, "{}", summary.json(&name, rival.repack))?,
                false => write!(out, "{}", summary.table(rival.repack)?)?,
            }
        }
        ended?;
        panels.push(panel(name, &pairs));
    }
    if let Some(path) = &args.plot {
        let drawing = plot::svg(&panels)?;
        std::fs::write(path, drawing)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn suites(args: &Args) -> anyhow::Result<Vec<(String, Vec<Task>)>> {
    if let Some(prompt) = &args.prompt {
        let task = Task {
            name: "prompt".to_owned(),
            messages: vec![Message::user(prompt.clone())],
            schema: None,
            max_tokens: None,
        };
        return Ok(vec![("prompt".to_owned(), vec![task])]);
    }
    let read = |path: &PathBuf| {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let parse = |(i, line): (usize, &str)| -> anyhow::Result<Task> {
            let parsed = serde_json::from_str(line);
            let task: Task = parsed.with_context(|| format!("{shown}, line {}", i + 1))?;
            ensure!(
                !task.messages.is_empty(),
                "{shown}, line {}: no messages",
                i + 1
            );
            Ok(task)
        };
        let lines = text.lines().enumerate();
        let tasks = lines.filter(|(_, line)| !line.trim().is_empty()).map(parse);
        let tasks = tasks.collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(!tasks.is_empty(), "{shown} has no prompts");
        let name = path.file_stem().unwrap_or_default();
        Ok((name.to_string_lossy().into_owned(), tasks))
    };
    args.suite.iter().map(read).collect()
}

/// llama.cpp, ready for the longest of the prompts.
fn rival(
    args: &Args,
    dir: &Path,
    gguf: &Gguf,
    speculative: &Speculative,
    suites: &[(String, Vec<Task>)],
) -> anyhow::Result<Rival> {
    let mut context = 0;
    let mut first = Vec::new();
    for task in suites.iter().flat_map(|(_, tasks)| tasks) {
        let request = request(args, speculative, task)?;
        context = context.max(request.prompt.len() + request.max_tokens);
        if first.is_empty() {
            first = request.prompt;
        }
    }
    let draft = match args.draft.as_str() {
        "none" => None,
        name => Some(engine::open(name)?.path().to_owned()),
    };
    let setting = Setting {
        dir,
        model: gguf.path(),
        draft,
        context,
        modes: &args.llama_modes,
    };
    Rival::start(&setting, &first, &cli::interrupt())
}

fn model_drafter(args: &Args, target: &Tokenizer) -> anyhow::Result<ModelDrafter> {
    let gguf = engine::open(&args.draft)?;
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
    let decoder = args.engine.decoder(&gguf, engine::DEFAULT_CONTEXT)?;
    decoder.settle();
    let drafter = ModelDrafter::new(decoder, tokenizer, target);
    let drafter = drafter.context("give another --draft, or `--draft none`")?;
    Ok(drafter.with_frequent(args.frequent))
}

fn request(args: &Args, speculative: &Speculative, task: &Task) -> anyhow::Result<Request> {
    let options = RenderOptions::default();
    let (chat, tokenizer) = (speculative.chat(), speculative.tokenizer());
    let mut request = Request::new(chat.encode(tokenizer, &task.messages, &options)?);
    request.max_tokens = task.max_tokens.unwrap_or(args.max_tokens);
    ensure!(
        request.max_tokens > 0,
        "{}: 0 tokens: nothing to compare",
        task.name
    );
    request.sampling = args.sampling.sampling()?;
    if let Some(schema) = &task.schema {
        request.grammar = Some(speculative.compile(schema)?);
    }
    request.cancel = cli::interrupt();
    Ok(request)
}

/// Where guesses come from, none of which knows anything yet.
fn drafters(args: &Args, target: &Tokenizer) -> anyhow::Result<Vec<Box<dyn Drafter>>> {
    let mut drafters: Vec<Box<dyn Drafter>> = Vec::new();
    if !args.no_suffix {
        drafters.push(Box::new(SuffixDrafter::new()));
    }
    if args.draft != "none" {
        drafters.push(Box::new(model_drafter(args, target)?));
    }
    Ok(drafters)
}

/// Ours both ways, and llama.cpp; who begins is another for each `turn`.
fn measure(
    args: &Args,
    speculative: &mut Speculative,
    rival: Option<&Rival>,
    task: &Task,
    turn: usize,
) -> anyhow::Result<Pair> {
    let request = request(args, speculative, task)?;
    let mut pair = pair(speculative, &request, task, turn % 2 == 1)?;
    if let Some(rival) = rival {
        let tokens = pair.plain.usage.decoded;
        let schema = task.schema.as_ref();
        pair.rival = rival.measure(&request.prompt, tokens, schema, turn)?;
    }
    Ok(pair)
}

/// The round whose ratio is the median.
fn middle(mut rounds: Vec<Pair>) -> Option<Pair> {
    rounds.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    let middle = rounds.len().checked_sub(1)? / 2;
    rounds.into_iter().nth(middle)
}

/// Generates both ways, the second from the same prompt, and compares.
fn pair(
    speculative: &mut Speculative,
    request: &Request,
    task: &Task,
    drafted_first: bool,
) -> anyhow::Result<Pair> {
    let (mut plain, mut drafted) = (None, None);
    speculative.session().clear()?;
    for with_drafts in [drafted_first, !drafted_first] {
        let mut on_event = |_: converge_core::generate::Event<'_>| ();
        let generation = match with_drafts {
            true => {
                speculative.take_stats();
                speculative.generate(request, &mut on_event)
            }
            false => speculative.session().generate(request, &mut on_event),
        };
        let generation = generation.map_err(engine::advise)?;
        if generation.stop == StopReason::Cancelled {
            return Err(Interrupted.into());
        }
        match with_drafts {
            true => drafted = Some(generation),
            false => plain = Some(generation),
        }
    }
    let (Some(plain), Some(drafted)) = (plain, drafted) else {
        bail!("nothing was generated");
    };
    if speculative.exact() {
        ensure!(
            plain.tokens == drafted.tokens && plain.stop == drafted.stop,
            "{}: the tokens differ",
            task.name
        );
    }
    Ok(Pair {
        name: task.name.clone(),
        plain,
        drafted,
        stats: speculative.stats().clone(),
        rival: Vec::new(),
    })
}

impl Pair {
    fn plain_speed(&self) -> f64 {
        self.plain.usage.decoded as f64 / self.plain.usage.decode_seconds.max(1e-9)
    }

    fn drafted_speed(&self) -> f64 {
        self.drafted.usage.decoded as f64 / self.drafted.usage.decode_seconds.max(1e-9)
    }

    fn ratio(&self) -> f64 {
        self.drafted_speed() / self.plain_speed()
    }

    /// With the reading of the prompt, which the first one did.
    fn whole_ratio(&self) -> f64 {
        let [plain, drafted] = [&self.plain.usage, &self.drafted.usage];
        let reading = f64::max(plain.prefill_seconds, drafted.prefill_seconds);
        (reading + plain.decode_seconds) / (reading + drafted.decode_seconds)
    }

    /// Seconds of a plain pass.
    fn plain_pass(&self) -> f64 {
        self.plain.usage.decode_seconds / self.plain.usage.passes.saturating_sub(1).max(1) as f64
    }

    fn json(&self, suite: &str, round: usize) -> Value {
        let sources = self.stats.sources.iter().map(|source| {
            let positions = source.positions.iter().map(|p| [p.drafted, p.accepted]);
            json!({
                "name": source.name,
                "passes": source.passes,
                "drafted": source.drafted,
                "accepted": source.accepted,
                "seconds": source.seconds,
                "positions": positions.collect::<Vec<_>>(),
            })
        });
        json!({
            "suite": suite,
            "round": round,
            "name": self.name,
            "identical": self.plain.tokens == self.drafted.tokens,
            "stop": engine::stop_name(&self.plain.stop),
            "tokens": self.drafted.usage.decoded,
            "forced": self.drafted.usage.forced,
            "plain_tokens_per_second": self.plain_speed(),
            "tokens_per_second": self.drafted_speed(),
            "ratio": self.ratio(),
            "ratio_with_prompt": self.whole_ratio(),
            "plain_pass_seconds": self.plain_pass(),
            "plain_pass_seconds_estimated": self.stats.plain_seconds,
            "passes": self.stats.passes,
            "plain_passes": self.stats.plain_passes,
            "tokens_per_pass": self.stats.tokens_per_pass(),
            "pass_seconds": self.stats.pass_seconds,
            "draft_seconds": self.stats.draft_seconds,
            "sources": sources.collect::<Vec<_>>(),
            "llama": self.rival.iter().map(Measure::json).collect::<Vec<_>>(),
        })
    }
}

/// The geometric mean of a figure.
fn mean(pairs: &[Pair], of: fn(&Pair) -> f64) -> f64 {
    let logs = pairs.iter().map(|pair| of(pair).ln()).sum::<f64>();
    (logs / pairs.len().max(1) as f64).exp()
}

/// How far the drafts of a suite went, whosever they were.
fn panel(suite: String, pairs: &[Pair]) -> plot::Panel {
    let mut positions: Vec<Position> = Vec::new();
    let sources = pairs.iter().flat_map(|pair| &pair.stats.sources);
    for of_source in sources.map(|source| &source.positions) {
        if positions.len() < of_source.len() {
            positions.resize(of_source.len(), Position::default());
        }
        for (sum, position) in positions.iter_mut().zip(of_source) {
            sum.drafted += position.drafted;
            sum.accepted += position.accepted;
        }
    }
    plot::Panel {
        suite,
        ratio: mean(pairs, Pair::ratio),
        positions,
    }
}

/// The prompts of a suite, and what they have in common.
fn table(suite: &str, pairs: &[Pair]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let w = &mut out;
    writeln!(
        w,
        "{suite:<20} {:>6} {:>6} {:>6} {:>6} {:>6} {:>9}   by source: accepted of drafted",
        "tokens", "plain", "draft", "ratio", "all", "tok/pass"
    )?;
    for pair in pairs {
        write!(
            w,
            "{:<20} {:>6} {:>6.1} {:>6.1} {:>6.2} {:>6.2} {:>9.2}  ",
            pair.name,
            pair.drafted.usage.decoded,
            pair.plain_speed(),
            pair.drafted_speed(),
            pair.ratio(),
            pair.whole_ratio(),
            pair.stats.tokens_per_pass(),
        )?;
        for source in &pair.stats.sources {
            let (name, accepted, drafted) = (source.name, source.accepted, source.drafted);
            write!(w, " {name} {accepted}/{drafted}")?;
        }
        writeln!(w)?;
    }
    let worst = pairs.iter().map(Pair::ratio).fold(f64::INFINITY, f64::min);
    writeln!(
        w,
        "geometric mean {:.2}, with the prompt {:.2}; worst {worst:.2}; tokens identical",
        mean(pairs, Pair::ratio),
        mean(pairs, Pair::whole_ratio)
    )?;
    // The formula, from what was measured: tokens of a pass over its cost in plain passes. The first
    // pass of each prompt, which reads, is not in the seconds.
    let sum = |of: fn(&Pair) -> f64| pairs.iter().map(of).sum::<f64>();
    let passes = sum(|pair| pair.stats.passes.saturating_sub(1) as f64).max(1.0);
    let plain = sum(Pair::plain_pass) / pairs.len().max(1) as f64;
    let tokens = sum(|pair| pair.stats.tokens.saturating_sub(1) as f64) / passes;
    let pass = sum(|pair| pair.stats.pass_seconds) / passes / plain;
    let draft = sum(|pair| pair.stats.draft_seconds) / passes / plain;
    writeln!(
        w,
        "a pass gives {tokens:.2} tokens for {pass:.2} plain passes and {draft:.2} of guessing: {:.2}\n",
        tokens / (pass + draft)
    )?;
    Ok(out)
}
