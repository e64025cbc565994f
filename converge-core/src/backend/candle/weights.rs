//! Weights on a device, read tensor by tensor as the description names them.

use std::sync::Arc;

use candle_core::{
    D, DType, Device, Module, Tensor,
    quantized::{QMatMul, QTensor},
};
use converge_quant::{Gguf, candle as quant};

use super::{CandleOptions, WeightMode};
use crate::{
    Result,
    model::spec::{DecoderSpec, Projection, Rope, RopeScaling},
};

/// All weights of a model.
pub(super) struct Weights {
    pub(super) device: Device,
    /// Rows are dequantized as they are looked up, in both modes.
    pub(super) embedding: Arc<QTensor>,
    pub(super) layers: Vec<LayerWeights>,
    pub(super) output_norm: Tensor,
    pub(super) head: Linear,
    pub(super) rotary: Rotary,
}

/// The weights of one layer.
pub(super) struct LayerWeights {
    pub(super) attention_norm: Tensor,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    pub(super) feed_forward_norm: Tensor,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Weights {
    pub(super) fn load(gguf: &Gguf, spec: &DecoderSpec, options: &CandleOptions) -> Result<Self> {
        let device = &options.device;
        let vector = |name: &str| quant::tensor(gguf, name, DType::F32, device);
        let linear = |projection: &Projection| Linear::load(gguf, projection, options);
        let embedding = Arc::new(quant::qtensor(gguf, &spec.embedding, device)?);
        let head = match options.mode {
            WeightMode::Quantized if spec.tied_head => Linear {
                weight: QMatMul::from_arc(embedding.clone())?,
                bias: None,
            },
            _ => linear(&spec.head)?,
        };
        let layers = spec
            .layers
            .iter()
            .map(|layer| {
                Ok(LayerWeights {
                    attention_norm: vector(&layer.attention_norm)?,
                    query: linear(&layer.query)?,
                    key: linear(&layer.key)?,
                    value: linear(&layer.value)?,
                    output: linear(&layer.output)?,
                    feed_forward_norm: vector(&layer.feed_forward_norm)?,
                    gate: linear(&layer.gate)?,
                    up: linear(&layer.up)?,
                    down: linear(&layer.down)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            embedding,
            layers,
            output_norm: vector(&spec.output_norm)?,
            head,
            rotary: Rotary::new(gguf, &spec.rope, spec.head_size, options)?,
            device: device.clone(),
        })
    }
}

/// A projection's weights.
pub(super) struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
}

impl Linear {
    fn load(gguf: &Gguf, projection: &Projection, options: &CandleOptions) -> Result<Self> {
        let device = &options.device;
        let weight = match options.mode {
            WeightMode::F32 => {
                QMatMul::Tensor(quant::tensor(gguf, &projection.weight, DType::F32, device)?)
            }
            WeightMode::Quantized => {
                QMatMul::from_qtensor(quant::qtensor(gguf, &projection.weight, device)?)?
            }
        };
        let bias = match &projection.bias {
            Some(name) => Some(quant::tensor(gguf, name, DType::F32, device)?),
            None => None,
        };
        Ok(Self { weight, bias })
    }

    /// `n × inputs` to `n × outputs`.
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.add_bias(self.weight.forward(x)?)
    }

    fn add_bias(&self, y: Tensor) -> candle_core::Result<Tensor> {
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// Several projections of the same `x`; candle quantizes `x` once for them where it can.
    pub(super) fn forward_all<const N: usize>(
        linears: [&Self; N],
        x: &Tensor,
    ) -> candle_core::Result<[Tensor; N]> {
        let quantized = linears.map(|linear| match &linear.weight {
            QMatMul::QTensor(weight) => Some(weight.as_ref()),
            _ => None,
        });
        let products = match quantized.into_iter().collect::<Option<Vec<_>>>() {
            Some(weights) => QTensor::gemv_fused_shared_lhs(&weights, x)?,
            None => None,
        };
        let products = match products {
            Some(products) => products,
            None => linears
                .iter()
                .map(|linear| linear.weight.forward(x))
                .collect::<Result<_, _>>()?,
        };
        let outputs = linears
            .into_iter()
            .zip(products)
            .map(|(linear, product)| linear.add_bias(product))
            .collect::<candle_core::Result<Vec<_>>>()?;
        outputs.try_into().map_err(|outputs: Vec<Tensor>| {
            candle_core::Error::Msg(format!("{} products of {N} weights", outputs.len()))
        })
    }
}

/// Cosines and sines of every position's angles, `context × head_size / 2`.
pub(super) struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    fn new(gguf: &Gguf, rope: &Rope, head_size: usize, options: &CandleOptions) -> Result<Self> {
        let device = &options.device;
        let pairs = head_size / 2;
        let divisors = match &rope.scaling {
            RopeScaling::None => vec![1.0; pairs],
            RopeScaling::Linear { factor } => vec![*factor; pairs],
            RopeScaling::PerPair { tensor } => {
                quant::tensor(gguf, tensor, DType::F32, &Device::Cpu)?.to_vec1::<f32>()?
            }
        };
        // In f64, so that far positions lose nothing.
        let frequencies: Vec<f64> = divisors
            .iter()
            .enumerate()
            .map(|(i, &divisor)| {
                f64::from(rope.base).powf(-((2 * i) as f64) / head_size as f64) / f64::from(divisor)
            })
            .collect();
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..options.context)
                .flat_map(|position| {
                    frequencies
                        .iter()
                        .map(move |frequency| f(position as f64 * frequency) as f32)
                })
                .collect();
            Tensor::from_vec(values, (options.context, pairs), device)
        };
        Ok(Self {
            cos: table(f64::cos)?,
            sin: table(f64::sin)?,
        })
    }

    /// The tables' rows for `n` positions from `start` on.
    pub(super) fn positions(
        &self,
        start: usize,
        n: usize,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        Ok((self.cos.narrow(0, start, n)?, self.sin.narrow(0, start, n)?))
    }
}

/// RMSNorm over the last dimension.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> candle_core::Result<Tensor> {
    debug_assert_eq!(x.dim(D::Minus1).ok(), weight.dim(0).ok());
    candle_nn::ops::rms_norm(x, weight, eps)
}
