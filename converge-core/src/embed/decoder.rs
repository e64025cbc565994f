//! The hidden states of a decoder, pooled.

use converge_quant::Gguf;

use super::{Embedder, Pooling, check_lengths};
use crate::{
    CoreError, Result, TokenId,
    backend::candle::{CandleModel, CandleOptions},
    generate::Cancel,
    tokenizer::{Special, Tokenizer},
};

/// The states of a decoder after its last norm, pooled.
///
/// Made for decoders that were trained to embed (Qwen3-Embedding and its like), whose files name
/// their pooling; others give vectors, too, but such that tell texts apart less well.
pub struct DecoderEmbedder {
    model: CandleModel,
    tokenizer: Tokenizer,
    pooling: Pooling,
    /// Whether the token that ends a text is put there.
    ends: bool,
    context: usize,
}

impl DecoderEmbedder {
    /// Loads the model of a file. Without `pooling` that of the file is used, or the mean where it
    /// names none.
    ///
    /// # Errors
    /// The tokenizer's, and those of [`CandleModel::load`];
    /// [`UnsupportedFeature`](CoreError::UnsupportedFeature) for another pooling than those of
    /// [`Pooling`] in the file.
    pub fn load(gguf: &Gguf, options: &CandleOptions, pooling: Option<Pooling>) -> Result<Self> {
        let metadata = gguf.metadata();
        let tokenizer = Tokenizer::from_gguf(metadata)?;
        let pooling = match pooling {
            Some(pooling) => pooling,
            None => pooling_of(gguf)?,
        };
        let ends = metadata.find("tokenizer.ggml.add_eos_token")?;
        Ok(Self {
            model: CandleModel::load(gguf, options)?,
            tokenizer,
            pooling,
            ends: ends.unwrap_or(false),
            context: options.context,
        })
    }

    /// How the tokens' vectors become one.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    fn ids(&self, text: &str) -> Result<Vec<TokenId>> {
        let tokenizer = &self.tokenizer;
        let mut ids = Vec::new();
        ids.extend(tokenizer.bos().filter(|_| tokenizer.adds_bos()));
        ids.extend(tokenizer.encode(text, Special::Text)?);
        ids.extend(tokenizer.eos().filter(|_| self.ends));
        Ok(ids)
    }
}

/// The pooling that a file names, by the numbers of llama.cpp.
fn pooling_of(gguf: &Gguf) -> Result<Pooling> {
    let metadata = gguf.metadata();
    let key = format!(
        "{}.pooling_type",
        metadata.get::<&str>("general.architecture")?
    );
    match metadata.find::<u32>(&key)? {
        None | Some(0 | 1) => Ok(Pooling::Mean),
        Some(2) => Ok(Pooling::First),
        Some(3) => Ok(Pooling::Last),
        Some(other) => Err(CoreError::UnsupportedFeature {
            key,
            found: other.to_string(),
            supported: "1 (mean), 2 (first token), 3 (last token)",
        }),
    }
}

impl Embedder for DecoderEmbedder {
    fn dimensions(&self) -> usize {
        self.model.spec().width
    }

    fn limit(&self) -> usize {
        self.context
    }

    fn tokens(&self, text: &str) -> Result<usize> {
        Ok(self.ids(text)?.len())
    }

    fn embed(&self, texts: &[&str], cancel: &Cancel) -> Result<Vec<Vec<f32>>> {
        let texts = texts
            .iter()
            .map(|text| self.ids(text))
            .collect::<Result<Vec<_>>>()?;
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        check_lengths(&lengths, self.context)?;
        let width = self.dimensions();
        let mut decoder = self.model.decoder();
        texts
            .iter()
            .map(|ids| {
                let rows = decoder.hidden(ids, cancel)?;
                Ok(self.pooling.pool(&rows, width))
            })
            .collect()
    }
}

impl std::fmt::Debug for DecoderEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderEmbedder")
            .field("model", &self.model)
            .field("pooling", &self.pooling)
            .finish_non_exhaustive()
    }
}
