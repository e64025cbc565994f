//! Tiny random models written as GGUF files, for tests.

use std::{collections::BTreeMap, fs::File};

use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use converge_quant::Gguf;
use tempfile::TempDir;

pub(crate) const WIDTH: usize = 64;
pub(crate) const INNER: usize = 96;
pub(crate) const HEADS: usize = 4;
pub(crate) const KV_HEADS: usize = 2;
pub(crate) const HEAD_SIZE: usize = 16;
pub(crate) const LAYERS: usize = 3;
pub(crate) const VOCAB: usize = 50;
pub(crate) const CONTEXT: usize = 1100;
pub(crate) const WINDOW: usize = 20;
pub(crate) const EXPERTS: usize = 4;
pub(crate) const EXPERTS_USED: usize = 2;
pub(crate) const EXPERT_INNER: usize = 32;

/// The file's name in its folder.
pub(crate) const FILE: &str = "tiny.gguf";

/// What goes into the file; tests change it before [`Tiny::open`].
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) metadata: BTreeMap<String, Value>,
    /// Shape, rows first, and values.
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Type of every matrix but routers, which no converter rounds.
    pub(crate) matrices: GgmlDType,
    architecture: &'static str,
    layers: usize,
    head_size: usize,
    seed: u64,
}

impl Tiny {
    /// One model for each thing that layers can have.
    pub(crate) fn kinds() -> Vec<(&'static str, Self)> {
        vec![
            ("llama", Self::llama()),
            ("llama with biases", Self::biased()),
            ("mixtral", Self::mixtral()),
            ("qwen2", Self::qwen2()),
            ("qwen2moe", Self::qwen2moe()),
            ("qwen3", Self::qwen3()),
            ("qwen3moe", Self::qwen3moe()),
            ("gemma2", Self::gemma2()),
            ("gemma3", Self::gemma3()),
            ("phi3", Self::phi3()),
            ("smollm3", Self::smollm3()),
            ("granite", Self::granite()),
        ]
    }

    pub(crate) fn qwen2() -> Self {
        let mut tiny = Self::new("qwen2");
        tiny.add_biases();
        tiny.add("output.weight", &[VOCAB, WIDTH], 0.0);
        tiny
    }

    /// With a tied head.
    pub(crate) fn llama() -> Self {
        Self::new("llama")
    }

    /// A bias on every projection that may have one.
    fn biased() -> Self {
        let mut tiny = Self::llama();
        tiny.add_biases();
        for i in 0..tiny.layers {
            for (part, width) in [
                ("attn_output", WIDTH),
                ("ffn_gate", INNER),
                ("ffn_up", INNER),
                ("ffn_down", WIDTH),
            ] {
                tiny.add(&format!("blk.{i}.{part}.bias"), &[width], 0.0);
            }
        }
        tiny
    }

    /// Llama's tensors with Mixtral's experts.
    pub(crate) fn mixtral() -> Self {
        let mut tiny = Self::new("llama");
        tiny.add_experts(INNER);
        tiny
    }

    /// Heads that are larger than the width's share of them.
    pub(crate) fn qwen3() -> Self {
        let mut tiny = Self::with("qwen3", LAYERS, 2 * HEAD_SIZE);
        tiny.add_head_norms();
        tiny
    }

    pub(crate) fn qwen2moe() -> Self {
        let mut tiny = Self::new("qwen2moe");
        tiny.add_biases();
        tiny.add_experts(EXPERT_INNER);
        tiny.set(
            "expert_shared_feed_forward_length",
            Value::U32(INNER as u32),
        );
        for i in 0..LAYERS {
            tiny.add(&format!("blk.{i}.ffn_gate_inp_shexp.weight"), &[WIDTH], 0.0);
            for (part, shape) in [
                ("gate", [INNER, WIDTH]),
                ("up", [INNER, WIDTH]),
                ("down", [WIDTH, INNER]),
            ] {
                tiny.add(&format!("blk.{i}.ffn_{part}_shexp.weight"), &shape, 0.0);
            }
        }
        tiny.add("output.weight", &[VOCAB, WIDTH], 0.0);
        tiny
    }

    pub(crate) fn qwen3moe() -> Self {
        let mut tiny = Self::new("qwen3moe");
        tiny.add_head_norms();
        tiny.add_experts(EXPERT_INNER);
        tiny.add("output.weight", &[VOCAB, WIDTH], 0.0);
        tiny
    }

    /// Soft caps so low that they matter.
    pub(crate) fn gemma2() -> Self {
        let mut tiny = Self::with("gemma2", LAYERS, HEAD_SIZE);
        tiny.add_post_norms();
        tiny.set("attention.sliding_window", Value::U32(WINDOW as u32));
        tiny.set("attn_logit_softcapping", Value::F32(2.0));
        tiny.set("final_logit_softcapping", Value::F32(3.0));
        tiny
    }

    /// As many layers as it takes for one without a window.
    pub(crate) fn gemma3() -> Self {
        let mut tiny = Self::with("gemma3", 7, HEAD_SIZE);
        tiny.add_head_norms();
        tiny.add_post_norms();
        tiny.set("attention.sliding_window", Value::U32(WINDOW as u32));
        tiny.set("rope.freq_base", Value::F32(1_000_000.0));
        tiny
    }

    /// Without a window.
    pub(crate) fn phi3() -> Self {
        let mut tiny = Self::new("phi3");
        tiny.set("attention.sliding_window", Value::U32(0));
        tiny.set("rope.dimension_count", Value::U32(HEAD_SIZE as u32));
        for i in 0..LAYERS {
            for part in ["attn_q", "attn_k", "attn_v", "ffn_gate"] {
                tiny.tensors.remove(&format!("blk.{i}.{part}.weight"));
            }
            let qkv = (HEADS + 2 * KV_HEADS) * HEAD_SIZE;
            tiny.add(&format!("blk.{i}.attn_qkv.weight"), &[qkv, WIDTH], 0.0);
            tiny.add(&format!("blk.{i}.ffn_up.weight"), &[2 * INNER, WIDTH], 0.0);
        }
        tiny.add("output.weight", &[VOCAB, WIDTH], 0.0);
        tiny
    }

    /// As many layers as it takes for one without positions.
    pub(crate) fn smollm3() -> Self {
        let mut tiny = Self::with("smollm3", 5, HEAD_SIZE);
        tiny.set("rope.dimension_count", Value::U32(HEAD_SIZE as u32));
        tiny
    }

    pub(crate) fn granite() -> Self {
        let mut tiny = Self::new("granite");
        for (key, scale) in [
            ("embedding_scale", 12.0),
            ("attention.scale", 0.03),
            ("residual_scale", 0.22),
            ("logit_scale", 8.0),
        ] {
            tiny.set(key, Value::F32(scale));
        }
        tiny
    }

    fn new(architecture: &'static str) -> Self {
        Self::with(architecture, LAYERS, HEAD_SIZE)
    }

    fn with(architecture: &'static str, layers: usize, head_size: usize) -> Self {
        let mut tiny = Self {
            metadata: BTreeMap::new(),
            tensors: BTreeMap::new(),
            matrices: GgmlDType::F32,
            architecture,
            layers,
            head_size,
            seed: 1,
        };
        tiny.metadata.insert(
            "general.architecture".into(),
            Value::String(architecture.into()),
        );
        for (key, n) in [
            ("embedding_length", WIDTH),
            ("feed_forward_length", INNER),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
            ("block_count", layers),
            ("context_length", CONTEXT),
        ] {
            tiny.set(key, Value::U32(n as u32));
        }
        if architecture != "llama" && architecture != "qwen2" {
            tiny.set("attention.key_length", Value::U32(head_size as u32));
            tiny.set("attention.value_length", Value::U32(head_size as u32));
        }
        tiny.set("attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        tiny.set("rope.freq_base", Value::F32(10_000.0));
        tiny.add("token_embd.weight", &[VOCAB, WIDTH], 0.0);
        tiny.add("output_norm.weight", &[WIDTH], 1.0);
        let (queries, kv) = (HEADS * head_size, KV_HEADS * head_size);
        for i in 0..layers {
            for (part, shape, mean) in [
                ("attn_norm", &[WIDTH][..], 1.0),
                ("attn_q", &[queries, WIDTH], 0.0),
                ("attn_k", &[kv, WIDTH], 0.0),
                ("attn_v", &[kv, WIDTH], 0.0),
                ("attn_output", &[WIDTH, queries], 0.0),
                ("ffn_norm", &[WIDTH], 1.0),
                ("ffn_gate", &[INNER, WIDTH], 0.0),
                ("ffn_up", &[INNER, WIDTH], 0.0),
                ("ffn_down", &[WIDTH, INNER], 0.0),
            ] {
                tiny.add(&format!("blk.{i}.{part}.weight"), shape, mean);
            }
        }
        tiny
    }

    /// Norms before and after each part; gate and up in one tensor.
    pub(crate) fn glm4() -> Self {
        let mut tiny = Self::new("glm4");
        tiny.add_biases();
        tiny.add_post_norms();
        for i in 0..tiny.layers {
            tiny.tensors.remove(&format!("blk.{i}.ffn_gate.weight"));
            tiny.add(&format!("blk.{i}.ffn_up.weight"), &[2 * INNER, WIDTH], 0.0);
        }
        tiny
    }

    /// Biases of queries, keys and values.
    fn add_biases(&mut self) {
        for i in 0..self.layers {
            for (part, heads) in [("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)] {
                let name = format!("blk.{i}.attn_{part}.bias");
                self.add(&name, &[heads * self.head_size], 0.0);
            }
        }
    }

    fn add_head_norms(&mut self) {
        for i in 0..self.layers {
            for part in ["attn_q_norm", "attn_k_norm"] {
                self.add(&format!("blk.{i}.{part}.weight"), &[self.head_size], 1.0);
            }
        }
    }

    fn add_post_norms(&mut self) {
        for i in 0..self.layers {
            for part in ["post_attention_norm", "post_ffw_norm"] {
                self.add(&format!("blk.{i}.{part}.weight"), &[WIDTH], 1.0);
            }
        }
    }

    /// Experts in place of the dense feed-forward network.
    fn add_experts(&mut self, inner: usize) {
        self.set("expert_count", Value::U32(EXPERTS as u32));
        self.set("expert_used_count", Value::U32(EXPERTS_USED as u32));
        if inner != INNER {
            self.set("expert_feed_forward_length", Value::U32(inner as u32));
        }
        for i in 0..self.layers {
            for (part, shape) in [
                ("gate", [EXPERTS, inner, WIDTH]),
                ("up", [EXPERTS, inner, WIDTH]),
                ("down", [EXPERTS, WIDTH, inner]),
            ] {
                self.tensors.remove(&format!("blk.{i}.ffn_{part}.weight"));
                self.add(&format!("blk.{i}.ffn_{part}_exps.weight"), &shape, 0.0);
            }
            let router = format!("blk.{i}.ffn_gate_inp.weight");
            self.add(&router, &[EXPERTS, WIDTH], 0.0);
        }
    }

    /// Sets a key of the architecture's own.
    pub(crate) fn set(&mut self, suffix: &str, value: Value) {
        self.metadata
            .insert(format!("{}.{suffix}", self.architecture), value);
    }

    pub(crate) fn remove(&mut self, suffix: &str) {
        self.metadata
            .remove(&format!("{}.{suffix}", self.architecture));
    }

    /// A tensor of uniform noise around `mean`.
    pub(crate) fn add(&mut self, name: &str, shape: &[usize], mean: f32) {
        let values = (0..shape.iter().product())
            .map(|_| mean + self.noise())
            .collect();
        self.tensors.insert(name.into(), (shape.to_vec(), values));
    }

    /// −0.25 to 0.25, from splitmix64.
    fn noise(&mut self) -> f32 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 25) as f32 - 0.25
    }

    /// Writes the file and opens it. The folder goes with the guard.
    pub(crate) fn open(&self) -> (Gguf, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let tensors: Vec<(&str, QTensor)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let dtype = if shape.len() > 1 && !name.contains("ffn_gate_inp") {
                    self.matrices
                } else {
                    GgmlDType::F32
                };
                let tensor = Tensor::from_slice(values, &shape[..], &Device::Cpu).unwrap();
                (name.as_str(), QTensor::quantize(&tensor, dtype).unwrap())
            })
            .collect();
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| (*name, tensor))
            .collect();
        let metadata: Vec<_> = self
            .metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
        (Gguf::open(&path).unwrap(), folder)
    }
}
