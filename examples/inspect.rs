//! Says what is in a GGUF file, and how much memory it needs at a context.
//!
//! ```text
//! cargo run --release --example inspect
//! cargo run --release --example inspect -- smollm2-135m --ctx 8192 --tensors
//! cargo run --release --example inspect -- path/to/model.gguf --json
//! ```
//!
//! Only the header is read, so this is quick for files of any size, and works for architectures
//! that cannot be run. Memory is that of the weights as stored, plus keys and values of every
//! position of the context; the engine's own buffers come on top of it (some tens of megabytes).

use std::{
    io::{Write as _, stdout},
    num::NonZeroUsize,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use converge_core::{backend::candle::ADAPTED, model::DecoderSpec};
use converge_examples::{
    cli::{self, bytes, one_line},
    engine::{self, DEFAULT_CONTEXT, ModelArg, with_advice},
};
use converge_quant::{
    GgmlType, Gguf, Metadata,
    gguf::{Array, Value},
};
use serde_json::json;

/// Show metadata, tensor types, bits per weight, and memory at a context.
#[derive(Parser)]
#[command(name = "inspect")]
struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// Positions of the context to count memory for [default: 4096, or what the model has]
    #[arg(long, value_name = "N")]
    ctx: Option<NonZeroUsize>,
    /// Memory that it should fit into, in GB (10^9 bytes)
    #[arg(long, value_name = "GB", default_value_t = 8.0)]
    memory: f64,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Metadata in full: long texts, and arrays of up to a hundred elements
    #[arg(long)]
    full: bool,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| {
        let gguf = engine::open(args.model.name())?;
        let facts = Facts::of(&gguf, &args)?;
        match args.json {
            true => print_json(&gguf, &facts, &args),
            false => print_text(&gguf, &facts, &args),
        }
    })
}

/// What is worked out from the file.
struct Facts {
    architecture: String,
    /// Why the model cannot be run; `None` where it can.
    unsupported: Option<String>,
    /// Whether it runs through candle-transformers.
    adapted: bool,
    types: Vec<TypeShare>,
    elements: u64,
    weight_bytes: u64,
    memory: Option<Memory>,
}

/// The tensors of one type.
struct TypeShare {
    ggml_type: GgmlType,
    tensors: usize,
    elements: u64,
    bytes: u64,
}

/// Memory at a context.
struct Memory {
    context: usize,
    trained_context: usize,
    /// Bytes of keys and values of one position in f16.
    position_f16: u64,
}

impl Memory {
    fn kv_f16(&self) -> u64 {
        self.position_f16.saturating_mul(self.context as u64)
    }

    fn kv_f32(&self) -> u64 {
        self.kv_f16().saturating_mul(2)
    }
}

impl Facts {
    fn of(gguf: &Gguf, args: &Args) -> anyhow::Result<Self> {
        let mut types: Vec<TypeShare> = Vec::new();
        for tensor in gguf.tensors() {
            let index = match types.iter().position(|t| t.ggml_type == tensor.ggml_type) {
                Some(index) => index,
                None => {
                    types.push(TypeShare {
                        ggml_type: tensor.ggml_type,
                        tensors: 0,
                        elements: 0,
                        bytes: 0,
                    });
                    types.len() - 1
                }
            };
            let share = &mut types[index];
            share.tensors += 1;
            share.elements += tensor.elements() as u64;
            share.bytes += tensor.bytes() as u64;
        }
        types.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        let architecture: String = gguf
            .metadata()
            .get("general.architecture")
            .context("this file does not say what model it holds: get another one")?;
        let adapted = ADAPTED.contains(&architecture.as_str());
        Ok(Self {
            unsupported: match adapted {
                true => None,
                false => DecoderSpec::from_gguf(gguf)
                    .err()
                    .map(|error| one_line(&with_advice(gguf, error))),
            },
            adapted,
            elements: types.iter().map(|share| share.elements).sum(),
            weight_bytes: types.iter().map(|share| share.bytes).sum(),
            memory: memory(gguf.metadata(), &architecture, args.ctx),
            types,
            architecture,
        })
    }

    fn bits_per_weight(&self) -> f64 {
        self.weight_bytes as f64 * 8.0 / self.elements.max(1) as f64
    }
}

/// The size of keys and values by the keys that every decoder's metadata has; `None` for files
/// that are no decoder.
fn memory(metadata: &Metadata, architecture: &str, ctx: Option<NonZeroUsize>) -> Option<Memory> {
    let get = |key: &str| -> Option<u64> {
        metadata
            .find(&format!("{architecture}.{key}"))
            .ok()
            .flatten()
    };
    let layers = get("block_count")?;
    let heads = get("attention.head_count")?;
    let head = get("embedding_length")?.checked_div(heads)?;
    let key = get("attention.key_length").unwrap_or(head);
    let value = get("attention.value_length").unwrap_or(head);
    let kv_heads = get("attention.head_count_kv").unwrap_or(heads);
    let trained_context = usize::try_from(get("context_length")?).ok()?;
    Some(Memory {
        context: ctx.map_or(DEFAULT_CONTEXT.min(trained_context), NonZeroUsize::get),
        trained_context,
        position_f16: layers
            .checked_mul(kv_heads)?
            .checked_mul(key.checked_add(value)?)?
            .checked_mul(2)?,
    })
}

fn print_text(gguf: &Gguf, facts: &Facts, args: &Args) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "file          {}", gguf.path().display())?;
    writeln!(
        out,
        "format        GGUF {}, {}, {} tensors, {} metadata keys",
        gguf.version(),
        bytes(gguf.file_bytes()),
        gguf.tensors().len(),
        gguf.metadata().len()
    )?;
    match &facts.unsupported {
        None => writeln!(out, "architecture  {}", facts.architecture)?,
        Some(why) => writeln!(
            out,
            "architecture  {}; cannot be run: {why}",
            facts.architecture
        )?,
    }
    if facts.adapted {
        writeln!(out, "              {}", engine::ADAPTED)?;
    }
    writeln!(
        out,
        "weights       {:.1} million, {}, {:.2} bits each",
        facts.elements as f64 / 1e6,
        bytes(facts.weight_bytes),
        facts.bits_per_weight()
    )?;

    writeln!(
        out,
        "\ntype     tensors        weights      bytes  bits  share"
    )?;
    for share in &facts.types {
        writeln!(
            out,
            "{:<8} {:>7} {:>14} {:>10} {:>5.2} {:>5.1}%",
            share.ggml_type,
            share.tensors,
            share.elements,
            bytes(share.bytes),
            share.ggml_type.bits_per_element(),
            share.bytes as f64 * 100.0 / facts.weight_bytes.max(1) as f64
        )?;
    }

    if let Some(memory) = &facts.memory {
        writeln!(out, "\nmemory at a context of {}", memory.context)?;
        if memory.context > memory.trained_context {
            writeln!(
                out,
                "  (the model was trained for {} only)",
                memory.trained_context
            )?;
        }
        for (name, kv) in [("f16", memory.kv_f16()), ("f32", memory.kv_f32())] {
            let total = facts.weight_bytes.saturating_add(kv);
            let verdict = match fits(total, args.memory) {
                true => "fits",
                false => "does not fit",
            };
            writeln!(
                out,
                "  weights {} + keys and values in {name} {} = {}: {verdict} in {} GB",
                bytes(facts.weight_bytes),
                bytes(kv),
                bytes(total),
                args.memory
            )?;
        }
    }

    writeln!(out, "\nmetadata")?;
    for (key, value) in gguf.metadata().iter() {
        writeln!(out, "  {key} = {}", shown(value, args.full))?;
    }
    if args.tensors {
        writeln!(out, "\ntensors")?;
        for tensor in gguf.tensors() {
            writeln!(
                out,
                "  {:<32} {:<6} {:>10}  {:?}",
                tensor.name,
                tensor.ggml_type,
                bytes(tensor.bytes() as u64),
                tensor.shape
            )?;
        }
    }
    Ok(())
}

fn print_json(gguf: &Gguf, facts: &Facts, args: &Args) -> anyhow::Result<()> {
    let types: Vec<_> = facts
        .types
        .iter()
        .map(|share| {
            json!({
                "type": share.ggml_type.name(), "tensors": share.tensors,
                "weights": share.elements, "bytes": share.bytes,
                "bits_per_weight": share.ggml_type.bits_per_element(),
            })
        })
        .collect();
    let memory = facts.memory.as_ref().map(|memory| {
        let of = |kv: u64| {
            let total = facts.weight_bytes.saturating_add(kv);
            json!({"kv_bytes": kv, "total_bytes": total, "fits": fits(total, args.memory)})
        };
        json!({
            "context": memory.context, "trained_context": memory.trained_context,
            "limit_bytes": args.memory * 1e9,
            "kv_f16": of(memory.kv_f16()), "kv_f32": of(memory.kv_f32()),
        })
    });
    let metadata: serde_json::Map<_, _> = gguf
        .metadata()
        .iter()
        .map(|(key, value)| (key.to_owned(), as_json(value, args.full)))
        .collect();
    let mut object = json!({
        "path": gguf.path(), "version": gguf.version(), "file_bytes": gguf.file_bytes(),
        "architecture": facts.architecture, "unsupported": facts.unsupported,
        "adapted": facts.adapted,
        "tensor_count": gguf.tensors().len(), "weights": facts.elements,
        "weight_bytes": facts.weight_bytes, "bits_per_weight": facts.bits_per_weight(),
        "types": types, "memory": memory, "metadata": metadata,
    });
    if args.tensors {
        let tensors = gguf.tensors().iter().map(|tensor| {
            json!({
                "name": tensor.name, "type": tensor.ggml_type.name(),
                "shape": tensor.shape, "bytes": tensor.bytes(),
            })
        });
        object["tensors"] = tensors.collect();
    }
    writeln!(stdout(), "{object}")?;
    Ok(())
}

fn fits(total: u64, gigabytes: f64) -> bool {
    total as f64 <= gigabytes * 1e9
}

/// A value in one line.
fn shown(value: &Value, full: bool) -> String {
    const WIDTH: usize = 72;
    let text = as_json(value, full).to_string();
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) if !full => format!("{}…", &text[..end]),
        _ => text,
    }
}

/// A value as JSON; a long array as its length and its first elements.
fn as_json(value: &Value, full: bool) -> serde_json::Value {
    match value {
        Value::U8(x) => json!(x),
        Value::I8(x) => json!(x),
        Value::U16(x) => json!(x),
        Value::I16(x) => json!(x),
        Value::U32(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::U64(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Bool(x) => json!(x),
        Value::String(x) => json!(x),
        Value::Array(array) => array_json(array, if full { 100 } else { 5 }),
        _ => json!("a value of a type that is not known here"),
    }
}

fn array_json(array: &Array, most: usize) -> serde_json::Value {
    fn of<T: serde::Serialize>(
        len: usize,
        elements: impl Iterator<Item = T>,
        most: usize,
    ) -> serde_json::Value {
        let first: Vec<T> = elements.take(most).collect();
        match len > most {
            true => json!({"length": len, "first": first}),
            false => json!(first),
        }
    }
    match array {
        Array::U8(x) => of(x.len(), x.iter(), most),
        Array::I8(x) => of(x.len(), x.iter(), most),
        Array::U16(x) => of(x.len(), x.iter(), most),
        Array::I16(x) => of(x.len(), x.iter(), most),
        Array::U32(x) => of(x.len(), x.iter(), most),
        Array::I32(x) => of(x.len(), x.iter(), most),
        Array::U64(x) => of(x.len(), x.iter(), most),
        Array::I64(x) => of(x.len(), x.iter(), most),
        Array::F32(x) => of(x.len(), x.iter(), most),
        Array::F64(x) => of(x.len(), x.iter(), most),
        Array::Bool(x) => of(x.len(), x.iter(), most),
        Array::String(x) => of(x.len(), x.iter(), most),
        Array::Array(x) => of(x.len(), x.iter().map(|inner| array_json(inner, most)), most),
        _ => json!("an array of a type that is not known here"),
    }
}
