//! From GGUF metadata and tensor names to a [`DecoderSpec`], one architecture per module.

mod llama;
mod qwen2;

use converge_quant::Gguf;

use super::spec::{DecoderSpec, Layer, Projection, RopeScaling};
use crate::{CoreError, Result};

/// The architectures that there is a description for: values of `general.architecture`.
pub const SUPPORTED: &[&str] = &[llama::NAME, qwen2::NAME];

/// Reads the description of the model in `gguf`.
pub(super) fn describe(gguf: &Gguf) -> Result<DecoderSpec> {
    let found: String = gguf.metadata().get("general.architecture")?;
    match found.as_str() {
        llama::NAME => llama::describe(&Source {
            gguf,
            name: llama::NAME,
        }),
        qwen2::NAME => qwen2::describe(&Source {
            gguf,
            name: qwen2::NAME,
        }),
        _ => Err(CoreError::UnsupportedArchitecture {
            found,
            supported: SUPPORTED,
        }),
    }
}

/// A file read as an architecture of a name: checked parameters and checked tensors.
struct Source<'a> {
    gguf: &'a Gguf,
    name: &'static str,
}

/// The sizes that every tensor's shape follows from.
struct Sizes {
    width: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    head_size: usize,
    layers: usize,
    trained_context: usize,
}

impl Source<'_> {
    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    /// A size: present and not 0.
    fn size(&self, suffix: &str) -> Result<usize> {
        let key = self.key(suffix);
        match self.gguf.metadata().get::<usize>(&key)? {
            0 => Err(parameter(key, 0, "a number above 0")),
            n => Ok(n),
        }
    }

    /// An optional size.
    fn optional_size(&self, suffix: &str) -> Result<Option<usize>> {
        Ok(self.gguf.metadata().find::<usize>(&self.key(suffix))?)
    }

    /// A finite number above 0.
    fn positive(&self, suffix: &str, default: Option<f32>) -> Result<f32> {
        let key = self.key(suffix);
        let value = match (self.gguf.metadata().find::<f32>(&key)?, default) {
            (Some(value), _) | (None, Some(value)) => value,
            (None, None) => self.gguf.metadata().get::<f32>(&key)?,
        };
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(parameter(key, value, "a finite number above 0"))
        }
    }

    /// The sizes of a dense decoder with equal key and value heads.
    fn sizes(&self) -> Result<Sizes> {
        if let Some(experts) = self.optional_size("expert_count")?.filter(|&n| n > 0) {
            return Err(CoreError::UnsupportedFeature {
                key: self.key("expert_count"),
                found: experts.to_string(),
                supported: "dense models, 0 experts",
            });
        }
        let width = self.size("embedding_length")?;
        let heads = self.size("attention.head_count")?;
        let kv_heads = match self.optional_size("attention.head_count_kv")? {
            Some(_) => self.size("attention.head_count_kv")?,
            None => heads,
        };
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of the {heads} query heads");
            return Err(parameter(
                self.key("attention.head_count_kv"),
                kv_heads,
                expected,
            ));
        }
        let (head_size, from) = match self.optional_size("attention.key_length")? {
            Some(size) => (size, "attention.key_length"),
            None if width.is_multiple_of(heads) => (width / heads, "embedding_length"),
            None => {
                let expected = format!("a divisor of the width {width}");
                return Err(parameter(self.key("attention.head_count"), heads, expected));
            }
        };
        if head_size == 0 || !head_size.is_multiple_of(2) {
            return Err(parameter(
                self.key(from),
                head_size,
                "heads of an even size above 0",
            ));
        }
        // Every size below is a product with one of these: none can overflow.
        const LARGEST: usize = 1 << 24;
        for (suffix, n) in [("embedding_length", width), (from, head_size)] {
            if n > LARGEST || heads > LARGEST {
                return Err(parameter(self.key(suffix), n, format!("at most {LARGEST}")));
            }
        }
        for suffix in ["attention.value_length", "rope.dimension_count"] {
            if let Some(n) = self.optional_size(suffix)?.filter(|&n| n != head_size) {
                return Err(CoreError::UnsupportedFeature {
                    key: self.key(suffix),
                    found: format!("{n} with heads of {head_size}"),
                    supported: "the head size",
                });
            }
        }
        Ok(Sizes {
            width,
            feed_forward: self.size("feed_forward_length")?,
            heads,
            kv_heads,
            head_size,
            layers: self.size("block_count")?,
            trained_context: self.size("context_length")?,
        })
    }

    /// What the metadata and `rope_freqs.weight` say about rotary scaling.
    fn rope_scaling(&self, sizes: &Sizes) -> Result<RopeScaling> {
        const TENSOR: &str = "rope_freqs.weight";
        let key = self.key("rope.scaling.type");
        let kind = self.gguf.metadata().find::<String>(&key)?;
        match kind.as_deref() {
            None | Some("none" | "") if self.gguf.find(TENSOR).is_some() => {
                let tensor = self.vector(TENSOR, sizes.head_size / 2)?;
                Ok(RopeScaling::PerPair { tensor })
            }
            None if self.optional_factor("rope.scale_linear")? => Ok(RopeScaling::Linear {
                factor: self.positive("rope.scale_linear", None)?,
            }),
            None | Some("none" | "") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear {
                factor: self.positive("rope.scaling.factor", None)?,
            }),
            Some(other) => Err(CoreError::UnsupportedFeature {
                key,
                found: format!("`{other}`"),
                supported: "none, linear",
            }),
        }
    }

    fn optional_factor(&self, suffix: &str) -> Result<bool> {
        Ok(self
            .gguf
            .metadata()
            .find::<f32>(&self.key(suffix))?
            .is_some())
    }

    /// The name of a one-dimensional tensor of `len` elements.
    fn vector(&self, name: &str, len: usize) -> Result<String> {
        self.shaped(name, &[len])
    }

    /// A projection without a bias.
    fn matrix(&self, name: &str, outputs: usize, inputs: usize) -> Result<Projection> {
        let weight = self.shaped(name, &[outputs, inputs])?;
        Ok(Projection {
            weight,
            bias: None,
            outputs,
            inputs,
        })
    }

    /// A projection `{stem}.weight` with a bias `{stem}.bias`, if that is in the file.
    fn projection(&self, stem: &str, outputs: usize, inputs: usize) -> Result<Projection> {
        let mut projection = self.matrix(&format!("{stem}.weight"), outputs, inputs)?;
        let bias = format!("{stem}.bias");
        if self.gguf.find(&bias).is_some() {
            projection.bias = Some(self.vector(&bias, outputs)?);
        }
        Ok(projection)
    }

    /// Demands a bias that the architecture always has.
    fn require_bias(&self, projection: &Projection) -> Result<()> {
        if projection.bias.is_none() {
            self.gguf
                .tensor(&projection.weight.replace(".weight", ".bias"))?;
        }
        Ok(())
    }

    fn shaped(&self, name: &str, expected: &[usize]) -> Result<String> {
        let info = self.gguf.tensor(name)?;
        if info.shape != expected {
            return Err(CoreError::TensorShape {
                tensor: name.to_owned(),
                expected: expected.to_vec(),
                found: info.shape.clone(),
            });
        }
        Ok(name.to_owned())
    }

    /// The tensors of layer `i`, under the names that dense architectures share.
    fn layer(&self, i: usize, sizes: &Sizes) -> Result<Layer> {
        let stem = |part: &str| format!("blk.{i}.{part}");
        let queries = sizes.heads * sizes.head_size;
        let keys = sizes.kv_heads * sizes.head_size;
        let (width, inner) = (sizes.width, sizes.feed_forward);
        Ok(Layer {
            attention_norm: self.vector(&stem("attn_norm.weight"), width)?,
            query: self.projection(&stem("attn_q"), queries, width)?,
            key: self.projection(&stem("attn_k"), keys, width)?,
            value: self.projection(&stem("attn_v"), keys, width)?,
            output: self.projection(&stem("attn_output"), width, queries)?,
            feed_forward_norm: self.vector(&stem("ffn_norm.weight"), width)?,
            gate: self.projection(&stem("ffn_gate"), inner, width)?,
            up: self.projection(&stem("ffn_up"), inner, width)?,
            down: self.projection(&stem("ffn_down"), width, inner)?,
        })
    }

    /// Name and rows of the embedding: the vocabulary is as large as the table.
    fn embedding(&self, width: usize) -> Result<(String, usize)> {
        const NAME: &str = "token_embd.weight";
        let info = self.gguf.tensor(NAME)?;
        match info.shape[..] {
            // A token is a `u32`.
            [vocab, columns] if columns == width && vocab > 0 && u32::try_from(vocab).is_ok() => {
                Ok((NAME.to_owned(), vocab))
            }
            _ => Err(CoreError::TensorShape {
                tensor: NAME.to_owned(),
                expected: vec![info.rows(), width],
                found: info.shape.clone(),
            }),
        }
    }

    /// The head: `output.weight`, or the embedding where that is not in the file.
    fn head(&self, embedding: &str, vocab: usize, width: usize) -> Result<(Projection, bool)> {
        const NAME: &str = "output.weight";
        let tied = self.gguf.find(NAME).is_none();
        let name = if tied { embedding } else { NAME };
        Ok((self.matrix(name, vocab, width)?, tied))
    }
}

fn parameter(key: String, found: impl ToString, expected: impl Into<String>) -> CoreError {
    CoreError::ModelParameter {
        key,
        found: found.to_string(),
        expected: expected.into(),
    }
}

#[cfg(feature = "candle")]
#[cfg(test)]
mod tests;
