//! Packed weights, tensor by tensor as the description names them.

use std::ops::Range;

use converge_quant::{
    Gguf, Level, Matrices, Packed, Pool, format,
    kernels::{self, Activations, Pairs},
};
use sha2::{Digest as _, Sha256};

use super::feed_forward::FeedForwardWeights;
use crate::{
    Result,
    model::{
        rope::Frequencies,
        spec::{DecoderSpec, Layer, Projection, Rope, RopePairs},
    },
};

/// All weights of a model.
pub(super) struct Weights {
    /// The token embeddings; `None` where the head's are the same.
    embedding: Option<Packed>,
    pub(super) layers: Vec<LayerWeights>,
    pub(super) output_norm: Vec<f32>,
    pub(super) head: Linear,
    /// The rotary positions that layers have, each once.
    pub(super) rotary: Vec<Rotary>,
}

/// The weights of one layer.
pub(super) struct LayerWeights {
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) query_norm: Option<Vec<f32>>,
    pub(super) key_norm: Option<Vec<f32>>,
    /// Index into [`Weights::rotary`].
    pub(super) rotary: Option<usize>,
    pub(super) window: Option<usize>,
    pub(super) output: Linear,
    pub(super) post_attention_norm: Option<Vec<f32>>,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) feed_forward: FeedForwardWeights,
    pub(super) post_feed_forward_norm: Option<Vec<f32>>,
}

/// Rotary positions of some layers.
pub(super) struct Rotary {
    pub(super) pairs: Pairs,
    pub(super) frequencies: Frequencies,
}

impl Weights {
    pub(super) fn load(
        matrices: &mut Matrices<'_>,
        spec: &DecoderSpec,
        context: usize,
    ) -> Result<Self> {
        let gguf = matrices.gguf();
        let mut tables: Vec<&Rope> = Vec::new();
        let mut rotary = Vec::new();
        let layers = spec
            .layers
            .iter()
            .map(|layer| {
                let rope = match &layer.rope {
                    None => None,
                    Some(rope) => Some(match tables.iter().position(|known| *known == rope) {
                        Some(index) => index,
                        None => {
                            tables.push(rope);
                            rotary.push(Rotary::new(gguf, rope, context)?);
                            tables.len() - 1
                        }
                    }),
                };
                LayerWeights::load(matrices, layer, rope)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            embedding: match spec.tied_head {
                true => None,
                false => {
                    let info = gguf.tensor(&spec.embedding)?;
                    Some(matrices.load(info, 0..spec.vocab)?)
                }
            },
            layers,
            output_norm: vector(gguf, &spec.output_norm)?,
            head: Linear::load(matrices, &spec.head)?,
            rotary,
        })
    }

    /// The matrix whose rows are the token embeddings.
    pub(super) fn embedding(&self) -> &Packed {
        self.embedding.as_ref().unwrap_or(&self.head.weight)
    }

    pub(super) fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(LayerWeights::bytes).sum::<usize>();
        let embedding = self.embedding.as_ref().map_or(0, Packed::bytes);
        layers + embedding + self.head.weight.bytes()
    }
}

impl LayerWeights {
    fn load(matrices: &mut Matrices<'_>, layer: &Layer, rotary: Option<usize>) -> Result<Self> {
        let gguf = matrices.gguf();
        let optional = |name: &Option<String>| match name {
            Some(name) => vector(gguf, name).map(Some),
            None => Ok(None),
        };
        Ok(Self {
            attention_norm: vector(gguf, &layer.attention_norm)?,
            query: Linear::load(matrices, &layer.query)?,
            key: Linear::load(matrices, &layer.key)?,
            value: Linear::load(matrices, &layer.value)?,
            query_norm: optional(&layer.query_norm)?,
            key_norm: optional(&layer.key_norm)?,
            rotary,
            window: layer.window,
            output: Linear::load(matrices, &layer.output)?,
            post_attention_norm: optional(&layer.post_attention_norm)?,
            feed_forward_norm: vector(gguf, &layer.feed_forward_norm)?,
            feed_forward: FeedForwardWeights::load(matrices, &layer.feed_forward)?,
            post_feed_forward_norm: optional(&layer.post_feed_forward_norm)?,
        })
    }

    fn bytes(&self) -> usize {
        let attention = [&self.query, &self.key, &self.value, &self.output];
        let attention = attention.iter().map(|linear| linear.weight.bytes());
        attention.sum::<usize>() + self.feed_forward.bytes()
    }
}

impl Rotary {
    fn new(gguf: &Gguf, rope: &Rope, context: usize) -> Result<Self> {
        Ok(Self {
            pairs: match rope.pairs {
                RopePairs::Interleaved => Pairs::Interleaved,
                RopePairs::Halves => Pairs::Halves,
            },
            frequencies: Frequencies::new(gguf, rope, context)?,
        })
    }
}

/// A tensor of one dimension.
fn vector(gguf: &Gguf, name: &str) -> Result<Vec<f32>> {
    let info = gguf.tensor(name)?;
    let mut numbers = vec![0.0; info.elements()];
    format::decode(info.ggml_type, &gguf.read(info)?, &mut numbers)?;
    Ok(numbers)
}

/// A projection's weights.
pub(super) struct Linear {
    pub(super) weight: Packed,
    bias: Option<Vec<f32>>,
}

impl Linear {
    pub(super) fn load(matrices: &mut Matrices<'_>, projection: &Projection) -> Result<Self> {
        let gguf = matrices.gguf();
        let info = gguf.tensor(&projection.weight)?;
        let bias = match &projection.bias {
            Some(name) => {
                let all = vector(gguf, name)?;
                Some(all.get(projection.rows()).unwrap_or_default().to_vec())
            }
            None => None,
        };
        Ok(Self {
            weight: matrices.load(info, projection.rows())?,
            bias,
        })
    }

    /// `out` becomes a row of outputs for each row of `activations`.
    pub(super) fn forward(
        &self,
        pool: &Pool,
        level: Level,
        activations: &Activations,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        Self::forward_together(pool, level, activations, [(self, out)])
    }

    /// [`forward`](Self::forward) of several projections of the same rows.
    pub(super) fn forward_together<const N: usize>(
        pool: &Pool,
        level: Level,
        activations: &Activations,
        mut all: [(&Self, &mut Vec<f32>); N],
    ) -> Result<()> {
        let products = all.each_mut().map(|(linear, out)| {
            out.resize(activations.tokens() * linear.weight.rows(), 0.0);
            (&linear.weight, out.as_mut_slice())
        });
        kernels::matmul_together(pool, level, activations, products)?;
        for (linear, out) in all {
            linear.add_bias(pool, out)?;
        }
        Ok(())
    }

    /// Adds a row of outputs, times `scale`, to each row of `x`. `part` is a buffer.
    pub(super) fn forward_add(
        &self,
        pool: &Pool,
        level: Level,
        activations: &Activations,
        part: &mut Vec<f32>,
        x: &mut [f32],
        scale: f32,
    ) -> Result<()> {
        if self.bias.is_none() {
            let weight = &self.weight;
            return Ok(kernels::matmul_add(
                pool,
                level,
                weight,
                activations,
                x,
                scale,
            )?);
        }
        self.forward(pool, level, activations, part)?;
        Ok(kernels::add_scaled(pool, level, x, part, scale)?)
    }

    fn add_bias(&self, pool: &Pool, out: &mut [f32]) -> Result<()> {
        match &self.bias {
            Some(bias) if !out.is_empty() => Ok(kernels::add_bias(pool, out, bias)?),
            _ => Ok(()),
        }
    }

    /// [`forward`](Self::forward) for these tiles of rows only, where there are any given; the other
    /// outputs mean nothing.
    pub(super) fn forward_tiles(
        &self,
        pool: &Pool,
        level: Level,
        tiles: Option<&[Range<usize>]>,
        activations: &Activations,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let Some(tiles) = tiles else {
            return self.forward(pool, level, activations, out);
        };
        out.resize(activations.tokens() * self.weight.rows(), 0.0);
        kernels::matmul_tiles(pool, level, &self.weight, tiles, activations, out)?;
        self.add_bias(pool, out)
    }
}

/// A hash that tells a model's weights from others: of every tensor's name, type and shape, and of its
/// first, middle and last row. Reading all of a file would take longer than loading it.
pub(super) fn fingerprint(gguf: &Gguf) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut row = Vec::new();
    for info in gguf.tensors() {
        hash.update(format!(
            "{}\0{:?}\0{:?}\0",
            info.name, info.ggml_type, info.shape
        ));
        let rows = info.rows();
        for at in [0, rows / 2, rows.saturating_sub(1)] {
            if at < rows {
                gguf.read_rows(info, at..at + 1, &mut row)?;
                hash.update(&row);
            }
        }
    }
    Ok(hash.finalize().into())
}
