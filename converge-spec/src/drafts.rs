//! All sources together, as a session wants them.

use std::time::Instant;

use converge_core::{
    Result, TokenId,
    generate::{Checked, Draft, Place, Request},
};

use crate::{
    Drafter, Guess, SourceStats, Stats,
    controller::{Controller, Plan},
};

/// Sources of guesses, and the [controller](crate::controller) that chooses among them. A
/// [`Draft`] for [`Session::generate_drafted`](converge_core::generate::Session::generate_drafted);
/// [`finish`](Self::finish) tells it afterwards what came, as [`Speculative`](crate::Speculative) does.
pub struct Drafts {
    drafters: Vec<Box<dyn Drafter>>,
    controller: Controller,
    /// The length of every draft, instead of the controller's.
    length: Option<usize>,
    stats: Stats,
    /// Whose guesses the present pass checks.
    pending: Option<(usize, Vec<Guess>)>,
    /// Tokens of the present text before the pass.
    len: usize,
    /// Tokens of the pass before the guesses.
    behind: usize,
    /// The most tokens that the generation has.
    end: usize,
    /// Tokens chosen in it.
    chosen: usize,
    /// Seconds since the last pass that went into guesses.
    spent: f64,
}

impl Drafts {
    /// Drafts from these sources; of equal promise the first one goes.
    pub fn new(drafters: Vec<Box<dyn Drafter>>) -> Self {
        let controller = Controller::new(drafters.iter().map(|drafter| &**drafter));
        let mut drafts = Self {
            controller,
            drafters,
            length: None,
            stats: Stats::default(),
            pending: None,
            len: 0,
            behind: 0,
            end: 0,
            chosen: 0,
            spent: 0.0,
        };
        drafts.take_stats();
        drafts
    }

    /// Drafts of up to `length` tokens at every pass, of the first source that has any: what is
    /// measured no longer decides, so that each run has the same passes.
    #[must_use]
    pub fn with_length(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// What happened since [`take_stats`](Self::take_stats).
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What happened since this was last called.
    pub fn take_stats(&mut self) -> Stats {
        let sources = self.drafters.iter().map(|drafter| SourceStats {
            name: drafter.name(),
            ..SourceStats::default()
        });
        let fresh = Stats {
            plain_seconds: self.stats.plain_seconds,
            sources: sources.collect(),
            ..Stats::default()
        };
        std::mem::replace(&mut self.stats, fresh)
    }

    /// A generation has ended: prompt and everything generated. To be called once after each; one that
    /// failed may be left out.
    pub fn finish(&mut self, text: &[TokenId], prompt: usize) {
        self.pending = None;
        self.controller.ended(self.chosen);
        for drafter in &mut self.drafters {
            drafter.finish(text, prompt);
        }
    }

    /// The first draft of this length, and whose it is.
    fn fixed(&mut self, place: &Place<'_>, length: usize) -> Result<(usize, Vec<Guess>)> {
        let mut chosen = (0, Vec::new());
        for (i, drafter) in self.drafters.iter_mut().enumerate() {
            let start = Instant::now();
            drafter.commit(place.history);
            if chosen.1.is_empty() {
                let mut gate = self
                    .controller
                    .open_gate(i, place.behind, place.most.min(length));
                drafter.propose(place, &mut gate)?;
                chosen = (i, gate.into_guesses());
            }
            let seconds = start.elapsed().as_secs_f64();
            self.spent += seconds;
            self.stats.sources[i].seconds += seconds;
        }
        Ok(chosen)
    }

    /// The best draft, and whose it is.
    fn plan(&mut self, place: &Place<'_>) -> Result<(usize, Plan)> {
        let len = place.history.len();
        let mut best = (0, Plan::default());
        let mut paid = Vec::new();
        for (i, drafter) in self.drafters.iter_mut().enumerate() {
            let start = Instant::now();
            drafter.commit(place.history);
            match drafter.behind(len) {
                Some(behind) => paid.push((i, behind)),
                None => {
                    let mut gate = self.controller.gate(i, place.behind, place.most);
                    drafter.propose(place, &mut gate)?;
                    let plan = gate.plan(0.0);
                    if plan.speed > best.1.speed {
                        best = (i, plan);
                    }
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            self.spent += seconds;
            self.stats.sources[i].seconds += seconds;
        }
        for (i, behind) in paid {
            let left = self.end.saturating_sub(len);
            let promise = self.controller.promise(i, place, behind, self.chosen, left);
            if promise <= best.1.speed.max(1.0 / self.controller.cost(place.behind)) {
                continue;
            }
            let start = Instant::now();
            let mut gate = self.controller.gate(i, place.behind, place.most);
            self.drafters[i].propose(place, &mut gate)?;
            let seconds = start.elapsed().as_secs_f64();
            let guesses = gate.made();
            // What is spent is spent: the other plan has to bear it, too.
            let plan = gate.plan(seconds);
            let other = best.1.after(seconds);
            self.controller.guessed(i, guesses, behind, seconds);
            self.spent += seconds;
            self.stats.sources[i].seconds += seconds;
            if plan.speed > other {
                best = (i, plan);
            }
        }
        Ok(best)
    }
}

impl std::fmt::Debug for Drafts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.drafters.iter().map(|drafter| drafter.name());
        f.debug_struct("Drafts")
            .field("sources", &names.collect::<Vec<_>>())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Draft for Drafts {
    fn begin(&mut self, request: &Request) {
        self.pending = None;
        self.spent = 0.0;
        self.behind = 0;
        self.chosen = 0;
        self.end = request.prompt.len().saturating_add(request.max_tokens);
        for drafter in &mut self.drafters {
            drafter.begin(request);
        }
    }

    fn propose(&mut self, place: &Place<'_>, out: &mut Vec<TokenId>) -> Result<()> {
        self.pending = None;
        self.len = place.history.len();
        self.behind = place.behind;
        let (source, guesses) = match self.length {
            Some(length) => self.fixed(place, length)?,
            None => self.plan(place).map(|(i, plan)| (i, plan.guesses))?,
        };
        out.extend(guesses.iter().map(|guess| guess.token));
        if !guesses.is_empty() {
            self.pending = Some((source, guesses));
        }
        Ok(())
    }

    fn checked(&mut self, pass: &Checked) {
        let stats = &mut self.stats;
        stats.passes += 1;
        stats.plain_passes += usize::from(pass.drafted == 0);
        stats.tokens += pass.chosen;
        self.chosen += pass.chosen;
        stats.draft_seconds += self.spent;
        self.spent = 0.0;
        // The first pass read the prompt, too.
        if pass.tokens == pass.drafted + self.behind {
            stats.pass_seconds += pass.seconds;
            self.controller.passed(pass.tokens, pass.seconds);
            stats.plain_seconds = Some(self.controller.cost(1));
        }
        let chosen = self.pending.as_ref().map(|(source, _)| *source);
        let paid = chosen.is_some_and(|source| self.controller.is_paid(source));
        self.controller.gave(pass.chosen.max(1), paid);
        if let Some((source, guesses)) = self.pending.take() {
            // What the session left out was not checked.
            let guesses = guesses.get(..pass.drafted).unwrap_or(&guesses);
            if !guesses.is_empty() {
                self.controller.checked(source, guesses, pass.accepted);
                stats.sources[source].checked(guesses.len(), pass.accepted);
            }
            self.drafters[source].rollback(self.len + pass.accepted);
        }
    }
}
