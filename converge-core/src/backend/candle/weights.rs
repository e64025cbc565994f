//! Weights on a device, read tensor by tensor as the description names them.

use std::sync::Arc;

use candle_core::{
    D, DType, Device, Module, Tensor,
    quantized::{QMatMul, QTensor},
};
use converge_quant::{Gguf, candle as quant};

use super::{CandleOptions, WeightMode, feed_forward::FeedForwardWeights, rotary::Rotary};
use crate::{
    Result,
    model::spec::{DecoderSpec, Projection, Rope},
};

/// All weights of a model.
pub(super) struct Weights {
    pub(super) device: Device,
    /// Rows are dequantized as they are looked up, in both modes.
    pub(super) embedding: Arc<QTensor>,
    pub(super) layers: Vec<LayerWeights>,
    pub(super) output_norm: Tensor,
    pub(super) head: Linear,
}

/// The weights of one layer.
pub(super) struct LayerWeights {
    pub(super) attention_norm: Tensor,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) query_norm: Option<Tensor>,
    pub(super) key_norm: Option<Tensor>,
    /// Layers that turn alike share their tables.
    pub(super) rotary: Option<Arc<Rotary>>,
    pub(super) window: Option<usize>,
    pub(super) output: Linear,
    pub(super) post_attention_norm: Option<Tensor>,
    pub(super) feed_forward_norm: Tensor,
    pub(super) feed_forward: FeedForwardWeights,
    pub(super) post_feed_forward_norm: Option<Tensor>,
}

impl Weights {
    pub(super) fn load(gguf: &Gguf, spec: &DecoderSpec, options: &CandleOptions) -> Result<Self> {
        let device = &options.device;
        let vector = |name: &String| quant::tensor(gguf, name, DType::F32, device);
        let optional = |name: &Option<String>| name.as_ref().map(vector).transpose();
        let linear = |projection: &Projection| Linear::load(gguf, projection, options);
        let embedding = Arc::new(quant::qtensor(gguf, &spec.embedding, device)?);
        let head = match options.mode {
            WeightMode::Quantized if spec.tied_head => Linear {
                weight: QMatMul::from_arc(embedding.clone())?,
                bias: None,
            },
            _ => linear(&spec.head)?,
        };
        let mut tables: Vec<(&Rope, Arc<Rotary>)> = Vec::new();
        let mut rotary = |rope| -> Result<_> {
            if let Some((_, table)) = tables.iter().find(|(known, _)| *known == rope) {
                return Ok(table.clone());
            }
            let table = Arc::new(Rotary::new(gguf, rope, options)?);
            tables.push((rope, table.clone()));
            Ok(table)
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
                    query_norm: optional(&layer.query_norm)?,
                    key_norm: optional(&layer.key_norm)?,
                    rotary: layer.rope.as_ref().map(&mut rotary).transpose()?,
                    window: layer.window,
                    output: linear(&layer.output)?,
                    post_attention_norm: optional(&layer.post_attention_norm)?,
                    feed_forward_norm: vector(&layer.feed_forward_norm)?,
                    feed_forward: FeedForwardWeights::load(gguf, &layer.feed_forward, options)?,
                    post_feed_forward_norm: optional(&layer.post_feed_forward_norm)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            embedding,
            layers,
            output_norm: vector(&spec.output_norm)?,
            head,
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
    pub(super) fn load(
        gguf: &Gguf,
        projection: &Projection,
        options: &CandleOptions,
    ) -> Result<Self> {
        let device = &options.device;
        let (name, rows) = (&projection.weight, projection.rows());
        let weight = match options.mode {
            WeightMode::F32 => {
                QMatMul::Tensor(quant::tensor_rows(gguf, name, rows, DType::F32, device)?)
            }
            WeightMode::Quantized => {
                QMatMul::from_qtensor(quant::qtensor_rows(gguf, name, rows, device)?)?
            }
        };
        let bias = match &projection.bias {
            Some(name) => {
                let bias = quant::tensor(gguf, name, DType::F32, device)?;
                Some(bias.narrow(0, projection.first_row, projection.outputs)?)
            }
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

/// RMSNorm over the last dimension.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> candle_core::Result<Tensor> {
    debug_assert_eq!(x.dim(D::Minus1).ok(), weight.dim(0).ok());
    candle_nn::ops::rms_norm(x, weight, eps)
}
