//! The decoder in plain loops over f64, a token at a time.

use crate::{
    TokenId,
    model::{
        spec::{DecoderSpec, Projection, RopePairs, RopeScaling},
        tiny::Tiny,
    },
};

/// Logits of every row.
pub(super) fn logits(spec: &DecoderSpec, tiny: &Tiny, tokens: &[TokenId]) -> Vec<f32> {
    let mut cache = vec![(Vec::new(), Vec::new()); spec.layers.len()];
    let mut logits = Vec::new();
    for (position, &token) in tokens.iter().enumerate() {
        let table = values(tiny, &spec.embedding);
        let mut x = table[token as usize * spec.width..][..spec.width].to_vec();
        for (layer, (keys, past_values)) in spec.layers.iter().zip(&mut cache) {
            let normed = norm(spec, tiny, &layer.attention_norm, &x);
            let mut query = project(tiny, &layer.query, &normed);
            let mut key = project(tiny, &layer.key, &normed);
            for head in query
                .chunks_mut(spec.head_size)
                .chain(key.chunks_mut(spec.head_size))
            {
                rotate(spec, tiny, head, position);
            }
            keys.push(key);
            past_values.push(project(tiny, &layer.value, &normed));
            let mixed: Vec<f64> = query
                .chunks(spec.head_size)
                .enumerate()
                .flat_map(|(head, query)| {
                    let start = head / spec.group() * spec.head_size;
                    attend(query, keys, past_values, start)
                })
                .collect();
            add(&mut x, &project(tiny, &layer.output, &mixed));
            let normed = norm(spec, tiny, &layer.feed_forward_norm, &x);
            let gate = project(tiny, &layer.gate, &normed);
            let up = project(tiny, &layer.up, &normed);
            let inner: Vec<f64> = gate
                .iter()
                .zip(up)
                .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                .collect();
            add(&mut x, &project(tiny, &layer.down, &inner));
        }
        let normed = norm(spec, tiny, &spec.output_norm, &x);
        logits.extend(
            project(tiny, &spec.head, &normed)
                .into_iter()
                .map(|y| y as f32),
        );
    }
    logits
}

fn values(tiny: &Tiny, name: &str) -> Vec<f64> {
    tiny.tensors[name].1.iter().map(|&x| f64::from(x)).collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(spec: &DecoderSpec, tiny: &Tiny, name: &str, x: &[f64]) -> Vec<f64> {
    let root = (dot(x, x) / x.len() as f64 + f64::from(spec.norm_eps)).sqrt();
    values(tiny, name)
        .iter()
        .zip(x)
        .map(|(weight, x)| weight * x / root)
        .collect()
}

fn project(tiny: &Tiny, projection: &Projection, x: &[f64]) -> Vec<f64> {
    let weight = values(tiny, &projection.weight);
    let mut y: Vec<f64> = weight.chunks(x.len()).map(|row| dot(row, x)).collect();
    if let Some(bias) = &projection.bias {
        add(&mut y, &values(tiny, bias));
    }
    y
}

fn rotate(spec: &DecoderSpec, tiny: &Tiny, head: &mut [f64], position: usize) {
    let half = head.len() / 2;
    for i in 0..half {
        let divisor = match &spec.rope.scaling {
            RopeScaling::None => 1.0,
            RopeScaling::Linear { factor } => f64::from(*factor),
            RopeScaling::PerPair { tensor } => values(tiny, tensor)[i],
        };
        let power = 2.0 * i as f64 / head.len() as f64;
        let angle = position as f64 / f64::from(spec.rope.base).powf(power) / divisor;
        let (a, b) = match spec.rope.pairs {
            RopePairs::Interleaved => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        let (sin, cos) = angle.sin_cos();
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
    }
}

/// One query head over all positions so far, whose keys and values begin at `start` of each.
fn attend(query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], start: usize) -> Vec<f64> {
    let part = start..start + query.len();
    let scale = (query.len() as f64).sqrt();
    let weights: Vec<f64> = keys
        .iter()
        .map(|key| (dot(query, &key[part.clone()]) / scale).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    let mut mixed = vec![0.0; query.len()];
    for (weight, value) in weights.iter().zip(values) {
        let value = &value[part.clone()];
        mixed
            .iter_mut()
            .zip(value)
            .for_each(|(mixed, value)| *mixed += weight / sum * value);
    }
    mixed
}
