//! Quantizes a model into a new GGUF file, or changes what a file says of its model.
//!
//! ```text
//! cargo run --release --example quantize -- model-f16.gguf model-q4_k_m.gguf
//! cargo run --release --example quantize -- model-f16.gguf model-q8_0.gguf --recipe Q8_0 --json
//! cargo run --release --example quantize -- Qwen2.5-Coder-0.5B-Instruct model-q4_k_m.gguf
//! cargo run --release --example quantize -- model.gguf named.gguf --keep --set general.name="Mine"
//! ```
//!
//! Types are chosen tensor by tensor as llama.cpp's `llama-quantize` chooses them. The new file
//! appears when it is complete; Ctrl-C leaves nothing behind. With `--dry-run` the types are told
//! and nothing is written.
//!
//! The source is a GGUF file, or a folder with `config.json`, `tokenizer.json` and `.safetensors` as
//! Hugging Face publishes models (of the architectures llama and qwen2).
//!
//! `--set KEY=VALUE` keeps the type that the key has; a new key becomes a boolean, an integer, a
//! float or a text, as the value reads. `--keep` leaves the tensors as they are stored.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use converge_examples::{
    cli::{self, Interrupted, Unit, Watch, bytes},
    engine,
};
use converge_quant::{
    Gguf, Metadata, QuantError,
    gguf::{self, Value},
    hf::Folder,
    quantize::{self, Options, Planned, Recipe, Source},
};
use serde_json::json;

/// Quantize a model into a new GGUF file, or change its metadata.
#[derive(Parser)]
#[command(name = "quantize")]
struct Args {
    /// Name of a known model, path of a GGUF file (of a split one, any part), or folder with
    /// `config.json`, `tokenizer.json` and `.safetensors`
    #[arg(value_name = "FROM")]
    from: String,
    /// The file to write
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Which tensor gets which type: F32, F16, BF16, Q8_0, Q6_K, Q5_1, Q5_K_M, Q5_K_S, Q5_0, Q4_1,
    /// Q4_K_M, Q4_K_S or Q4_0
    #[arg(long, value_name = "NAME", default_value = "Q4_K_M")]
    recipe: String,
    /// Leave the tensors as they are stored
    #[arg(long, conflicts_with = "recipe")]
    keep: bool,
    /// Take tensors that are quantized already; their errors add up
    #[arg(long)]
    requantize: bool,
    /// Give a metadata key a value
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Leave a metadata key out
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Give the value of a metadata key to another key
    #[arg(long, value_name = "KEY=NEW")]
    rename: Vec<String>,
    /// Replace TO if it is there
    #[arg(long)]
    force: bool,
    /// Tell the type of every tensor, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Threads [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run_on(args.threads, || run(&args).map_err(advise))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let recipe: Recipe = args.recipe.parse()?;
    if Path::new(&args.from).join("config.json").exists() {
        ensure!(
            !args.keep,
            "--keep is for GGUF files: give a --recipe, such as F16"
        );
        let folder = Folder::open(&args.from)?;
        let metadata = edited(folder.metadata(), args)?;
        return convert(args, &folder, metadata, recipe);
    }
    let gguf = engine::open(&args.from)?;
    let metadata = edited(gguf.metadata(), args)?;
    match args.keep {
        true => keep(args, &gguf, &metadata),
        false => convert(args, &gguf, metadata, recipe),
    }
}

fn convert(
    args: &Args,
    source: &dyn Source,
    metadata: Metadata,
    recipe: Recipe,
) -> anyhow::Result<()> {
    // 1. The recipe gives every tensor its type.
    let options = Options {
        requantize: args.requantize,
        metadata: Some(metadata),
        ..Options::new(recipe)
    };
    if args.dry_run {
        let tensors = quantize::plan(source, &options)?;
        return tell(args, recipe, &tensors, None);
    }
    cli::check_target(&args.to, args.force)?;

    // 2. Rows are read, decoded, encoded and written, some at a time.
    let watch = Watch::new();
    let weights = source.tensors();
    let total = weights.iter().map(|tensor| tensor.elements() as u64).sum();
    let bar = cli::progress(recipe.name(), Unit::Weights, total);
    let report = quantize::quantize(source, &options, &args.to, |progress| {
        bar.set_position(progress.done);
        bar.set_message(progress.tensor.name.clone());
        go_on(&watch)
    });
    bar.finish_and_clear();
    let report = report?;
    tell(args, recipe, &report.tensors, Some(&report))
}

/// Nothing is decoded: the tensors are copied.
fn keep(args: &Args, source: &Gguf, metadata: &Metadata) -> anyhow::Result<()> {
    if args.dry_run {
        return Ok(());
    }
    cli::check_target(&args.to, args.force)?;
    let watch = Watch::new();
    let bar = cli::progress("copying", Unit::Bytes, source.file_bytes());
    let copied = gguf::copy(source, metadata, &args.to, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        go_on(&watch)
    });
    bar.finish_and_clear();
    copied?;
    let size = std::fs::metadata(&args.to)?.len();
    let mut out = stdout().lock();
    let path = args.to.display().to_string();
    match args.json {
        true => writeln!(out, "{}", json!({"file": path, "bytes": size}))?,
        false => writeln!(out, "{path}: {}, tensors as they were", bytes(size))?,
    }
    Ok(())
}

fn go_on(watch: &Watch) -> ControlFlow<()> {
    match watch.is_cancelled() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

fn tell(
    args: &Args,
    recipe: Recipe,
    tensors: &[Planned],
    report: Option<&quantize::Report>,
) -> anyhow::Result<()> {
    let mut types: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    let mut weights = 0;
    for tensor in tensors {
        let elements = tensor.shape.iter().map(|&n| n as u64).product::<u64>();
        let bits = (elements as f64 * tensor.to.bits_per_element()) as u64;
        let of_type = types.entry(tensor.to.name()).or_default();
        of_type.0 += 1;
        of_type.1 += bits / 8;
        weights += elements;
    }
    let size: u64 = types.values().map(|of_type| of_type.1).sum();
    let bits = size as f64 * 8.0 / weights.max(1) as f64;
    let mut out = stdout().lock();
    if args.json {
        let types: Vec<_> = types
            .iter()
            .map(|(name, (count, size))| json!({"type": name, "tensors": count, "bytes": size}))
            .collect();
        let listed: Vec<_> = tensors
            .iter()
            .map(|tensor| {
                json!({
                    "name": tensor.name, "shape": tensor.shape, "from": tensor.from.name(),
                    "to": tensor.to.name(), "instead_of": tensor.instead_of.map(|t| t.name()),
                })
            })
            .collect();
        let line = json!({
            "recipe": recipe.name(), "weights": weights, "tensor_bytes": size,
            "bits_per_weight": bits, "types": types, "tensors": listed,
            "file": report.map(|_| args.to.display().to_string()),
            "bytes": report.map(|report| report.file_bytes),
            "seconds": report.map(|report| report.time.as_secs_f64()),
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    if args.dry_run {
        for tensor in tensors {
            let (from, to) = (tensor.from, tensor.to);
            let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
            let shape = shape.join(" × ");
            let why = match tensor.instead_of {
                Some(meant) => format!(" (rows are no whole blocks of {meant})"),
                None => String::new(),
            };
            writeln!(out, "{:<32} {shape:>16}  {from} → {to}{why}", tensor.name)?;
        }
    }
    let types: Vec<String> = types
        .iter()
        .map(|(name, (count, size))| format!("{count} {name} ({})", bytes(*size)))
        .collect();
    let types = types.join(", ");
    let fallbacks = tensors.iter().filter(|t| t.instead_of.is_some()).count();
    match report {
        Some(report) => {
            let (path, size) = (args.to.display(), bytes(report.file_bytes));
            let seconds = report.time.as_secs_f64();
            writeln!(
                out,
                "{path}: {size}, {bits:.2} bits a weight, {seconds:.1} s"
            )?;
        }
        None => writeln!(out, "{}, {bits:.2} bits a weight", bytes(size))?,
    }
    writeln!(out, "{types}")?;
    if fallbacks > 0 {
        writeln!(
            out,
            "{fallbacks} tensors got another type, for their rows are no whole blocks of the one meant"
        )?;
    }
    Ok(())
}

/// The source's metadata with what the options change: renamed first, then removed, then set.
fn edited(metadata: &Metadata, args: &Args) -> anyhow::Result<Metadata> {
    let mut edited = metadata.clone();
    for option in &args.rename {
        let (from, to) = pair(option, "--rename KEY=NEW")?;
        edited.rename(from, to)?;
    }
    for key in &args.remove {
        ensure!(
            edited.remove(key).is_some(),
            "no metadata {key:?} to remove"
        );
    }
    for option in &args.set {
        let (key, text) = pair(option, "--set KEY=VALUE")?;
        let value = match edited.value(key) {
            Some(old) => typed(old, text).with_context(|| {
                let ty = old.type_name();
                format!("metadata {key:?} is of type {ty}, {text:?} is not; --remove it first")
            })?,
            None => guessed(text),
        };
        edited.set(key, value);
    }
    Ok(edited)
}

fn pair<'a>(option: &'a str, usage: &str) -> anyhow::Result<(&'a str, &'a str)> {
    let parts = option.split_once('=').filter(|(key, _)| !key.is_empty());
    parts.with_context(|| format!("{option:?} has no key or no '=': give {usage}"))
}

/// A value of the type that `old` has.
fn typed(old: &Value, text: &str) -> anyhow::Result<Value> {
    Ok(match old {
        Value::U8(_) => Value::U8(text.parse()?),
        Value::I8(_) => Value::I8(text.parse()?),
        Value::U16(_) => Value::U16(text.parse()?),
        Value::I16(_) => Value::I16(text.parse()?),
        Value::U32(_) => Value::U32(text.parse()?),
        Value::I32(_) => Value::I32(text.parse()?),
        Value::U64(_) => Value::U64(text.parse()?),
        Value::I64(_) => Value::I64(text.parse()?),
        Value::F32(_) => Value::F32(text.parse()?),
        Value::F64(_) => Value::F64(text.parse()?),
        Value::Bool(_) => Value::Bool(text.parse()?),
        Value::String(_) => Value::from(text),
        _ => bail!("lists cannot be given here"),
    })
}

/// A value as it reads.
fn guessed(text: &str) -> Value {
    let integer = |text: &str| text.parse().ok().map(Value::U32);
    let signed = |text: &str| text.parse().ok().map(Value::I32);
    let float = |text: &str| text.parse().ok().map(Value::F32);
    let boolean = |text: &str| text.parse().ok().map(Value::Bool);
    integer(text)
        .or_else(|| signed(text))
        .or_else(|| float(text))
        .or_else(|| boolean(text))
        .unwrap_or_else(|| Value::from(text))
}

/// Says what helps.
fn advise(error: anyhow::Error) -> anyhow::Error {
    let advice = match error.downcast_ref() {
        Some(QuantError::Cancelled) => return Interrupted.into(),
        Some(QuantError::Requantize { .. }) => {
            "take a source in F32, F16 or BF16, or give --requantize to do it all the same"
        }
        Some(QuantError::Write { source, .. })
            if source.kind() == std::io::ErrorKind::StorageFull =>
        {
            "free some room, or give a path on another disk"
        }
        Some(QuantError::Write { .. }) => "give a path where you may write",
        Some(QuantError::UnencodableWeight { .. }) => {
            "the source is broken, or needs a recipe with more range: try BF16 or F32"
        }
        Some(QuantError::Folder { .. }) => "get the folder again, or take the model in GGUF",
        Some(QuantError::MissingKey { .. }) => "the source is no language model in GGUF",
        _ => return error,
    };
    anyhow::anyhow!("{}; {advice}", cli::one_line(&error))
}
