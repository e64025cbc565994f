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
pub(crate) const CONTEXT: usize = 700;

/// What goes into the file; tests change it before [`Tiny::open`].
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) metadata: BTreeMap<String, Value>,
    /// Shape, rows first, and values.
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Type of every matrix.
    pub(crate) matrices: GgmlDType,
    architecture: &'static str,
    seed: u64,
}

impl Tiny {
    pub(crate) fn qwen2() -> Self {
        let mut tiny = Self::new("qwen2");
        for i in 0..LAYERS {
            tiny.add(&format!("blk.{i}.attn_q.bias"), &[WIDTH], 0.0);
            tiny.add(
                &format!("blk.{i}.attn_k.bias"),
                &[KV_HEADS * HEAD_SIZE],
                0.0,
            );
            tiny.add(
                &format!("blk.{i}.attn_v.bias"),
                &[KV_HEADS * HEAD_SIZE],
                0.0,
            );
        }
        tiny.add("output.weight", &[VOCAB, WIDTH], 0.0);
        tiny
    }

    /// With a tied head.
    pub(crate) fn llama() -> Self {
        Self::new("llama")
    }

    fn new(architecture: &'static str) -> Self {
        let mut tiny = Self {
            metadata: BTreeMap::new(),
            tensors: BTreeMap::new(),
            matrices: GgmlDType::F32,
            architecture,
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
            ("block_count", LAYERS),
            ("context_length", CONTEXT),
        ] {
            tiny.set(key, Value::U32(n as u32));
        }
        tiny.set("attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        tiny.set("rope.freq_base", Value::F32(10_000.0));
        tiny.add("token_embd.weight", &[VOCAB, WIDTH], 0.0);
        tiny.add("output_norm.weight", &[WIDTH], 1.0);
        let kv = KV_HEADS * HEAD_SIZE;
        for i in 0..LAYERS {
            for (part, shape, mean) in [
                ("attn_norm", &[WIDTH][..], 1.0),
                ("attn_q", &[WIDTH, WIDTH], 0.0),
                ("attn_k", &[kv, WIDTH], 0.0),
                ("attn_v", &[kv, WIDTH], 0.0),
                ("attn_output", &[WIDTH, WIDTH], 0.0),
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
        let path = folder.path().join("tiny.gguf");
        let tensors: Vec<(&str, QTensor)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let dtype = if shape.len() == 2 {
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
