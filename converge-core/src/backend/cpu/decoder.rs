//! One pass over some tokens.

use std::sync::Arc;

use converge_quant::kernels::{self, Activations, Heads, KvPage, PAGE, Turns, View};

use super::{
    CpuModel, Shared,
    feed_forward::{Buffers, On},
    weights::LayerWeights,
};
use crate::{
    CoreError, Result, TokenId,
    generate::Cancel,
    model::{Decoder, KvPages, Logits, Rows},
};

/// Rows that go through the head at a time: a cancel is noticed between them.
const HEAD_ROWS: usize = 128;

/// A KV cache over a shared [`CpuModel`].
pub struct CpuDecoder {
    model: CpuModel,
    /// The pages of each layer.
    pages: Vec<Vec<Arc<KvPage>>>,
    len: usize,
    pass: Pass,
}

/// Buffers of a pass, kept from one to the next.
#[derive(Default)]
struct Pass {
    /// The residual stream, `n × width`.
    x: Vec<f32>,
    normed: Vec<f32>,
    activations: Activations,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    mixed: Vec<f32>,
    part: Vec<f32>,
    feed_forward: Buffers,
    /// For each kind of rotary positions.
    turns: Vec<Turns>,
}

impl CpuDecoder {
    pub(super) fn new(model: CpuModel) -> Self {
        Self {
            pages: vec![Vec::new(); model.shared.spec.layers.len()],
            model,
            len: 0,
            pass: Pass::default(),
        }
    }

    /// The model whose weights this decoder shares.
    pub fn model(&self) -> &CpuModel {
        &self.model
    }

    /// Bytes that the KV cache takes now.
    pub fn cache_bytes(&self) -> usize {
        let pages = self.pages.iter().map(Vec::len).sum::<usize>();
        pages * self.model.shared.heads().page_bytes()
    }

    /// Embeds the tokens and turns their positions' angles into tables.
    fn begin(&mut self, tokens: &[TokenId]) -> Result<()> {
        let Shared { spec, weights, .. } = &*self.model.shared;
        let pass = &mut self.pass;
        pass.x.resize(tokens.len() * spec.width, 0.0);
        let embedding = weights.embedding();
        for (&token, x) in tokens.iter().zip(pass.x.chunks_exact_mut(spec.width)) {
            embedding.decode_row(token as usize, x)?;
        }
        if spec.embedding_scale != 1.0 {
            pass.x.iter_mut().for_each(|x| *x *= spec.embedding_scale);
        }
        pass.turns.resize_with(weights.rotary.len(), Turns::default);
        for (turns, rotary) in pass.turns.iter_mut().zip(&weights.rotary) {
            turns.cos.clear();
            turns.sin.clear();
            for position in self.len..self.len + tokens.len() {
                for (cos, sin) in rotary.frequencies.at(position) {
                    turns.cos.push(cos);
                    turns.sin.push(sin);
                }
            }
        }
        Ok(())
    }
}

impl Shared {
    fn heads(&self) -> Heads {
        Heads {
            heads: self.spec.heads,
            kv_heads: self.spec.kv_heads,
            size: self.spec.head_size,
        }
    }
}

impl Pass {
    /// One layer: from the rows of the residual stream to the last `kept` of them, with `len`
    /// positions in the cache before.
    fn layer(
        &mut self,
        shared: &Shared,
        layer: &LayerWeights,
        pages: &mut Vec<Arc<KvPage>>,
        len: usize,
        kept: usize,
    ) -> Result<()> {
        let Shared {
            spec, pool, level, ..
        } = shared;
        let (level, width, eps) = (*level, spec.width, spec.norm_eps);
        let heads = shared.heads();
        let n = self.x.len() / width;
        self.normed.resize(self.x.len(), 0.0);
        kernels::rms_norm(
            pool,
            level,
            &self.x,
            &layer.attention_norm,
            eps,
            &mut self.normed,
        )?;

        let (query, key, value) = (&layer.query, &layer.key, &layer.value);
        let matrices = [&query.weight, &key.weight, &value.weight];
        self.activations
            .set(pool, level, &self.normed, width, &matrices)?;
        key.forward(pool, level, &self.activations, &mut self.key)?;
        value.forward(pool, level, &self.activations, &mut self.value)?;
        if let Some(weight) = &layer.key_norm {
            kernels::rms_norm_in_place(pool, level, &mut self.key, weight, eps)?;
        }
        let turns = layer
            .rotary
            .map(|i| (shared.weights.rotary[i].pairs, &self.turns[i]));
        if let Some((pairs, turns)) = turns {
            kernels::rotate(&mut self.key, n, heads.size, pairs, turns)?;
        }
        self.write(heads, pages, len)?;
        self.x.drain(..(n - kept) * width);
        if kept == 0 {
            return Ok(());
        }

        if kept < n {
            let last = self.normed.get((n - kept) * width..).unwrap_or_default();
            self.activations
                .set(pool, level, last, width, &[&query.weight])?;
        }
        query.forward(pool, level, &self.activations, &mut self.query)?;
        if let Some(weight) = &layer.query_norm {
            kernels::rms_norm_in_place(pool, level, &mut self.query, weight, eps)?;
        }
        if let Some((pairs, turns)) = turns {
            match kept == n {
                true => kernels::rotate(&mut self.query, n, heads.size, pairs, turns)?,
                false => {
                    let pairs_len = turns.cos.len() / n;
                    let last = |table: &[f32]| table[(n - kept) * pairs_len..].to_vec();
                    let turns = Turns {
                        cos: last(&turns.cos),
                        sin: last(&turns.sin),
                    };
                    kernels::rotate(&mut self.query, kept, heads.size, pairs, &turns)?;
                }
            }
        }
        let view = View {
            start: len + n - kept,
            window: layer.window,
            scale: spec.attention_scale,
            softcap: spec.attention_softcap,
        };
        self.mixed.resize(self.query.len(), 0.0);
        kernels::attention(
            pool,
            level,
            heads,
            &view,
            pages,
            &self.query,
            &mut self.mixed,
        )?;
        let output = &layer.output;
        let cols = output.weight.cols();
        self.activations
            .set(pool, level, &self.mixed, cols, &[&output.weight])?;
        output.forward(pool, level, &self.activations, &mut self.part)?;
        self.add(shared, layer.post_attention_norm.as_deref())?;

        self.normed.resize(self.x.len(), 0.0);
        let norm = &layer.feed_forward_norm;
        kernels::rms_norm(pool, level, &self.x, norm, eps, &mut self.normed)?;
        let on = On {
            pool,
            level,
            activation: spec.activation,
        };
        let buffers = &mut self.feed_forward;
        layer
            .feed_forward
            .forward(on, buffers, &self.normed, &mut self.part)?;
        self.add(shared, layer.post_feed_forward_norm.as_deref())
    }

    /// Writes the pass's keys and values to positions from `len` on.
    fn write(&self, heads: Heads, pages: &mut Vec<Arc<KvPage>>, len: usize) -> Result<()> {
        let row = heads.kv_heads * heads.size;
        let rows = self.key.chunks_exact(row).zip(self.value.chunks_exact(row));
        for (position, (key, value)) in (len..).zip(rows) {
            if position / PAGE >= pages.len() {
                pages.push(Arc::new(KvPage::new(heads)));
            }
            if let Some(page) = pages.get_mut(position / PAGE) {
                Arc::make_mut(page).write(position % PAGE, key, value)?;
            }
        }
        Ok(())
    }

    /// Adds what a part of a layer gave to the residual stream.
    fn add(&mut self, shared: &Shared, norm: Option<&[f32]>) -> Result<()> {
        let Shared {
            spec, pool, level, ..
        } = shared;
        if let Some(weight) = norm {
            kernels::rms_norm_in_place(pool, *level, &mut self.part, weight, spec.norm_eps)?;
        }
        let scale = spec.residual_scale;
        Ok(kernels::add_scaled(
            pool,
            *level,
            &mut self.x,
            &self.part,
            scale,
        )?)
    }

    /// Logits of the rows of the residual stream.
    fn head(&mut self, shared: &Shared, cancel: &Cancel) -> Result<Vec<f32>> {
        let Shared {
            spec,
            weights,
            pool,
            level,
            ..
        } = shared;
        let (level, width) = (*level, spec.width);
        self.normed.resize(self.x.len(), 0.0);
        let norm = &weights.output_norm;
        kernels::rms_norm(pool, level, &self.x, norm, spec.norm_eps, &mut self.normed)?;
        let mut logits = Vec::with_capacity(self.x.len() / width * spec.vocab);
        for rows in self.normed.chunks(HEAD_ROWS * width) {
            if cancel.is_cancelled() {
                return Err(CoreError::Cancelled);
            }
            let head = &weights.head;
            self.activations
                .set(pool, level, rows, width, &[&head.weight])?;
            if rows.len() == self.normed.len() {
                head.forward(pool, level, &self.activations, &mut logits)?;
            } else {
                head.forward(pool, level, &self.activations, &mut self.part)?;
                logits.extend_from_slice(&self.part);
            }
        }
        kernels::scale_and_bound(
            pool,
            level,
            &mut logits,
            spec.logit_scale,
            spec.logit_softcap,
        );
        Ok(logits)
    }
}

impl Decoder for CpuDecoder {
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits> {
        let vocab = self.vocab();
        let context = self.context();
        if tokens.len() > context - self.len {
            return Err(CoreError::ContextOverflow {
                prompt: self.len.saturating_add(tokens.len()),
                reserve: 0,
                context,
            });
        }
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(CoreError::TokenOutOfRange { id, vocab });
        }
        let mut logits = Logits {
            data: Vec::new(),
            vocab,
        };
        if tokens.is_empty() {
            return Ok(logits);
        }
        self.begin(tokens)?;
        let shared = Arc::clone(&self.model.shared);
        let last = shared.weights.layers.len() - 1;
        let layers = shared.weights.layers.iter().zip(&mut self.pages);
        for (i, (layer, pages)) in layers.enumerate() {
            if cancel.is_cancelled() {
                return Err(CoreError::Cancelled);
            }
            // After the last layer's keys and values, only rows that get logits count.
            let kept = match rows {
                Rows::None if i == last => 0,
                Rows::Last if i == last => 1,
                _ => tokens.len(),
            };
            self.pass.layer(&shared, layer, pages, self.len, kept)?;
        }
        if rows != Rows::None {
            logits.data = self.pass.head(&shared, cancel)?;
        }
        self.len += tokens.len();
        Ok(logits)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.len = self.len.min(len);
        Ok(())
    }

    fn context(&self) -> usize {
        self.model.shared.context
    }

    fn vocab(&self) -> usize {
        self.model.shared.spec.vocab
    }

    fn exact(&self) -> bool {
        true
    }

    fn pages(&self) -> Option<KvPages> {
        let used = self.len.div_ceil(PAGE);
        let layers = self.pages.iter().map(|pages| pages[..used].to_vec());
        Some(KvPages::new(self.model.shared.id, layers.collect()))
    }

    fn restore(&mut self, pages: &KvPages, len: usize) -> bool {
        let used = len.div_ceil(PAGE);
        let layers = pages.layers();
        let enough = layers.iter().all(|pages| pages.len() >= used);
        if pages.model() != self.model.shared.id || len > self.context() || !enough {
            return false;
        }
        for (own, pages) in self.pages.iter_mut().zip(layers) {
            own.clear();
            own.extend_from_slice(&pages[..used]);
        }
        self.len = len;
        true
    }
}
