//! The options that every program with a model has, and the way from them to a model that runs.

mod advice;
mod loading;

use std::num::NonZeroUsize;

use anyhow::{Context as _, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use converge_core::{
    Backend, CoreError, LoadOptions,
    backend::candle::{AdaptedDecoder, WeightMode},
    chat::Fallback,
    constrain::ConstrainError,
    generate::{Cancel, Session, StopReason},
    hub,
    model::{Decoder, DecoderSpec},
};
use converge_quant::{Gguf, PackedMode, PackedStore, QuantError, gguf::Fault, kernels::KvType};

use crate::models;

pub use advice::with_advice;
pub use loading::loading;

/// Positions of the context where neither `--ctx` nor the model asks for fewer.
pub const DEFAULT_CONTEXT: usize = 4096;

/// What a model that runs through candle-transformers cannot do, in a line for people.
pub const ADAPTED: &str = "this architecture runs through candle-transformers: a prompt that does \
                           not go on from the last one is computed anew, and nothing can be forked";

/// Which model: the first argument, or `--model`.
#[derive(Args, Clone, Debug)]
pub struct ModelArg {
    /// Name of a known model (see `fetch --list`) or path of a GGUF file
    /// [default: qwen2.5-coder-1.5b]
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// The same as an option
    #[arg(
        short = 'm',
        long = "model",
        value_name = "MODEL",
        conflicts_with = "first"
    )]
    option: Option<String>,
}

impl ModelArg {
    /// The name or path given, else [`models::DEFAULT`].
    pub fn name(&self) -> &str {
        let given = self.first.as_deref().or(self.option.as_deref());
        given.unwrap_or(models::DEFAULT)
    }
}

/// How a model is computed.
#[derive(Args, Clone, Debug)]
pub struct EngineArgs {
    /// Positions of the context: prompt and answer together
    #[arg(long, value_name = "N")]
    pub ctx: Option<NonZeroUsize>,
    /// Threads [default: the machine's cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Megabytes that the KV cache may take, earlier requests included [default: a full context
    /// and 512 more]
    #[arg(long, value_name = "MB")]
    pub cache_mb: Option<NonZeroUsize>,
    /// How the KV cache stores its numbers: q8_0 takes 1.06 bytes a number instead of 2, and changes
    /// answers a little
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    pub kv: Kv,
    /// The engine [default: cpu; candle where built with `--features metal`]
    #[arg(long, value_enum)]
    pub backend: Option<Engine>,
    /// Compute with dequantized weights: 4 bytes a weight, slower, by candle
    #[arg(long, conflicts_with = "backend")]
    pub f32: bool,
    /// Keep packed weights on disk, as many bytes as the model, for the next start: in
    /// ~/.cache/converge/packed, or the folder that CONVERGE_PACKED names. `cache packed
    /// list` shows them, `cache packed purge` removes them
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub packed: Packed,
    /// Keep each thread but the first on a core of its own
    #[arg(long)]
    pub pin: bool,
}

/// What is done with packed weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Packed {
    /// Nothing is kept: a model is packed when it is loaded.
    #[default]
    Off,
    /// Read into memory, checked.
    Read,
    /// Mapped: a fast start, and processes share one copy. Hazard: the process is killed when
    /// another one cuts the file short.
    Map,
}

/// The engines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Our own kernels on the CPU: exact, the fastest there.
    Cpu,
    /// candle, on the CPU, or on Metal where built with `--features metal`.
    Candle,
}

/// The types that a KV cache may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Kv {
    /// Half precision.
    #[default]
    F16,
    /// Bytes with a scale for each 32 elements.
    #[value(name = "q8_0")]
    Q8,
}

/// Opens a model by name or path, fetching it where it is known and not there.
///
/// # Errors
/// Those of [`models::ensure`]; a file that is no whole GGUF model.
pub fn open(name_or_path: &str) -> anyhow::Result<Gguf> {
    if let Some(entry) = hub::find(name_or_path).filter(|entry| entry.files.len() > 1) {
        let names = text_models().join(", ");
        bail!(
            "{} is no GGUF model: it turns texts into vectors, with the example `embed`; choose \
             one of {names}",
            entry.name
        );
    }
    let path = models::ensure(name_or_path)?;
    Gguf::open(&path).map_err(|error| {
        let advice = match &error {
            _ if path.is_dir() => "it is a folder; give the path of a .gguf file in it",
            QuantError::Malformed {
                fault: Fault::BigEndian { .. },
                ..
            } => "give a little-endian conversion of the model",
            QuantError::Malformed {
                fault: Fault::UnsupportedVersion { .. },
                ..
            } => "give another conversion of the model, or a newer one",
            QuantError::Malformed { .. } => {
                "so it is not a GGUF model, or not a whole one: get it again, or give another"
            }
            _ => return error.into(),
        };
        anyhow::anyhow!("{error}; {advice}")
    })
}

/// The names of the models that are one GGUF file.
pub fn text_models() -> Vec<&'static str> {
    let entries = hub::catalogue().iter();
    entries
        .filter(|entry| entry.files.len() == 1)
        .map(|entry| entry.name)
        .collect()
}

impl EngineArgs {
    /// Loads weights, tokenizer and chat template of an opened model.
    ///
    /// # Errors
    /// A context that the model does not have, and those of [`converge_core::load`].
    pub fn session(&self, gguf: &Gguf) -> anyhow::Result<Session> {
        let wanted = self.ctx.map_or(DEFAULT_CONTEXT, NonZeroUsize::get);
        let options = self.options(gguf, wanted)?;
        converge_core::load(gguf.path(), &options).map_err(|error| with_advice(gguf, error))
    }

    /// Loads the decoder alone, with a context of `--ctx`, else of `wanted`.
    ///
    /// # Errors
    /// A context that the model does not have, and those of [`LoadOptions::decoder`].
    pub fn decoder(&self, gguf: &Gguf, wanted: usize) -> anyhow::Result<Box<dyn Decoder>> {
        let options = self.options(gguf, wanted)?;
        let decoder = options.decoder(gguf);
        decoder.map_err(|error| with_advice(gguf, error))
    }

    fn options(&self, gguf: &Gguf, wanted: usize) -> anyhow::Result<LoadOptions> {
        let packed = |mode| hub::packed_dir().map(|folder| PackedStore::new(&folder, mode));
        Ok(LoadOptions {
            context: self.context(gguf, wanted)?,
            threads: self.threads,
            cache_bytes: self.cache_mb.map(|mb| mb.get().saturating_mul(1 << 20)),
            kv: match self.kv {
                Kv::F16 => KvType::F16,
                Kv::Q8 => KvType::Q8_0,
            },
            pin: self.pin,
            packed: match self.packed {
                Packed::Off => None,
                Packed::Read => Some(packed(PackedMode::Read)?),
                Packed::Map => Some(packed(PackedMode::Map)?),
            },
            progress: Some(loading()),
            cancel: Cancel::new(),
            backend: self.backend()?,
        })
    }

    /// `--ctx` where given, else `wanted` or what the model has, whichever is less.
    fn context(&self, gguf: &Gguf, wanted: usize) -> anyhow::Result<usize> {
        let advised = |error| with_advice(gguf, error);
        let trained = match AdaptedDecoder::trained_context(gguf).map_err(advised)? {
            Some(trained) => {
                eprintln!("note: {ADAPTED}");
                trained
            }
            None => {
                DecoderSpec::from_gguf(gguf)
                    .map_err(advised)?
                    .trained_context
            }
        };
        match self.ctx.map(NonZeroUsize::get) {
            Some(n) if n > trained => bail!("--ctx {n} is more than the {trained} of this model"),
            Some(n) => Ok(n),
            None => Ok(wanted.min(trained)),
        }
    }

    fn backend(&self) -> anyhow::Result<Backend> {
        let metal = cfg!(feature = "metal");
        let engine = self.backend.unwrap_or(match metal || self.f32 {
            true => Engine::Candle,
            false => Engine::Cpu,
        });
        Ok(match engine {
            Engine::Cpu => Backend::Cpu,
            Engine::Candle => Backend::Candle {
                mode: match self.f32 {
                    true => WeightMode::F32,
                    false => WeightMode::Quantized,
                },
                device: match metal {
                    true => Device::new_metal(0).context("no Metal device")?,
                    false => Device::Cpu,
                },
            },
        })
    }
}

/// What stands in for a chat template, in a line for people.
pub fn stated(fallback: Fallback) -> &'static str {
    match fallback {
        Fallback::ChatMl => "the file has no chat template: ChatML is used, as its vocabulary asks",
        _ => "the file has no chat template: the model goes on from the text as it is",
    }
}

/// Why a generation ended, in a word for programs.
pub fn stop_name(stop: &StopReason) -> &'static str {
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

/// Says which option helps where a context or a budget is too small.
pub fn advise(error: CoreError) -> anyhow::Error {
    match error {
        CoreError::ContextOverflow {
            prompt,
            reserve,
            context,
        } => {
            let needed = prompt.saturating_add(reserve);
            anyhow::anyhow!(
                "the context of {context} is too small for {prompt} tokens of prompt and {reserve} \
                 of answer: give --ctx {needed} or more, or a shorter prompt"
            )
        }
        CoreError::Constrain(ConstrainError::Budget { least, budget }) => anyhow::anyhow!(
            "the shortest complete answer found takes {least} tokens, and there is room for {budget}: \
             raise --max-tokens or --ctx"
        ),
        CoreError::Cancelled => crate::cli::Interrupted.into(),
        other => other.into(),
    }
}
