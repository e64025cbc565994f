//! Tensors under the names that architectures share, each checked for presence and shape.

use super::{
    super::spec::{FeedForward, Gated, Layer, Projection, Rope},
    Sizes, Source,
};
use crate::{CoreError, Result};

impl Source<'_> {
    /// The name of a one-dimensional tensor of `len` elements.
    pub(super) fn vector(&self, name: &str, len: usize) -> Result<String> {
        self.shaped(name, &[len])
    }

    /// A projection without a bias.
    pub(super) fn matrix(&self, name: &str, outputs: usize, inputs: usize) -> Result<Projection> {
        Ok(Projection {
            weight: self.shaped(name, &[outputs, inputs])?,
            first_row: 0,
            bias: None,
            outputs,
            inputs,
        })
    }

    /// A projection `{stem}.weight` with a bias `{stem}.bias`, if that is in the file.
    pub(super) fn projection(
        &self,
        stem: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Projection> {
        let mut projection = self.matrix(&format!("{stem}.weight"), outputs, inputs)?;
        let bias = format!("{stem}.bias");
        if self.gguf.find(&bias).is_some() {
            projection.bias = Some(self.vector(&bias, outputs)?);
        }
        Ok(projection)
    }

    /// Projections of the same input, one below the other in one tensor.
    fn fused<const N: usize>(
        &self,
        stem: &str,
        outputs: [usize; N],
        inputs: usize,
    ) -> Result<[Projection; N]> {
        let all = outputs.into_iter().fold(0, usize::saturating_add);
        let whole = self.projection(stem, all, inputs)?;
        let mut next_row = 0;
        Ok(outputs.map(|outputs| {
            let first_row = next_row;
            next_row += outputs;
            Projection {
                first_row,
                outputs,
                ..whole.clone()
            }
        }))
    }

    /// Demands biases that the architecture always has.
    pub(super) fn require_biases(&self, layer: &Layer) -> Result<()> {
        for projection in [&layer.query, &layer.key, &layer.value] {
            if projection.bias.is_none() {
                self.gguf
                    .tensor(&projection.weight.replace(".weight", ".bias"))?;
            }
        }
        Ok(())
    }

    pub(super) fn shaped(&self, name: &str, expected: &[usize]) -> Result<String> {
        let info = self.gguf.tensor(name)?;
        if info.shape != expected {
            return Err(CoreError::TensorShape {
                tensor: name.to_owned(),
                expected: expected.to_vec(),
                found: info.shape.clone(),
            });
        }
        Ok(name.to_owned())
    }

    /// Layer `i` with a norm before attention and one before the feed-forward network, and
    /// biases where the file has them. `feed_forward` is read after attention.
    pub(super) fn layer(
        &self,
        i: usize,
        sizes: &Sizes,
        rope: Option<Rope>,
        feed_forward: impl FnOnce() -> Result<FeedForward>,
    ) -> Result<Layer> {
        let stem = |part: &str| format!("blk.{i}.{part}");
        let queries = sizes.heads * sizes.head_size;
        let keys = sizes.kv_heads * sizes.head_size;
        let width = sizes.width;
        let attention_norm = self.vector(&stem("attn_norm.weight"), width)?;
        let [query, key, value] = match self.gguf.find(&stem("attn_qkv.weight")) {
            Some(_) => self.fused(&stem("attn_qkv"), [queries, keys, keys], width)?,
            None => [
                self.projection(&stem("attn_q"), queries, width)?,
                self.projection(&stem("attn_k"), keys, width)?,
                self.projection(&stem("attn_v"), keys, width)?,
            ],
        };
        Ok(Layer {
            attention_norm,
            query,
            key,
            value,
            query_norm: None,
            key_norm: None,
            rope,
            window: None,
            output: self.projection(&stem("attn_output"), width, queries)?,
            post_attention_norm: None,
            feed_forward_norm: self.vector(&stem("ffn_norm.weight"), width)?,
            feed_forward: feed_forward()?,
            post_feed_forward_norm: None,
        })
    }

    /// Norms of every head of queries and of keys, in layer `i`.
    pub(super) fn head_norms(
        &self,
        i: usize,
        sizes: &Sizes,
    ) -> Result<(Option<String>, Option<String>)> {
        let norm = |part: &str| self.vector(&format!("blk.{i}.{part}.weight"), sizes.head_size);
        Ok((Some(norm("attn_q_norm")?), Some(norm("attn_k_norm")?)))
    }

    /// Norms of what attention and the feed-forward network add, in layer `i`.
    pub(super) fn post_norms(
        &self,
        i: usize,
        sizes: &Sizes,
    ) -> Result<(Option<String>, Option<String>)> {
        let norm = |part: &str| self.vector(&format!("blk.{i}.{part}.weight"), sizes.width);
        Ok((
            Some(norm("post_attention_norm")?),
            Some(norm("post_ffw_norm")?),
        ))
    }

    /// A dense feed-forward network in layer `i`.
    pub(super) fn dense(&self, i: usize, sizes: &Sizes) -> Result<FeedForward> {
        if let Some(experts) = self.optional_size("expert_count")?.filter(|&n| n > 0) {
            return Err(CoreError::UnsupportedFeature {
                key: self.key("expert_count"),
                found: experts.to_string(),
                supported: "dense models, 0 experts",
            });
        }
        let inner = self.size("feed_forward_length")?;
        Ok(FeedForward::Dense(self.gated(i, "", inner, sizes.width)?))
    }

    /// A dense feed-forward network whose gate lies above `up` in the same tensor.
    pub(super) fn dense_fused(&self, i: usize, sizes: &Sizes) -> Result<FeedForward> {
        let inner = self.size("feed_forward_length")?;
        let [gate, up] = self.fused(&format!("blk.{i}.ffn_up"), [inner, inner], sizes.width)?;
        let down = self.projection(&format!("blk.{i}.ffn_down"), sizes.width, inner)?;
        Ok(FeedForward::Dense(Gated { gate, up, down }))
    }

    /// The network of tensors `ffn_…{suffix}` in layer `i`.
    pub(super) fn gated(
        &self,
        i: usize,
        suffix: &str,
        inner: usize,
        width: usize,
    ) -> Result<Gated> {
        let stem = |part: &str| format!("blk.{i}.ffn_{part}{suffix}");
        Ok(Gated {
            gate: self.projection(&stem("gate"), inner, width)?,
            up: self.projection(&stem("up"), inner, width)?,
            down: self.projection(&stem("down"), width, inner)?,
        })
    }

    /// Name and rows of the embedding: the vocabulary is as large as the table.
    pub(super) fn embedding(&self, width: usize) -> Result<(String, usize)> {
        const NAME: &str = "token_embd.weight";
        let info = self.gguf.tensor(NAME)?;
        match info.shape[..] {
            // A token is a `u32`.
            [vocab, columns] if columns == width && vocab > 0 && u32::try_from(vocab).is_ok() => {
                Ok((NAME.to_owned(), vocab))
            }
            _ => Err(CoreError::TensorShape {
                tensor: NAME.to_owned(),
                expected: vec![info.rows(), width],
                found: info.shape.clone(),
            }),
        }
    }

    /// The head: `output.weight`, or the embedding where that is not in the file.
    pub(super) fn head(
        &self,
        embedding: &str,
        vocab: usize,
        width: usize,
    ) -> Result<(Projection, bool)> {
        const NAME: &str = "output.weight";
        if self.gguf.find(NAME).is_some() {
            Ok((self.projection("output", vocab, width)?, false))
        } else {
            Ok((self.matrix(embedding, vocab, width)?, true))
        }
    }
}
