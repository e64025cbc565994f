//! Operations between the matrix products.
//!
//! On the CPU they work in place and on all threads: a fresh tensor of a pass over many tokens
//! costs more in page faults than the arithmetic. Other devices take candle's own operations.

use candle_core::{CpuStorage, D, DType, Device, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

/// Elements that one thread takes at least.
const CHUNK: usize = 16 * 1024;

/// Which keys the queries of a pass see: those at positions `len..len + n` all up to their own.
pub(super) struct Causal {
    len: usize,
    n: usize,
    /// `n × (len + n)`, 0 where a query sees a key and −∞ elsewhere; not for the CPU.
    mask: Option<Tensor>,
}

impl Causal {
    pub(super) fn new(len: usize, n: usize, device: &Device) -> Result<Self> {
        let mask = if n > 1 && !device.is_cpu() {
            Some(mask(len, n, device)?)
        } else {
            None
        };
        Ok(Self { len, n, mask })
    }

    /// The last `kept` queries of the pass, which must be one or all of them.
    pub(super) fn last(&self, kept: usize) -> Self {
        let mask = if kept == self.n {
            self.mask.clone()
        } else {
            None
        };
        Self {
            len: self.len + self.n - kept,
            n: kept,
            mask,
        }
    }

    /// Softmax over the keys that each query sees, and 0 for the others.
    ///
    /// `scores` are `kv_heads × group · n × (len + n)`, contiguous and not used elsewhere.
    pub(super) fn softmax(&self, scores: Tensor) -> Result<Tensor> {
        if scores.device().is_cpu() {
            scores.inplace_op1(self)?;
            Ok(scores)
        } else {
            masked_softmax(&scores, self.mask.as_ref())
        }
    }
}

/// The mask of [`Causal`].
fn mask(len: usize, n: usize, device: &Device) -> Result<Tensor> {
    let keys = len + n;
    let values: Vec<f32> = (0..n)
        .flat_map(|i| (0..keys).map(move |j| if j <= len + i { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    Tensor::from_vec(values, (n, keys), device)?.to_dtype(DType::F32)
}

/// [`Causal::softmax`] by candle's operations; without a mask every query sees every key.
fn masked_softmax(scores: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let Some(mask) = mask else {
        return candle_nn::ops::softmax_last_dim(scores);
    };
    let (kv_heads, rows, keys) = scores.dims3()?;
    let n = mask.dim(0)?;
    let scores = scores
        .reshape((kv_heads, rows / n, n, keys))?
        .broadcast_add(mask)?;
    candle_nn::ops::softmax_last_dim(&scores)?.reshape((kv_heads, rows, keys))
}

impl InplaceOp1 for Causal {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let keys = self.len + self.n;
        let scores = contiguous_mut(storage, layout)?;
        let rows = (CHUNK / keys).max(1);
        scores
            .par_chunks_mut(rows * keys)
            .enumerate()
            .for_each(|(chunk, scores)| {
                for (row, scores) in scores.chunks_mut(keys).enumerate() {
                    let query = (chunk * rows + row) % self.n;
                    let (seen, unseen) = scores.split_at_mut(self.len + query + 1);
                    softmax(seen);
                    unseen.fill(0.0);
                }
            });
        Ok(())
    }
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// `silu(gate) · up`; `gate` is contiguous and not used elsewhere.
pub(super) fn silu_mul(gate: Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.device().is_cpu() {
        gate.inplace_op2(up, &SiluMul)?;
        Ok(gate)
    } else {
        gate.silu()? * up
    }
}

struct SiluMul;

impl InplaceOp2 for SiluMul {
    fn name(&self) -> &'static str {
        "silu-mul"
    }

    fn cpu_fwd(
        &self,
        gate: &mut CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<()> {
        let gate = contiguous_mut(gate, gate_layout)?;
        let up = contiguous(up, up_layout)?;
        gate.par_chunks_mut(CHUNK)
            .zip(up.par_chunks(CHUNK))
            .for_each(|(gate, up)| {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = *gate / (1.0 + (-*gate).exp()) * up;
                }
            });
        Ok(())
    }
}

fn contiguous_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("expected contiguous f32, found {layout:?}"),
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("expected contiguous f32, found {layout:?}"),
    }
}

/// `a × bᵀ` over the last two dimensions.
pub(super) fn matmul_t(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.matmul(&b.transpose(D::Minus2, D::Minus1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 3.0, shape, &Device::Cpu).unwrap()
    }

    fn assert_close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.dims(), b.dims());
        let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        let largest = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
        // A few roundings of the largest value: the order of the sums differs.
        let scale = b.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        let scale = scale.to_scalar::<f32>().unwrap().max(1.0);
        assert!(largest < 4e-6 * scale, "{largest} of {scale}");
    }

    /// What other devices run, run on the CPU too.
    #[test]
    fn softmax_in_place_is_softmax_with_a_mask() {
        for (len, n) in [(0, 1), (5, 1), (0, 2), (0, 70), (300, 3), (7, 260)] {
            let scores = noise(&[2, 3 * n, len + n]);
            let mask = mask(len, n, &Device::Cpu).unwrap();
            let expected = masked_softmax(&scores, Some(&mask)).unwrap();
            let last = expected.narrow(1, n - 1, 1).unwrap().contiguous().unwrap();
            let one = scores.narrow(1, n - 1, 1).unwrap().contiguous().unwrap();
            let causal = Causal::new(len, n, &Device::Cpu).unwrap();
            assert_close(&causal.softmax(scores).unwrap(), &expected);
            assert_close(&masked_softmax(&one, None).unwrap(), &last);
            assert_close(&causal.last(1).softmax(one).unwrap(), &last);
        }
    }

    #[test]
    fn silu_in_place_is_candles() {
        for n in [1, 33] {
            let (gate, up) = (noise(&[n, 1000]), noise(&[n, 1000]));
            let expected = (gate.silu().unwrap() * &up).unwrap();
            assert_close(&silu_mul(gate, &up).unwrap(), &expected);
        }
    }
}
