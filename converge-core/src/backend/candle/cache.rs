//! The KV cache of one layer.

use candle_core::{DType, Device, Result, Tensor};

/// Positions by which a cache grows at least.
const STEP: usize = 256;

/// Keys and values of one layer, `kv_heads × capacity × head_size` of f32 each.
///
/// Positions past the decoder's length hold anything: a pass writes there before it succeeds.
pub(super) struct LayerCache {
    keys: Tensor,
    values: Tensor,
    capacity: usize,
}

impl LayerCache {
    pub(super) fn new(kv_heads: usize, head_size: usize, device: &Device) -> Result<Self> {
        let empty = || Tensor::zeros((kv_heads, 0, head_size), DType::F32, device);
        Ok(Self {
            keys: empty()?,
            values: empty()?,
            capacity: 0,
        })
    }

    /// Writes `keys` and `values`, `kv_heads × n × head_size` and contiguous, to positions from
    /// `len` on, and returns all keys and values up to `len + n`. Grows up to `limit` positions.
    pub(super) fn append(
        &mut self,
        len: usize,
        keys: &Tensor,
        values: &Tensor,
        limit: usize,
    ) -> Result<(Tensor, Tensor)> {
        let end = len + keys.dim(1)?;
        if end > self.capacity {
            // Doubling: a token at a time costs a constant number of copies per position.
            let capacity = (2 * self.capacity)
                .max(end.next_multiple_of(STEP))
                .min(limit)
                .max(end);
            let grown_keys = grown(&self.keys, len, capacity)?;
            self.values = grown(&self.values, len, capacity)?;
            self.keys = grown_keys;
            self.capacity = capacity;
        }
        self.keys.slice_set(keys, 1, len)?;
        self.values.slice_set(values, 1, len)?;
        Ok((self.keys.narrow(1, 0, end)?, self.values.narrow(1, 0, end)?))
    }
}

/// A copy of the first `len` positions in a tensor of `capacity`.
fn grown(from: &Tensor, len: usize, capacity: usize) -> Result<Tensor> {
    let (heads, _, size) = from.dims3()?;
    let to = Tensor::zeros((heads, capacity, size), from.dtype(), from.device())?;
    if len > 0 {
        to.slice_set(&from.narrow(1, 0, len)?.contiguous()?, 1, 0)?;
    }
    Ok(to)
}
