//! One request's way through a session.

use std::time::Instant;

use super::{
    Event, Generation, Request, Session, StopReason, TokenLogProbs, Usage, session::row,
    stop::StopMatcher, top_log_probs,
};
use crate::{
    CoreError, Result, TokenId,
    constrain::Constraint,
    generate::Generate as _,
    model::{Logits, Rows},
    sample::Sampler,
    tokenizer::StreamDecoder,
};

pub(super) struct Run<'a> {
    session: &'a mut Session,
    request: &'a Request,
    on_event: &'a mut dyn FnMut(Event<'_>),
    sampler: Sampler,
    constraint: Option<Constraint>,
    stream: StreamDecoder,
    stops: StopMatcher,
    /// Prompt and generated tokens. The cache may be behind it.
    history: Vec<TokenId>,
    text: String,
    log_probs: Vec<TokenLogProbs>,
    usage: Usage,
}

impl<'a> Run<'a> {
    /// Refuses a request that cannot be run, before anything is computed.
    pub(super) fn new(
        session: &'a mut Session,
        request: &'a Request,
        on_event: &'a mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        session.check(&request.prompt, request.max_tokens.min(1))?;
        if request.stop.iter().any(String::is_empty) {
            return Err(CoreError::EmptyStopString);
        }
        let sampler = Sampler::new(&request.sampling, session.tokenizer())?;
        if let Some(grammar) = &request.grammar
            && grammar.vocab() != session.tokenizer().vocab()
        {
            return Err(CoreError::ForeignGrammar {
                grammar: grammar.vocab(),
                model: session.tokenizer().vocab(),
            });
        }
        Ok(Self {
            sampler,
            constraint: request.grammar.as_ref().map(|g| g.start()),
            stream: session
                .tokenizer()
                .stream_after(request.prompt.last().copied()),
            stops: StopMatcher::new(&request.stop),
            history: request.prompt.clone(),
            text: String::new(),
            log_probs: Vec::new(),
            usage: Usage::default(),
            session,
            request,
            on_event,
        })
    }

    pub(super) fn run(mut self) -> Result<Generation> {
        let start = Instant::now();
        let prefill = self.prefill();
        self.usage.prefill_seconds = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let stop = match prefill {
            Ok((forced, logits)) => self.decode(forced, logits),
            Err(e) => Err(e),
        };
        let stop = match stop {
            Err(CoreError::Cancelled) => StopReason::Cancelled,
            other => other?,
        };
        if !matches!(stop, StopReason::StopString(_)) {
            let mut rest = self.stops.push(&self.stream.flush()).text;
            rest.push_str(&self.stops.finish());
            self.emit(&rest);
        }
        self.usage.decode_seconds = start.elapsed().as_secs_f64();
        Ok(Generation {
            tokens: self.history.split_off(self.request.prompt.len()),
            text: self.text,
            stop,
            usage: self.usage,
            log_probs: self.log_probs,
        })
    }

    /// Reads the prompt, and in the same pass the tokens that the grammar forces to begin with.
    fn prefill(&mut self) -> Result<(Vec<TokenId>, Option<Logits>)> {
        let forced = self.forced()?;
        let prompt = &self.request.prompt;
        let reused = self.session.reuse(prompt)?;
        self.usage.reused = reused;
        let total = prompt.len() - reused;
        let mut fresh = prompt.get(reused..).unwrap_or_default().to_vec();
        fresh.extend_from_slice(&forced);
        let (on_event, usage) = (&mut *self.on_event, &mut self.usage);
        on_event(Event::Prefill { done: 0, total });
        let rows = if self.request.max_tokens == 0 {
            Rows::None
        } else {
            Rows::Last
        };
        let logits = self
            .session
            .advance(&fresh, rows, &self.request.cancel, &mut |done| {
                if usage.prefilled < total {
                    usage.prefilled = done.min(total);
                    on_event(Event::Prefill {
                        done: usage.prefilled,
                        total,
                    });
                }
            })?;
        Ok((forced, Some(logits)))
    }

    /// `computed` tokens are in the cache already, and `logits` are those after them.
    fn decode(&mut self, computed: Vec<TokenId>, logits: Option<Logits>) -> Result<StopReason> {
        if self.request.max_tokens == 0 {
            return Ok(StopReason::MaxTokens);
        }
        if self.constraint.as_ref().is_some_and(Constraint::is_done) {
            return Ok(StopReason::GrammarDone);
        }
        for token in computed {
            if let Some(stop) = self.accept(token, true)? {
                return Ok(stop);
            }
        }
        let mut logits = logits;
        loop {
            if let Some(stop) = self.limit() {
                return Ok(stop);
            }
            let forced = self.forced()?;
            if !forced.is_empty() {
                for token in forced {
                    if let Some(stop) = self.accept(token, true)? {
                        return Ok(stop);
                    }
                }
                logits = None;
                continue;
            }
            let now = match logits.take() {
                Some(logits) => logits,
                None => {
                    let behind = self
                        .history
                        .get(self.session.held().len()..)
                        .unwrap_or_default();
                    self.session
                        .advance(behind, Rows::Last, &self.request.cancel, &mut |_| ())?
                }
            };
            let row = row(&now, 0, self.session.text_vocab())?;
            let mask = match &mut self.constraint {
                Some(constraint) => Some(constraint.mask()?),
                None => None,
            };
            let token = self.sampler.sample(row, &self.history, mask.as_ref())?;
            if self.session.tokenizer().is_end(token) {
                let Some(constraint) = &mut self.constraint else {
                    return Ok(StopReason::EndOfText);
                };
                constraint.commit(token)?;
                return Ok(StopReason::GrammarDone);
            }
            if self.request.log_probs > 0 {
                self.log_probs
                    .push(top_log_probs(row, token, self.request.log_probs)?);
            }
            if let Some(stop) = self.accept(token, false)? {
                return Ok(stop);
            }
        }
    }

    /// Takes a token into the text.
    fn accept(&mut self, token: TokenId, forced: bool) -> Result<Option<StopReason>> {
        if let Some(constraint) = &mut self.constraint {
            constraint.commit(token)?;
        }
        self.history.push(token);
        self.usage.decoded += 1;
        self.usage.forced += usize::from(forced);
        (self.on_event)(Event::Token(token));
        let piece = self.stream.push(token);
        let found = self.stops.push(&piece);
        self.emit(&found.text);
        if let Some(stop) = found.stop {
            return Ok(Some(StopReason::StopString(stop)));
        }
        let done = self.constraint.as_ref().is_some_and(Constraint::is_done);
        Ok(done.then_some(StopReason::GrammarDone))
    }

    fn limit(&self) -> Option<StopReason> {
        if self.request.cancel.is_cancelled() {
            Some(StopReason::Cancelled)
        } else if self.usage.decoded >= self.request.max_tokens {
            Some(StopReason::MaxTokens)
        } else if self.history.len() >= self.session.context() {
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
        let Some(constraint) = &mut self.constraint else {
            return Ok(Vec::new());
        };
        let mut forced = constraint.forced()?;
        let budget = self.request.max_tokens.saturating_sub(self.usage.decoded);
        let room = self.session.context().saturating_sub(self.history.len());
        forced.truncate(budget.min(room));
        Ok(forced)
    }

    fn emit(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            (self.on_event)(Event::Text(text));
        }
    }
}
