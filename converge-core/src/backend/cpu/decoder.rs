//! One pass over some tokens of one or several sequences.

use std::{ops::Range, sync::Arc};

use converge_quant::{
    Packed,
    kernels::{self, Activations, Turns, View},
};

use super::{
    CpuModel, Shared,
    feed_forward::{Buffers, On},
    weights::Linear,
};
use crate::{
    CoreError, Result, TokenId,
    cache::KvCache,
    generate::Cancel,
    model::{Decoder, Logits, Part, Rows},
};

/// Rows that go through the head at a time: a cancel is noticed between them.
const HEAD_ROWS: usize = 128;

/// Rows of logits that are written over by the next pass, at most: as many as a draft has, but not those
/// of a whole prompt.
const REUSED_ROWS: usize = 16;

/// A KV cache over a shared [`CpuModel`].
pub struct CpuDecoder {
    model: CpuModel,
    cache: KvCache,
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
    /// Logits of an earlier pass that came back.
    logits: Vec<f32>,
    /// The tiles of the head that are computed, where not all are.
    head_tiles: Option<Vec<Range<usize>>>,
}

impl CpuDecoder {
    pub(super) fn new(model: CpuModel) -> Self {
        Self {
            cache: KvCache::new(&model.shared.arena),
            model,
            pass: Pass::default(),
        }
    }

    /// The model whose weights this decoder shares.
    pub fn model(&self) -> &CpuModel {
        &self.model
    }
}

impl Shared {
    /// Refuses a part that cannot be computed.
    fn check(&self, part: &Part<'_>) -> Result<()> {
        if !Arc::ptr_eq(part.cache.arena(), &self.arena) {
            return Err(CoreError::ForeignCache);
        }
        let (held, vocab) = (part.cache.len(), self.spec.vocab);
        if part.tokens.len() > self.context.saturating_sub(held) {
            return Err(CoreError::ContextOverflow {
                prompt: held.saturating_add(part.tokens.len()),
                reserve: 0,
                context: self.context,
            });
        }
        match part.tokens.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(CoreError::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
    }
}

impl Pass {
    /// Embeds the tokens and turns their positions' angles into tables.
    fn begin(&mut self, shared: &Shared, parts: &[Part<'_>]) -> Result<()> {
        let Shared { spec, weights, .. } = shared;
        let tokens = parts.iter().flat_map(|part| part.tokens);
        self.x.resize(tokens.clone().count() * spec.width, 0.0);
        let embedding = weights.embedding();
        for (&token, x) in tokens.zip(self.x.chunks_exact_mut(spec.width)) {
            embedding.decode_row(shared.level, token as usize, x)?;
        }
        if spec.embedding_scale != 1.0 {
            self.x.iter_mut().for_each(|x| *x *= spec.embedding_scale);
        }
        self.turns.resize_with(weights.rotary.len(), Turns::default);
        for (turns, rotary) in self.turns.iter_mut().zip(&weights.rotary) {
            turns.cos.clear();
            turns.sin.clear();
            let positions = |part: &Part<'_>| {
                let held = part.cache.len();
                held..held + part.tokens.len()
            };
            for position in parts.iter().flat_map(positions) {
                for (cos, sin) in rotary.frequencies.at(position) {
                    turns.cos.push(cos);
                    turns.sin.push(sin);
                }
            }
        }
        Ok(())
    }

    /// One layer: from the rows of the residual stream to those of them that `kept` names, a range
    /// for each part.
    fn layer(
        &mut self,
        shared: &Shared,
        index: usize,
        parts: &mut [Part<'_>],
        kept: &[Range<usize>],
    ) -> Result<()> {
        let Shared {
            spec,
            weights,
            pool,
            level,
            arena,
            ..
        } = shared;
        let Some(layer) = weights.layers.get(index) else {
            return Ok(());
        };
        let (level, width, eps) = (*level, spec.width, spec.norm_eps);
        let heads = arena.heads();
        let n = self.x.len() / width;
        let left = kept.iter().map(Range::len).sum::<usize>();
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
        let (activations, keys, values) = (&self.activations, &mut self.key, &mut self.value);
        if left == n {
            let all = [(query, &mut self.query), (key, keys), (value, values)];
            Linear::forward_together(pool, level, activations, all)?;
        } else {
            let both = [(key, keys), (value, values)];
            Linear::forward_together(pool, level, activations, both)?;
        }
        if let Some(weight) = &layer.key_norm {
            kernels::rms_norm_in_place(pool, level, &mut self.key, weight, eps)?;
        }
        let turns = layer
            .rotary
            .and_then(|i| weights.rotary.get(i).zip(self.turns.get(i)));
        if let Some((rotary, turns)) = turns {
            kernels::rotate(pool, &mut self.key, n, heads.size(), rotary.pairs, turns)?;
        }
        let row = heads.kv_row();
        let (mut keys, mut values) = (self.key.chunks(row), self.value.chunks(row));
        for part in parts.iter_mut() {
            for position in 0..part.tokens.len() {
                if let Some((key, value)) = keys.next().zip(values.next()) {
                    part.cache.write(index, position, key, value)?;
                }
            }
        }
        keep(&mut self.x, width, kept);
        if left == 0 {
            return Ok(());
        }

        if left < n {
            keep(&mut self.normed, width, kept);
            self.activations
                .set(pool, level, &self.normed, width, &[&query.weight])?;
            query.forward(pool, level, &self.activations, &mut self.query)?;
        }
        if let Some(weight) = &layer.query_norm {
            kernels::rms_norm_in_place(pool, level, &mut self.query, weight, eps)?;
        }
        if let Some((rotary, turns)) = turns {
            let pairs = turns.cos.len() / n;
            let few = (left < n).then(|| {
                let mut few = turns.clone();
                keep(&mut few.cos, pairs, kept);
                keep(&mut few.sin, pairs, kept);
                few
            });
            let turns = few.as_ref().unwrap_or(turns);
            kernels::rotate(
                pool,
                &mut self.query,
                left,
                heads.size(),
                rotary.pairs,
                turns,
            )?;
        }
        self.mixed.resize(self.query.len(), 0.0);
        let row = heads.row();
        let (mut queries, mut mixed) = (&*self.query, &mut *self.mixed);
        for (part, kept) in parts.iter().zip(kept) {
            let (mine, others) = queries.split_at(kept.len() * row);
            let (out, rest) = mixed.split_at_mut(kept.len() * row);
            (queries, mixed) = (others, rest);
            let (pages, first) = part.cache.layer(index);
            let view = View {
                start: part.cache.len() + part.tokens.len() - kept.len() - first,
                window: layer.window,
                scale: spec.attention_scale,
                softcap: spec.attention_softcap,
            };
            kernels::attention(pool, level, heads, &view, pages, mine, out)?;
        }
        let output = &layer.output;
        let cols = output.weight.cols();
        self.activations
            .set(pool, level, &self.mixed, cols, &[&output.weight])?;
        let (activations, part, x) = (&self.activations, &mut self.part, &mut self.x);
        match &layer.post_attention_norm {
            None => output.forward_add(pool, level, activations, part, x, spec.residual_scale)?,
            Some(norm) => {
                output.forward(pool, level, activations, part)?;
                self.add_normed(shared, norm)?;
            }
        }

        self.normed.resize(self.x.len(), 0.0);
        let norm = &layer.feed_forward_norm;
        kernels::rms_norm(pool, level, &self.x, norm, eps, &mut self.normed)?;
        let on = On {
            pool,
            level,
            activation: spec.activation,
        };
        let (buffers, rows) = (&mut self.feed_forward, &self.normed);
        let network = &layer.feed_forward;
        match &layer.post_feed_forward_norm {
            None => {
                let (part, x) = (&mut self.part, &mut self.x);
                network.forward_add(on, buffers, rows, part, x, spec.residual_scale)
            }
            Some(norm) => {
                network.forward(on, buffers, rows, &mut self.part)?;
                self.add_normed(shared, norm)
            }
        }
    }

    /// Adds what a part of a layer gave, normed, to the residual stream.
    fn add_normed(&mut self, shared: &Shared, norm: &[f32]) -> Result<()> {
        let Shared {
            spec, pool, level, ..
        } = shared;
        let (level, part) = (*level, &mut self.part);
        kernels::rms_norm_in_place(pool, level, part, norm, spec.norm_eps)?;
        let (x, scale) = (&mut self.x, spec.residual_scale);
        Ok(kernels::add_scaled(pool, level, x, part, scale)?)
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
        let mut logits = std::mem::take(&mut self.logits);
        if self.normed.len() > HEAD_ROWS * width {
            logits.clear();
            logits.reserve(self.x.len() / width * spec.vocab);
        }
        for rows in self.normed.chunks(HEAD_ROWS * width) {
            if cancel.is_cancelled() {
                return Err(CoreError::Cancelled);
            }
            let head = &weights.head;
            self.activations
                .set(pool, level, rows, width, &[&head.weight])?;
            let (tiles, activations) = (self.head_tiles.as_deref(), &self.activations);
            if rows.len() == self.normed.len() {
                head.forward_tiles(pool, level, tiles, activations, &mut logits)?;
            } else {
                head.forward_tiles(pool, level, tiles, activations, &mut self.part)?;
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
        if let Some(tiles) = &self.head_tiles {
            for row in logits.chunks_exact_mut(spec.vocab) {
                silence(row, tiles);
            }
        }
        Ok(logits)
    }
}

impl Pass {
    /// All layers and the head, over tokens of one or several sequences.
    fn run(
        &mut self,
        shared: &Shared,
        parts: &mut [Part<'_>],
        cancel: &Cancel,
    ) -> Result<Vec<Logits>> {
        for part in parts.iter() {
            shared.check(part)?;
        }
        for part in parts.iter_mut() {
            part.cache.reserve(part.tokens.len())?;
        }
        let mut all = Vec::with_capacity(parts.len());
        let mut wanted = Vec::with_capacity(parts.len());
        let mut end = 0;
        for part in parts.iter() {
            let start = end;
            end += part.tokens.len();
            all.push(start..end);
            wanted.push(end - part.rows.of(part.tokens.len())..end);
        }
        let vocab = shared.spec.vocab;
        let nothing = |_: &Part<'_>| Logits {
            data: Vec::new(),
            vocab,
        };
        if end == 0 {
            return Ok(parts.iter().map(nothing).collect());
        }
        self.begin(shared, parts)?;
        let last = shared.weights.layers.len() - 1;
        for index in 0..=last {
            if cancel.is_cancelled() {
                return Err(CoreError::Cancelled);
            }
            // After the last layer's keys and values, only rows that get logits count.
            let kept = if index == last { &wanted } else { &all };
            self.layer(shared, index, parts, kept)?;
        }
        let mut data = match self.x.is_empty() {
            true => Vec::new(),
            false => self.head(shared, cancel)?,
        };
        for part in parts.iter_mut() {
            part.cache.grow(part.tokens.len());
        }
        // Most passes are of one part, which needs no copy.
        let mut logits = Vec::with_capacity(parts.len());
        for rows in wanted.iter().rev() {
            logits.push(Logits {
                data: match rows.len() * vocab == data.len() {
                    true => std::mem::take(&mut data),
                    false => data.split_off(data.len() - rows.len() * vocab),
                },
                vocab,
            });
        }
        logits.reverse();
        Ok(logits)
    }
}

/// Logits outside of these tiles are minus infinity.
fn silence(row: &mut [f32], tiles: &[Range<usize>]) {
    let mut end = 0;
    for range in tiles.iter().chain([&(usize::MAX..usize::MAX)]) {
        let start = range.start.saturating_mul(Packed::TILE).min(row.len());
        if let Some(gap) = row.get_mut(end..start) {
            gap.fill(f32::NEG_INFINITY);
        }
        end = range.end.saturating_mul(Packed::TILE);
    }
}

/// The tiles that hold these tokens, and all those below `first`, joined where they touch.
fn tiles_of(vocab: usize, first: usize, also: &[TokenId]) -> Vec<Range<usize>> {
    let mut tiles: Vec<usize> = also
        .iter()
        .map(|&id| id as usize)
        .filter(|&id| id >= first && id < vocab)
        .map(|id| id / Packed::TILE)
        .collect();
    tiles.sort_unstable();
    let below = 0..first.min(vocab).div_ceil(Packed::TILE);
    let mut ranges: Vec<_> = std::iter::once(below).collect();
    for tile in tiles {
        match ranges.last_mut() {
            Some(range) if tile <= range.end => range.end = range.end.max(tile + 1),
            _ => ranges.push(tile..tile + 1),
        }
    }
    ranges
}

/// Leaves the rows that `kept` names, which are in ascending order.
fn keep(rows: &mut Vec<f32>, width: usize, kept: &[Range<usize>]) {
    let mut end = 0;
    for range in kept {
        rows.copy_within(range.start * width..range.end * width, end);
        end += range.len() * width;
    }
    rows.truncate(end);
}

impl Decoder for CpuDecoder {
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits> {
        let part = Part {
            cache: &mut self.cache,
            tokens,
            rows,
        };
        let logits = self.pass.run(&self.model.shared, &mut [part], cancel)?;
        Ok(logits.into_iter().next().unwrap_or_default())
    }

    fn forward_parts(&mut self, parts: &mut [Part<'_>], cancel: &Cancel) -> Result<Vec<Logits>> {
        self.pass.run(&self.model.shared, parts, cancel)
    }

    fn reuse(&mut self, logits: Logits) {
        if (1..=REUSED_ROWS).contains(&logits.rows()) {
            self.pass.logits = logits.data;
        }
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.cache.truncate(len);
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

    fn cache(&self) -> Option<&KvCache> {
        Some(&self.cache)
    }

    fn cache_mut(&mut self) -> Option<&mut KvCache> {
        Some(&mut self.cache)
    }

    fn narrow_head(&mut self, first: usize, also: &[TokenId]) -> bool {
        let vocab = self.vocab();
        self.pass.head_tiles = (first < vocab).then(|| tiles_of(vocab, first, also));
        true
    }

    fn another(&self) -> Option<Box<dyn Decoder>> {
        Some(Box::new(self.model.decoder()))
    }

    fn settle(&self) {
        self.model.settle();
    }
}
