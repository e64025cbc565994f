//! Measures this engine beside candle, llama.cpp and ik_llama.cpp on this machine, in turn.
//!
//! ```text
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- --load
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- \
//!     --models smollm2-135m,qwen2.5-coder-0.5b --engines llama.cpp --rounds 7 --depth 4096
//! ```
//!
//! llama.cpp and ik_llama.cpp are measured by their own `llama-bench`, found as
//! `DIR/llama.cpp/bin/llama-bench` and `DIR/ik_llama.cpp/bin/llama-bench` in the folder that
//! `--peers` names. What is not there is reported and left out.
//!
//! Each measurement is a process of its own, and one of ours comes before every one of a rival:
//! `ours A ours B ours A …`. Ratios are of medians, ours from the runs beside that rival; of a
//! rival's settings the better one counts, test by test. The numbers hold on a quiet machine only.
//!
//! Tables go to stdout; `NAME.json` (all samples), `NAME.md` and `NAME.svg` into `benches/results/`.
//! The files are written after every round, so that Ctrl-C keeps what is finished.

mod chart;
mod engine;
mod machine;
mod measure;
mod record;
mod report;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use converge_core::hub;

use engine::{Contender, Engine, Job};
use record::{Results, Run};

/// Measure ours beside candle, llama.cpp and ik_llama.cpp, in turn.
#[derive(Parser)]
#[command(name = "compare", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
}

/// What this program starts itself for.
#[derive(Subcommand)]
enum Part {
    /// One process' measurements, as JSON on stdout
    #[command(name = "__measure", hide = true)]
    Measure { plan: String },
    /// Loads a model and writes one token
    #[command(name = "__load", hide = true)]
    Load { plan: String },
}

#[derive(clap::Args)]
struct Options {
    /// Models: names of the catalogue or paths of GGUF files
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "qwen2.5-coder-1.5b,qwen2.5-coder-0.5b,smollm2-135m,gemma-3-270m"
    )]
    models: Vec<String>,
    /// Rivals to measure
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        value_enum,
        default_value = "llama.cpp,ik_llama.cpp,candle"
    )]
    engines: Vec<Engine>,
    /// Folder with llama.cpp and ik_llama.cpp [default: ~/.cache/converge/peers]
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Rounds: how often each setting of each rival is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Repetitions inside of a process, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// Threads [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Tokens of the prompt; 0 to leave it out
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens to generate; 0 to leave it out
    #[arg(long, value_name = "N", default_value_t = 64)]
    decode: usize,
    /// Passes over this many tokens at once
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "2,4,8,16"
    )]
    passes: Vec<usize>,
    /// Generate once more after this many tokens
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Measure the time from the start of a process to its first token, and its peak memory
    #[arg(long)]
    load: bool,
    /// Measure nothing but that
    #[arg(long)]
    only_load: bool,
    /// Folder for the results [default: benches/results]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Name of the result files
    #[arg(long, value_name = "NAME", default_value = "compare")]
    name: String,
    /// JSON on stdout instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.part {
        Some(Part::Measure { plan }) => measure::measure(plan).map(|()| true),
        Some(Part::Load { plan }) => measure::load(plan).map(|()| true),
        None => compare(&args.options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything; `false` where Ctrl-C ended it early.
fn compare(options: &Options) -> Result<bool> {
    machine::on_interrupt()?;
    let models = options
        .models
        .iter()
        .map(|name| Ok((name.clone(), hub::resolve(name)?.path)))
        .collect::<Result<Vec<_>, hub::HubError>>()?;
    let rivals = rivals(options)?;
    let mut results = Results::new(options.threads.unwrap_or_else(machine::cores), options.reps);
    let out = options.out.clone().unwrap_or_else(|| {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        package.parent().unwrap_or(package).join("results")
    });
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;

    'all: for (name, path) in &models {
        let mut failed = BTreeSet::new();
        for round in 1..=options.rounds {
            let of_round =
                measure_round(options, &rivals, &mut failed, (name, path), round, &results);
            let Some(runs) = of_round? else {
                break 'all;
            };
            results.add(name, path, round, runs);
            save(&results, &out, &options.name)?;
        }
    }
    let tables = report::markdown(&results);
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&results)?),
        false => print!("{tables}"),
    }
    if results.runs.is_empty() {
        eprintln!("interrupted before the first round was finished");
    } else {
        eprintln!("written: {}", out.join(&options.name).display());
    }
    Ok(!machine::interrupted())
}

/// The rivals that are there, each setting by itself.
fn rivals(options: &Options) -> Result<Vec<Contender>> {
    let peers = match &options.peers {
        Some(dir) => dir.clone(),
        None => hub::cache_dir()?.with_file_name("peers"),
    };
    let mut rivals = Vec::new();
    for engine in &options.engines {
        match Contender::settings(*engine, &peers) {
            Ok(settings) => rivals.extend(settings),
            Err(missing) => eprintln!("{}: left out: {missing}", engine.name()),
        }
    }
    if rivals.is_empty() {
        bail!("there is nothing to compare with: name a folder with --peers, or --engines candle");
    }
    Ok(rivals)
}

/// One round of one model: ours and a rival in turn. `None` where Ctrl-C ended it.
fn measure_round(
    options: &Options,
    rivals: &[Contender],
    failed: &mut BTreeSet<String>,
    (name, path): (&str, &Path),
    round: u32,
    results: &Results,
) -> Result<Option<Vec<Run>>> {
    let mut runs = Vec::new();
    for rival in rivals {
        if failed.contains(&rival.label()) {
            continue;
        }
        for contender in [&Contender::ours(), rival] {
            eprintln!(
                "{name}: round {round} of {}: {}",
                options.rounds,
                contender.label()
            );
            let job = Job {
                path,
                threads: results.threads,
                reps: options.reps,
                prompt: options.prompt,
                decode: options.decode,
                passes: &options.passes,
                depth: options.depth.unwrap_or(0),
                // Once in a round: the limits of the machine move slowly.
                probe: runs.is_empty(),
                speed: !options.only_load,
                load: options.load || options.only_load,
            };
            let measured = contender.measure(&job);
            if machine::interrupted() {
                return Ok(None);
            }
            match measured {
                Ok(mut run) => {
                    run.beside = rival.label();
                    runs.push(run);
                }
                Err(error) if contender.engine == Engine::Ours => return Err(error),
                Err(error) => {
                    eprintln!("{}: left out for {name}: {error:#}", contender.label());
                    failed.insert(rival.label());
                    // Ours without its rival says nothing, but that of the probes.
                    break;
                }
            }
        }
    }
    Ok(Some(runs))
}

/// Writes all three files, each as a whole or not at all.
fn save(results: &Results, out: &Path, name: &str) -> Result<()> {
    let json = serde_json::to_string_pretty(results)? + "\n";
    let files = [
        ("json", json),
        ("md", report::markdown(results)),
        ("svg", chart::svg(results)),
    ];
    for (ending, text) in files {
        let path = out.join(format!("{name}.{ending}"));
        let part = out.join(format!("{name}.{ending}.part"));
        fs::write(&part, text)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
