//! Several generations in one pass over the weights at a time.

use std::{borrow::Cow, sync::Arc};

use super::{
    Cancel, Event, Generation, Request, Session, StopReason,
    run::{Next, Pass, Run},
    session::NoDraft,
};
use crate::{
    CoreError, Result,
    cache::KvCache,
    model::{Logits, Part},
};

/// Generations of sessions that share a model, computed together: each pass reads the weights once
/// for all of them. Sessions join and leave between passes, each gets the tokens that it would get
/// alone, and none waits for another to end.
///
/// ```no_run
/// use converge_core::{LoadOptions, generate::{Batch, Generate as _, Request}, load, sample::Sampling};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut session = load("model.gguf".as_ref(), &LoadOptions::default())?;
/// let prompt = session.tokenizer().encode_continuation("Once upon a time")?;
/// // The prompt is read once, for all branches.
/// session.generate(&Request { max_tokens: 0, ..Request::new(prompt.clone()) }, &mut |_| ())?;
/// let mut batch = Batch::new();
/// for branch in 0..5 {
///     let sampling = Sampling::at(0.8, 42).branch(branch);
///     batch.join(session.fork()?, Request { sampling, ..Request::new(prompt.clone()) });
/// }
/// for finished in batch.finish(&mut |_, _| ()) {
///     println!("{}: {}", finished.id, finished.result?.text);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Batch {
    members: Vec<Member>,
    finished: Vec<Finished>,
    joined: usize,
}

/// A generation of a [`Batch`] that has ended.
pub struct Finished {
    /// Its number, as [`Batch::join`] gave it.
    pub id: usize,
    /// The session, free for what comes next.
    pub session: Session,
    /// What came of the request.
    pub result: Result<Generation>,
}

struct Member {
    id: usize,
    session: Session,
    run: Run<'static>,
}

impl Batch {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether every generation has ended and was handed out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.finished.is_empty()
    }

    /// Generations under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Takes a session in from the next pass on, and returns the generation's number. What is wrong
    /// with the request comes as its result: the errors of
    /// [`generate`](super::Generate::generate), [`OneSequence`](CoreError::OneSequence) for a backend
    /// without pages, [`ForeignCache`](CoreError::ForeignCache) for a session of another model than
    /// that of the others.
    pub fn join(&mut self, mut session: Session, request: Request) -> usize {
        let id = self.joined;
        self.joined += 1;
        match self.admit(&mut session, request) {
            Ok(run) => self.members.push(Member { id, session, run }),
            Err(error) => self.finished.push(Finished {
                id,
                session,
                result: Err(error),
            }),
        }
        id
    }

    fn admit(&self, session: &mut Session, request: Request) -> Result<Run<'static>> {
        let arena = session.cache().ok_or(CoreError::OneSequence)?.arena();
        let others = self.members.first().and_then(|m| m.session.cache());
        if others.is_some_and(|cache| !Arc::ptr_eq(cache.arena(), arena)) {
            return Err(CoreError::ForeignCache);
        }
        let mut run = Run::new(session, Cow::Owned(request))?;
        let reused = session.reuse(run.prompt())?;
        run.begin(reused, &mut |_| ());
        Ok(run)
    }

    /// One pass for all that are under way; `on_event` is told of each generation's events with its
    /// number. Returns those that have ended.
    pub fn step(&mut self, on_event: &mut dyn FnMut(usize, Event<'_>)) -> Vec<Finished> {
        let mut passes = Vec::with_capacity(self.members.len());
        let mut i = 0;
        while let Some(member) = self.members.get_mut(i) {
            match member.run.next(member.session.held().len(), &mut NoDraft) {
                Ok(Next::Pass(pass)) => {
                    passes.push(pass);
                    i += 1;
                }
                Ok(Next::Stop(stop)) => self.leave(i, Ok(stop), on_event),
                Err(error) => self.leave(i, Err(error), on_event),
            }
        }
        // Where there is no room for all, those that joined last wait for others to leave; where there
        // is none for the first, they give back what they hold and read it again later.
        let mut computed = passes.len();
        let logits = loop {
            match self.compute(passes.get(..computed).unwrap_or_default()) {
                Err(CoreError::CacheFull { .. }) if computed > 1 => computed -= 1,
                Err(CoreError::CacheFull { .. }) if self.preempt() => {}
                other => break other,
            }
        };
        match logits {
            Ok(logits) => self.take(&passes, &logits, on_event),
            Err(error) if computed > 0 => self.leave(0, Err(error), on_event),
            Err(_) => {}
        }
        std::mem::take(&mut self.finished)
    }

    /// Steps until nobody is left; the generations in the order in which they joined.
    pub fn finish(&mut self, on_event: &mut dyn FnMut(usize, Event<'_>)) -> Vec<Finished> {
        let mut all = Vec::new();
        while !self.is_empty() {
            all.extend(self.step(on_event));
        }
        all.sort_by_key(|finished| finished.id);
        all
    }

    /// The pass of the first members.
    fn compute(&mut self, passes: &[Pass]) -> Result<Vec<Logits>> {
        if passes.is_empty() {
            return Ok(Vec::new());
        }
        // One decoder computes for all, so every cache leaves its own for the time of the pass.
        let mut caches: Vec<KvCache> = Vec::with_capacity(passes.len());
        for member in self.members.iter_mut().take(passes.len()) {
            let cache = member.session.decoder_mut().cache_mut();
            let cache = cache.ok_or(CoreError::OneSequence)?;
            let empty = KvCache::new(cache.arena());
            caches.push(std::mem::replace(cache, empty));
        }
        let mut parts: Vec<Part<'_>> = caches
            .iter_mut()
            .zip(passes)
            .map(|(cache, pass)| Part {
                cache,
                tokens: &pass.tokens,
                rows: pass.rows,
            })
            .collect();
        let never = Cancel::new();
        let logits = match self.members.first_mut() {
            Some(first) => loop {
                match first
                    .session
                    .decoder_mut()
                    .forward_parts(&mut parts, &never)
                {
                    Err(CoreError::CacheFull { .. }) if first.session.evict() => {}
                    other => break other,
                }
            },
            None => Ok(Vec::new()),
        };
        for (member, cache) in self.members.iter_mut().zip(caches) {
            if let Some(place) = member.session.decoder_mut().cache_mut() {
                *place = cache;
            }
        }
        logits
    }

    /// Makes the last member that holds anything give it back; `false` where that is the first.
    fn preempt(&mut self) -> bool {
        let mut others = self.members.iter_mut().skip(1).rev();
        let last = others.find(|member| member.session.cache().is_some_and(|c| c.bytes() > 0));
        last.is_some_and(|member| member.session.give_back())
    }

    /// Hands the logits of a pass to those that took part.
    fn take(
        &mut self,
        passes: &[Pass],
        logits: &[Logits],
        on_event: &mut dyn FnMut(usize, Event<'_>),
    ) {
        let mut ended = Vec::new();
        let members = self.members.iter_mut().zip(passes).zip(logits);
        for (i, ((member, pass), logits)) in members.enumerate() {
            let (id, run) = (member.id, &mut member.run);
            let tell = &mut |event: Event<'_>| on_event(id, event);
            match member.session.take(run, pass, logits, tell) {
                Ok(took) => ended.extend(took.stop.map(|stop| (i, Ok(stop)))),
                Err(error) => ended.push((i, Err(error))),
            }
        }
        for (i, result) in ended.into_iter().rev() {
            self.leave(i, result, on_event);
        }
    }

    /// Ends the generation of member `i`.
    fn leave(
        &mut self,
        i: usize,
        stop: Result<StopReason>,
        on_event: &mut dyn FnMut(usize, Event<'_>),
    ) {
        let Member { id, session, run } = self.members.remove(i);
        let stop = match stop {
            Err(CoreError::Cancelled) => Ok(StopReason::Cancelled),
            other => other,
        };
        let result = stop.map(|stop| run.finish(stop, &mut |event| on_event(id, event)));
        self.finished.push(Finished {
            id,
            session,
            result,
        });
    }
}
