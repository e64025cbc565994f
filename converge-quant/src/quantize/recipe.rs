//! Recipes: which tensor gets which type.
//!
//! They follow `llama_tensor_get_type` of llama.cpp (`src/llama-quant.cpp`), without an importance
//! matrix and without overrides.

use std::fmt;
use std::str::FromStr;

use crate::gguf::{Metadata, TensorSpec};
use crate::{GgmlType, QuantError, Result};

use super::Planned;

/// Version of the block formats, as `general.quantization_version` says it.
const QUANTIZATION_VERSION: u32 = 2;

/// A mixture of types, by llama.cpp's name of it.
///
/// All but the plain ones keep the output matrix in Q6_K or better, and with it the embeddings of
/// models that share the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recipe {
    /// 32 bits, nothing is lost.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// 8.5 bits.
    Q8_0,
    /// 6.6 bits.
    Q6K,
    /// 5.5 bits in blocks of 32.
    Q5_0,
    /// 6 bits in blocks of 32.
    Q5_1,
    /// 5.5 bits.
    Q5KS,
    /// 5.5 bits, half of the most sensitive matrices 6.6.
    Q5KM,
    /// 4.5 bits in blocks of 32.
    Q4_0,
    /// 5 bits in blocks of 32.
    Q4_1,
    /// 4.5 bits, the first layers' most sensitive matrices 5.5.
    Q4KS,
    /// 4.5 bits, half of the most sensitive matrices 6.6. The usual choice.
    Q4KM,
}

impl Recipe {
    /// All recipes, from many bits to few.
    pub const ALL: &'static [Self] = &[
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5_1,
        Self::Q5KM,
        Self::Q5KS,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4KM,
        Self::Q4KS,
        Self::Q4_0,
    ];

    /// Name, `general.file_type`, and the type of most tensors.
    const fn facts(self) -> (&'static str, u32, GgmlType) {
        match self {
            Self::F32 => ("F32", 0, GgmlType::F32),
            Self::F16 => ("F16", 1, GgmlType::F16),
            Self::BF16 => ("BF16", 32, GgmlType::BF16),
            Self::Q8_0 => ("Q8_0", 7, GgmlType::Q8_0),
            Self::Q6K => ("Q6_K", 18, GgmlType::Q6_K),
            Self::Q5_0 => ("Q5_0", 8, GgmlType::Q5_0),
            Self::Q5_1 => ("Q5_1", 9, GgmlType::Q5_1),
            Self::Q5KS => ("Q5_K_S", 16, GgmlType::Q5_K),
            Self::Q5KM => ("Q5_K_M", 17, GgmlType::Q5_K),
            Self::Q4_0 => ("Q4_0", 2, GgmlType::Q4_0),
            Self::Q4_1 => ("Q4_1", 3, GgmlType::Q4_1),
            Self::Q4KS => ("Q4_K_S", 14, GgmlType::Q4_K),
            Self::Q4KM => ("Q4_K_M", 15, GgmlType::Q4_K),
        }
    }

    /// llama.cpp's name, such as `Q4_K_M`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The type of the tensors that are nothing special.
    #[must_use]
    pub const fn base(self) -> GgmlType {
        self.facts().2
    }

    /// Metadata that say what the file is now.
    pub(super) fn label(self, metadata: Metadata) -> Metadata {
        let mut metadata = metadata.without_split();
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
        metadata.set("general.file_type", self.facts().1);
        metadata
    }

    /// The type of each tensor, in the order in which llama.cpp goes through them: those of no
    /// layer, then layer by layer, by name. What a tensor gets depends on how many of its kind came
    /// before.
    pub(super) fn plan(self, metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Vec<Planned>> {
        let mut order: Vec<(Option<u64>, &str, usize)> = tensors
            .iter()
            .enumerate()
            .map(|(index, tensor)| (layer(&tensor.name), tensor.name.as_str(), index))
            .collect();
        order.sort_unstable();
        let mut state = State::new(metadata, tensors)?;
        let planned = |(_, _, index): (Option<u64>, &str, usize)| {
            let tensor = &tensors[index];
            let (to, instead_of) = match is_matrix(tensor) {
                true => fallback(self.choose(&mut state, tensor), tensor),
                false => (tensor.ggml_type, None),
            };
            Planned {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                from: tensor.ggml_type,
                to,
                instead_of,
                index,
            }
        };
        Ok(order.into_iter().map(planned).collect())
    }

    /// The type meant for a matrix.
    fn choose(self, state: &mut State, tensor: &TensorSpec) -> GgmlType {
        let base = self.base();
        if base.block_len() == 1 {
            return base;
        }
        let kind = Kind::of(&tensor.name);
        if kind == Kind::Output || kind == Kind::Embedding && state.tied {
            return if state.falcon || !tensor.cols().is_multiple_of(base.block_len()) {
                GgmlType::Q8_0
            } else if base == GgmlType::Q8_0 {
                base
            } else {
                GgmlType::Q6_K
            };
        }
        match kind {
            Kind::Value | Kind::ValueAndOthers => {
                let at = state.values_seen;
                state.values_seen += 1;
                let mut chosen = match self {
                    Self::Q4KM | Self::Q5KM if more_bits(at, state.values) => GgmlType::Q6_K,
                    Self::Q4KS if at < 4 => GgmlType::Q5_K,
                    _ => base,
                };
                if state.seventy_billion && chosen == GgmlType::Q4_K {
                    chosen = GgmlType::Q5_K;
                }
                if state.experts == 8 {
                    chosen = GgmlType::Q8_0;
                }
                chosen
            }
            Kind::Key if state.experts == 8 => GgmlType::Q8_0,
            Kind::Down => {
                let seen = state.downs_seen;
                state.downs_seen += 1;
                // The experts of a layer need not follow each other: its name says where it is.
                let at = match state.experts > 1 {
                    true => layer(&tensor.name).unwrap_or(seen),
                    false => seen,
                };
                let layers = state.layers;
                match self {
                    Self::Q4KM if state.falcon => {
                        if at < layers / 16 {
                            GgmlType::Q6_K
                        } else if more_bits(at, layers) {
                            GgmlType::Q5_K
                        } else {
                            GgmlType::Q4_K
                        }
                    }
                    Self::Q4KM | Self::Q5KM if more_bits(at, layers) => GgmlType::Q6_K,
                    Self::Q4KS if !state.falcon && at < layers / 8 => GgmlType::Q5_K,
                    _ => base,
                }
            }
            Kind::AttentionOutput
                if state.experts == 8
                    && !state.falcon
                    && matches!(self, Self::Q4KS | Self::Q4KM) =>
            {
                GgmlType::Q5_K
            }
            _ => base,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Recipe {
    type Err = QuantError;

    /// Reads llama.cpp's name, in any case.
    fn from_str(name: &str) -> Result<Self> {
        let named = |recipe: &Self| recipe.name().eq_ignore_ascii_case(name);
        let found = Self::ALL.iter().copied().find(named);
        found.ok_or_else(|| QuantError::UnknownRecipe {
            name: name.to_owned(),
        })
    }
}

/// What the choices depend on besides the tensor.
struct State {
    /// No output matrix: the embeddings are it.
    tied: bool,
    falcon: bool,
    /// Eight heads share a value matrix there, so it is small.
    seventy_billion: bool,
    experts: u64,
    layers: u64,
    /// Matrices that give the values, alone or with others.
    values: u64,
    values_seen: u64,
    downs_seen: u64,
}

impl State {
    fn new(metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Self> {
        let architecture: &str = metadata.get("general.architecture")?;
        let key = |name: &str| format!("{architecture}.{name}");
        // A list instead of a number says the same of no layer.
        let heads = |name: &str| metadata.find::<u64>(&key(name)).ok().flatten();
        let layers = metadata.get(&key("block_count"))?;
        let (queries, keys) = (
            heads("attention.head_count"),
            heads("attention.head_count_kv"),
        );
        let grouped = keys.is_some() && keys != queries;
        let values = |tensor: &&TensorSpec| {
            matches!(Kind::of(&tensor.name), Kind::Value | Kind::ValueAndOthers)
        };
        Ok(Self {
            tied: !tensors.iter().any(|tensor| tensor.name == OUTPUT),
            falcon: architecture == "falcon",
            seventy_billion: layers == 80
                && match architecture {
                    "llama" => grouped,
                    "qwen2" | "qwen2vl" => true,
                    _ => false,
                },
            experts: metadata.find(&key("expert_count"))?.unwrap_or(0),
            layers,
            values: tensors.iter().filter(values).count() as u64,
            values_seen: 0,
            downs_seen: 0,
        })
    }
}

const OUTPUT: &str = "output.weight";

/// What a matrix does in the model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Output,
    Embedding,
    Value,
    /// Queries, keys and values in one.
    ValueAndOthers,
    Key,
    AttentionOutput,
    Down,
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        if name == OUTPUT {
            Self::Output
        } else if matches!(name, "token_embd.weight" | "per_layer_token_embd.weight") {
            Self::Embedding
        } else if name.contains("attn_qkv.weight") || name.contains("attn_kv_b.weight") {
            Self::ValueAndOthers
        } else if name.contains("attn_v.weight") {
            Self::Value
        } else if name.contains("attn_k.weight") {
            Self::Key
        } else if name.contains("attn_output.weight") {
            Self::AttentionOutput
        } else if name.contains("ffn_down") {
            Self::Down
        } else {
            Self::Other
        }
    }
}

/// Whether the layer is one of the half that gets more bits: the first and the last eighth, and
/// every third in between.
fn more_bits(layer: u64, layers: u64) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The layer that a name tells: `blk.7.…` is of layer 7.
fn layer(name: &str) -> Option<u64> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// Whether a tensor is quantized at all: matrices are, but small ones that steer the others.
fn is_matrix(tensor: &TensorSpec) -> bool {
    const KEPT: [&str; 35] = [
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_tid2eid.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "indexer.k_proj.weight",
        "indexer.q_proj.weight",
        "time_mix_first.weight",
        "time_mix_w0.weight",
        "time_mix_w1.weight",
        "time_mix_w2.weight",
        "time_mix_v0.weight",
        "time_mix_v1.weight",
        "time_mix_v2.weight",
        "time_mix_a0.weight",
        "time_mix_a1.weight",
        "time_mix_a2.weight",
        "time_mix_g1.weight",
        "time_mix_g2.weight",
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
        "attn_rel_b.weight",
        ".position_embd",
        "sam.pos_embd",
        "sam.neck.",
        "sam.net_",
        ".rel_pos",
        ".patch_embd",
        ".patch_merger",
        "a.rvq.codebook",
        "mm.a.code_embd",
    ];
    let name = tensor.name.as_str();
    // ggml does not count leading dimensions of one.
    let dimensions = tensor.shape.iter().skip_while(|&&one| one == 1).count();
    dimensions >= 2
        && name.ends_with("weight")
        && !matches!(name, "position_embd.weight" | "token_types.weight")
        && !KEPT.iter().any(|kept| name.contains(kept))
}

/// The type for rows that are no whole blocks of the one meant, and that one.
fn fallback(meant: GgmlType, tensor: &TensorSpec) -> (GgmlType, Option<GgmlType>) {
    let fits = |ggml_type: GgmlType| tensor.cols().is_multiple_of(ggml_type.block_len());
    if fits(meant) {
        return (meant, None);
    }
    let instead = match meant {
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        _ => GgmlType::Q8_0,
    };
    let instead = if fits(instead) {
        instead
    } else {
        GgmlType::F16
    };
    (instead, Some(meant))
}
