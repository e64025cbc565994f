//! Operations between the matrix products.
//!
//! On the CPU they work in place and on all threads: a fresh tensor of a pass over many tokens
//! costs more in page faults than the arithmetic. Other devices take candle's own operations.

use std::{
    f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI},
    ops::Range,
};

use candle_core::{CpuStorage, D, Device, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use half::f16;
use rayon::prelude::*;

use crate::model::spec::Activation;

/// Elements that one thread takes at least.
const CHUNK: usize = 16 * 1024;

/// Which keys the queries of a pass see: those at positions `len..len + n` all up to their own, or
/// the last `window` of these.
#[derive(Clone)]
pub(super) struct Causal {
    len: usize,
    n: usize,
    window: Option<usize>,
    /// `n × keys`, 0 where a query sees a key and −∞ elsewhere; not for the CPU.
    mask: Option<Tensor>,
}

impl Causal {
    pub(super) fn new(
        len: usize,
        n: usize,
        window: Option<usize>,
        device: &Device,
    ) -> Result<Self> {
        let mut causal = Self {
            len,
            n,
            window,
            mask: None,
        };
        if n > 1 && !device.is_cpu() {
            causal.mask = Some(causal.mask(device)?);
        }
        Ok(causal)
    }

    pub(super) fn window(&self) -> Option<usize> {
        self.window
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
            window: self.window,
            mask,
        }
    }

    /// Positions of the keys that any of the queries sees.
    pub(super) fn keys(&self) -> Range<usize> {
        self.seen(0).start..self.len + self.n
    }

    /// Positions of the keys that query `i` sees.
    fn seen(&self, i: usize) -> Range<usize> {
        let end = self.len + i + 1;
        let start = self.window.map_or(0, |window| end.saturating_sub(window));
        start..end
    }

    /// Softmax over the keys that each query sees, and 0 for the others.
    ///
    /// `scores` are `kv_heads × group · n × keys`, contiguous and not used elsewhere. With a
    /// `softcap`, they are bounded by it first.
    pub(super) fn softmax(&self, scores: Tensor, softcap: Option<f32>) -> Result<Tensor> {
        if scores.device().is_cpu() {
            scores.inplace_op1(&CausalSoftmax {
                causal: self,
                softcap,
            })?;
            return Ok(scores);
        }
        let scores = match softcap {
            Some(cap) => bounded(&scores, cap)?,
            None => scores,
        };
        masked_softmax(&scores, self.mask.as_ref())
    }

    fn mask(&self, device: &Device) -> Result<Tensor> {
        let keys = self.keys();
        let values: Vec<f32> = (0..self.n)
            .flat_map(|i| {
                let seen = self.seen(i);
                keys.clone().map(move |j| match seen.contains(&j) {
                    true => 0.0,
                    false => f32::NEG_INFINITY,
                })
            })
            .collect();
        Tensor::from_vec(values, (self.n, keys.len()), device)
    }
}

/// `cap · tanh(x / cap)`.
pub(super) fn bounded(x: &Tensor, cap: f32) -> Result<Tensor> {
    let cap = f64::from(cap);
    (x / cap)?.tanh()? * cap
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

/// [`Causal::softmax`] in place.
struct CausalSoftmax<'a> {
    causal: &'a Causal,
    softcap: Option<f32>,
}

impl InplaceOp1 for CausalSoftmax<'_> {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Range { start, end } = self.causal.keys();
        let keys = end - start;
        let scores = contiguous_mut(storage, layout)?;
        let rows = (CHUNK / keys).max(1);
        scores
            .par_chunks_mut(rows * keys)
            .enumerate()
            .for_each(|(chunk, scores)| {
                for (row, scores) in scores.chunks_mut(keys).enumerate() {
                    let query = (chunk * rows + row) % self.causal.n;
                    let seen = self.causal.seen(query);
                    let (before, scores) = scores.split_at_mut(seen.start - start);
                    let (seen, after) = scores.split_at_mut(seen.len());
                    if let Some(cap) = self.softcap {
                        seen.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
                    }
                    softmax(seen);
                    before.fill(0.0);
                    after.fill(0.0);
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

/// How the activation function of a gate is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Silu,
    GeluTanh,
    /// From f16 to f16.
    GeluOfGgml,
}

impl Gate {
    pub(super) fn exact(activation: Activation) -> Self {
        match activation {
            Activation::Silu => Self::Silu,
            Activation::GeluTanh => Self::GeluTanh,
        }
    }

    /// As ggml computes it on CPUs.
    pub(super) fn of_ggml(self) -> Self {
        match self {
            Self::GeluTanh => Self::GeluOfGgml,
            other => other,
        }
    }
}

/// `activation(gate) · up`; `gate` is contiguous and not used elsewhere.
pub(super) fn gated(by: Gate, gate: Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.device().is_cpu() {
        gate.inplace_op2(up, &by)?;
        return Ok(gate);
    }
    match by {
        Gate::Silu => gate.silu()? * up,
        // ggml has its table on CPUs only.
        Gate::GeluTanh | Gate::GeluOfGgml => gate.gelu()? * up,
    }
}

/// [`gated`] in place.
impl InplaceOp2 for Gate {
    fn name(&self) -> &'static str {
        "gate"
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
        match self {
            Self::Silu => gate_by(gate, up, silu),
            Self::GeluTanh => gate_by(gate, up, gelu_tanh),
            Self::GeluOfGgml => gate_by(gate, up, gelu_of_ggml),
        }
        Ok(())
    }
}

fn gate_by(gate: &mut [f32], up: &[f32], activation: impl Fn(f32) -> f32 + Sync) {
    gate.par_chunks_mut(CHUNK)
        .zip(up.par_chunks(CHUNK))
        .for_each(|(gate, up)| {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = activation(*gate) * up;
            }
        });
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

fn gelu_tanh(x: f32) -> f32 {
    let inner = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * x * (1.0 + 0.044715 * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

fn gelu_of_ggml(x: f32) -> f32 {
    let rounded = |x: f32| f16::from_f32(x).to_f32();
    match x {
        ..=-10.0 => 0.0,
        10.0.. => x,
        _ => rounded(gelu_tanh(rounded(x))),
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
        let passes = [(0, 1), (5, 1), (0, 2), (0, 70), (300, 3), (7, 260)];
        let windows = [None, Some(1), Some(2), Some(64), Some(300)];
        for ((len, n), window, softcap) in passes
            .iter()
            .flat_map(|pass| windows.map(|window| (*pass, window)))
            .flat_map(|(pass, window)| [None, Some(2.0)].map(|cap| (pass, window, cap)))
        {
            let causal = Causal::new(len, n, window, &Device::Cpu).unwrap();
            let scores = noise(&[2, 3 * n, causal.keys().len()]);
            let mask = causal.mask(&Device::Cpu).unwrap();
            let capped = match softcap {
                Some(cap) => bounded(&scores, cap).unwrap(),
                None => scores.clone(),
            };
            let expected = masked_softmax(&capped, Some(&mask)).unwrap();
            // The last query sees the last keys.
            let keys = causal.last(1).keys().len();
            let one = |x: &Tensor| {
                let x = x.narrow(1, n - 1, 1).unwrap();
                let all = x.dim(2).unwrap();
                x.narrow(2, all - keys, keys).unwrap().contiguous().unwrap()
            };
            let (last, one, one_capped) = (one(&expected), one(&scores), one(&capped));
            assert_close(&causal.softmax(scores, softcap).unwrap(), &expected);
            assert_close(&masked_softmax(&one_capped, None).unwrap(), &last);
            assert_close(&causal.last(1).softmax(one, softcap).unwrap(), &last);
        }
    }

    #[test]
    fn activations_in_place_are_candles() {
        for n in [1, 33] {
            let (gate, up) = (noise(&[n, 1000]), noise(&[n, 1000]));
            let silu = (gate.silu().unwrap() * &up).unwrap();
            let gelu = (gate.gelu().unwrap() * &up).unwrap();
            let copy = gate.copy().unwrap();
            let of_ggml = gated(Gate::GeluOfGgml, gate.copy().unwrap(), &up).unwrap();
            assert_close(&gated(Gate::Silu, copy, &up).unwrap(), &silu);
            assert_close(&gated(Gate::GeluTanh, gate, &up).unwrap(), &gelu);
            // Eleven bits of the argument and of the value.
            let off = (of_ggml - &gelu).unwrap().abs().unwrap();
            let bound = ((gelu.abs().unwrap() / 512.0).unwrap() + 1e-3).unwrap();
            let beyond = off.gt(&(bound * (up.abs().unwrap() + 1.0).unwrap()).unwrap());
            let beyond = beyond.unwrap().flatten_all().unwrap().max(0).unwrap();
            assert_eq!(beyond.to_scalar::<u8>().unwrap(), 0);
        }
    }
}
