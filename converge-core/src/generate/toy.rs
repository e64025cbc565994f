//! Decoders without a model, for the session's tests.

use std::sync::{Arc, Mutex};

use converge_quant::{
    Metadata,
    gguf::{Array, Value},
    kernels::{Heads, KvPage, PAGE},
};
use half::f16;

use super::{Cancel, Session};
use crate::{
    CoreError, Result, TokenId,
    cache::{Arena, KvCache},
    chat::ChatTemplate,
    model::{Decoder, Logits, Part, Rows},
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

/// Logits after some tokens.
pub(super) fn hashed(tokens: impl IntoIterator<Item = TokenId>, vocab: usize) -> Vec<f32> {
    let chain = |state, token| noise::bits(state, 1, token);
    let state = tokens.into_iter().fold(17, chain);
    (0..vocab as u32)
        .map(|t| (noise::bits(state, 2, t) >> 40) as f32 / (1u32 << 22) as f32)
        .collect()
}

impl Toy {
    fn row(&self, len: usize) -> Vec<f32> {
        let mut row = hashed(self.tokens[..len].iter().copied(), self.vocab);
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
        self.tokens.extend_from_slice(tokens);
        let wanted = self.tokens.len() - rows.of(tokens.len())..self.tokens.len();
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

/// A decoder whose logits are a hash of what its pages hold, so they show where pages are mixed up.
pub(super) struct Paged {
    cache: KvCache,
    context: usize,
    vocab: usize,
}

impl Paged {
    /// The arena of such decoders, of so many pages for each of two layers.
    pub(super) fn arena(pages: usize) -> Arc<Arena> {
        let heads = Heads::new(1, 1, 1).unwrap();
        Arc::new(Arena::new(
            [3; 32],
            heads,
            vec![None; 2],
            2 * pages * heads.page_bytes(),
        ))
    }

    pub(super) fn new(arena: &Arc<Arena>, context: usize, vocab: usize) -> Self {
        Self {
            cache: KvCache::new(arena),
            context,
            vocab,
        }
    }
}

/// The token that a layer of a cache holds at a position.
fn held(cache: &KvCache, layer: usize, position: usize) -> TokenId {
    let page: &KvPage = cache.layer(layer).0[position / PAGE].as_ref();
    let (halves, _) = page.as_bytes().as_chunks::<2>();
    f16::from_ne_bytes(halves[position % PAGE]).to_f32() as TokenId
}

impl Decoder for Paged {
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits> {
        let empty = KvCache::new(self.cache.arena());
        let mut cache = std::mem::replace(&mut self.cache, empty);
        let part = Part {
            cache: &mut cache,
            tokens,
            rows,
        };
        let logits = self.forward_parts(&mut [part], cancel);
        self.cache = cache;
        Ok(logits?.remove(0))
    }

    fn forward_parts(&mut self, parts: &mut [Part<'_>], cancel: &Cancel) -> Result<Vec<Logits>> {
        if cancel.is_cancelled() {
            return Err(CoreError::Cancelled);
        }
        for part in parts.iter_mut() {
            assert!(part.cache.len() + part.tokens.len() <= self.context);
            part.cache.reserve(part.tokens.len())?;
        }
        let mut all = Vec::new();
        for part in parts {
            for (i, &token) in part.tokens.iter().enumerate() {
                part.cache.write(0, i, &[token as f32], &[0.0])?;
                part.cache.write(1, i, &[token as f32 + 1.0], &[0.0])?;
            }
            part.cache.grow(part.tokens.len());
            let len = part.cache.len();
            let mut data = Vec::new();
            for end in len - part.rows.of(part.tokens.len())..len {
                let tokens = (0..=end).map(|position| {
                    let token = held(part.cache, 0, position);
                    assert_eq!(held(part.cache, 1, position), token + 1);
                    token
                });
                data.extend(hashed(tokens, self.vocab));
            }
            all.push(Logits {
                data,
                vocab: self.vocab,
            });
        }
        Ok(all)
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.cache.truncate(len);
        Ok(())
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

    fn cache(&self) -> Option<&KvCache> {
        Some(&self.cache)
    }

    fn cache_mut(&mut self) -> Option<&mut KvCache> {
        Some(&mut self.cache)
    }

    fn another(&self) -> Option<Box<dyn Decoder>> {
        let arena = self.cache.arena();
        Some(Box::new(Self::new(arena, self.context, self.vocab)))
    }
}
