//! Real models to measure: which, what a pass over one demands of the machine, and how it is run.

use std::path::PathBuf;

use converge_core::{
    CoreError, TokenId,
    generate::{Cancel, Session},
    hub,
    model::{Decoder, DecoderSpec, Rows},
};
use converge_quant::{GgmlType, Gguf, Level, Packed, Pool, QuantError};

use crate::probe;

/// The environment variable that names the models to measure, with commas between.
pub const VARIABLE: &str = "CONVERGE_BENCH_MODELS";

/// Tokens of the probe of a kernel's rate: as many as its registers take at a time.
const PANEL: usize = 8;

/// The models to measure, by name: those that [`VARIABLE`] names, else every language model of the
/// catalogue.
#[must_use]
pub fn chosen() -> Vec<String> {
    match std::env::var(VARIABLE) {
        Ok(names) if !names.trim().is_empty() => names
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect(),
        _ => hub::catalogue()
            .iter()
            .filter(|entry| entry.path.ends_with(".gguf"))
            .map(|entry| entry.name.to_owned())
            .collect(),
    }
}

/// Where a model lies: a name of the catalogue or a path.
///
/// # Errors
/// What to do about one that is not there.
pub fn find(name: &str) -> Result<PathBuf, hub::HubError> {
    hub::resolve(name).map(|resolved| resolved.path)
}

/// Token ids spread over the vocabulary, the same in every run: what a pass costs does not depend
/// on them.
#[must_use]
pub fn sequence(len: usize, vocab: usize) -> Vec<TokenId> {
    let bytes = crate::noise(8 * len);
    let vocab = vocab.max(1) as u64;
    let word = |word: &[u8; 8]| (u64::from_le_bytes(*word) % vocab) as TokenId;
    bytes.as_chunks::<8>().0.iter().map(word).collect()
}

/// Reads tokens as a session does: in chunks, with logits for the very last.
///
/// # Errors
/// The decoder's.
pub fn prefill(decoder: &mut dyn Decoder, tokens: &[TokenId]) -> Result<(), CoreError> {
    let mut chunks = tokens.chunks(Session::PREFILL_CHUNK).peekable();
    while let Some(chunk) = chunks.next() {
        let rows = match chunks.peek() {
            Some(_) => Rows::None,
            None => Rows::Last,
        };
        decoder.forward(chunk, rows, &Cancel::new())?;
    }
    Ok(())
}

/// Takes tokens one after the other, each with its logits.
///
/// # Errors
/// The decoder's.
pub fn decode(decoder: &mut dyn Decoder, tokens: &[TokenId]) -> Result<(), CoreError> {
    for token in tokens.chunks(1) {
        let logits = decoder.forward(token, Rows::Last, &Cancel::new())?;
        decoder.reuse(logits);
    }
    Ok(())
}

/// What a pass over a model demands: the weights of each type.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    parts: Vec<Part>,
}

/// The weights of one type, of the layers or of the head.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    ty: GgmlType,
    head: bool,
    /// As they are packed.
    bytes: f64,
    weights: f64,
}

/// What the machine can do for one model, probed.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Bytes per second from memory.
    pub bandwidth: f64,
    /// Raw 8-bit multiply-adds per second.
    pub raw: f64,
    /// Multiply-adds per second of the kernels of each type that the model has.
    pub mix: Vec<(GgmlType, f64)>,
}

impl Work {
    /// What a pass over this file's model demands. Of a model of experts all of them count.
    ///
    /// # Errors
    /// Those of [`DecoderSpec::from_gguf`], and [`QuantError::NoKernel`] for weights of a type
    /// without kernels.
    pub fn of(gguf: &Gguf) -> Result<Self, CoreError> {
        let spec = DecoderSpec::from_gguf(gguf)?;
        let mut parts: Vec<Part> = Vec::new();
        for info in gguf.tensors() {
            let head = info.name == spec.head.weight;
            // Of embeddings only the tokens' rows are read.
            let looked_up = info.name == spec.embedding && !head;
            if info.shape.len() < 2 || looked_up {
                continue;
            }
            let ty = info.ggml_type;
            let cols = info.cols();
            let rows = info.elements() / cols.max(1);
            let bytes = rows as f64 * row_bytes(ty, cols)?;
            let weights = info.elements() as f64;
            match parts
                .iter_mut()
                .find(|part| (part.ty, part.head) == (ty, head))
            {
                Some(part) => {
                    part.bytes += bytes;
                    part.weights += weights;
                }
                None => parts.push(Part {
                    ty,
                    head,
                    bytes,
                    weights,
                }),
            }
        }
        Ok(Self { parts })
    }

    /// Bytes of weights that a pass streams.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Multiply-adds of a token that has its logits computed.
    #[must_use]
    pub fn multiply_adds(&self) -> f64 {
        self.parts.iter().map(|part| part.weights).sum()
    }

    /// Probes the machine for what this work needs.
    ///
    /// # Errors
    /// The kernels', and the system's where it lacks the memory to stream from.
    pub fn probe(&self, pool: &Pool, stream: &probe::Stream) -> Result<Rates, QuantError> {
        let level = Level::detect()?;
        let mut mix: Vec<(GgmlType, f64)> = Vec::new();
        for part in &self.parts {
            if mix.iter().all(|(ty, _)| *ty != part.ty) {
                let rate = probe::mix(pool, level, part.ty, PANEL)?;
                mix.push((part.ty, rate));
            }
        }
        Ok(Rates {
            bandwidth: stream.bandwidth(pool),
            raw: probe::raw(pool),
            mix,
        })
    }

    /// Seconds that reading all weights from memory takes at least.
    #[must_use]
    pub fn memory(&self, rates: &Rates) -> f64 {
        self.bytes() / rates.bandwidth
    }

    /// Seconds that the products take at least: of `tokens` tokens, of which `rows` get logits.
    #[must_use]
    pub fn arithmetic(&self, rates: &Rates, tokens: usize, rows: usize) -> f64 {
        let seconds = |part: &Part| {
            let times = if part.head { rows } else { tokens };
            let known = rates.mix.iter().find(|(ty, _)| *ty == part.ty);
            times as f64 * part.weights / known.map_or(rates.raw, |&(_, rate)| rate)
        };
        self.parts.iter().map(seconds).sum()
    }

    /// Seconds that a pass over `tokens` tokens takes at least, `rows` of them with logits.
    #[must_use]
    pub fn limit(&self, rates: &Rates, tokens: usize, rows: usize) -> f64 {
        self.memory(rates).max(self.arithmetic(rates, tokens, rows))
    }

    /// What a pass over `m` tokens, each with its logits, should cost of a pass over one:
    /// `max(1, m · t_arithmetic / t_memory)`.
    #[must_use]
    pub fn cost(&self, rates: &Rates, m: usize) -> f64 {
        (self.arithmetic(rates, m, m) / self.memory(rates)).max(1.0)
    }
}

/// Bytes that a packed row takes.
fn row_bytes(ty: GgmlType, cols: usize) -> Result<f64, QuantError> {
    let bytes = ty
        .bytes_of(cols)
        .ok_or(QuantError::NoKernel { ggml_type: ty })?;
    let tile = Packed::from_bytes(ty, 16, cols, &vec![0; 16 * bytes])?;
    Ok(tile.bytes() as f64 / 16.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_from_rates() {
        let part = |head, bytes, weights| Part {
            ty: GgmlType::Q8_0,
            head,
            bytes,
            weights,
        };
        let work = Work {
            parts: vec![part(false, 300.0, 1000.0), part(true, 100.0, 500.0)],
        };
        let rates = Rates {
            bandwidth: 100.0,
            raw: 1.0,
            mix: vec![(GgmlType::Q8_0, 1500.0)],
        };
        assert_eq!(work.bytes(), 400.0);
        assert_eq!(work.memory(&rates), 4.0);
        assert_eq!(work.arithmetic(&rates, 3, 0), 2.0);
        assert_eq!(work.limit(&rates, 1, 1), 4.0);
        assert_eq!(work.limit(&rates, 8, 8), 8.0);
        assert_eq!((work.cost(&rates, 2), work.cost(&rates, 8)), (1.0, 2.0));
    }

    #[test]
    fn sequences_stay_inside_the_vocabulary() {
        let tokens = sequence(1000, 49152);
        assert_eq!(tokens.len(), 1000);
        assert!(tokens.iter().all(|&token| token < 49152));
        assert_eq!(tokens, sequence(1000, 49152));
    }
}
