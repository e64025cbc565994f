//! Texts as vectors: what means the same lies close together.
//!
//! | | what it is |
//! |---|---|
//! | [`Embedder`] | the trait: texts in, vectors of length 1 out |
//! | [`BertEmbedder`] | sentence embeddings of BERT's kind, from a folder of Hugging Face (all-MiniLM-L6-v2) |
//! | [`DecoderEmbedder`] | the hidden states of a decoder, pooled, from a GGUF file |
//! | [`similarity`] | how close two vectors are |
//!
//! Each text goes through the model by itself, without padding, so its vector is the same whatever
//! it is embedded together with. A text is never cut silently: one that is too long is refused, and
//! [`Embedder::tokens`] tells the length beforehand.

#[cfg(feature = "candle")]
mod bert;
#[cfg(feature = "candle")]
mod decoder;
mod error;

#[cfg(feature = "candle")]
pub use bert::BertEmbedder;
#[cfg(feature = "candle")]
pub use decoder::DecoderEmbedder;
pub use error::EmbedError;

use crate::{Result, generate::Cancel};

/// A model that turns texts into vectors of length 1.
pub trait Embedder: Send + Sync {
    /// Elements of a vector.
    fn dimensions(&self) -> usize;

    /// The most tokens that a text may have, as [`tokens`](Self::tokens) counts them.
    fn limit(&self) -> usize;

    /// How many tokens a text has, with those that the model puts around it.
    ///
    /// # Errors
    /// The tokenizer's.
    fn tokens(&self, text: &str) -> Result<usize>;

    /// The vectors of texts, in their order: each of [`dimensions`](Self::dimensions) elements and
    /// of length 1. `cancel` is looked at between texts at least.
    ///
    /// # Errors
    /// [`EmbedError::TooLong`] and [`EmbedError::Empty`] before anything is computed,
    /// [`Cancelled`](crate::CoreError::Cancelled), and the tokenizer's and the backend's own.
    fn embed(&self, texts: &[&str], cancel: &Cancel) -> Result<Vec<Vec<f32>>>;
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's: BERT's `[CLS]`.
    First,
    /// The last token's, which alone has seen the whole text in a decoder.
    Last,
}

impl Pooling {
    /// Pools `rows`, one of `width` elements for each token, and scales the result to length 1.
    ///
    /// A vector of zeros stays as it is, and so does no row at all.
    #[must_use]
    pub fn pool(self, rows: &[f32], width: usize) -> Vec<f32> {
        let tokens = rows.chunks_exact(width.max(1));
        let mut sum = vec![0.0f64; width];
        let chosen = match self {
            Self::Mean => 0..tokens.len(),
            Self::First => 0..tokens.len().min(1),
            Self::Last => tokens.len().saturating_sub(1)..tokens.len(),
        };
        for row in tokens.skip(chosen.start).take(chosen.len()) {
            for (sum, &x) in sum.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
        // The mean's divisor goes into the length.
        let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        sum.iter().map(|x| (x * scale) as f32).collect()
    }
}

/// The cosine of the angle between two vectors of length 1, from -1 to 1: their product.
///
/// Where they differ in length, the elements that only one has count nothing.
#[must_use]
pub fn similarity(a: &[f32], b: &[f32]) -> f32 {
    let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
    products.sum::<f64>() as f32
}

/// Refuses what cannot be embedded; `texts` are the lengths in tokens.
#[cfg(feature = "candle")]
fn check_lengths(texts: &[usize], limit: usize) -> Result<(), EmbedError> {
    for (text, &tokens) in texts.iter().enumerate() {
        if tokens == 0 {
            return Err(EmbedError::Empty { text });
        }
        if tokens > limit {
            return Err(EmbedError::TooLong {
                text,
                tokens,
                limit,
            });
        }
    }
    Ok(())
}

#[cfg(feature = "candle")]
#[cfg(test)]
mod tests;
