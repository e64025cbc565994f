//! Answers a message, or continues a text, as the words come.
//!
//! ```text
//! cargo run --release --example generate -- "Write a haiku about looms."
//! cargo run --release --example generate -- --raw "fn fibonacci(n: u64) -> u64 {" --stop "\n}"
//! cargo run --release --example generate -- --schema person.json "Invent a person."
//! cargo run --release --example generate -- --regex "[0-9]{4}" "When did the war end?"
//! ```
//!
//! The text goes to stdout, what it cost to stderr. The steps are: open the model (fetched when it
//! is not there), load a session, turn the message into tokens, generate.

use std::{
    io::{IsTerminal as _, Read as _, Write as _, stdin, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use converge_core::{
    cache::Store,
    chat::{Message, RenderOptions, ToolDef},
    constrain::{CallFormat, Grammar},
    generate::{Event, Generate as _, Generation, Request, Session, StopReason},
    tokenizer::Special,
};
use converge_examples::{
    cli::{self, Interrupted, SamplingArgs},
    engine::{self, EngineArgs},
    models,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Answer a message, or continue a text with --raw.
#[derive(Parser)]
#[command(name = "generate")]
struct Args {
    /// The message, or the text to continue; `-` or nothing reads it from stdin
    prompt: Option<String>,
    /// Name of a known model (see `fetch --list`) or path of a GGUF file
    #[arg(short, long, default_value = models::DEFAULT)]
    model: String,
    #[command(flatten)]
    engine: EngineArgs,
    /// Instructions for the whole conversation
    #[arg(long, conflicts_with = "raw")]
    system: Option<String>,
    /// Continue the text as it is, special tokens included, without the chat template
    #[arg(long)]
    raw: bool,
    /// The most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_tokens: usize,
    #[command(flatten)]
    held: HeldArgs,
    /// End where this text appears (\n, \t and \\ are understood); may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Keep what the model has read and said in this folder, and go on from what is there (the
    /// example `cache` lists and purges it): private text, in files that only you can read
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// The most megabytes of --keep; what was not used for longest goes first
    #[arg(long, value_name = "MB", default_value_t = 2048, requires = "keep")]
    keep_mb: u64,
    /// One JSON object with text and figures on stdout at the end
    #[arg(long)]
    json: bool,
}

/// What the answer is held to: one of these at most.
#[derive(clap::Args)]
#[group(multiple = false)]
struct HeldArgs {
    /// File with a JSON Schema that the answer is held to
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Regular expression that the whole answer matches
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
    /// File with a grammar that the answer is held to (Lark, as llguidance has it)
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// File with a JSON array of tools, as OpenAI's API has them: the answer is text, or ends in a
    /// call of one
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    tools: Option<PathBuf>,
}

/// What the answer is held to, as read.
enum Held {
    Nothing,
    Schema(Value),
    Regex(String),
    Lark(String),
    Tools(Vec<ToolDef>),
}

impl HeldArgs {
    fn read(&self) -> anyhow::Result<Held> {
        Ok(if let Some(path) = &self.schema {
            Held::Schema(read_json(path)?)
        } else if let Some(regex) = &self.regex {
            Held::Regex(regex.clone())
        } else if let Some(path) = &self.grammar {
            Held::Lark(read_text(path)?)
        } else if let Some(path) = &self.tools {
            Held::Tools(read_json(path)?)
        } else {
            Held::Nothing
        })
    }
}

impl Held {
    fn tools(&self) -> &[ToolDef] {
        match self {
            Self::Tools(tools) => tools,
            _ => &[],
        }
    }

    /// Compiled before anything is generated: what cannot be held is refused here.
    fn compile(&self, session: &Session) -> anyhow::Result<Option<Grammar>> {
        if matches!(self, Self::Nothing) {
            return Ok(None);
        }
        let env = session.token_env()?;
        Ok(Some(match self {
            Self::Nothing => return Ok(None),
            Self::Schema(schema) => Grammar::json_schema(&env, schema)?,
            Self::Regex(regex) => Grammar::regex(&env, regex)?,
            Self::Lark(lark) => Grammar::lark(&env, lark)?,
            Self::Tools(tools) => {
                let format = CallFormat::of(session.chat()).context(
                    "this model's chat template writes calls in no format known here: give another \
                     model, or hold the answer to the arguments of one tool with --schema",
                )?;
                Grammar::tools_or_text(&env, tools, &format)?
            }
        }))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run_on(args.engine.threads, || run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    // What may be wrong with the arguments shows before a model is loaded.
    let sampling = args.sampling.sampling()?;
    let held = args.held.read()?;
    let prompt = read_prompt(args)?;

    let start = Instant::now();
    let gguf = engine::open(&args.model)?;
    let mut session = args.engine.session(&gguf)?;
    if let Some(folder) = &args.keep {
        if session.cache().is_none() {
            bail!(
                "--keep needs the CPU engine, which has pages to keep: leave it out, or --f32 and --backend"
            );
        }
        session = session.with_store(Store::new(folder, args.keep_mb.saturating_mul(1 << 20))?);
    }
    let load_seconds = start.elapsed().as_secs_f64();

    if let Some(fallback) = session.chat().fallback().filter(|_| !args.raw) {
        eprintln!("[{}]", engine::stated(fallback));
    }
    let tokens = if args.raw {
        let tokenizer = session.tokenizer();
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let mut tokens = Vec::from_iter(bos);
        tokens.extend(tokenizer.encode(&prompt, Special::Parse)?);
        tokens
    } else {
        // What stands in a message can never become a control token.
        let system = args.system.as_deref().map(Message::system);
        let messages: Vec<_> = system.into_iter().chain([Message::user(prompt)]).collect();
        let options = RenderOptions::with_tools(held.tools());
        session
            .chat()
            .encode(session.tokenizer(), &messages, &options)?
    };

    let mut request = Request::new(tokens);
    request.max_tokens = args.max_tokens;
    request.sampling = sampling;
    request.grammar = held.compile(&session)?;
    request.complete = matches!(held, Held::Schema(_));
    request.stop = args.stop.iter().map(|text| cli::unescape(text)).collect();
    request.cancel = cli::interrupt();

    let mut out = stdout().lock();
    let mut written = Ok(());
    let generation = session
        .generate(&request, &mut |event| {
            if let Event::Text(text) = event
                && !args.json
                && written.is_ok()
            {
                written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                if written.is_err() {
                    request.cancel.cancel();
                }
            }
        })
        .map_err(engine::advise)?;
    written?;
    session.keep_in_store()?;

    if args.json {
        let figures = figures(&request, &generation, load_seconds);
        writeln!(out, "{figures}")?;
    } else {
        writeln!(out)?;
        eprintln!("{}", summary(&generation, load_seconds));
    }
    if generation.stop != StopReason::Cancelled {
        // What is kept for the next run is written after the answer, not before it.
        session.settle();
    }
    // Half of what was asked for is none of it.
    let is_whole = !matches!(held, Held::Nothing | Held::Tools(_));
    match generation.stop {
        StopReason::Cancelled => Err(Interrupted.into()),
        StopReason::MaxTokens if is_whole => bail!(
            "the answer is not complete after {} tokens: raise --max-tokens",
            args.max_tokens
        ),
        StopReason::Context if is_whole => bail!(
            "the answer is not complete where the context of {} ends: raise --ctx",
            session.context()
        ),
        _ => Ok(()),
    }
}

fn read_prompt(args: &Args) -> anyhow::Result<String> {
    match args.prompt.as_deref() {
        Some(prompt) if prompt != "-" => Ok(prompt.to_owned()),
        None if stdin().is_terminal() => {
            bail!("there is nothing to answer: give a message, or pipe one in")
        }
        _ => {
            let mut prompt = String::new();
            let read = stdin().read_to_string(&mut prompt);
            read.context("cannot read the message from stdin")?;
            Ok(prompt)
        }
    }
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = read_text(path)?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} does not hold what it must", path.display()))
}

fn figures(request: &Request, generation: &Generation, load_seconds: f64) -> Value {
    let usage = &generation.usage;
    let stop_string = match &generation.stop {
        StopReason::StopString(text) => Some(text),
        _ => None,
    };
    json!({
        "text": generation.text,
        "tokens": generation.tokens,
        "stop": engine::stop_name(&generation.stop),
        "stop_string": stop_string,
        "prompt_tokens": request.prompt.len(),
        "reused": usage.reused,
        "prefilled": usage.prefilled,
        "decoded": usage.decoded,
        "forced": usage.forced,
        "load_seconds": load_seconds,
        "prefill_seconds": usage.prefill_seconds,
        "decode_seconds": usage.decode_seconds,
    })
}

fn summary(generation: &Generation, load_seconds: f64) -> String {
    let usage = &generation.usage;
    let rate = |tokens: usize, seconds: f64| tokens as f64 / seconds.max(1e-9);
    format!(
        "[loaded in {load_seconds:.1} s; prompt {} tokens, {:.0} tok/s; answer {} tokens, {:.1} \
         tok/s; {}]",
        usage.prefilled + usage.reused,
        rate(usage.prefilled, usage.prefill_seconds),
        usage.decoded,
        rate(usage.decoded, usage.decode_seconds),
        engine::stop_name(&generation.stop).replace('_', " "),
    )
}
