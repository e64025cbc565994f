//! A decoder without a model, which says eight tokens.

use std::sync::Arc;

use converge_core::{
    CoreError, Result, TokenId,
    chat::ChatTemplate,
    generate::{Cancel, Session},
    model::{Decoder, Logits, Rows},
    sample::noise,
    tokenizer::Tokenizer,
};
use converge_quant::{
    Metadata,
    gguf::{Array, Value},
};

/// What ends a text.
pub(crate) const END: TokenId = 7;

/// Seven characters and an end token: enough to write `[1,11]`, and text.
pub(crate) fn tokenizer() -> Tokenizer {
    tokenizer_of(&["a", "b", "[", "]", ",", "1", "2", "<|end|>"])
}

/// A vocabulary of these tokens, the one at [`END`] the end token, and of all bytes that are not
/// among them, which the model never says.
pub(crate) fn tokenizer_of(tokens: &[&str]) -> Tokenizer {
    let mut next = 256u32;
    let bytes = (0..=255u8).filter_map(|byte| {
        let plain = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let c = if plain { u32::from(byte) } else { next };
        next += u32::from(!plain);
        char::from_u32(c).map(String::from)
    });
    let rest: Vec<String> = bytes.filter(|b| !tokens.contains(&b.as_str())).collect();
    let tokens: Vec<&str> = tokens
        .iter()
        .copied()
        .chain(rest.iter().map(String::as_str))
        .collect();
    let kind = |i| if i == END as usize { 3 } else { 1 };
    let types = (0..tokens.len()).map(kind).collect();
    let strings = |list: &[&str]| Value::Array(Array::String(list.iter().collect()));
    let metadata = Metadata::from_entries([
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("gpt-2".into())),
        ("tokenizer.ggml.tokens", strings(&tokens)),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.merges", strings(&[])),
        ("tokenizer.ggml.eos_token_id", Value::U32(END)),
    ]);
    Tokenizer::from_gguf(&metadata.unwrap()).unwrap()
}

/// Logits are a hash of the last tokens: texts repeat themselves, and two of them with different
/// seeds agree now and then.
pub(crate) struct Toy {
    tokens: Vec<TokenId>,
    context: usize,
    /// Adds to the logits what only this one thinks.
    own: Option<u64>,
    ends: bool,
}

impl Toy {
    pub(crate) fn new(context: usize, own: Option<u64>, ends: bool) -> Self {
        Self {
            tokens: Vec::new(),
            context,
            own,
            ends,
        }
    }

    fn row(&self, len: usize) -> Vec<f32> {
        let draw = |state: u64, t: u32| (noise::bits(state, 2, t) >> 40) as f32 / (1 << 22) as f32;
        let recent = &self.tokens[len.saturating_sub(3)..len];
        let fold = |seed| {
            recent
                .iter()
                .fold(seed, |state, &t| noise::bits(state, 1, t))
        };
        (0..8)
            .map(|t| match t {
                END if !self.ends => -9.0,
                _ => {
                    let own = self.own.map_or(0.0, |own| 0.3 * draw(fold(own), t));
                    draw(fold(17), t) + own
                }
            })
            .collect()
    }
}

impl Decoder for Toy {
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits> {
        if cancel.is_cancelled() {
            return Err(CoreError::Cancelled);
        }
        if self.tokens.len() + tokens.len() > self.context {
            return Err(CoreError::ContextOverflow {
                prompt: self.tokens.len(),
                reserve: tokens.len(),
                context: self.context,
            });
        }
        self.tokens.extend_from_slice(tokens);
        let wanted = self.tokens.len() - rows.of(tokens.len())..self.tokens.len();
        Ok(Logits {
            data: wanted.flat_map(|i| self.row(i + 1)).collect(),
            vocab: 8,
        })
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.tokens.truncate(len);
        Ok(())
    }

    fn context(&self) -> usize {
        self.context
    }

    fn vocab(&self) -> usize {
        8
    }

    fn exact(&self) -> bool {
        true
    }
}

pub(crate) fn session(context: usize, ends: bool) -> Session {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let chat = ChatTemplate::from_source(template, "", "").unwrap();
    let toy = Toy::new(context, None, ends);
    Session::new(Box::new(toy), Arc::new(tokenizer()), Arc::new(chat))
}
