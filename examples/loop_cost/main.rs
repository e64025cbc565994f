//! What the calls of an agent's loop cost, here and with llama.cpp's server.
//!
//! ```text
//! cargo run --release --example loop_cost                      # ours alone
//! cargo run --release --example loop_cost -- --speculate       # with drafts
//! cargo run --release --example loop_cost -- --server PATH/llama-server --rounds 3
//! cargo run --release --example loop_cost -- --record FILE     # a new transcript, by a real run
//! ```
//!
//! A transcript has, for each call of a real run over `examples/data`, the tokens that came to the
//! conversation and how many tokens the model answered. It is replayed in two ways: as one
//! conversation that grows, and as three that begin alike and take turns. Each engine answers with
//! as many tokens as were recorded (an end of text does not count) and gets its own tokens back in
//! the next prompt, so all it has to compute are the tokens that are new.
//!
//! The server runs on this machine only, is given a slot for each conversation and keeps its prompts
//! (`cache_prompt`), and runs with and without repacked weights; the better one counts.

mod record;
mod replay;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};
use clap::Parser;
use converge_core::generate::Generate;
use converge_examples::{
    cli::{self, Watch},
    engine::{self, EngineArgs},
    llama::{self, Ask, Options, Server},
    models,
};
use converge_spec::{ModelDrafter, Speculative, SuffixDrafter};
use serde_json::json;

use replay::{Answer, Outcome, Transcript};

/// Replay the calls of an agent and say what they cost.
#[derive(Parser)]
#[command(name = "loop_cost")]
struct Args {
    /// Name of a known model (see `fetch --list`) or path of a GGUF file
    #[arg(short, long, default_value = models::DEFAULT)]
    model: String,
    #[command(flatten)]
    engine: EngineArgs,
    /// The transcript
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/transcripts/archive.json"))]
    transcript: PathBuf,
    /// Make a transcript instead, by a run over `--dir`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The folder that the recorded run asks about
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data"))]
    dir: PathBuf,
    /// Calls to record
    #[arg(long, value_name = "N", default_value_t = 50)]
    calls: usize,
    /// Also replay with llama.cpp's server, this program
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Draft tokens: from what was said before, and by `--draft`
    #[arg(long)]
    speculate: bool,
    /// A small model that drafts, too
    #[arg(long, value_name = "MODEL", requires = "speculate")]
    draft: Option<String>,
    /// Conversations that take turns, in each replay
    #[arg(
        long,
        value_name = "N,N,…",
        value_delimiter = ',',
        default_value = "1,3"
    )]
    branches: Vec<usize>,
    /// How often everything is replayed, in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: usize,
    /// One JSON object a line for each replay, and no table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run_on(args.engine.threads, || run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(program) = &args.server {
        llama::check(program)?;
    }
    let gguf = engine::open(&args.model)?;
    let watch = Watch::new();
    if let Some(file) = &args.record {
        let mut session = args.engine.session(&gguf)?;
        let transcript = record::record(&mut session, &args.dir, args.calls, &watch)?;
        return transcript.write(file);
    }
    let transcript = Transcript::read(&args.transcript)?;
    let longest = transcript.longest();
    let mut session_args = args.engine.clone();
    if session_args.ctx.is_none() {
        session_args.ctx = longest.next_multiple_of(256).try_into().ok();
    }
    let mut all: Vec<Outcome> = Vec::new();
    for round in 0..args.rounds {
        for &branches in &args.branches {
            ensure!(branches > 0, "--branches 0: there must be a conversation");
            let session = session_args.session(&gguf)?;
            session.settle();
            let mut ours: Box<dyn Generate> = match args.speculate {
                false => Box::new(session),
                true => {
                    let mut drafters: Vec<Box<dyn converge_spec::Drafter>> =
                        vec![Box::new(SuffixDrafter::new())];
                    if let Some(name) = &args.draft {
                        let small = engine::open(name)?;
                        let options = converge_core::LoadOptions {
                            context: longest.next_multiple_of(256),
                            threads: args.engine.threads,
                            ..Default::default()
                        };
                        let model = ModelDrafter::load(&small, &options, session.tokenizer())?;
                        drafters.push(Box::new(model));
                    }
                    Box::new(Speculative::new(session, drafters))
                }
            };
            let name = if args.speculate {
                "converge, drafts"
            } else {
                "converge"
            };
            let mut outcomes = vec![transcript.replay(name, branches, |prompt, answer, _| {
                replay::ask(ours.as_mut(), prompt, answer, &watch)
            })?];
            drop(ours);
            if let Some(program) = &args.server {
                for repack in [true, false] {
                    let options = Options {
                        program,
                        model: gguf.path(),
                        slots: branches,
                        context: longest,
                        repack,
                        more: Vec::new(),
                    };
                    let server = Server::start(&options, &watch)?;
                    let name = if repack {
                        "llama.cpp, repack 1"
                    } else {
                        "llama.cpp, repack 0"
                    };
                    let ask = |prompt: &[u32], answer, slot| {
                        let reply = server.ask(&Ask {
                            prompt,
                            answer,
                            slot,
                            schema: None,
                        })?;
                        Ok(Answer {
                            tokens: reply.tokens,
                            prefilled: reply.prefilled,
                        })
                    };
                    outcomes.push(transcript.replay(name, branches, ask)?);
                }
            }
            for outcome in outcomes {
                if args.json {
                    let line = serde_json::to_value(&outcome).context("an outcome")?;
                    println!("{}", json!({ "round": round, "outcome": line }));
                } else {
                    eprintln!("round {round}: {outcome}");
                }
                all.push(outcome);
            }
        }
    }
    if !args.json {
        replay::table(&all, &transcript);
    }
    Ok(())
}
