//! Feed-forward networks: dense, and mixtures of experts.

use converge_quant::{
    Level, Matrices, Pool,
    kernels::{self, Activations},
};

use super::weights::Linear;
use crate::{
    Result,
    model::spec::{Activation, Experts, FeedForward, Gated},
    sample::math::exp,
};

/// The weights of a layer's [`FeedForward`].
pub(super) enum FeedForwardWeights {
    Dense(Box<GatedWeights>),
    Experts(Box<ExpertWeights>),
}

/// Buffers that passes share.
#[derive(Default)]
pub(super) struct Buffers {
    activations: Activations,
    gate: Vec<f32>,
    up: Vec<f32>,
    part: Vec<f32>,
}

/// Where a network is computed.
#[derive(Clone, Copy)]
pub(super) struct On<'a> {
    pub(super) pool: &'a Pool,
    pub(super) level: Level,
    pub(super) activation: Activation,
}

impl FeedForwardWeights {
    pub(super) fn load(matrices: &mut Matrices<'_>, network: &FeedForward) -> Result<Self> {
        Ok(match network {
            FeedForward::Dense(gated) => {
                Self::Dense(Box::new(GatedWeights::load(matrices, gated)?))
            }
            FeedForward::Experts(experts) => {
                Self::Experts(Box::new(ExpertWeights::load(matrices, experts)?))
            }
        })
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Dense(gated) => gated.bytes(),
            Self::Experts(experts) => {
                let shared = experts
                    .shared
                    .as_ref()
                    .map_or(0, |(gated, _)| gated.bytes());
                shared
                    + experts
                        .experts
                        .iter()
                        .map(GatedWeights::bytes)
                        .sum::<usize>()
            }
        }
    }

    /// `out` becomes what the network makes of the rows of `x`.
    pub(super) fn forward(
        &self,
        on: On<'_>,
        buffers: &mut Buffers,
        x: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<()> {
        match self {
            Self::Dense(gated) => gated.forward(on, buffers, x, out),
            Self::Experts(experts) => experts.forward(on, buffers, x, out),
        }
    }

    /// Adds what the network makes of the rows of `x`, times `scale`, to the rows of `to`. `part` is a
    /// buffer.
    pub(super) fn forward_add(
        &self,
        on: On<'_>,
        buffers: &mut Buffers,
        x: &[f32],
        part: &mut Vec<f32>,
        to: &mut [f32],
        scale: f32,
    ) -> Result<()> {
        let On { pool, level, .. } = on;
        match self {
            Self::Dense(gated) => {
                gated.hidden(on, buffers, x)?;
                let down = &gated.down;
                down.forward_add(pool, level, &buffers.activations, part, to, scale)
            }
            Self::Experts(experts) => {
                experts.forward(on, buffers, x, part)?;
                Ok(kernels::add_scaled(pool, level, to, part, scale)?)
            }
        }
    }
}

/// The weights of a [`Gated`] network.
pub(super) struct GatedWeights {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl GatedWeights {
    fn load(matrices: &mut Matrices<'_>, gated: &Gated) -> Result<Self> {
        Ok(Self {
            gate: Linear::load(matrices, &gated.gate)?,
            up: Linear::load(matrices, &gated.up)?,
            down: Linear::load(matrices, &gated.down)?,
        })
    }

    fn bytes(&self) -> usize {
        [&self.gate, &self.up, &self.down]
            .iter()
            .map(|linear| linear.weight.bytes())
            .sum()
    }

    fn forward(
        &self,
        on: On<'_>,
        buffers: &mut Buffers,
        x: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<()> {
        self.hidden(on, buffers, x)?;
        let down = &self.down;
        down.forward(on.pool, on.level, &buffers.activations, out)
    }

    /// Sets the buffers' activations to what the last projection takes.
    fn hidden(&self, on: On<'_>, buffers: &mut Buffers, x: &[f32]) -> Result<()> {
        let On {
            pool,
            level,
            activation,
        } = on;
        let Buffers {
            activations,
            gate,
            up,
            ..
        } = buffers;
        let matrices = [&self.gate.weight, &self.up.weight];
        activations.set(pool, level, x, self.gate.weight.cols(), &matrices)?;
        let both = [(&self.gate, &mut *gate), (&self.up, &mut *up)];
        Linear::forward_together(pool, level, activations, both)?;
        let activation = match activation {
            Activation::Silu => kernels::Activation::Silu,
            Activation::GeluTanh => kernels::Activation::GeluTanh,
        };
        Ok(activations.set_gated(pool, level, activation, gate, up, &self.down.weight)?)
    }
}

/// The weights of [`Experts`].
pub(super) struct ExpertWeights {
    router: Linear,
    experts: Vec<GatedWeights>,
    used: usize,
    normalised: bool,
    /// Network and gate.
    shared: Option<(GatedWeights, Linear)>,
}

impl ExpertWeights {
    fn load(matrices: &mut Matrices<'_>, experts: &Experts) -> Result<Self> {
        let shared = match &experts.shared {
            Some(shared) => Some((
                GatedWeights::load(matrices, &shared.network)?,
                Linear::load(matrices, &shared.gate)?,
            )),
            None => None,
        };
        let all = experts.experts.iter();
        Ok(Self {
            router: Linear::load(matrices, &experts.router)?,
            experts: all
                .map(|gated| GatedWeights::load(matrices, gated))
                .collect::<Result<_>>()?,
            used: experts.used,
            normalised: experts.normalised,
            shared,
        })
    }

    fn forward(
        &self,
        on: On<'_>,
        buffers: &mut Buffers,
        x: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let width = self.router.weight.cols();
        out.clear();
        out.resize(x.len(), 0.0);
        let mut part = std::mem::take(&mut buffers.part);
        if let Some((network, gate)) = &self.shared {
            let logits = self.route(on, buffers, gate, x)?;
            network.forward(on, buffers, x, &mut part)?;
            let rows = out.chunks_exact_mut(width).zip(part.chunks_exact(width));
            for ((out, part), logit) in rows.zip(logits) {
                add(out, part, (1.0 / (1.0 + exp(-f64::from(logit)))) as f32);
            }
        }
        let logits = self.route(on, buffers, &self.router, x)?;
        let shares: Vec<Vec<(usize, f32)>> = logits
            .chunks_exact(self.experts.len())
            .map(|logits| self.choose(logits))
            .collect();
        // Each expert takes all of its tokens at once; a token adds them up in the experts' order.
        for (index, expert) in self.experts.iter().enumerate() {
            let chosen: Vec<(usize, f32)> = shares
                .iter()
                .enumerate()
                .filter_map(|(token, shares)| {
                    let share = shares.iter().find(|(expert, _)| *expert == index)?;
                    Some((token, share.1))
                })
                .collect();
            if chosen.is_empty() {
                continue;
            }
            let rows: Vec<f32> = chosen
                .iter()
                .flat_map(|&(token, _)| x.iter().skip(token * width).take(width))
                .copied()
                .collect();
            expert.forward(on, buffers, &rows, &mut part)?;
            for (&(token, share), part) in chosen.iter().zip(part.chunks_exact(width)) {
                if let Some(out) = out.get_mut(token * width..(token + 1) * width) {
                    add(out, part, share);
                }
            }
        }
        buffers.part = part;
        Ok(())
    }

    /// Logits of a router or a gate.
    fn route(
        &self,
        on: On<'_>,
        buffers: &mut Buffers,
        router: &Linear,
        x: &[f32],
    ) -> Result<Vec<f32>> {
        let activations = &mut buffers.activations;
        let weight = &router.weight;
        activations.set(on.pool, on.level, x, weight.cols(), &[weight])?;
        let mut logits = Vec::new();
        router.forward(on.pool, on.level, activations, &mut logits)?;
        Ok(logits)
    }

    /// The experts that a token goes through, and the share of each.
    fn choose(&self, logits: &[f32]) -> Vec<(usize, f32)> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = logits.iter().map(|&x| exp(f64::from(x - max))).collect();
        let mut chosen: Vec<usize> = (0..logits.len()).collect();
        // Stable: of equal shares the first expert's comes first.
        chosen.sort_by(|&a, &b| powers[b].total_cmp(&powers[a]));
        chosen.truncate(self.used);
        let sum: f64 = match self.normalised {
            true => chosen.iter().map(|&expert| powers[expert]).sum(),
            false => powers.iter().sum(),
        };
        chosen
            .into_iter()
            .map(|expert| (expert, (powers[expert] / sum) as f32))
            .collect()
    }
}

fn add(out: &mut [f32], part: &[f32], share: f32) {
    for (out, part) in out.iter_mut().zip(part) {
        *out = part.mul_add(share, *out);
    }
}
