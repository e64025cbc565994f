//! Answers a message, or continues a text, as the words come.
//!
//! ```text
//! cargo run --release --example generate -- "Write a haiku about looms."
//! cargo run --release --example generate -- --raw "fn fibonacci(n: u64) -> u64 {" --stop "\n}"
//! cargo run --release --example generate -- --schema person.json "Invent a person."
//! ```
//!
//! The text goes to stdout, what it cost to stderr. The steps are: open the model (fetched when it
//! is not there), load a session, turn the message into tokens, generate.

use std::{
    io::{IsTerminal as _, Read as _, Write as _, stdin, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use converge_core::{
    chat::{Message, RenderOptions},
    generate::{Event, Generate as _, Generation, Request, StopReason},
    sample::Sampling,
    tokenizer::Special,
};
use converge_examples::{
    cli::{self, Interrupted},
    engine::{self, EngineArgs},
    models,
};
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
    /// File with a JSON Schema that the answer is held to
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// End where this text appears (\n, \t and \\ are understood); may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// One JSON object with text and figures on stdout at the end
    #[arg(long)]
    json: bool,
}

/// How tokens are chosen.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling")]
struct SamplingArgs {
    /// 0 always takes the likeliest token, 1 draws as the model says
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Keep the fewest tokens whose probabilities reach this sum
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Keep tokens at least this many times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Divide the logits of tokens that occurred; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Subtract this from a logit for each time the token occurred
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    frequency_penalty: f32,
    /// Subtract this from the logits of tokens that occurred
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    presence_penalty: f32,
    /// How many of the last tokens the penalties look at
    #[arg(long, value_name = "N", default_value_t = 64)]
    penalty_window: usize,
    /// The same seed gives the same answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            penalty_window: self.penalty_window,
            logit_bias: Vec::new(),
            seed: self.seed,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run_on(args.engine.threads, || run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    // What may be wrong with the arguments shows before a model is loaded.
    let sampling = args.sampling.sampling();
    sampling.validate()?;
    let schema = args.schema.as_deref().map(read_schema).transpose()?;
    let prompt = read_prompt(args)?;

    let start = Instant::now();
    let gguf = engine::open(&args.model)?;
    let mut session = args.engine.session(&gguf)?;
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
        let options = RenderOptions::default();
        session
            .chat()
            .encode(session.tokenizer(), &messages, &options)?
    };

    let mut request = Request::new(tokens);
    request.max_tokens = args.max_tokens;
    request.sampling = sampling;
    // Compiled before anything is generated: a schema that cannot be held is refused here.
    request.grammar = schema.map(|schema| session.compile(&schema)).transpose()?;
    request.stop = args.stop.iter().map(|text| unescape(text)).collect();
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

    if args.json {
        let figures = figures(&request, &generation, load_seconds);
        writeln!(out, "{figures}")?;
    } else {
        writeln!(out)?;
        eprintln!("{}", summary(&generation, load_seconds));
    }
    match generation.stop {
        StopReason::Cancelled => Err(Interrupted.into()),
        StopReason::MaxTokens if args.schema.is_some() => bail!(
            "the JSON is not complete after {} tokens: raise --max-tokens",
            args.max_tokens
        ),
        StopReason::Context if args.schema.is_some() => bail!(
            "the JSON is not complete where the context of {} ends: raise --ctx",
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

fn read_schema(path: &std::path::Path) -> anyhow::Result<Value> {
    let path_text = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path_text}"))?;
    serde_json::from_str(&text).with_context(|| format!("{path_text} is no JSON"))
}

/// `\n`, `\t` and `\\` as a shell leaves them.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('\\')) => out.push('\\'),
            _ => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    out
}

fn stop_name(stop: &StopReason) -> &'static str {
    match stop {
        StopReason::EndOfText => "end_of_text",
        StopReason::StopString(_) => "stop_string",
        StopReason::MaxTokens => "max_tokens",
        StopReason::GrammarDone => "grammar_done",
        StopReason::Context => "context",
        StopReason::Cancelled => "cancelled",
        _ => "other",
    }
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
        "stop": stop_name(&generation.stop),
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
        stop_name(&generation.stop).replace('_', " "),
    )
}
