use std::sync::{Arc, OnceLock};

use super::{
    Cancel, Event, Generate, Generation, Request, log_prob,
    prefix::{self, PrefixIndex},
    run::Run,
};
use crate::{
    CoreError, Result, TokenId,
    chat::ChatTemplate,
    constrain::TokenEnv,
    model::{Decoder, Logits, Rows},
    tokenizer::Tokenizer,
};

/// Rows of logits that one pass of [`Session::score`] asks for: bounds the memory they take.
const SCORE_CHUNK: usize = 32;

/// A decoder with its tokenizer and chat template: one context that grows and is cut back.
///
/// The session knows which tokens its KV cache holds. A request brings its whole context; the
/// longest common beginning is kept, what differs is forgotten, and only the rest is computed.
/// After an error, a cancelled request included, the session goes on with what its cache holds.
pub struct Session {
    decoder: Box<dyn Decoder>,
    tokenizer: Arc<Tokenizer>,
    chat: Arc<ChatTemplate>,
    /// What the cache holds.
    tokens: Vec<TokenId>,
    env: OnceLock<TokenEnv>,
    prefill_chunk: usize,
    /// What was held before and is not any more.
    before: PrefixIndex,
}

impl Session {
    /// Tokens of a prompt that go through the model at once, unless told otherwise.
    pub const PREFILL_CHUNK: usize = 128;

    /// Bytes of keys and values that are kept of requests before the last one, unless told
    /// otherwise.
    pub const PREFIX_BYTES: usize = 512 << 20;

    /// A session over a decoder whose cache is empty.
    pub fn new(
        decoder: Box<dyn Decoder>,
        tokenizer: Arc<Tokenizer>,
        chat: Arc<ChatTemplate>,
    ) -> Self {
        Self {
            decoder,
            tokenizer,
            chat,
            tokens: Vec::new(),
            env: OnceLock::new(),
            prefill_chunk: Self::PREFILL_CHUNK,
            before: PrefixIndex::new(Self::PREFIX_BYTES),
        }
    }

    /// Reads prompts in chunks of `tokens` (at least 1): smaller ones report progress and notice a
    /// cancel sooner, larger ones are faster.
    #[must_use]
    pub fn with_prefill_chunk(mut self, tokens: usize) -> Self {
        self.prefill_chunk = tokens.max(1);
        self
    }

    /// Keeps at most so many bytes of keys and values of requests before the last one; 0 keeps none.
    /// A prompt goes on from whatever has the longest beginning in common with it.
    #[must_use]
    pub fn with_prefix_bytes(mut self, bytes: usize) -> Self {
        self.before = PrefixIndex::new(bytes);
        self
    }

    /// Uses a vocabulary index that another session of the same model has made.
    #[must_use]
    pub fn with_token_env(mut self, env: TokenEnv) -> Self {
        self.env = OnceLock::from(env);
        self
    }

    /// The tokens that the KV cache holds.
    pub fn held(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The backend's own.
    pub fn clear(&mut self) -> Result<()> {
        self.before.clear();
        self.keep(0)
    }

    pub(super) fn text_vocab(&self) -> usize {
        self.tokenizer.vocab().min(self.decoder.vocab())
    }

    /// Refuses a prompt that is empty, names no tokens, or leaves no room for `reserve` more.
    pub(super) fn check(&self, prompt: &[TokenId], reserve: usize) -> Result<()> {
        if prompt.is_empty() {
            return Err(CoreError::EmptyPrompt);
        }
        let context = self.decoder.context();
        if prompt.len().saturating_add(reserve) > context {
            return Err(CoreError::ContextOverflow {
                prompt: prompt.len(),
                reserve,
                context,
            });
        }
        let vocab = self.decoder.vocab();
        match prompt.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(CoreError::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
    }

    /// Cuts the cache back to what it has in common with `prompt`, or takes up an earlier request
    /// that has more, less the last token, whose logits are needed. Returns how many tokens stay.
    pub(super) fn reuse(&mut self, prompt: &[TokenId]) -> Result<usize> {
        self.tokens.truncate(self.decoder.len());
        let most = prompt.len().saturating_sub(1);
        let common = prefix::common(&self.tokens, prompt).min(most);
        if common < self.tokens.len()
            && let Some(pages) = self.decoder.pages()
        {
            self.before.insert(&self.tokens, pages);
        }
        if let Some((len, pages)) = self.before.longest(prompt)
            && len.min(most) > common
            && self.decoder.restore(&pages, len.min(most))
        {
            self.tokens = prompt[..len.min(most)].to_vec();
            return Ok(self.tokens.len());
        }
        self.keep(common)?;
        Ok(self.tokens.len())
    }

    /// Forgets what comes after `len` tokens; everything, where the decoder cannot keep a part.
    fn keep(&mut self, mut len: usize) -> Result<()> {
        if len < self.decoder.len() {
            if !self.decoder.truncates() {
                len = 0;
            }
            self.decoder.truncate(len)?;
        }
        self.tokens.truncate(len);
        Ok(())
    }

    /// Computes `tokens` after what the cache holds, in chunks; tells after each how many are done.
    /// The logits are those of `rows` of the last chunk.
    pub(super) fn advance(
        &mut self,
        tokens: &[TokenId],
        rows: Rows,
        cancel: &Cancel,
        on_chunk: &mut dyn FnMut(usize),
    ) -> Result<Logits> {
        let mut logits = Logits::default();
        let mut done = 0;
        for chunk in tokens.chunks(self.prefill_chunk) {
            if cancel.is_cancelled() {
                return Err(CoreError::Cancelled);
            }
            done += chunk.len();
            let rows = if done == tokens.len() {
                rows
            } else {
                Rows::None
            };
            logits = self.decoder.forward(chunk, rows, cancel)?;
            self.tokens.extend_from_slice(chunk);
            on_chunk(done);
        }
        Ok(logits)
    }

    /// The log-probability of `continuation`, whose first token's logits are `first`. Leaves its
    /// tokens in the cache, except for the last.
    fn score_one(
        &mut self,
        first: &[f32],
        continuation: &[TokenId],
        cancel: &Cancel,
    ) -> Result<f64> {
        let Some((&head, rest)) = continuation.split_first() else {
            return Ok(0.0);
        };
        let mut sum = log_prob(first, head)?;
        // Each token's logits come from the pass over the one before it.
        let before = continuation.get(..rest.len()).unwrap_or_default();
        for (inputs, targets) in before.chunks(SCORE_CHUNK).zip(rest.chunks(SCORE_CHUNK)) {
            if cancel.is_cancelled() {
                return Err(CoreError::Cancelled);
            }
            let logits = self.decoder.forward(inputs, Rows::All, cancel)?;
            self.tokens.extend_from_slice(inputs);
            for (i, &target) in targets.iter().enumerate() {
                sum += log_prob(row(&logits, i, self.text_vocab())?, target)?;
            }
        }
        Ok(sum)
    }
}

/// Row `i` of what a pass returned, without the rows of the head that no token has.
pub(super) fn row(logits: &Logits, i: usize, vocab: usize) -> Result<&[f32]> {
    logits
        .row(i)
        .and_then(|row| row.get(..vocab))
        .ok_or(CoreError::MissingLogits {
            row: i,
            rows: logits.rows(),
        })
}

impl Generate for Session {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn chat(&self) -> &ChatTemplate {
        &self.chat
    }

    fn context(&self) -> usize {
        self.decoder.context()
    }

    fn exact(&self) -> bool {
        self.decoder.exact()
    }

    fn token_env(&self) -> Result<TokenEnv> {
        if let Some(env) = self.env.get() {
            return Ok(env.clone());
        }
        let env = TokenEnv::of(&self.tokenizer)?;
        Ok(self.env.get_or_init(|| env).clone())
    }

    fn generate(
        &mut self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generation> {
        Run::new(self, request, on_event)?.run()
    }

    fn score(
        &mut self,
        prompt: &[TokenId],
        continuations: &[Vec<TokenId>],
        cancel: &Cancel,
    ) -> Result<Vec<f32>> {
        let longest = continuations.iter().map(Vec::len).max().unwrap_or(0);
        self.check(prompt, longest)?;
        let vocab = self.text_vocab();
        for &id in continuations.iter().flatten() {
            if id as usize >= vocab {
                return Err(CoreError::TokenOutOfRange { id, vocab });
            }
        }
        let reused = self.reuse(prompt)?;
        let fresh = prompt.get(reused..).unwrap_or_default();
        let logits = self.advance(fresh, Rows::Last, cancel, &mut |_| ())?;
        let first = row(&logits, 0, vocab)?;
        let mut scores = Vec::with_capacity(continuations.len());
        for continuation in continuations {
            // A decoder that cannot keep a part has forgotten the prompt, too.
            let lost = prompt.get(self.tokens.len()..).unwrap_or_default();
            self.advance(lost, Rows::None, cancel, &mut |_| ())?;
            scores.push(self.score_one(first, continuation, cancel)? as f32);
            self.keep(prompt.len())?;
        }
        Ok(scores)
    }
}
