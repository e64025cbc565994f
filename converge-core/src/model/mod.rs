//! What a decoder is, apart from how it is computed.

pub mod arch;
pub(crate) mod rope;
pub mod spec;

#[cfg(feature = "candle")]
#[cfg(test)]
pub(crate) mod tiny;

use std::sync::Arc;

use converge_quant::kernels::KvPage;

pub use spec::DecoderSpec;

use crate::{Result, TokenId, generate::Cancel};

/// Which rows of a pass need logits: the head is computed for no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// None: the pass only fills the KV cache.
    None,
    /// The last token's row.
    Last,
    /// Every token's row.
    All,
}

/// Logits of the rows asked for, row-major, `rows() × vocab` of f32.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    /// The values, one row after the other.
    pub data: Vec<f32>,
    /// Length of a row.
    pub vocab: usize,
}

impl Logits {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.data.len().checked_div(self.vocab).unwrap_or(0)
    }

    /// Row `i`, in the order of the tokens given; `None` past the end.
    pub fn row(&self, i: usize) -> Option<&[f32]> {
        self.data
            .get(i.checked_mul(self.vocab)?..i.checked_add(1)?.checked_mul(self.vocab)?)
    }
}

/// The pages of a KV cache, layer by layer: cheap to clone.
#[derive(Clone, Debug)]
pub struct KvPages {
    model: u64,
    layers: Arc<[Vec<Arc<KvPage>>]>,
}

impl KvPages {
    /// Pages of each layer, the same number for all. `model` is a number of the loaded model's own:
    /// what other weights computed is of no use to it.
    pub fn new(model: u64, layers: Vec<Vec<Arc<KvPage>>>) -> Self {
        Self {
            model,
            layers: layers.into(),
        }
    }

    /// The number of the model that computed them.
    pub fn model(&self) -> u64 {
        self.model
    }

    /// The pages of each layer.
    pub fn layers(&self) -> &[Vec<Arc<KvPage>>] {
        &self.layers
    }

    /// All pages.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<KvPage>> {
        self.layers.iter().flatten()
    }
}

/// A model with its KV cache: appends tokens, forgets them again, and says what comes next.
///
/// Positions are absolute: the cache holds positions `0..len()`, and a pass over `n` tokens puts
/// them at `len()..len() + n`.
pub trait Decoder: Send {
    /// Runs `tokens` after what the cache holds and returns the logits of `rows`.
    ///
    /// On any error the cache holds exactly what it held before. `cancel` is looked at between
    /// layers, so a long pass ends early.
    ///
    /// # Errors
    /// [`ContextOverflow`](crate::CoreError::ContextOverflow) when the cache would overflow,
    /// [`TokenOutOfRange`](crate::CoreError::TokenOutOfRange),
    /// [`Cancelled`](crate::CoreError::Cancelled), or the backend's own.
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits>;

    /// Positions that the KV cache holds.
    fn len(&self) -> usize;

    /// Whether the cache is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every position from `len` on; no effect where the cache is no longer than that.
    ///
    /// # Errors
    /// [`CannotTruncate`](crate::CoreError::CannotTruncate) where [`truncates`](Self::truncates)
    /// does not hold and `len` is not 0, or the backend's own.
    fn truncate(&mut self, len: usize) -> Result<()>;

    /// Whether [`truncate`](Self::truncate) can leave a part of the cache. Where it cannot, only
    /// everything is forgotten at once.
    fn truncates(&self) -> bool {
        true
    }

    /// The most positions that the cache can hold.
    fn context(&self) -> usize;

    /// Size of the vocabulary: the length of a row of logits.
    fn vocab(&self) -> usize;

    /// Whether the exactness contract holds: the same tokens whatever the batch and the cache.
    fn exact(&self) -> bool;

    /// The pages of the KV cache, shared with the decoder until one of the two changes them; `None`
    /// for a backend without pages.
    fn pages(&self) -> Option<KvPages> {
        None
    }

    /// Goes on from the first `len` positions of a cache of the same model. Without pages, or with
    /// those of another model, nothing changes and the result is `false`.
    fn restore(&mut self, pages: &KvPages, len: usize) -> bool {
        let _ = (pages, len);
        false
    }
}
