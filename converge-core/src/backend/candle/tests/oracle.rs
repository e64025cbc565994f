//! The decoder in plain loops over f64, a token at a time.

use std::f64::consts::{PI, TAU};

use crate::{
    TokenId,
    model::{
        spec::{
            Activation, DecoderSpec, FeedForward, Gated, Layer, Projection, Rope, RopePairs,
            RopeScaling,
        },
        tiny::Tiny,
    },
};

/// Logits of every row of a model loaded with `context` positions.
pub(super) fn logits(
    spec: &DecoderSpec,
    tiny: &Tiny,
    context: usize,
    tokens: &[TokenId],
) -> Vec<f32> {
    let mut cache = vec![(Vec::new(), Vec::new()); spec.layers.len()];
    let mut logits = Vec::new();
    for (position, &token) in tokens.iter().enumerate() {
        let table = values(tiny, &spec.embedding);
        let mut x: Vec<f64> = table[token as usize * spec.width..][..spec.width]
            .iter()
            .map(|x| x * f64::from(spec.embedding_scale))
            .collect();
        for (layer, (keys, past_values)) in spec.layers.iter().zip(&mut cache) {
            let normed = norm(spec, tiny, &layer.attention_norm, &x);
            let turned = |projection, head_norm: &Option<String>| -> Vec<f64> {
                let heads = project(tiny, projection, &normed);
                let heads = heads.chunks(spec.head_size).flat_map(|head| {
                    let mut head = match head_norm {
                        Some(name) => norm(spec, tiny, name, head),
                        None => head.to_vec(),
                    };
                    if let Some(rope) = &layer.rope {
                        rotate(rope, tiny, context, &mut head, position);
                    }
                    head
                });
                heads.collect()
            };
            let query = turned(&layer.query, &layer.query_norm);
            keys.push(turned(&layer.key, &layer.key_norm));
            past_values.push(project(tiny, &layer.value, &normed));
            let mixed: Vec<f64> = query
                .chunks(spec.head_size)
                .enumerate()
                .flat_map(|(head, query)| {
                    let start = head / spec.group() * spec.head_size;
                    attend(spec, layer, query, keys, past_values, start)
                })
                .collect();
            let part = project(tiny, &layer.output, &mixed);
            add(spec, tiny, &mut x, part, &layer.post_attention_norm);
            let normed = norm(spec, tiny, &layer.feed_forward_norm, &x);
            let part = feed_forward(spec, tiny, &layer.feed_forward, &normed);
            add(spec, tiny, &mut x, part, &layer.post_feed_forward_norm);
        }
        let normed = norm(spec, tiny, &spec.output_norm, &x);
        logits.extend(project(tiny, &spec.head, &normed).into_iter().map(|y| {
            let y = y * f64::from(spec.logit_scale);
            capped(y, spec.logit_softcap) as f32
        }));
    }
    logits
}

fn capped(x: f64, cap: Option<f32>) -> f64 {
    match cap.map(f64::from) {
        Some(cap) => cap * (x / cap).tanh(),
        None => x,
    }
}

fn values(tiny: &Tiny, name: &str) -> Vec<f64> {
    tiny.tensors[name].1.iter().map(|&x| f64::from(x)).collect()
}

fn add(spec: &DecoderSpec, tiny: &Tiny, x: &mut [f64], part: Vec<f64>, post_norm: &Option<String>) {
    let part = match post_norm {
        Some(name) => norm(spec, tiny, name, &part),
        None => part,
    };
    for (x, y) in x.iter_mut().zip(part) {
        *x += y * f64::from(spec.residual_scale);
    }
}

fn feed_forward(spec: &DecoderSpec, tiny: &Tiny, network: &FeedForward, x: &[f64]) -> Vec<f64> {
    let experts = match network {
        FeedForward::Dense(dense) => return gated(spec, tiny, dense, x),
        FeedForward::Experts(experts) => experts,
    };
    let shares: Vec<f64> = project(tiny, &experts.router, x)
        .iter()
        .map(|y| y.exp())
        .collect();
    let all: f64 = shares.iter().sum();
    let mut chosen: Vec<(f64, &Gated)> = shares
        .iter()
        .map(|share| share / all)
        .zip(&experts.experts)
        .collect();
    chosen.sort_by(|a, b| b.0.total_cmp(&a.0));
    chosen.truncate(experts.used);
    if experts.normalised {
        let sum: f64 = chosen.iter().map(|(share, _)| share).sum();
        chosen.iter_mut().for_each(|(share, _)| *share /= sum);
    }
    if let Some(shared) = &experts.shared {
        let logit = project(tiny, &shared.gate, x)[0];
        chosen.push((1.0 / (1.0 + (-logit).exp()), &shared.network));
    }
    let mut y = vec![0.0; x.len()];
    for (share, network) in chosen {
        let part = gated(spec, tiny, network, x);
        y.iter_mut()
            .zip(part)
            .for_each(|(y, part)| *y += share * part);
    }
    y
}

fn gated(spec: &DecoderSpec, tiny: &Tiny, network: &Gated, x: &[f64]) -> Vec<f64> {
    let gate = project(tiny, &network.gate, x);
    let up = project(tiny, &network.up, x);
    let activation = |x: f64| match spec.activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
    };
    let inner: Vec<f64> = gate
        .iter()
        .zip(up)
        .map(|(gate, up)| activation(*gate) * up)
        .collect();
    project(tiny, &network.down, &inner)
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
    assert_eq!(projection.inputs, x.len());
    let weight = values(tiny, &projection.weight);
    let rows = weight.chunks(x.len()).map(|row| dot(row, x));
    let mut y: Vec<f64> = rows
        .skip(projection.first_row)
        .take(projection.outputs)
        .collect();
    if let Some(bias) = &projection.bias {
        let bias = values(tiny, bias);
        y.iter_mut()
            .zip(&bias[projection.first_row..])
            .for_each(|(y, bias)| *y += bias);
    }
    y
}

fn rotate(rope: &Rope, tiny: &Tiny, context: usize, head: &mut [f64], position: usize) {
    let half = rope.size / 2;
    for i in 0..half {
        let power = 2.0 * i as f64 / rope.size as f64;
        let frequency = f64::from(rope.base).powf(-power);
        let (frequency, length) = scaled(rope, tiny, context, i, frequency);
        let (a, b) = match rope.pairs {
            RopePairs::Interleaved => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        let (sin, cos) = (sin * length, cos * length);
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
    }
}

/// The scaled frequency of pair `i`, and what the turned pair is multiplied by.
fn scaled(rope: &Rope, tiny: &Tiny, context: usize, i: usize, frequency: f64) -> (f64, f64) {
    match &rope.scaling {
        RopeScaling::None => (frequency, 1.0),
        RopeScaling::Linear { factor } => (frequency / f64::from(*factor), 1.0),
        RopeScaling::PerPair { tensor } => (frequency / values(tiny, tensor)[i], 1.0),
        RopeScaling::Llama3 {
            factor,
            low_frequency_factor,
            high_frequency_factor,
            original_context,
        } => {
            let original = *original_context as f64;
            let (low, high) = (
                f64::from(*low_frequency_factor),
                f64::from(*high_frequency_factor),
            );
            let wavelength = TAU / frequency;
            let divided = frequency / f64::from(*factor);
            if wavelength < original / high {
                (frequency, 1.0)
            } else if wavelength > original / low {
                (divided, 1.0)
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                ((1.0 - smooth) * divided + smooth * frequency, 1.0)
            }
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_context,
            attention_factor,
        } => {
            let dimension = |turns: f32| {
                rope.size as f64 * (*original_context as f64 / (f64::from(turns) * TAU)).ln()
                    / (2.0 * f64::from(rope.base).ln())
            };
            let low = dimension(*beta_fast).floor().max(0.0);
            let high = dimension(*beta_slow).ceil().min(rope.size as f64 - 1.0);
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            let divided = frequency / f64::from(*factor);
            (
                divided * ramp + frequency * (1.0 - ramp),
                f64::from(*attention_factor),
            )
        }
        RopeScaling::LongRope {
            short,
            long,
            original_context,
            attention_factor,
        } => {
            let name = if context > *original_context {
                long
            } else {
                short
            };
            (
                frequency / values(tiny, name)[i],
                f64::from(*attention_factor),
            )
        }
    }
}

/// One query head over the positions that it sees, whose keys and values begin at `start` of each.
fn attend(
    spec: &DecoderSpec,
    layer: &Layer,
    query: &[f64],
    keys: &[Vec<f64>],
    values: &[Vec<f64>],
    start: usize,
) -> Vec<f64> {
    let part = start..start + query.len();
    let first = keys.len() - layer.window.unwrap_or(keys.len()).min(keys.len());
    let weights: Vec<f64> = keys[first..]
        .iter()
        .map(|key| {
            let score = dot(query, &key[part.clone()]) * f64::from(spec.attention_scale);
            capped(score, spec.attention_softcap).exp()
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    let mut mixed = vec![0.0; query.len()];
    for (weight, value) in weights.iter().zip(&values[first..]) {
        let value = &value[part.clone()];
        mixed
            .iter_mut()
            .zip(value)
            .for_each(|(mixed, value)| *mixed += weight / sum * value);
    }
    mixed
}
