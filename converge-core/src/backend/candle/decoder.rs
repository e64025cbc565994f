//! One pass over some tokens.

use candle_core::{Device, Tensor};

use super::{
    CandleModel,
    cache::LayerCache,
    ops::{self, Causal, Gate},
    rotary::Rotary,
    weights::{LayerWeights, Linear, rms_norm},
};
use crate::{
    CoreError, Result, TokenId,
    generate::Cancel,
    model::{Decoder, DecoderSpec, Logits, Rows},
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
    gate: Gate,
    /// Positions in the cache before the pass.
    len: usize,
    /// Positions that the cache may grow to.
    context: usize,
    /// One for each window that layers have.
    causal: Vec<Causal>,
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
        let mut pass = Pass {
            spec,
            gate: self.model.gate,
            len: self.len,
            context: self.model.context,
            causal: Vec::new(),
        };
        let ids = Tensor::new(tokens, &weights.device)?;
        let mut x = scaled(weights.embedding.embedding(&ids)?, spec.embedding_scale)?;
        let last = self.cache.len() - 1;
        for (i, (layer, cache)) in weights.layers.iter().zip(&mut self.cache).enumerate() {
            if cancelled() {
                return Err(CoreError::Cancelled);
            }
            // After the last layer's keys and values, only rows that get logits count.
            let kept = match rows.of(n) {
                few @ (0 | 1) if i == last => few,
                _ => n,
            };
            x = pass.layer(&x, layer, cache, kept)?;
        }
        Ok(x)
    }

    /// What the head would see of each token, `tokens × width` row-major: the residual stream after
    /// the last norm. The cache holds afterwards what it held before.
    ///
    /// # Errors
    /// As for [`Decoder::forward`].
    pub fn hidden(&mut self, tokens: &[TokenId], cancel: &Cancel) -> Result<Vec<f32>> {
        self.check(tokens)?;
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let x = self.layers(tokens, Rows::All, &|| cancel.is_cancelled())?;
        let (spec, weights) = (&*self.model.spec, &*self.model.weights);
        let x = rms_norm(&x, &weights.output_norm, spec.norm_eps)?;
        Ok(x.flatten_all()?.to_vec1()?)
    }

    /// Refuses tokens that do not fit the cache or the vocabulary.
    fn check(&self, tokens: &[TokenId]) -> Result<()> {
        if tokens.len() > self.context() - self.len {
            return Err(CoreError::ContextOverflow {
                prompt: self.len.saturating_add(tokens.len()),
                reserve: 0,
                context: self.context(),
            });
        }
        let vocab = self.vocab();
        match tokens.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(CoreError::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
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
        self.check(tokens)?;
        if tokens.is_empty() {
            return Ok(logits);
        }
        let x = self.layers(tokens, rows, cancelled)?;
        let (spec, weights) = (&*self.model.spec, &*self.model.weights);
        let wanted = rows.of(tokens.len());
        let before = tokens.len().min(x.dim(0)?) - wanted;
        logits.data.reserve_exact(wanted * vocab);
        for start in (0..wanted).step_by(HEAD_ROWS) {
            if cancelled() {
                return Err(CoreError::Cancelled);
            }
            let x = x.narrow(0, before + start, HEAD_ROWS.min(wanted - start))?;
            let x = rms_norm(&x, &weights.output_norm, spec.norm_eps)?;
            let mut y = scaled(weights.head.forward(&x)?, spec.logit_scale)?;
            if let Some(cap) = spec.logit_softcap {
                y = ops::bounded(&y, cap)?;
            }
            logits.data.extend(y.flatten_all()?.to_vec1::<f32>()?);
        }
        self.len += tokens.len();
        Ok(logits)
    }
}

impl Pass<'_> {
    /// One layer: from the rows of `x` to the last `kept` of them.
    fn layer(
        &mut self,
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
        let rotary = layer.rotary.as_deref();
        let key = self.by_head(
            &key,
            spec.kv_heads,
            layer.key_norm.as_ref(),
            rotary,
            self.len,
        )?;
        let value = self.by_head(&value, spec.kv_heads, None, None, self.len)?;
        let (keys, values) = cache.append(self.len, &key, &value, self.context)?;
        let x = x.narrow(0, n - kept, kept)?;
        if kept == 0 {
            return Ok(x);
        }
        let start = self.len + n - kept;
        let query = self.by_head(&query, spec.heads, layer.query_norm.as_ref(), rotary, start)?;
        let query = (query * f64::from(spec.attention_scale))?;
        // The query heads of a group are rows of one product with their keys.
        let query = query.reshape((spec.kv_heads, spec.group() * kept, spec.head_size))?;
        let causal = self.causal(layer.window, n, x.device())?.last(kept);
        let seen = causal.keys();
        let keys = keys.narrow(1, seen.start, seen.len())?;
        let values = values.narrow(1, seen.start, seen.len())?;
        let scores = ops::matmul_t(&query, &keys)?;
        let scores = causal.softmax(scores, spec.attention_softcap)?;
        let mixed = scores
            .matmul(&values)?
            .reshape((spec.heads, kept, spec.head_size))?
            .transpose(0, 1)?
            .reshape((kept, spec.heads * spec.head_size))?;
        let part = layer.output.forward(&mixed)?;
        let x = self.add(x, part, layer.post_attention_norm.as_ref())?;

        let normed = rms_norm(&x, &layer.feed_forward_norm, spec.norm_eps)?;
        let part = layer.feed_forward.forward(self.gate, &normed)?;
        self.add(x, part, layer.post_feed_forward_norm.as_ref())
    }

    /// `n × heads · head_size` to `heads × n × head_size`, each head normed, then turned from the
    /// position `start` on.
    fn by_head(
        &self,
        x: &Tensor,
        heads: usize,
        norm: Option<&Tensor>,
        rotary: Option<&Rotary>,
        start: usize,
    ) -> candle_core::Result<Tensor> {
        let n = x.dim(0)?;
        let mut x = x
            .reshape((n, heads, self.spec.head_size))?
            .transpose(0, 1)?
            .contiguous()?;
        if let Some(weight) = norm {
            x = rms_norm(&x, weight, self.spec.norm_eps)?;
        }
        match rotary {
            Some(rotary) => rotary.turn(&x, start),
            None => Ok(x),
        }
    }

    /// Adds what a part of a layer gave to the residual stream.
    fn add(&self, x: Tensor, part: Tensor, norm: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let part = match norm {
            Some(weight) => rms_norm(&part, weight, self.spec.norm_eps)?,
            None => part,
        };
        x + scaled(part, self.spec.residual_scale)?
    }

    /// What the pass's `n` queries see through a window.
    fn causal(
        &mut self,
        window: Option<usize>,
        n: usize,
        device: &Device,
    ) -> candle_core::Result<Causal> {
        if let Some(causal) = self.causal.iter().find(|causal| causal.window() == window) {
            return Ok(causal.clone());
        }
        let causal = Causal::new(self.len, n, window, device)?;
        self.causal.push(causal.clone());
        Ok(causal)
    }
}

fn scaled(x: Tensor, scale: f32) -> candle_core::Result<Tensor> {
    match scale {
        1.0 => Ok(x),
        _ => x * f64::from(scale),
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
