//! A file read as an architecture of a name: parameters with their values checked.

use converge_quant::{Gguf, gguf::Value};

use super::super::spec::{Activation, DecoderSpec, Layer};
use crate::{CoreError, Result};

pub(super) struct Source<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) name: &'static str,
}

/// The sizes that the shapes of attention's tensors follow from.
pub(super) struct Sizes {
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_size: usize,
    pub(super) layers: usize,
    pub(super) trained_context: usize,
}

impl Source<'_> {
    pub(super) fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    /// A size: present and not 0.
    pub(super) fn size(&self, suffix: &str) -> Result<usize> {
        let key = self.key(suffix);
        above_0(self.gguf.metadata().get(&key)?, key)
    }

    /// A size that may be missing, but not 0.
    pub(super) fn size_or(&self, suffix: &str, default: usize) -> Result<usize> {
        match self.optional_size(suffix)? {
            Some(n) => above_0(n, self.key(suffix)),
            None => Ok(default),
        }
    }

    /// A size that may be missing or 0.
    pub(super) fn optional_size(&self, suffix: &str) -> Result<Option<usize>> {
        Ok(self.gguf.metadata().find(&self.key(suffix))?)
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, suffix: &str) -> Result<f32> {
        let key = self.key(suffix);
        finite_above_0(self.gguf.metadata().get(&key)?, key)
    }

    /// A finite number above 0 that may be missing.
    pub(super) fn positive_or(&self, suffix: &str, default: f32) -> Result<f32> {
        Ok(self.optional_positive(suffix)?.unwrap_or(default))
    }

    /// A finite number above 0 that may be missing.
    pub(super) fn optional_positive(&self, suffix: &str) -> Result<Option<f32>> {
        let key = self.key(suffix);
        match self.gguf.metadata().find(&key)? {
            Some(value) => finite_above_0(value, key).map(Some),
            None => Ok(None),
        }
    }

    /// A scale whose absence some converters write as 0.
    pub(super) fn scale(&self, suffix: &str) -> Result<Option<f32>> {
        match self.gguf.metadata().find(&self.key(suffix))? {
            Some(0.0f32) => Ok(None),
            _ => self.optional_positive(suffix),
        }
    }

    /// The sizes of a decoder with equal heads of keys and values in all layers.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let width = self.size("embedding_length")?;
        let heads = self.size("attention.head_count")?;
        let kv_heads = self.size_or("attention.head_count_kv", heads)?;
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
        const VALUE: &str = "attention.value_length";
        if let Some(n) = self.optional_size(VALUE)?.filter(|&n| n != head_size) {
            return Err(CoreError::UnsupportedFeature {
                key: self.key(VALUE),
                found: format!("{n} with heads of {head_size}"),
                supported: "the head size",
            });
        }
        Ok(Sizes {
            width,
            heads,
            kv_heads,
            head_size,
            layers: self.size("block_count")?,
            trained_context: self.size("context_length")?,
        })
    }

    /// A description with `layer` for each layer and what most architectures have around them:
    /// no scales but attention's own, no soft caps, SiLU.
    pub(super) fn decoder(
        &self,
        sizes: &Sizes,
        layer: impl FnMut(usize) -> Result<Layer>,
    ) -> Result<DecoderSpec> {
        let (embedding, vocab) = self.embedding(sizes.width)?;
        let (head, tied_head) = self.head(&embedding, vocab, sizes.width)?;
        Ok(DecoderSpec {
            architecture: self.name,
            width: sizes.width,
            vocab,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            head_size: sizes.head_size,
            trained_context: sizes.trained_context,
            norm_eps: self.positive("attention.layer_norm_rms_epsilon")?,
            activation: Activation::Silu,
            embedding_scale: 1.0,
            attention_scale: inverse_root(sizes.head_size),
            attention_softcap: None,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            layers: (0..sizes.layers).map(layer).collect::<Result<_>>()?,
            output_norm: self.vector("output_norm.weight", sizes.width)?,
            embedding,
            head,
            tied_head,
        })
    }

    /// Attention's window, where the file has one; 0 is none at all.
    pub(super) fn window(&self) -> Result<Option<usize>> {
        Ok(self
            .optional_size("attention.sliding_window")?
            .filter(|&n| n > 0))
    }

    /// Which layers have a window: as the file says, else all but every `period`-th.
    pub(super) fn windowed(&self, period: usize, layers: usize) -> Result<Vec<bool>> {
        const SUFFIX: &str = "attention.sliding_window_pattern";
        let key = self.key(SUFFIX);
        if let Some(Value::Array(_)) = self.gguf.metadata().value(&key) {
            let windowed: Vec<bool> = self.gguf.metadata().get(&key)?;
            if windowed.len() != layers {
                let expected = format!("one for each of the {layers} layers");
                return Err(parameter(
                    key,
                    format!("{} values", windowed.len()),
                    expected,
                ));
            }
            return Ok(windowed);
        }
        let period = self.size_or(SUFFIX, period)?;
        // The first that is missing ends the layers: there is no need to list them all.
        let listed = layers.min(self.gguf.tensors().len());
        Ok((1..=listed).map(|i| i % period != 0).collect())
    }
}

/// `1 / √n`.
pub(super) fn inverse_root(n: usize) -> f32 {
    (1.0 / (n as f64).sqrt()) as f32
}

fn above_0(n: usize, key: String) -> Result<usize> {
    match n {
        0 => Err(parameter(key, 0, "a number above 0")),
        n => Ok(n),
    }
}

fn finite_above_0(value: f32, key: String) -> Result<f32> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(parameter(key, value, "a finite number above 0"))
    }
}

pub(super) fn parameter(
    key: String,
    found: impl ToString,
    expected: impl Into<String>,
) -> CoreError {
    CoreError::ModelParameter {
        key,
        found: found.to_string(),
        expected: expected.into(),
    }
}
