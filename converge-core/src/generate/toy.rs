//! Decoders without a model, for the session's tests.

use std::sync::{Arc, Mutex};

use converge_quant::{
    Metadata,
    gguf::{Array, Value},
};

use super::{Cancel, Session};
use crate::{
    CoreError, Result, TokenId,
    chat::ChatTemplate,
    model::{Decoder, Logits, Rows},
    sample::noise,
    tokenizer::{Special, Tokenizer},
};

/// Bytes, a few words, an end token, and a control token.
pub(crate) fn tokenizer() -> Tokenizer {
    let mut next = 256u32;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|b| {
            let plain = matches!(b, 33..=126 | 161..=172 | 174..=255);
            let c = if plain { u32::from(b) } else { next };
            next += u32::from(!plain);
            char::from_u32(c).unwrap().to_string()
        })
        .collect();
    let mut merges = Vec::new();
    let mut types = vec![1i32; 256];
    for merge in ["a b", "ab c", "{ \"", "\" :", "n a", "m e", "na me", "Ġ x"] {
        merges.push(merge.to_owned());
        tokens.push(merge.replace(' ', ""));
        types.push(1);
    }
    for control in ["<|im_end|>", "<|im_start|>"] {
        tokens.push(control.to_owned());
        types.push(3);
    }
    let end = tokens.len() as u32 - 2;
    let strings = |list: Vec<String>| Value::Array(Array::String(list.iter().collect()));
    let metadata = Metadata::from_entries([
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("gpt-2".into())),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.merges", strings(merges)),
        ("tokenizer.ggml.eos_token_id", Value::U32(end)),
    ]);
    Tokenizer::from_gguf(&metadata.unwrap()).unwrap()
}

/// What a toy decoder does, and what it was asked to do.
#[derive(Default)]
pub(super) struct Log {
    /// Tokens of each pass, and the rows asked for.
    pub(super) passes: Vec<(usize, Rows)>,
    /// Lengths of each truncation.
    pub(super) truncations: Vec<usize>,
    /// The pass of this number sets the flag and fails as cancelled.
    pub(super) cancel_at: Option<(usize, Cancel)>,
    /// The pass of this number fails.
    pub(super) fail_at: Option<usize>,
    /// The pass of this number returns a logit that is not a number.
    pub(super) broken_at: Option<usize>,
}

/// A decoder whose logits are a hash of every token before: they show at once where a cache holds
/// something else than it should.
pub(super) struct Toy {
    vocab: usize,
    context: usize,
    tokens: Vec<TokenId>,
    /// Position and token: this token is by far the likeliest after that many tokens.
    script: Vec<TokenId>,
    script_at: usize,
    truncates: bool,
    log: Arc<Mutex<Log>>,
}

impl Toy {
    fn row(&self, len: usize) -> Vec<f32> {
        let mut state = 17u64;
        for &t in &self.tokens[..len] {
            state = noise::bits(state, 1, t);
        }
        let mut row: Vec<f32> = (0..self.vocab as u32)
            .map(|t| (noise::bits(state, 2, t) >> 40) as f32 / (1u32 << 22) as f32)
            .collect();
        if let Some(&t) = len
            .checked_sub(self.script_at)
            .and_then(|i| self.script.get(i))
        {
            row[t as usize] += 100.0;
        }
        row
    }
}

impl Decoder for Toy {
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits> {
        let mut log = self.log.lock().unwrap();
        let pass = log.passes.len();
        log.passes.push((tokens.len(), rows));
        if let Some((at, flag)) = &log.cancel_at
            && *at == pass
        {
            flag.cancel();
        }
        if cancel.is_cancelled() {
            return Err(CoreError::Cancelled);
        }
        if log.fail_at == Some(pass) {
            return Err(CoreError::TokenOutOfRange { id: 0, vocab: 0 });
        }
        let broken = log.broken_at == Some(pass);
        drop(log);
        if self.tokens.len() + tokens.len() > self.context {
            return Err(CoreError::ContextOverflow {
                prompt: self.tokens.len(),
                reserve: tokens.len(),
                context: self.context,
            });
        }
        let before = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        let wanted = match rows {
            Rows::None => self.tokens.len()..self.tokens.len(),
            Rows::Last => self.tokens.len() - 1..self.tokens.len(),
            Rows::All => before..self.tokens.len(),
        };
        let mut data: Vec<f32> = wanted.flat_map(|i| self.row(i + 1)).collect();
        if broken {
            data[3] = f32::NAN;
        }
        Ok(Logits {
            data,
            vocab: self.vocab,
        })
    }

    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        assert!(self.truncates || len == 0, "cut back to {len}");
        self.log.lock().unwrap().truncations.push(len);
        self.tokens.truncate(len);
        Ok(())
    }

    fn truncates(&self) -> bool {
        self.truncates
    }

    fn context(&self) -> usize {
        self.context
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn exact(&self) -> bool {
        true
    }
}

/// A session over a toy of this context.
pub(super) fn session(context: usize) -> (Session, Arc<Mutex<Log>>) {
    scripted(context, 0, &[])
}

/// A session over a toy that forgets everything or nothing.
pub(super) fn forgetful(context: usize) -> (Session, Arc<Mutex<Log>>) {
    toy(context, 0, &[], false)
}

/// A toy that, once `at` tokens are there, says `script`.
pub(super) fn scripted(
    context: usize,
    at: usize,
    script: &[TokenId],
) -> (Session, Arc<Mutex<Log>>) {
    toy(context, at, script, true)
}

fn toy(
    context: usize,
    at: usize,
    script: &[TokenId],
    truncates: bool,
) -> (Session, Arc<Mutex<Log>>) {
    let log = Arc::new(Mutex::new(Log::default()));
    let tokenizer = tokenizer();
    let toy = Toy {
        // Heads are often padded beyond the vocabulary.
        vocab: tokenizer.vocab() + 6,
        context,
        tokens: Vec::new(),
        script: script.to_vec(),
        script_at: at,
        truncates,
        log: log.clone(),
    };
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let chat = ChatTemplate::from_source(template, "", "").unwrap();
    (
        Session::new(Box::new(toy), Arc::new(tokenizer), Arc::new(chat)),
        log,
    )
}

/// Tokens of a text without control tokens.
pub(super) fn encode(text: &str) -> Vec<TokenId> {
    tokenizer().encode(text, Special::Text).unwrap()
}

/// The token that ends a text.
pub(super) fn end() -> TokenId {
    tokenizer().eos().unwrap()
}
