//! Feed-forward networks: dense, and mixtures of experts.

use candle_core::{D, Tensor};
use converge_quant::Gguf;

use super::{
    CandleOptions,
    ops::{self, Gate},
    weights::Linear,
};
use crate::{
    Result,
    model::spec::{Experts, FeedForward, Gated},
};

/// The weights of a layer's [`FeedForward`].
pub(super) enum FeedForwardWeights {
    Dense(GatedWeights),
    Experts(ExpertWeights),
}

impl FeedForwardWeights {
    pub(super) fn load(
        gguf: &Gguf,
        network: &FeedForward,
        options: &CandleOptions,
    ) -> Result<Self> {
        Ok(match network {
            FeedForward::Dense(gated) => Self::Dense(GatedWeights::load(gguf, gated, options)?),
            FeedForward::Experts(experts) => {
                Self::Experts(ExpertWeights::load(gguf, experts, options)?)
            }
        })
    }

    /// `n × width` to `n × width`.
    pub(super) fn forward(&self, gate: Gate, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(gated) => gated.forward(gate, x),
            Self::Experts(experts) => experts.forward(gate, x),
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
    fn load(gguf: &Gguf, gated: &Gated, options: &CandleOptions) -> Result<Self> {
        Ok(Self {
            gate: Linear::load(gguf, &gated.gate, options)?,
            up: Linear::load(gguf, &gated.up, options)?,
            down: Linear::load(gguf, &gated.down, options)?,
        })
    }

    fn forward(&self, by: Gate, x: &Tensor) -> candle_core::Result<Tensor> {
        let [gate, up] = Linear::forward_all([&self.gate, &self.up], x)?;
        self.down.forward(&ops::gated(by, gate, &up)?)
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
    fn load(gguf: &Gguf, experts: &Experts, options: &CandleOptions) -> Result<Self> {
        let gated = |gated: &Gated| GatedWeights::load(gguf, gated, options);
        let shared = match &experts.shared {
            Some(shared) => Some((
                gated(&shared.network)?,
                Linear::load(gguf, &shared.gate, options)?,
            )),
            None => None,
        };
        Ok(Self {
            router: Linear::load(gguf, &experts.router, options)?,
            experts: experts.experts.iter().map(gated).collect::<Result<_>>()?,
            used: experts.used,
            normalised: experts.normalised,
            shared,
        })
    }

    fn forward(&self, by: Gate, x: &Tensor) -> candle_core::Result<Tensor> {
        let device = x.device();
        let shares = candle_nn::ops::softmax_last_dim(&self.router.forward(x)?)?;
        let chosen = self.choose(&shares.to_vec2()?);
        let mut y = match &self.shared {
            Some((network, gate)) => {
                let share = candle_nn::ops::sigmoid(&gate.forward(x)?)?;
                network.forward(by, x)?.broadcast_mul(&share)?
            }
            None => x.zeros_like()?,
        };
        // Each expert takes all of its tokens at once.
        for (expert, (tokens, shares)) in self.experts.iter().zip(chosen) {
            if tokens.is_empty() {
                continue;
            }
            let shares = Tensor::from_vec(shares, (tokens.len(), 1), device)?;
            let tokens = Tensor::new(tokens, device)?;
            let part = expert.forward(by, &x.index_select(&tokens, 0)?)?;
            y = y.index_add(&tokens, &part.broadcast_mul(&shares)?, D::Minus2)?;
        }
        Ok(y)
    }

    /// For each expert the tokens that go through it, and its share in each.
    fn choose(&self, shares: &[Vec<f32>]) -> Vec<(Vec<u32>, Vec<f32>)> {
        let mut chosen = vec![(Vec::new(), Vec::new()); self.experts.len()];
        for (token, shares) in (0..).zip(shares) {
            let mut order: Vec<usize> = (0..shares.len()).collect();
            // Stable: of equal shares the first expert's comes first.
            order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
            order.truncate(self.used);
            let sum = match self.normalised {
                true => order.iter().map(|&expert| shares[expert]).sum(),
                false => 1.0f32,
            };
            for expert in order {
                let (tokens, of_tokens) = &mut chosen[expert];
                tokens.push(token);
                of_tokens.push(shares[expert] / sum);
            }
        }
        chosen
    }
}
