//! Operations between the matrix products.

use candle_core::{D, DType, Device, Result, Tensor};

/// `silu(gate) · up`.
pub(super) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

/// Softmax over keys of `scores`, `kv_heads × group · n × keys`, where query `i` of `n` sees all but
/// the last `n − 1 − i` keys.
pub(super) fn causal_softmax(scores: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    match mask {
        None => candle_nn::ops::softmax_last_dim(scores),
        Some(mask) => {
            let (kv_heads, rows, keys) = scores.dims3()?;
            let n = mask.dim(0)?;
            let scores = scores
                .reshape((kv_heads, rows / n, n, keys))?
                .broadcast_add(mask)?;
            candle_nn::ops::softmax_last_dim(&scores)?.reshape((kv_heads, rows, keys))
        }
    }
}

/// What to add to the scores of `n` queries at positions `len..len + n`: `n × (len + n)`, 0 where a
/// query sees a key and −∞ elsewhere. `None` where every query sees all keys.
pub(super) fn causal_mask(len: usize, n: usize, device: &Device) -> Result<Option<Tensor>> {
    if n <= 1 {
        return Ok(None);
    }
    let keys = len + n;
    let values = (0..n)
        .flat_map(|i| (0..keys).map(move |j| if j <= len + i { 0.0 } else { f32::NEG_INFINITY }))
        .collect::<Vec<f32>>();
    Tensor::from_vec(values, (n, keys), device)?
        .to_dtype(DType::F32)
        .map(Some)
}

/// `a × bᵀ` over the last two dimensions.
pub(super) fn matmul_t(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.matmul(&b.transpose(D::Minus2, D::Minus1)?)
}
