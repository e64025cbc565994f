//! Writes a model of any shape with random weights: what would one like it cost on this machine?
//!
//! ```text
//! cargo run --release --example synthetic -- 7b.gguf
//! cargo run --release --example bench -- 7b.gguf --ctx 8192 --prompt 512 --gen 32
//!
//! cargo run --release --example synthetic -- deep.gguf --shape qwen2.5-1.5b --layers 60
//! cargo run --release --example synthetic -- 8b.gguf --shape llama-3-8b --recipe Q8_0
//! ```
//!
//! Tensors, types and metadata are those that a real model of the shape has; architecture and
//! tokenizer are those of the model `--like`. What it says is noise. The same arguments write the
//! same bytes.
//!
//! Every row is a piece of one long row of random blocks, so that nothing is encoded twice and the
//! file is written as fast as the disk takes it, in a few megabytes of memory.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    ops::{ControlFlow, Range},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{bail, ensure};
use clap::{Parser, builder::PossibleValuesParser};
use converge_core::sample::noise;
use converge_examples::{
    cli::{self, Interrupted, Unit, Watch, bytes},
    engine,
};
use converge_quant::{
    GgmlType, Metadata, QuantError, format,
    gguf::TensorSpec,
    quantize::{self, Options, Planned, Recipe, Source},
};
use serde_json::json;

/// Numbers in the long row that all rows are pieces of, and the most that a row can have.
const NUMBERS: usize = 1 << 18;

/// Their standard deviation: that of weights before training.
const DEVIATION: f32 = 0.02;

/// Shapes of models that there are: layers, width, inner width, heads, heads of keys and values,
/// and whether the output matrix is the embeddings'.
const SHAPES: [(&str, Shape); 8] = [
    ("qwen2.5-0.5b", Shape::new(24, 896, 4864, 14, 2, true)),
    ("qwen2.5-1.5b", Shape::new(28, 1536, 8960, 12, 2, true)),
    ("qwen2.5-3b", Shape::new(36, 2048, 11008, 16, 2, true)),
    ("qwen2.5-7b", Shape::new(28, 3584, 18944, 28, 4, false)),
    ("qwen2.5-14b", Shape::new(48, 5120, 13824, 40, 8, false)),
    ("qwen2.5-32b", Shape::new(64, 5120, 27648, 40, 8, false)),
    ("llama-2-7b", Shape::new(32, 4096, 11008, 32, 32, false)),
    ("llama-3-8b", Shape::new(32, 4096, 14336, 32, 8, false)),
];

/// Write a model of a shape with random weights.
#[derive(Parser)]
#[command(name = "synthetic")]
struct Args {
    /// The file to write
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// The shape of this model
    #[arg(long, value_name = "NAME", default_value = "qwen2.5-7b",
        value_parser = PossibleValuesParser::new(SHAPES.map(|(name, _)| name)))]
    shape: String,
    /// But with this many layers
    #[arg(long, value_name = "N")]
    layers: Option<u32>,
    /// But of this width
    #[arg(long, value_name = "N")]
    width: Option<u32>,
    /// But with feed-forward layers of this width
    #[arg(long, value_name = "N")]
    inner: Option<u32>,
    /// But with this many heads
    #[arg(long, value_name = "N")]
    heads: Option<u32>,
    /// But with this many heads of keys and values
    #[arg(long, value_name = "N")]
    kv_heads: Option<u32>,
    /// Which tensor gets which type, as in `quantize`
    #[arg(long, value_name = "NAME", default_value = "Q4_K_M")]
    recipe: String,
    /// Name or path of the model whose architecture (qwen2 or llama), tokenizer and chat template
    /// it has
    #[arg(long, value_name = "MODEL", default_value = "qwen2.5-coder-0.5b")]
    like: String,
    /// Replace TO if it is there
    #[arg(long)]
    force: bool,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let recipe: Recipe = args.recipe.parse()?;
    let shape = Shape::of(args)?;
    cli::check_target(&args.to, args.force)?;

    // 1. Names, shapes and types of the tensors, and what the file says of itself.
    let like = engine::open(&args.like)?;
    let metadata = shape.metadata(like.metadata(), &args.shape)?;
    let vocab = metadata.get_strs("tokenizer.ggml.tokens")?.len();
    let tensors = shape.tensors(metadata.get("general.architecture")?, vocab)?;
    let mut source = Synthetic {
        metadata,
        tensors,
        long_rows: BTreeMap::new(),
    };
    let options = Options::new(recipe);
    let planned = quantize::plan(&source, &options)?;
    source.take_types(&planned)?;

    // 2. They are in their types already, so they are written as they are.
    let watch = Watch::new();
    let weights = source.tensors.iter().map(|t| t.elements() as u64).sum();
    let bar = cli::progress(recipe.name(), Unit::Weights, weights);
    let report = quantize::quantize(&source, &options, &args.to, |progress| {
        bar.set_position(progress.done);
        match watch.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    let report = report.map_err(|error| match error {
        QuantError::Cancelled => Interrupted.into(),
        other => anyhow::Error::from(other),
    })?;

    let (path, size) = (args.to.display().to_string(), report.file_bytes);
    let seconds = report.time.as_secs_f64();
    let mut out = stdout().lock();
    match args.json {
        true => {
            let line = json!({
                "file": path, "bytes": size, "weights": weights, "recipe": recipe.name(),
                "tensors": planned.len(), "seconds": seconds,
            });
            writeln!(out, "{line}")?;
        }
        false => {
            let (millions, size) = (weights as f64 / 1e6, bytes(size));
            let recipe = recipe.name();
            writeln!(
                out,
                "{path}: {size}, {millions:.0} million random weights in {recipe}, {seconds:.1} s"
            )?;
        }
    }
    Ok(())
}

/// What a decoder's tensors follow from.
#[derive(Clone, Copy, Debug)]
struct Shape {
    layers: u32,
    width: u32,
    inner: u32,
    heads: u32,
    kv_heads: u32,
    tied: bool,
}

impl Shape {
    const fn new(
        layers: u32,
        width: u32,
        inner: u32,
        heads: u32,
        kv_heads: u32,
        tied: bool,
    ) -> Self {
        Self {
            layers,
            width,
            inner,
            heads,
            kv_heads,
            tied,
        }
    }

    /// The one named, with what the arguments change.
    fn of(args: &Args) -> anyhow::Result<Self> {
        let named = SHAPES.iter().find(|(name, _)| *name == args.shape);
        let Some(&(_, named)) = named else {
            bail!("no shape is named {:?}", args.shape);
        };
        let shape = Self {
            layers: args.layers.unwrap_or(named.layers),
            width: args.width.unwrap_or(named.width),
            inner: args.inner.unwrap_or(named.inner),
            heads: args.heads.unwrap_or(named.heads),
            kv_heads: args.kv_heads.unwrap_or(named.kv_heads),
            tied: named.tied,
        };
        let Self {
            layers,
            width,
            inner,
            heads,
            kv_heads,
            ..
        } = shape;
        ensure!(
            (1..=1000).contains(&layers),
            "{layers} layers: give --layers from 1 to 1000"
        );
        for (option, n) in [("width", width), ("inner", inner)] {
            ensure!(
                n > 0 && n.is_multiple_of(32) && n as usize <= NUMBERS / 2,
                "--{option} {n}: give a multiple of 32 up to {}",
                NUMBERS / 2
            );
        }
        ensure!(
            heads > 0 && width.is_multiple_of(2 * heads),
            "{heads} heads in a width of {width}: give --heads that make heads of an even size"
        );
        ensure!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "{kv_heads} heads of keys and values: give --kv-heads that divide the {heads} heads"
        );
        Ok(shape)
    }

    /// The metadata of another model of the architecture, with this shape.
    fn metadata(&self, like: &Metadata, name: &str) -> anyhow::Result<Metadata> {
        let architecture: &str = like.get("general.architecture")?;
        let mut metadata = like.clone();
        let about: Vec<String> = like
            .iter()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with("general."))
            .map(str::to_owned)
            .collect();
        for key in about {
            metadata.remove(&key);
        }
        metadata.set("general.architecture", architecture);
        metadata.set("general.name", format!("Random weights like {name}"));
        for part in ["key_length", "value_length"] {
            metadata.remove(&format!("{architecture}.attention.{part}"));
        }
        let head_size = self.width / self.heads;
        for (key, n) in [
            ("block_count", self.layers),
            ("embedding_length", self.width),
            ("feed_forward_length", self.inner),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("rope.dimension_count", head_size),
        ] {
            metadata.set(format!("{architecture}.{key}"), n);
        }
        Ok(metadata)
    }

    /// All tensors, in F32.
    fn tensors(&self, architecture: &str, vocab: usize) -> anyhow::Result<Vec<TensorSpec>> {
        let biases = match architecture {
            "qwen2" => true,
            "llama" => false,
            other => bail!(
                "the architecture {other} is not known here: give one like qwen2's or llama's with --like"
            ),
        };
        let [width, inner] = [self.width, self.inner].map(|n| n as usize);
        let kv = (self.width / self.heads * self.kv_heads) as usize;
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: &[usize]| {
            tensors.push(TensorSpec {
                name,
                ggml_type: GgmlType::F32,
                shape: shape.to_vec(),
            });
        };
        add("token_embd.weight".to_owned(), &[vocab, width]);
        add("output_norm.weight".to_owned(), &[width]);
        if !self.tied {
            add("output.weight".to_owned(), &[vocab, width]);
        }
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: &[usize]| add(format!("blk.{layer}.{name}"), shape);
            for norm in ["attn_norm", "ffn_norm"] {
                add(&format!("{norm}.weight"), &[width]);
            }
            for (part, rows) in [("attn_q", width), ("attn_k", kv), ("attn_v", kv)] {
                add(&format!("{part}.weight"), &[rows, width]);
                if biases {
                    add(&format!("{part}.bias"), &[rows]);
                }
            }
            add("attn_output.weight", &[width, width]);
            add("ffn_gate.weight", &[inner, width]);
            add("ffn_up.weight", &[inner, width]);
            add("ffn_down.weight", &[width, inner]);
        }
        Ok(tensors)
    }
}

/// Random tensors that are nowhere until they are read.
struct Synthetic {
    metadata: Metadata,
    tensors: Vec<TensorSpec>,
    /// The same numbers in every type that a tensor has.
    long_rows: BTreeMap<&'static str, Vec<u8>>,
}

impl Synthetic {
    /// Gives the tensors the types that were planned.
    fn take_types(&mut self, planned: &[Planned]) -> anyhow::Result<()> {
        self.tensors = planned
            .iter()
            .map(|tensor| TensorSpec {
                name: tensor.name.clone(),
                ggml_type: tensor.to,
                shape: tensor.shape.clone(),
            })
            .collect();
        let numbers: Vec<f32> = (0..NUMBERS as u32).map(number).collect();
        for tensor in &self.tensors {
            let name = tensor.ggml_type.name();
            if !self.long_rows.contains_key(name) {
                let mut row = Vec::new();
                format::encode(tensor.ggml_type, &numbers, &mut row)?;
                self.long_rows.insert(name, row);
            }
        }
        Ok(())
    }
}

/// A number of the long row: the sum of four uniform ones, which is nearly normal.
fn number(at: u32) -> f32 {
    let bits = noise::bits(0, 0, at);
    let sum: u32 = bits
        .to_le_bytes()
        .as_chunks()
        .0
        .iter()
        .copied()
        .map(uniform)
        .sum();
    // Each of the four has a variance of 1/12.
    (sum as f32 / 65536.0 - 2.0) * 3f32.sqrt() * DEVIATION
}

fn uniform(bytes: [u8; 2]) -> u32 {
    u32::from(u16::from_le_bytes(bytes))
}

impl Source for Synthetic {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        self.tensors.clone()
    }

    fn read_rows(
        &self,
        tensor: usize,
        rows: Range<usize>,
        buf: &mut Vec<u8>,
    ) -> converge_quant::Result<()> {
        let spec = &self.tensors[tensor];
        buf.clear();
        if let [len] = spec.shape[..] {
            // Norms that scale nothing, biases that shift nothing.
            let value: f32 = if spec.name.ends_with("_norm.weight") {
                1.0
            } else {
                0.0
            };
            buf.extend(value.to_le_bytes().repeat(len * rows.len()));
            return Ok(());
        }
        let (ggml_type, cols) = (spec.ggml_type, spec.cols());
        let long = &self.long_rows[ggml_type.name()];
        let (len, size) = (ggml_type.block_len(), ggml_type.block_bytes());
        let places = (NUMBERS - cols) / len + 1;
        for row in rows {
            let bits = noise::bits(1, tensor as u64, row as u32);
            let start = (bits % places as u64) as usize * size;
            buf.extend_from_slice(&long[start..start + cols / len * size]);
        }
        Ok(())
    }
}
