//! How many tokens to guess, and whose guesses to check.
//!
//! A pass over `k` guesses and the token before them gives E tokens on average and takes `t(k + 1)`
//! seconds, beside `d` seconds for each guess of a model. With `aᵢ` the probability that guess `i` is
//! right when those before it are,
//!
//! ```text
//!   E = 1 + a₁ + a₁a₂ + … + a₁…aₖ          speed = E / (t(k + 1) + k·d)
//! ```
//!
//! The length with the highest speed is chosen, and none at all where that is plain decoding. `t`, `d`
//! and `a` are learned from every pass (the analysis is that of Leviathan et al., arXiv 2211.17192,
//! section 3, with measured costs in the place of assumed ones).

mod acceptance;
mod cost;

use crate::drafter::{Drafter, Guess};
use acceptance::Acceptance;
pub(crate) use cost::MOST;
use cost::{Costs, Mean};

/// How often a guess of a model is right before any was checked.
const MODEL_PRIOR: f64 = 0.8;

/// Seconds of a model's guess relative to a plain pass, before any was measured.
const GUESS_PRIOR: f64 = 0.35;

/// Tokens that a model reads in the time of a guess, before it was measured: a prompt goes through
/// many at a time.
const READ_PRIOR: f64 = 10.0;

/// Reading more tokens than this is for the rest of the text; fewer are for the next guesses.
const TEXT: usize = 64;

/// Of the tokens that a text may still have, those that reading it has to pay for itself with: most
/// texts end before their limit, and what is read is paid for whatever comes of it.
const LIKELY: f64 = 0.3;

/// How much of what is known of the need for guesses a token changes.
const NEED: f64 = 0.02;

/// What is known of one source.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    classes: Vec<Acceptance>,
    overall: Acceptance,
    /// Seconds of a guess.
    guess: Mean,
    /// Seconds for a token that is only read.
    read: Mean,
    paid: bool,
}

/// Learns from passes and decides on drafts.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    costs: Costs,
    sources: Vec<Source>,
    /// Of the tokens of late, those that no free guess gave.
    need: f64,
}

/// Takes guesses as long as they are worth it.
#[derive(Debug)]
pub struct Gate<'a> {
    costs: &'a Costs,
    source: &'a Source,
    most: usize,
    /// Whether all guesses are wanted, whatever they promise.
    all: bool,
    guesses: Vec<Guess>,
    /// For each number of guesses, the tokens that a pass with them gives.
    tokens: Vec<f64>,
    /// The probability that all guesses are right.
    reach: f64,
}

/// A draft and what it promises.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) guesses: Vec<Guess>,
    /// Tokens per second.
    pub(crate) speed: f64,
    /// Seconds that they stand for.
    seconds: f64,
}

impl Plan {
    /// Its speed when `seconds` more were spent before.
    pub(crate) fn after(&self, seconds: f64) -> f64 {
        match self.seconds > 0.0 {
            true => self.speed * self.seconds / (self.seconds + seconds),
            false => 0.0,
        }
    }
}

impl Controller {
    pub(crate) fn new<'a>(drafters: impl Iterator<Item = &'a dyn Drafter>) -> Self {
        let source = |drafter: &dyn Drafter| Source {
            classes: drafter
                .priors()
                .iter()
                .map(|&prior| Acceptance::new(prior))
                .collect(),
            overall: Acceptance::new(MODEL_PRIOR),
            guess: Mean::default(),
            read: Mean::default(),
            paid: drafter.behind(0).is_some(),
        };
        Self {
            costs: Costs::new(),
            sources: drafters.map(source).collect(),
            need: 0.5,
        }
    }

    /// Seconds of a pass over one token.
    pub(crate) fn plain(&self) -> f64 {
        self.costs.seconds(1)
    }

    pub(crate) fn gate(&self, source: usize, most: usize) -> Gate<'_> {
        Gate {
            costs: &self.costs,
            source: &self.sources[source],
            most: most.min(MOST - 1),
            all: false,
            guesses: Vec::new(),
            tokens: vec![1.0],
            reach: 1.0,
        }
    }

    /// A gate for as many guesses as the source has, at most `most`.
    pub(crate) fn open_gate(&self, source: usize, most: usize) -> Gate<'_> {
        Gate {
            all: true,
            ..self.gate(source, most)
        }
    }

    /// The speed that a source whose guesses cost time promises, before it guesses: `behind` tokens
    /// are to be read before, for those of the `left` tokens of the text that nothing else guesses.
    pub(crate) fn promise(&self, source: usize, most: usize, behind: usize, left: usize) -> f64 {
        let source = &self.sources[source];
        let (guess, read) = source.seconds(self.plain());
        let rate = source.overall.rate();
        let served = (left as f64 * LIKELY * self.need).max(1.0);
        let mut best = 0.0f64;
        let (mut tokens, mut reach) = (1.0, 1.0);
        for k in 1..=most.min(MOST - 1) {
            reach *= rate;
            tokens += reach;
            let reading = match behind > TEXT {
                true => behind as f64 * read * tokens / served,
                false => behind.saturating_sub(2) as f64 * read,
            };
            let seconds = self.costs.seconds(k + 1) + k as f64 * guess + reading;
            best = best.max(tokens / seconds);
        }
        best
    }

    /// A source has taken so long for its guesses, of which it had `behind` tokens to read first.
    pub(crate) fn guessed(&mut self, source: usize, guesses: usize, behind: usize, seconds: f64) {
        let plain = self.plain();
        let source = &mut self.sources[source];
        if guesses == 0 {
            return;
        }
        // The last token or two are read in the pass of the first guess.
        match behind > 2 {
            false => source.guess.add(seconds / guesses as f64),
            true => {
                let (guess, _) = source.seconds(plain);
                let reading = (seconds - guess * guesses as f64).max(0.0);
                source.read.add(reading / behind as f64);
            }
        }
    }

    /// A pass, with guesses that cost time or without, gave so many tokens.
    pub(crate) fn gave(&mut self, tokens: usize, paid: bool) {
        let tokens = tokens as f64;
        // What free guesses add to a pass needs no others.
        let need = if paid { 1.0 } else { 1.0 / tokens };
        self.need += (need - self.need) * (tokens * NEED).min(1.0);
    }

    /// Whether guesses of this source cost time.
    pub(crate) fn is_paid(&self, source: usize) -> bool {
        self.sources.get(source).is_some_and(|source| source.paid)
    }

    /// A pass took so long.
    pub(crate) fn passed(&mut self, tokens: usize, seconds: f64) {
        self.costs.learn(tokens, seconds);
        for source in &mut self.sources {
            source.classes.iter_mut().for_each(Acceptance::fade);
            source.overall.fade();
        }
    }

    /// Of these guesses, all before the first `accepted` were right, and the next one wrong.
    pub(crate) fn checked(&mut self, source: usize, guesses: &[Guess], accepted: usize) {
        let source = &mut self.sources[source];
        for (i, guess) in guesses.iter().take(accepted + 1).enumerate() {
            if let Some(class) = source.classes.get_mut(guess.class) {
                class.learn(i < accepted);
            }
            source.overall.learn(i < accepted);
        }
    }
}

impl Source {
    /// Seconds for a guess, and for a token that is only read.
    fn seconds(&self, plain: f64) -> (f64, f64) {
        if !self.paid {
            return (0.0, 0.0);
        }
        let or = |mean: &Mean, prior: f64| match mean.count > 0.0 {
            true => mean.value,
            false => prior,
        };
        let guess = or(&self.guess, plain * GUESS_PRIOR);
        (guess, or(&self.read, guess / READ_PRIOR))
    }
}

impl Gate<'_> {
    /// Takes a guess; without effect where there are too many.
    pub fn push(&mut self, guess: Guess) {
        if self.guesses.len() >= self.most {
            return;
        }
        let class = self.source.classes.get(guess.class);
        self.reach *= class.map_or(0.0, Acceptance::rate);
        self.tokens
            .push(self.tokens[self.guesses.len()] + self.reach);
        self.guesses.push(guess);
    }

    /// Guesses taken.
    pub fn len(&self) -> usize {
        self.guesses.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.guesses.is_empty()
    }

    /// Whether another guess is worth what it costs to make.
    pub fn is_open(&self) -> bool {
        let k = self.guesses.len();
        if k >= self.most || self.all || !self.source.paid {
            return k < self.most;
        }
        let (guess, _) = self.source.seconds(self.costs.seconds(1));
        let (now, _) = self.best(guess * k as f64);
        let rate = self.source.overall.rate();
        let (mut tokens, mut reach) = (self.tokens[k], self.reach);
        // A guess may pay only together with some that follow it.
        (k + 1..=self.most).any(|k| {
            reach *= rate;
            tokens += reach;
            tokens / (self.costs.seconds(k + 1) + guess * k as f64) > now
        })
    }

    /// The highest speed and the number of guesses that gives it, where guessing took `spent`.
    fn best(&self, spent: f64) -> (f64, usize) {
        let speed = |(k, tokens): (usize, &f64)| (tokens / (self.costs.seconds(k + 1) + spent), k);
        let speeds = self.tokens.iter().enumerate().map(speed);
        speeds.fold(
            (0.0, 0),
            |best, this| if this.0 > best.0 { this } else { best },
        )
    }

    /// All guesses.
    pub(crate) fn into_guesses(self) -> Vec<Guess> {
        self.guesses
    }

    /// The guesses to check, where guessing took `spent`.
    pub(crate) fn plan(mut self, spent: f64) -> Plan {
        let (speed, k) = self.best(spent);
        self.guesses.truncate(k);
        Plan {
            guesses: self.guesses,
            speed,
            seconds: self.costs.seconds(k + 1) + spent,
        }
    }
}
