//! `config.json`: what the model is.

use std::f32::consts::PI;
use std::path::Path;

use crate::Result;
use crate::gguf::Metadata;

use super::FolderFault;
use super::json::Json;

/// The architectures that are converted: `model_type` and GGUF's name are the same.
const ARCHITECTURES: [&str; 2] = ["llama", "qwen2"];

/// What is read of the configuration.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) architecture: &'static str,
    /// The output matrix is that of the embeddings.
    pub(super) tied: bool,
    /// By what the frequencies of the rotary embedding are divided, for Llama 3.
    pub(super) rope_factors: Option<Vec<f32>>,
    pub(super) special: SpecialIds,
    layers: u32,
    context: u32,
    width: u32,
    feed_forward: u32,
    heads: u32,
    kv_heads: u32,
    head_size: Option<u32>,
    rope_base: f32,
    epsilon: f32,
    scaling: Option<Scaling>,
}

/// Ids of special tokens, where the configuration has them.
#[derive(Debug, Default)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) pad: Option<u32>,
}

#[derive(Debug)]
struct Scaling {
    kind: &'static str,
    factor: f32,
    original: Option<u32>,
}

impl Config {
    pub(super) fn read(json: &Json) -> Result<Self> {
        let kind = json.need("model_type", json.text("model_type")?)?;
        let found = ARCHITECTURES.into_iter().find(|name| *name == kind);
        let architecture = found.ok_or_else(|| {
            let fault = FolderFault::Unsupported {
                found: kind.to_owned(),
                supported: ARCHITECTURES.join(" and "),
            };
            json.error("model_type", fault)
        })?;
        if json.boolean("use_sliding_window")? == Some(true) {
            let fault = FolderFault::Unsupported {
                found: "a sliding window".to_owned(),
                supported: "models that see their whole context".to_owned(),
            };
            return Err(json.error("use_sliding_window", fault));
        }
        let count = |field: &str| match json.need(field, json.integer(field)?)? {
            0 => Err(json.error(
                field,
                FolderFault::WrongType {
                    expected: "1 or more",
                    found: "0".to_owned(),
                },
            )),
            n => Ok(n),
        };
        let (heads, width) = (count("num_attention_heads")?, count("hidden_size")?);
        let head_size = json.integer("head_dim")?;
        // Newer files have base and scaling in one object.
        let rope_base = match json.float("rope_theta")? {
            Some(base) => Some(base),
            None => json.float("rope_parameters.rope_theta")?,
        };
        let mut config = Self {
            architecture,
            tied: json.boolean("tie_word_embeddings")?.unwrap_or(false),
            rope_factors: None,
            special: SpecialIds {
                bos: first_id(json, "bos_token_id")?,
                eos: first_id(json, "eos_token_id")?,
                pad: first_id(json, "pad_token_id")?,
            },
            layers: count("num_hidden_layers")?,
            context: count("max_position_embeddings")?,
            width,
            feed_forward: count("intermediate_size")?,
            heads,
            kv_heads: match json.at("num_key_value_heads") {
                Some(_) => count("num_key_value_heads")?,
                None => heads,
            },
            head_size,
            rope_base: rope_base.unwrap_or(10_000.0),
            epsilon: json.float("rms_norm_eps")?.unwrap_or(1e-6),
            scaling: None,
        };
        config.read_scaling(json)?;
        Ok(config)
    }

    fn read_scaling(&mut self, json: &Json) -> Result<()> {
        let field = match json.at("rope_scaling") {
            Some(_) => "rope_scaling",
            None => "rope_parameters",
        };
        let of = |name: &str| format!("{field}.{name}");
        let kind = match json.text(&of("rope_type"))? {
            Some(kind) => Some(kind),
            None => json.text(&of("type"))?,
        };
        let number = |name: &str| json.need(&of(name), json.float(&of(name))?);
        let original = of("original_max_position_embeddings");
        match kind.unwrap_or("default") {
            "default" => {}
            "linear" => {
                self.scaling = Some(Scaling {
                    kind: "linear",
                    factor: number("factor")?,
                    original: None,
                });
            }
            "yarn" => {
                self.scaling = Some(Scaling {
                    kind: "yarn",
                    factor: number("factor")?,
                    original: json.integer(&original)?,
                });
            }
            "llama3" => {
                let low = number("low_freq_factor")?;
                let high = number("high_freq_factor")?;
                let original = json.need(&original, json.integer(&original)?)? as f32;
                let factor = number("factor")?;
                self.rope_factors = Some(self.llama3_factors(factor, low, high, original));
            }
            other => {
                let fault = FolderFault::Unsupported {
                    found: other.to_owned(),
                    supported: "linear, yarn and llama3".to_owned(),
                };
                return Err(json.error(&of("rope_type"), fault));
            }
        }
        Ok(())
    }

    /// Long waves are stretched by the factor, short ones left, those between in proportion.
    fn llama3_factors(&self, factor: f32, low: f32, high: f32, original: f32) -> Vec<f32> {
        let size = self.rotated();
        let stretch = |pair: u32| {
            let exponent = 2.0 * pair as f32 / size as f32;
            let wave = 2.0 * PI * self.rope_base.powf(exponent);
            if wave < original / high {
                1.0
            } else if wave > original / low {
                factor
            } else {
                let smooth = (original / wave - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        (0..size / 2).map(stretch).collect()
    }

    /// Numbers of a head, all of which are rotated.
    fn rotated(&self) -> u32 {
        self.head_size.unwrap_or(self.width / self.heads)
    }

    /// The heads of a matrix whose rows have another order in GGUF, by its GGUF name.
    pub(super) fn permuted_heads(&self, name: &str) -> Option<usize> {
        if self.architecture != "llama" {
            return None;
        }
        if name.contains(".attn_q.") {
            Some(self.heads as usize)
        } else if name.contains(".attn_k.") {
            Some(self.kv_heads as usize)
        } else {
            None
        }
    }

    /// The keys of the architecture.
    pub(super) fn describe(&self, folder: &Path, vocab: usize, metadata: &mut Metadata) {
        metadata.set("general.architecture", self.architecture);
        metadata.set("general.type", "model");
        if let Some(name) = folder.file_name().and_then(|name| name.to_str()) {
            metadata.set("general.name", name);
        }
        let mut set = |name: &str, value: u32| {
            metadata.set(format!("{}.{name}", self.architecture), value);
        };
        set("block_count", self.layers);
        set("context_length", self.context);
        set("embedding_length", self.width);
        set("feed_forward_length", self.feed_forward);
        set("attention.head_count", self.heads);
        set("attention.head_count_kv", self.kv_heads);
        set("vocab_size", vocab as u32);
        set("rope.dimension_count", self.rotated());
        if let Some(size) = self.head_size {
            set("attention.key_length", size);
            set("attention.value_length", size);
        }
        if let Some(original) = self.scaling.as_ref().and_then(|one| one.original) {
            set("rope.scaling.original_context_length", original);
        }
        let key = |name: &str| format!("{}.{name}", self.architecture);
        metadata.set(key("rope.freq_base"), self.rope_base);
        metadata.set(key("attention.layer_norm_rms_epsilon"), self.epsilon);
        if let Some(scaling) = &self.scaling {
            metadata.set(key("rope.scaling.type"), scaling.kind);
            metadata.set(key("rope.scaling.factor"), scaling.factor);
        }
    }
}

/// A token's id, or the first of several.
fn first_id(json: &Json, field: &str) -> Result<Option<u32>> {
    match json.at(field).and_then(|value| value.as_array()) {
        Some(ids) => {
            let first = ids.first().and_then(|id| id.as_u64());
            Ok(first.and_then(|id| u32::try_from(id).ok()))
        }
        None => json.integer(field),
    }
}
