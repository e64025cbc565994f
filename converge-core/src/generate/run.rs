//! One request's way through a session, pass by pass.
//!
//! A run says which tokens the next pass is to have ([`Run::next`]) and goes through the logits that
//! come back ([`Run::took`]). Who computes the pass, alone or together with the passes of others, is
//! not its business.

use std::{borrow::Cow, sync::Arc, time::Instant};

use super::{
    Cancel, Draft, Event, Generation, Place, Request, Session, StopReason, TokenLogProbs, Usage,
    session::row, stop::StopMatcher, top_log_probs,
};
use crate::{
    CoreError, Result, TokenId,
    constrain::{Closing, Constraint},
    model::{Logits, Rows},
    sample::Sampler,
    tokenizer::{StreamDecoder, Tokenizer},
};

pub(super) struct Run<'a> {
    request: Cow<'a, Request>,
    tokenizer: Arc<Tokenizer>,
    /// Tokens that text is made of; the head may have more rows.
    vocab: usize,
    context: usize,
    /// Tokens of the prompt that are read at once.
    chunk: usize,
    sampler: Sampler,
    constraint: Option<Constraint>,
    /// Where the text has to be complete.
    closing: Option<Closing>,
    stream: StreamDecoder,
    stops: StopMatcher,
    /// Prompt and generated tokens. The cache may be behind it, or ahead by what was guessed.
    history: Vec<TokenId>,
    /// Tokens that the grammar forces to begin with: read with the prompt, not yet in the history.
    ahead: Vec<TokenId>,
    reading: bool,
    text: String,
    log_probs: Vec<TokenLogProbs>,
    usage: Usage,
    /// Tokens that logits decided, an end of the text included.
    chosen: usize,
    clock: Instant,
}

/// What a run wants.
pub(super) enum Next {
    /// A pass over these tokens after those that it knows of.
    Pass(Pass),
    /// Nothing more.
    Stop(StopReason),
}

/// A pass that a run wants.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) tokens: Vec<TokenId>,
    pub(super) rows: Rows,
    /// How many of the last tokens are guessed.
    pub(super) drafted: usize,
}

/// What came of a pass.
#[derive(Debug)]
pub(super) struct Took {
    /// How many of the tokens in the cache are those of the text.
    pub(super) agreed: usize,
    /// Guesses that were right; `None` for a pass that no token was chosen after.
    pub(super) accepted: Option<usize>,
    /// Tokens chosen after it.
    pub(super) chosen: usize,
    pub(super) stop: Option<StopReason>,
}

impl<'a> Run<'a> {
    /// Refuses a request that cannot be run, before anything is computed.
    pub(super) fn new(session: &Session, request: Cow<'a, Request>) -> Result<Self> {
        session.check(&request.prompt, request.max_tokens.min(1))?;
        if request.stop.iter().any(String::is_empty) {
            return Err(CoreError::EmptyStopString);
        }
        let tokenizer = Arc::clone(session.shared_tokenizer());
        let mut sampler = Sampler::new(&request.sampling, &tokenizer)?;
        if let Some(state) = request.sampler {
            sampler.restore(state);
        }
        if let Some(grammar) = &request.grammar
            && grammar.vocab() != tokenizer.vocab()
        {
            return Err(CoreError::ForeignGrammar {
                grammar: grammar.vocab(),
                model: tokenizer.vocab(),
            });
        }
        let answered = request.answered.min(request.prompt.len());
        let (asked, _) = request.prompt.split_at(request.prompt.len() - answered);
        let mut run = Self {
            vocab: session.text_vocab(),
            context: session.positions(),
            chunk: session.prefill_chunk(),
            sampler,
            constraint: request.grammar.as_ref().map(|g| g.start()),
            closing: None,
            stream: tokenizer.stream_after(asked.last().copied()),
            stops: StopMatcher::new(&request.stop),
            history: request.prompt.clone(),
            ahead: Vec::new(),
            reading: true,
            text: String::new(),
            log_probs: Vec::new(),
            usage: Usage::default(),
            chosen: 0,
            clock: Instant::now(),
            tokenizer,
            request,
        };
        run.go_on()?;
        if run.request.complete
            && run.request.max_tokens > 0
            && let Some(constraint) = &run.constraint
        {
            run.closing = Some(Closing::new(constraint, run.left())?);
        }
        run.ahead = run.forced()?;
        Ok(run)
    }

    /// Takes in the beginning of the answer that an earlier generation gave.
    fn go_on(&mut self) -> Result<()> {
        let answered = self.request.answered.min(self.history.len());
        for &token in self.history.iter().skip(self.history.len() - answered) {
            if let Some(constraint) = &mut self.constraint {
                constraint.commit(token)?;
            }
            let piece = self.stream.push(token);
            self.stops.push(&piece);
        }
        Ok(())
    }

    /// The session has taken up `reused` tokens of the prompt.
    pub(super) fn begin(&mut self, reused: usize, on_event: &mut dyn FnMut(Event<'_>)) {
        self.usage.reused = reused;
        let total = self.request.prompt.len() - reused;
        on_event(Event::Prefill { done: 0, total });
    }

    /// The pass that comes next, where the cache holds `held` tokens of the text.
    pub(super) fn next(&mut self, held: usize, draft: &mut dyn Draft) -> Result<Next> {
        if self.request.cancel.is_cancelled() {
            return Ok(Next::Stop(StopReason::Cancelled));
        }
        if self.reading {
            return Ok(Next::Pass(self.read(held)));
        }
        let behind = self.history.get(held..).unwrap_or_default();
        if let Some((part, _)) = behind.split_at_checked(self.chunk)
            && part.len() < behind.len()
        {
            // A long text that the grammar forced.
            return Ok(Next::Pass(Pass {
                tokens: part.to_vec(),
                rows: Rows::None,
                drafted: 0,
            }));
        }
        let mut tokens = behind.to_vec();
        let guessed = self.guess(tokens.len(), draft)?;
        let drafted = guessed.len();
        tokens.extend(guessed);
        Ok(Next::Pass(Pass {
            tokens,
            rows: Rows::Tail(drafted + 1),
            drafted,
        }))
    }

    /// The next part of the prompt; the last one with the tokens that are forced after it.
    fn read(&self, held: usize) -> Pass {
        let prompt = self.history.get(held..).unwrap_or_default();
        let all = held.max(self.history.len());
        let ahead = self
            .ahead
            .get(all - self.history.len()..)
            .unwrap_or_default();
        let tokens = prompt.iter().chain(ahead).copied().take(self.chunk);
        let tokens: Vec<_> = tokens.collect();
        let last = held + tokens.len() == self.history.len() + self.ahead.len();
        Pass {
            rows: match last && self.request.max_tokens > 0 {
                true => Rows::Last,
                false => Rows::None,
            },
            tokens,
            drafted: 0,
        }
    }

    /// What a draft may be checked of what it proposes.
    fn guess(&mut self, behind: usize, draft: &mut dyn Draft) -> Result<Vec<TokenId>> {
        // One more token comes of the pass than are guessed.
        let most = self.left().saturating_sub(1);
        let mut tokens = Vec::new();
        if most == 0 {
            return Ok(tokens);
        }
        let place = Place {
            history: &self.history,
            prompt: self.request.prompt.len(),
            constraint: self.constraint.as_ref(),
            behind,
            most,
            cancel: &self.request.cancel,
        };
        draft.propose(&place, &mut tokens)?;
        tokens.truncate(most);
        let useless = |&id: &TokenId| id as usize >= self.vocab || self.tokenizer.is_end(id);
        if let Some(end) = tokens.iter().position(useless) {
            tokens.truncate(end);
        }
        if let Some(constraint) = &mut self.constraint
            && !tokens.is_empty()
        {
            tokens.truncate(constraint.allowed_prefix(&tokens)?);
        }
        Ok(tokens)
    }

    /// Goes through the logits of a pass after which the cache holds `held`.
    pub(super) fn took(
        &mut self,
        pass: &Pass,
        logits: &Logits,
        held: &[TokenId],
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Took> {
        let mut took = Took {
            agreed: held.len(),
            accepted: None,
            chosen: 0,
            stop: None,
        };
        if self.reading {
            let total = self.request.prompt.len() - self.usage.reused;
            if self.usage.prefilled < total {
                let done = held.len().saturating_sub(self.usage.reused).min(total);
                self.usage.prefilled = done.max(self.usage.prefilled);
                on_event(Event::Prefill {
                    done: self.usage.prefilled,
                    total,
                });
            }
        }
        if held.len() < self.history.len() + self.ahead.len() {
            return Ok(took);
        }
        if self.reading {
            self.reading = false;
            self.usage.prefill_seconds = self.clock.elapsed().as_secs_f64();
            self.clock = Instant::now();
            took.stop = self.first(on_event)?;
            if took.stop.is_some() {
                return Ok(took);
            }
        }
        let before = self.chosen;
        took.stop = self.choose(logits, held, on_event)?;
        took.chosen = self.chosen - before;
        // Tokens in the cache up to the first that is another one in the text.
        let known = held.len() - pass.drafted;
        let same = |(a, b): &(&TokenId, &TokenId)| a == b;
        let guessed = held.get(known..).unwrap_or_default().iter();
        let said = self.history.get(known..).unwrap_or_default();
        let accepted = guessed.zip(said).take_while(same).count();
        took.agreed = known + accepted;
        took.accepted = Some(accepted);
        self.usage.drafted += pass.drafted;
        self.usage.accepted += accepted;
        self.usage.passes += 1;
        Ok(took)
    }

    /// The prompt is read, and what is forced after it.
    fn first(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Option<StopReason>> {
        if self.request.max_tokens == 0 {
            return Ok(Some(StopReason::MaxTokens));
        }
        if self.constraint.as_ref().is_some_and(Constraint::is_done) {
            return Ok(Some(StopReason::GrammarDone));
        }
        // None of them gives way to another: the known completion begins with what is forced.
        let ahead = std::mem::take(&mut self.ahead);
        self.accept_forced(ahead, on_event)
    }

    /// Chooses tokens as long as there is a row of logits for the next one: the cache's tokens up to
    /// it are those of the text.
    fn choose(
        &mut self,
        logits: &Logits,
        held: &[TokenId],
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<StopReason>> {
        let rows = logits.rows();
        // Row 0 is that after so many tokens.
        let first = held.len() + 1 - rows.max(1);
        let mut agreed = first.min(self.history.len());
        loop {
            if let Some(stop) = self.limit() {
                return Ok(Some(stop));
            }
            let forced = self.forced()?;
            if !forced.is_empty() {
                if let Some(stop) = self.accept_forced(forced, on_event)? {
                    return Ok(Some(stop));
                }
                continue;
            }
            while agreed < self.history.len() && held.get(agreed) == self.history.get(agreed) {
                agreed += 1;
            }
            if agreed < self.history.len() {
                return Ok(None);
            }
            let logits = row(logits, agreed - first, self.vocab)?;
            let mask = match &mut self.constraint {
                Some(constraint) => Some(constraint.mask()?),
                None => None,
            };
            let token = self.sampler.sample(logits, &self.history, mask.as_ref())?;
            self.chosen += 1;
            if self.tokenizer.is_end(token) {
                let Some(constraint) = &mut self.constraint else {
                    return Ok(Some(StopReason::EndOfText));
                };
                constraint.commit(token)?;
                return Ok(Some(StopReason::GrammarDone));
            }
            let Some(token) = self.keep(token)? else {
                return Ok(Some(StopReason::GrammarDone));
            };
            if self.request.log_probs > 0 {
                self.log_probs
                    .push(top_log_probs(logits, token, self.request.log_probs)?);
            }
            if let Some(stop) = self.accept(token, false, on_event)? {
                return Ok(Some(stop));
            }
        }
    }

    pub(super) fn prompt(&self) -> &[TokenId] {
        &self.request.prompt
    }

    pub(super) fn cancel(&self) -> &Cancel {
        &self.request.cancel
    }

    /// What the request has come to.
    pub(super) fn finish(
        mut self,
        stop: StopReason,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Generation {
        if !matches!(stop, StopReason::StopString(_)) {
            let mut rest = self.stops.push(&self.stream.flush()).text;
            rest.push_str(&self.stops.finish());
            self.emit(&rest, on_event);
        }
        match self.reading {
            true => self.usage.prefill_seconds = self.clock.elapsed().as_secs_f64(),
            false => self.usage.decode_seconds = self.clock.elapsed().as_secs_f64(),
        }
        Generation {
            tokens: self.history.split_off(self.request.prompt.len()),
            text: self.text,
            stop,
            usage: self.usage,
            sampler: self.sampler.state(),
            log_probs: self.log_probs,
        }
    }

    /// Takes what the grammar forces.
    fn accept_forced(
        &mut self,
        forced: Vec<TokenId>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<StopReason>> {
        for token in forced {
            let Some(kept) = self.keep(token)? else {
                return Ok(Some(StopReason::GrammarDone));
            };
            if let Some(stop) = self.accept(kept, true, on_event)? {
                return Ok(Some(stop));
            }
            if kept != token {
                break;
            }
        }
        Ok(None)
    }

    /// `token`, or the one to take in its place so that the text can be completed; `None` where it
    /// has to end.
    fn keep(&mut self, token: TokenId) -> Result<Option<TokenId>> {
        let left = self.left();
        let Some(closing) = &mut self.closing else {
            return Ok(Some(token));
        };
        let kept = closing.keep(token, left)?;
        self.usage.closing += usize::from(kept.is_some_and(|kept| kept != token));
        Ok(kept)
    }

    /// Takes a token into the text.
    fn accept(
        &mut self,
        token: TokenId,
        forced: bool,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<StopReason>> {
        if let Some(constraint) = &mut self.constraint {
            constraint.commit(token)?;
        }
        self.history.push(token);
        self.usage.decoded += 1;
        self.usage.forced += usize::from(forced);
        on_event(Event::Token(token));
        let piece = self.stream.push(token);
        let found = self.stops.push(&piece);
        self.emit(&found.text, on_event);
        if let Some(stop) = found.stop {
            return Ok(Some(StopReason::StopString(stop)));
        }
        let done = self.constraint.as_ref().is_some_and(Constraint::is_done);
        Ok(done.then_some(StopReason::GrammarDone))
    }

    fn limit(&self) -> Option<StopReason> {
        if self.request.cancel.is_cancelled() {
            Some(StopReason::Cancelled)
        } else if self.closing.is_some() && self.left() == 0 {
            // A completion always fits: here, the empty one.
            Some(StopReason::GrammarDone)
        } else if self.usage.decoded >= self.request.max_tokens {
            Some(StopReason::MaxTokens)
        } else if self.history.len() >= self.context {
            Some(StopReason::Context)
        } else {
            None
        }
    }

    /// What the grammar forces, as far as the limits allow it. With log-probabilities every token
    /// goes through the model instead; the mask then forces the same ones.
    fn forced(&mut self) -> Result<Vec<TokenId>> {
        if self.request.log_probs > 0 {
            return Ok(Vec::new());
        }
        let left = self.left();
        let Some(constraint) = &mut self.constraint else {
            return Ok(Vec::new());
        };
        let mut forced = constraint.forced()?;
        forced.truncate(left);
        Ok(forced)
    }

    /// How many tokens the limits still allow.
    fn left(&self) -> usize {
        let budget = self.request.max_tokens.saturating_sub(self.usage.decoded);
        let room = self.context.saturating_sub(self.history.len());
        budget.min(room)
    }

    fn emit(&mut self, text: &str, on_event: &mut dyn FnMut(Event<'_>)) {
        if !text.is_empty() {
            self.text.push_str(text);
            on_event(Event::Text(text));
        }
    }
}
