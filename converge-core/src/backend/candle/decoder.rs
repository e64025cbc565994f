//! One pass over some tokens.

use candle_core::Tensor;

use super::{
    CandleModel,
    cache::LayerCache,
    ops::{self, Causal},
    weights::{LayerWeights, Linear, rms_norm},
};
use crate::{
    CoreError, Result, TokenId,
    generate::Cancel,
    model::{
        Decoder, DecoderSpec, Logits, Rows,
        spec::{Activation, RopePairs},
    },
};

/// Rows that go through the head at a time: bounds the logits that exist twice.
const HEAD_ROWS: usize = 128;

/// A KV cache over a shared [`CandleModel`].
pub struct CandleDecoder {
    model: CandleModel,
    cache: Vec<LayerCache>,
    len: usize,
}

/// What every layer of a pass needs.
struct Pass<'a> {
    spec: &'a DecoderSpec,
    /// Positions in the cache before the pass.
    len: usize,
    /// Positions that the cache may grow to.
    context: usize,
    cos: Tensor,
    sin: Tensor,
    causal: Causal,
}

impl CandleDecoder {
    pub(super) fn new(model: CandleModel) -> Self {
        Self {
            model,
            cache: Vec::new(),
            len: 0,
        }
    }

    /// The model whose weights this decoder shares.
    pub fn model(&self) -> &CandleModel {
        &self.model
    }

    /// The residual stream after the last layer, for the rows that need logits.
    ///
    /// `cancelled` is asked before every layer.
    fn layers(
        &mut self,
        tokens: &[TokenId],
        rows: Rows,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Tensor> {
        let (spec, weights) = (&*self.model.spec, &*self.model.weights);
        if self.cache.is_empty() {
            self.cache = (0..spec.layers.len())
                .map(|_| LayerCache::new(spec.kv_heads, spec.head_size, &weights.device))
                .collect::<candle_core::Result<_>>()?;
        }
        let n = tokens.len();
        let (cos, sin) = weights.rotary.positions(self.len, n)?;
        let pass = Pass {
            spec,
            len: self.len,
            context: self.model.context,
            cos,
            sin,
            causal: Causal::new(self.len, n, &weights.device)?,
        };
        let ids = Tensor::new(tokens, &weights.device)?;
        let mut x = weights.embedding.embedding(&ids)?;
        let last = self.cache.len() - 1;
        for (i, (layer, cache)) in weights.layers.iter().zip(&mut self.cache).enumerate() {
            if cancelled() {
                return Err(CoreError::Cancelled);
            }
            // After the last layer's keys and values, only rows that get logits count.
            let kept = match rows {
                Rows::None if i == last => 0,
                Rows::Last if i == last => 1,
                _ => n,
            };
            x = pass.layer(&x, layer, cache, kept)?;
        }
        Ok(x)
    }

    /// [`Decoder::forward`], asking `cancelled` before every layer and every part of the head.
    pub(super) fn pass(
        &mut self,
        tokens: &[TokenId],
        rows: Rows,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Logits> {
        let vocab = self.vocab();
        let mut logits = Logits {
            data: Vec::new(),
            vocab,
        };
        if tokens.len() > self.context() - self.len {
            return Err(CoreError::ContextOverflow {
                prompt: self.len.saturating_add(tokens.len()),
                reserve: 0,
                context: self.context(),
            });
        }
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(CoreError::TokenOutOfRange { id, vocab });
        }
        if tokens.is_empty() {
            return Ok(logits);
        }
        let x = self.layers(tokens, rows, cancelled)?;
        let (spec, weights) = (&*self.model.spec, &*self.model.weights);
        let wanted = if rows == Rows::None { 0 } else { x.dim(0)? };
        logits.data.reserve_exact(wanted * vocab);
        for start in (0..wanted).step_by(HEAD_ROWS) {
            if cancelled() {
                return Err(CoreError::Cancelled);
            }
            let x = x.narrow(0, start, HEAD_ROWS.min(wanted - start))?;
            let x = rms_norm(&x, &weights.output_norm, spec.norm_eps)?;
            let y = weights.head.forward(&x)?;
            logits.data.extend(y.flatten_all()?.to_vec1::<f32>()?);
        }
        self.len += tokens.len();
        Ok(logits)
    }
}

impl Pass<'_> {
    /// One layer: from the rows of `x` to the last `kept` of them.
    fn layer(
        &self,
        x: &Tensor,
        layer: &LayerWeights,
        cache: &mut LayerCache,
        kept: usize,
    ) -> candle_core::Result<Tensor> {
        let n = x.dim(0)?;
        let spec = self.spec;
        let normed = rms_norm(x, &layer.attention_norm, spec.norm_eps)?;
        let [query, key, value] = if kept == n {
            Linear::forward_all([&layer.query, &layer.key, &layer.value], &normed)?
        } else {
            let [key, value] = Linear::forward_all([&layer.key, &layer.value], &normed)?;
            [
                layer
                    .query
                    .forward(&normed.narrow(0, n - kept.max(1), kept.max(1))?)?,
                key,
                value,
            ]
        };
        let key = self.rotate(&self.by_head(&key, spec.kv_heads)?, 0)?;
        let value = self.by_head(&value, spec.kv_heads)?;
        let (keys, values) = cache.append(self.len, &key, &value, self.context)?;
        let x = x.narrow(0, n - kept, kept)?;
        if kept == 0 {
            return Ok(x);
        }
        let query = self.rotate(&self.by_head(&query, spec.heads)?, n - kept)?;
        let query = (query / (spec.head_size as f64).sqrt())?;
        // The query heads of a group are rows of one product with their keys.
        let query = query.reshape((spec.kv_heads, spec.group() * kept, spec.head_size))?;
        let scores = ops::matmul_t(&query, &keys)?;
        let scores = self.causal.last(kept).softmax(scores)?;
        let mixed = scores
            .matmul(&values)?
            .reshape((spec.heads, kept, spec.head_size))?
            .transpose(0, 1)?
            .reshape((kept, spec.heads * spec.head_size))?;
        let x = (x + layer.output.forward(&mixed)?)?;

        let normed = rms_norm(&x, &layer.feed_forward_norm, spec.norm_eps)?;
        let [gate, up] = Linear::forward_all([&layer.gate, &layer.up], &normed)?;
        let inner = match spec.activation {
            Activation::Silu => ops::silu_mul(gate, &up)?,
        };
        x + layer.down.forward(&inner)?
    }

    /// `n × heads · head_size` to `heads × n × head_size`.
    fn by_head(&self, x: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
        let n = x.dim(0)?;
        x.reshape((n, heads, self.spec.head_size))?
            .transpose(0, 1)?
            .contiguous()
    }

    /// Turns `x`, `heads × n × head_size`, from the pass's position `start` on.
    fn rotate(&self, x: &Tensor, start: usize) -> candle_core::Result<Tensor> {
        let n = x.dim(1)?;
        let (cos, sin) = (self.cos.narrow(0, start, n)?, self.sin.narrow(0, start, n)?);
        let x = x.unsqueeze(0)?;
        match self.spec.rope.pairs {
            RopePairs::Interleaved => candle_nn::rotary_emb::rope_i(&x, &cos, &sin),
            RopePairs::Halves => candle_nn::rotary_emb::rope(&x, &cos, &sin),
        }?
        .squeeze(0)
    }
}

impl Decoder for CandleDecoder {
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits> {
        self.pass(tokens, rows, &|| cancel.is_cancelled())
    }

    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.len = self.len.min(len);
        Ok(())
    }

    fn context(&self) -> usize {
        self.model.context
    }

    fn vocab(&self) -> usize {
        self.model.spec.vocab
    }

    fn exact(&self) -> bool {
        false
    }
}
