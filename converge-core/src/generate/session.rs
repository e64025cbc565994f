use std::{
    borrow::Cow,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use super::{
    Cancel, Checked, Draft, Event, Generate, Generation, Place, Request, StopReason, log_prob,
    run::{Next, Pass, Run, Took},
};
use crate::{
    CoreError, Result, TokenId,
    cache::{KvCache, PrefixIndex, Store, Transcript, common},
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
    /// What was held before and is not any more, by this session and its forks.
    before: Option<Arc<Mutex<PrefixIndex>>>,
    /// Beginnings of prompts that other processes left.
    store: Option<Store>,
}

impl Session {
    /// Tokens of a prompt that go through the model at once, unless told otherwise.
    pub const PREFILL_CHUNK: usize = 128;

    /// Tokens that a stored beginning must spare at least.
    const STORED: usize = 64;

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
            before: Some(Arc::default()),
            store: None,
        }
    }

    /// Reads prompts in chunks of `tokens` (at least 1): smaller ones report progress and notice a
    /// cancel sooner, larger ones are faster.
    #[must_use]
    pub fn with_prefill_chunk(mut self, tokens: usize) -> Self {
        self.prefill_chunk = tokens.max(1);
        self
    }

    /// Keeps nothing of requests before the last one. Otherwise a prompt goes on from whatever has the
    /// longest beginning in common with it, as long as there is room for that.
    #[must_use]
    pub fn without_prefixes(mut self) -> Self {
        self.before = None;
        self
    }

    /// Looks for beginnings of prompts in a folder, too, where memory has much less of them. What goes
    /// into the folder is what [`keep_in_store`](Self::keep_in_store) puts there.
    #[must_use]
    pub fn with_store(mut self, store: Store) -> Self {
        self.store = Some(store);
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
        if let Some(mut before) = self.before() {
            before.clear();
        }
        self.keep(0)
    }

    /// A session of its own that holds what this one holds: pages are shared until one of the two
    /// changes them, so it costs no copy. Weights, threads and what earlier requests left are shared.
    ///
    /// # Errors
    /// [`OneSequence`](CoreError::OneSequence) for a backend without pages.
    pub fn fork(&self) -> Result<Self> {
        let mut decoder = self.decoder.another().ok_or(CoreError::OneSequence)?;
        let taken = match (decoder.cache_mut(), self.decoder.cache()) {
            (Some(own), Some(cache)) => own.take_up(cache, cache.len()),
            _ => false,
        };
        if !taken {
            return Err(CoreError::OneSequence);
        }
        Ok(Self {
            decoder,
            tokenizer: Arc::clone(&self.tokenizer),
            chat: Arc::clone(&self.chat),
            tokens: self.tokens.clone(),
            env: self.env.clone(),
            prefill_chunk: self.prefill_chunk,
            before: self.before.clone(),
            store: self.store.clone(),
        })
    }

    /// Keeps what this session holds now from being forgotten, until [`unpin`](Self::unpin): a
    /// prefix that later requests, its forks' included, will come back to.
    pub fn pin(&self) {
        if let (Some(mut before), Some(cache)) = (self.before(), self.decoder.cache()) {
            before.insert(&self.tokens, cache, true);
        }
    }

    /// Lets go of everything that was pinned, by forks as well.
    pub fn unpin(&self) {
        if let Some(mut before) = self.before() {
            before.unpin();
        }
    }

    /// Keeps the session in a file, to be taken up by [`open`](Self::open) in another process: the
    /// transcript, and keys and values of as many of its tokens as the cache has. The file holds
    /// private text; only its owner can read it.
    ///
    /// # Errors
    /// [`SnapshotError`](crate::cache::SnapshotError) where it cannot be written; what was there
    /// before then still is. [`OneSequence`](CoreError::OneSequence) for a backend without pages.
    pub fn save(&self, path: &Path, transcript: &Transcript) -> Result<()> {
        let cache = self.decoder.cache().ok_or(CoreError::OneSequence)?;
        let mut held = cache.clone();
        held.truncate(common(&self.tokens, &transcript.tokens));
        held.save(path, transcript)
    }

    /// Takes up a session that was [kept](Self::save) in a file, in the place of what this one holds.
    /// What follows is, to the bit, what would have followed then.
    ///
    /// # Errors
    /// [`SnapshotError`](crate::cache::SnapshotError) for a file that is damaged, of another model or
    /// no snapshot; [`ContextOverflow`](CoreError::ContextOverflow),
    /// [`CacheFull`](CoreError::CacheFull) where it has no room here. This session is then what it was.
    pub fn open(&mut self, path: &Path) -> Result<Transcript> {
        let (context, vocab) = (self.decoder.context(), self.decoder.vocab());
        let cache = self.decoder.cache_mut().ok_or(CoreError::OneSequence)?;
        let (kept, transcript) = loop {
            match KvCache::open(cache.arena(), path) {
                Err(CoreError::CacheFull { .. }) if evict(&self.before) => {}
                other => break other?,
            }
        };
        if transcript.tokens.len() > context {
            return Err(CoreError::ContextOverflow {
                prompt: transcript.tokens.len(),
                reserve: 0,
                context,
            });
        }
        if let Some(&id) = transcript.tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(CoreError::TokenOutOfRange { id, vocab });
        }
        self.tokens = transcript
            .tokens
            .get(..kept.len())
            .unwrap_or_default()
            .to_vec();
        *cache = kept;
        Ok(transcript)
    }

    /// Puts what this session holds into its [store](Self::with_store), for later processes; nothing
    /// without one.
    ///
    /// # Errors
    /// [`SnapshotError::Io`](crate::cache::SnapshotError::Io);
    /// [`OneSequence`](CoreError::OneSequence) for a backend without pages.
    pub fn keep_in_store(&self) -> Result<()> {
        match &self.store {
            Some(store) if !self.tokens.is_empty() => {
                let cache = self.decoder.cache().ok_or(CoreError::OneSequence)?;
                store.keep(cache, &self.tokens)
            }
            _ => Ok(()),
        }
    }

    /// Returns when nothing is done in the background any more for later runs: packed weights that a
    /// first run writes to disk ([`LoadOptions::packed`](crate::LoadOptions::packed)). The last session
    /// of a model ends that unfinished where it is dropped before.
    pub fn settle(&self) {
        self.decoder.settle();
    }

    /// The KV cache: its pages, and what all caches of the model take together. `None` for a backend
    /// without pages.
    pub fn cache(&self) -> Option<&KvCache> {
        self.decoder.cache()
    }

    fn before(&self) -> Option<MutexGuard<'_, PrefixIndex>> {
        self.before.as_ref().map(lock)
    }

    /// Forgets what it holds, pages included; `false` where it cannot.
    pub(super) fn give_back(&mut self) -> bool {
        self.tokens.clear();
        match self.decoder.cache_mut() {
            Some(cache) => {
                *cache = KvCache::new(cache.arena());
                true
            }
            None => false,
        }
    }

    /// Forgets the least recently used of what earlier requests left; `false` where there is nothing.
    pub(super) fn evict(&self) -> bool {
        evict(&self.before)
    }

    /// A pass; where there is no room, what earlier requests left makes it.
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, cancel: &Cancel) -> Result<Logits> {
        loop {
            match self.decoder.forward(tokens, rows, cancel) {
                Err(CoreError::CacheFull { .. }) if self.evict() => {}
                other => return other,
            }
        }
    }

    /// Generates as [`generate`](Generate::generate) does, the same tokens, with the help of a draft.
    /// A decoder that forgets everything or nothing goes without it.
    ///
    /// # Errors
    /// As [`generate`](Generate::generate), and those of the draft.
    pub fn generate_drafted(
        &mut self,
        request: &Request,
        draft: &mut dyn Draft,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generation> {
        let mut none = NoDraft;
        let draft = match self.decoder.truncates() {
            true => draft,
            false => &mut none,
        };
        let mut run = Run::new(self, Cow::Borrowed(request))?;
        run.begin(self.reuse(&request.prompt)?, on_event);
        draft.begin(request);
        let stop = match self.drive(&mut run, draft, on_event) {
            Err(CoreError::Cancelled) => StopReason::Cancelled,
            other => other?,
        };
        Ok(run.finish(stop, on_event))
    }

    /// Computes what a run wants, pass by pass.
    fn drive(
        &mut self,
        run: &mut Run<'_>,
        draft: &mut dyn Draft,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<StopReason> {
        loop {
            let pass = match run.next(self.tokens.len(), draft)? {
                Next::Pass(pass) => pass,
                Next::Stop(stop) => return Ok(stop),
            };
            let (depth, start) = (self.tokens.len(), Instant::now());
            let logits = self.forward(&pass.tokens, pass.rows, run.cancel())?;
            let seconds = start.elapsed().as_secs_f64();
            let took = self.take(run, &pass, &logits, on_event)?;
            self.decoder.reuse(logits);
            if let Some(accepted) = took.accepted {
                draft.checked(&Checked {
                    depth,
                    tokens: pass.tokens.len(),
                    drafted: pass.drafted,
                    accepted,
                    chosen: took.chosen,
                    seconds,
                });
            }
            if let Some(stop) = took.stop {
                return Ok(stop);
            }
        }
    }

    /// Goes through the logits of a pass that the cache holds now.
    pub(super) fn take(
        &mut self,
        run: &mut Run<'_>,
        pass: &Pass,
        logits: &Logits,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Took> {
        let depth = self.tokens.len();
        self.tokens.extend_from_slice(&pass.tokens);
        let took = run.took(pass, logits, &self.tokens, on_event);
        // Whatever went wrong, guesses do not stay.
        self.keep(took.as_ref().map_or(depth, |took| took.agreed))?;
        took
    }

    pub(super) fn decoder_mut(&mut self) -> &mut dyn Decoder {
        self.decoder.as_mut()
    }

    pub(super) fn shared_tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Positions of the context.
    pub(super) fn positions(&self) -> usize {
        self.decoder.context()
    }

    pub(super) fn prefill_chunk(&self) -> usize {
        self.prefill_chunk
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
        let shared = common(&self.tokens, prompt).min(most);
        if let Some(before) = &self.before
            && let Some(cache) = self.decoder.cache_mut()
        {
            let mut before = lock(before);
            if shared < self.tokens.len() {
                before.insert(&self.tokens, cache, false);
            }
            let mut best = cache.reach(shared);
            if let Some((len, earlier)) = before.longest(prompt)
                && len.min(most) > best
                && cache.take_up(&earlier, len.min(most))
            {
                best = len.min(most);
            }
            // Reading a file must be worth it.
            if let Some(store) = &self.store
                && prompt.len() - best > Self::STORED
                && let Some((len, path)) = store.longest(cache.arena(), prompt)
                && len.min(most) > best + Self::STORED
                && let Some(kept) = Store::open(cache.arena(), &path)
                && cache.take_up(&kept, len.min(most))
            {
                best = len.min(most);
            }
            if best > cache.reach(shared) {
                self.tokens = prompt.get(..best).unwrap_or_default().to_vec();
                return Ok(best);
            }
        }
        self.keep(shared)?;
        Ok(self.tokens.len())
    }

    /// Forgets what comes after `len` tokens; everything, where the decoder cannot keep a part.
    fn keep(&mut self, mut len: usize) -> Result<()> {
        if len < self.decoder.len() {
            if !self.decoder.truncates() {
                len = 0;
            }
            self.decoder.truncate(len)?;
            len = len.min(self.decoder.len());
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
            logits = self.forward(chunk, rows, cancel)?;
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
            let logits = self.forward(inputs, Rows::All, cancel)?;
            self.tokens.extend_from_slice(inputs);
            for (i, &target) in targets.iter().enumerate() {
                sum += log_prob(row(&logits, i, self.text_vocab())?, target)?;
            }
            self.decoder.reuse(logits);
        }
        Ok(sum)
    }
}

fn lock(before: &Arc<Mutex<PrefixIndex>>) -> MutexGuard<'_, PrefixIndex> {
    // Nothing in it is ever half done.
    before.lock().unwrap_or_else(PoisonError::into_inner)
}

fn evict(before: &Option<Arc<Mutex<PrefixIndex>>>) -> bool {
    before.as_ref().is_some_and(|before| lock(before).evict())
}

/// No guesses.
pub(super) struct NoDraft;

impl Draft for NoDraft {
    fn begin(&mut self, _: &Request) {}

    fn propose(&mut self, _: &Place<'_>, _: &mut Vec<TokenId>) -> Result<()> {
        Ok(())
    }

    fn checked(&mut self, _: &Checked) {}
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
        self.generate_drafted(request, &mut NoDraft, on_event)
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
