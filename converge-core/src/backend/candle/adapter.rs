//! Models of candle-transformers for architectures that have no description here.
//!
//! They run, and that is all: the cache cannot be cut back, so every prompt that does not go on
//! from the last one is computed anew, and nothing can be forked from it.

use std::{fs::File, io::BufReader};

use candle_core::{
    DType, Device, Tensor,
    quantized::gguf_file::{Content, Value},
};
use candle_transformers::models::quantized_glm4::ModelWeights;
use converge_quant::{Gguf, QuantError};

use super::{CandleOptions, WeightMode};
use crate::{
    CoreError, Result, TokenId,
    generate::Cancel,
    model::{Decoder, Logits, Rows},
};

/// Values of `general.architecture` that run through candle-transformers.
pub const ADAPTED: &[&str] = &["glm4"];

/// A decoder of candle-transformers, its weights as in the file. See [`ADAPTED`].
pub struct AdaptedDecoder {
    /// With an empty cache. Clones share weights; their caches go apart.
    fresh: ModelWeights,
    model: ModelWeights,
    device: Device,
    len: usize,
    context: usize,
    vocab: usize,
}

impl AdaptedDecoder {
    /// The context that the file's model was trained for, where it is one that runs through
    /// candle-transformers.
    ///
    /// # Errors
    /// The reader's, for keys that are missing or of another type.
    pub fn trained_context(gguf: &Gguf) -> Result<Option<usize>> {
        let name: &str = gguf.metadata().get("general.architecture")?;
        match ADAPTED.contains(&name) {
            true => Ok(Some(
                gguf.metadata().get(&format!("{name}.context_length"))?,
            )),
            false => Ok(None),
        }
    }

    /// Loads the model of a file.
    ///
    /// # Errors
    /// [`UnsupportedArchitecture`](CoreError::UnsupportedArchitecture) for what is not in
    /// [`ADAPTED`], [`UnsupportedFeature`](CoreError::UnsupportedFeature) for split files and
    /// [`WeightMode::F32`], [`ModelParameter`](CoreError::ModelParameter) for numbers that no model
    /// has, and the reader's and candle's errors.
    pub fn load(gguf: &Gguf, options: &CandleOptions) -> Result<Self> {
        let name: &str = gguf.metadata().get("general.architecture")?;
        let Some(trained) = Self::trained_context(gguf)? else {
            return Err(CoreError::UnsupportedArchitecture {
                found: name.to_owned(),
                supported: ADAPTED,
            });
        };
        let unsupported = |key: &str, found: String, supported| CoreError::UnsupportedFeature {
            key: key.to_owned(),
            found,
            supported,
        };
        if options.mode == WeightMode::F32 {
            let found = format!("{name} with dequantized weights");
            let supported = "quantized weights";
            return Err(unsupported("general.architecture", found, supported));
        }
        if let Some(parts) = gguf.metadata().find::<u32>("split.count")?
            && parts > 1
        {
            let supported = "1 for this architecture";
            return Err(unsupported("split.count", parts.to_string(), supported));
        }
        let context = options.context;
        check(
            "context",
            context,
            (1..=trained).contains(&context),
            "1 to the trained context",
        )?;
        check_sizes(gguf, name)?;
        let head = gguf.find("output.weight");
        let vocab = match head {
            Some(head) => head.rows(),
            None => gguf.tensor("token_embd.weight")?.rows(),
        };

        let read = |source| QuantError::Io {
            path: gguf.path().to_owned(),
            source,
        };
        let mut file = BufReader::new(File::open(gguf.path()).map_err(read)?);
        let mut content = Content::read(&mut file)?;
        // As many positions as can be used: the tables are made for all of them.
        let positions = Value::U32(u32::try_from(context).unwrap_or(u32::MAX));
        let key = format!("{name}.context_length");
        content.metadata.insert(key, positions);
        let device = &options.device;
        let fresh = ModelWeights::from_gguf(content, &mut file, device, DType::F32)?;
        Ok(Self {
            model: fresh.clone(),
            fresh,
            device: device.clone(),
            len: 0,
            context,
            vocab,
        })
    }

    /// One call of the model: the last row's logits.
    fn step(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>> {
        let ids = Tensor::new(tokens, &self.device)?.unsqueeze(0)?;
        let logits = self.model.forward(&ids, self.len)?;
        self.len += tokens.len();
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    fn run(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Vec<f32>> {
        // The model gives the last row only: from the first one wanted on, each is a pass.
        let wanted = rows.of(tokens.len());
        let (first, rest) = tokens.split_at((tokens.len() + 1 - wanted.max(1)).min(tokens.len()));
        let mut data = Vec::new();
        for tokens in std::iter::once(first).chain(rest.chunks(1)) {
            if cancel.is_cancelled() {
                return Err(CoreError::Cancelled);
            }
            let row = self.step(tokens)?;
            if wanted > 0 {
                data.extend(row);
            }
        }
        Ok(data)
    }
}

impl Decoder for AdaptedDecoder {
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits> {
        if tokens.len() > self.context - self.len {
            return Err(CoreError::ContextOverflow {
                prompt: self.len.saturating_add(tokens.len()),
                reserve: 0,
                context: self.context,
            });
        }
        let vocab = self.vocab;
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(CoreError::TokenOutOfRange { id, vocab });
        }
        let before = (self.model.clone(), self.len);
        match self.run(tokens, rows, cancel) {
            Ok(data) => Ok(Logits { data, vocab }),
            Err(error) => {
                (self.model, self.len) = before;
                Err(error)
            }
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        if len >= self.len {
            return Ok(());
        }
        if len > 0 {
            let held = self.len;
            return Err(CoreError::CannotTruncate { held, len });
        }
        self.model = self.fresh.clone();
        self.len = 0;
        Ok(())
    }

    fn truncates(&self) -> bool {
        false
    }

    fn context(&self) -> usize {
        self.context
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn exact(&self) -> bool {
        false
    }
}

/// Refuses numbers that candle's model would divide by or reserve memory for.
fn check_sizes(gguf: &Gguf, name: &str) -> Result<()> {
    let get = |suffix: &str| -> Result<(String, usize)> {
        let key = format!("{name}.{suffix}");
        let found = gguf.metadata().get(&key)?;
        Ok((key, found))
    };
    let (key, layers) = get("block_count")?;
    let most = gguf.tensors().len();
    check(
        &key,
        layers,
        (1..=most).contains(&layers),
        "1 to the number of tensors",
    )?;
    let (key, heads) = get("attention.head_count")?;
    check(&key, heads, heads > 0, "more than 0")?;
    let (key, kv_heads) = get("attention.head_count_kv")?;
    let divides = kv_heads > 0 && heads % kv_heads == 0;
    check(&key, kv_heads, divides, "a divisor of the heads")?;
    let (key, size) = get("attention.key_length")?;
    let queries = gguf.tensor("blk.0.attn_q.weight")?.rows();
    let fits = size > 0 && size % 4 == 0 && heads.checked_mul(size) == Some(queries);
    check(
        &key,
        size,
        fits,
        "a multiple of 4, the queries' rows per head",
    )
}

fn check(key: &str, found: usize, fits: bool, expected: &str) -> Result<()> {
    match fits {
        true => Ok(()),
        false => Err(CoreError::ModelParameter {
            key: key.to_owned(),
            found: found.to_string(),
            expected: expected.to_owned(),
        }),
    }
}

impl std::fmt::Debug for AdaptedDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdaptedDecoder")
            .field("len", &self.len)
            .field("context", &self.context)
            .field("vocab", &self.vocab)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
