//! What a decoder is, apart from how it is computed.

pub mod arch;
pub(crate) mod rope;
pub mod spec;

#[cfg(feature = "candle")]
#[cfg(test)]
pub(crate) mod tiny;

pub use spec::DecoderSpec;

use crate::{Result, TokenId, cache::KvCache, generate::Cancel};

/// Which rows of a pass need logits: the head is computed for no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// None: the pass only fills the KV cache.
    None,
    /// The last token's row.
    Last,
    /// The rows of the last so many tokens: of all, where there are no more.
    Tail(usize),
    /// Every token's row.
    All,
}

impl Rows {
    /// How many of the last rows of a pass over `tokens` these are.
    pub fn of(self, tokens: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Last => tokens.min(1),
            Self::Tail(n) => tokens.min(n),
            Self::All => tokens,
        }
    }
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

/// One sequence's part of a pass over several.
#[derive(Debug)]
pub struct Part<'a> {
    /// What the sequence holds.
    pub cache: &'a mut KvCache,
    /// The tokens that come after it.
    pub tokens: &'a [TokenId],
    /// The rows that need logits.
    pub rows: Rows,
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

    /// Takes back logits that [`forward`](Self::forward) gave and nobody needs any more, so that the
    /// next pass writes over them instead of asking for memory.
    fn reuse(&mut self, logits: Logits) {
        drop(logits);
    }

    /// Positions that the KV cache holds.
    fn len(&self) -> usize;

    /// Whether the cache is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every position from `len` on; no effect where the cache is no longer than that. All
    /// are forgotten where the windows of some layers have passed what would be seen from there: then
    /// [`len`](Self::len) is 0.
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

    /// From now on computes the logits of the tokens below `first` and of those in `also`, perhaps of
    /// a few more; all others are minus infinity. A `first` beyond the vocabulary computes all again.
    /// `false` for a backend that always computes all.
    fn narrow_head(&mut self, first: usize, also: &[TokenId]) -> bool {
        let _ = (first, also);
        false
    }

    /// The KV cache; `None` for a backend without pages.
    fn cache(&self) -> Option<&KvCache> {
        None
    }

    /// The KV cache, to be exchanged for another one of the same model.
    fn cache_mut(&mut self) -> Option<&mut KvCache> {
        None
    }

    /// A decoder over the same weights whose cache is empty; `None` where weights cannot be shared.
    fn another(&self) -> Option<Box<dyn Decoder>> {
        None
    }

    /// Returns when nothing is done in the background any more for later runs, such as packed weights
    /// being written to disk. A model that is dropped ends that unfinished.
    fn settle(&self) {}

    /// Runs the tokens of several sequences in one pass over the weights, whatever this decoder's own
    /// cache holds. Each sequence gets the logits that it would get alone.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), with every cache as it was;
    /// [`ForeignCache`](crate::CoreError::ForeignCache) for a cache of another model;
    /// [`OneSequence`](crate::CoreError::OneSequence) for a backend without pages.
    fn forward_parts(&mut self, parts: &mut [Part<'_>], cancel: &Cancel) -> Result<Vec<Logits>> {
        let _ = (parts, cancel);
        Err(crate::CoreError::OneSequence)
    }
}
