//! How many tokens to guess, and whose guesses to check.
//!
//! A pass over `k` guesses and the `b` tokens before them, mostly one, gives E tokens on average and
//! takes `t(b + k)` seconds, beside `d` seconds for each guess of a model. With `aᵢ` the probability
//! that guess `i` is right when those before it are,
//!
//! ```text
//!   E = 1 + a₁ + a₁a₂ + … + a₁…aₖ          speed = E / (t(b + k) + k·d)
//! ```
//!
//! Tokens that a grammar forces after a guess are sure, and need no logits to be chosen: what follows
//! the guess is then chosen by the logits after the last of them, or by none.
//!
//! The length with the highest speed is chosen, and none at all where that is plain decoding. `t`, `d`
//! and `a` are learned from every pass (the analysis is that of Leviathan et al., arXiv 2211.17192,
//! section 3, with costs that are assumed only until some were measured).

mod acceptance;
mod cost;

use converge_core::{TokenId, generate::Place};

use crate::drafter::{Drafter, Guess};
use acceptance::Acceptance;
pub(crate) use cost::MOST;
use cost::{Costs, LONGEST, Mean};

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
    /// Tokens chosen in a text.
    length: Mean,
}

/// Takes guesses as long as they are worth it.
#[derive(Debug)]
pub struct Gate<'a> {
    costs: &'a Costs,
    source: &'a Source,
    /// Tokens of the pass before the guesses.
    behind: usize,
    most: usize,
    /// Whether all guesses are wanted, whatever they promise.
    all: bool,
    guesses: Vec<Guess>,
    /// Guesses that are forced.
    forced: usize,
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
            length: Mean::default(),
        }
    }

    /// A text has ended after so many tokens that were chosen.
    pub(crate) fn ended(&mut self, chosen: usize) {
        // One that was cancelled before its first token tells nothing.
        if chosen > 0 {
            self.length.take(chosen as f64);
        }
    }

    /// Tokens that are likely still to be chosen in a text that has `chosen`, with room for `left`:
    /// by its limit, and by how long texts were.
    fn likely(&self, chosen: usize, left: usize) -> f64 {
        let by_limit = left as f64 * LIKELY;
        let mean = self.length.value;
        match self.length.count > 0.0 {
            // One that is longer than most goes on for a while.
            true => by_limit.min((mean - chosen as f64).max(mean / 2.0)),
            false => by_limit,
        }
    }

    /// Seconds of a pass over so many tokens.
    pub(crate) fn cost(&self, tokens: usize) -> f64 {
        self.costs.seconds(tokens)
    }

    /// A gate for at most `most` guesses after `behind` other tokens of the pass.
    pub(crate) fn gate(&self, source: usize, behind: usize, most: usize) -> Gate<'_> {
        Gate {
            costs: &self.costs,
            source: &self.sources[source],
            behind,
            most: longest(behind, most),
            all: false,
            guesses: Vec::new(),
            forced: 0,
            tokens: vec![1.0],
            reach: 1.0,
        }
    }

    /// A gate for as many guesses as the source has, at most `most`.
    pub(crate) fn open_gate(&self, source: usize, behind: usize, most: usize) -> Gate<'_> {
        Gate {
            all: true,
            ..self.gate(source, behind, most)
        }
    }

    /// The speed that a source whose guesses cost time promises, before it guesses: `behind` tokens
    /// are to be read before, for those tokens that nothing else guesses of a text that has `chosen`
    /// and room for `left`.
    pub(crate) fn promise(
        &self,
        source: usize,
        place: &Place<'_>,
        behind: usize,
        chosen: usize,
        left: usize,
    ) -> f64 {
        let source = &self.sources[source];
        let (guess, read) = source.seconds(self.cost(1));
        let rate = source.overall.rate();
        let served = (self.likely(chosen, left) * self.need).max(1.0);
        let mut best = 0.0f64;
        let (mut tokens, mut reach) = (1.0, 1.0);
        for k in 1..=longest(place.behind, place.most) {
            reach *= rate;
            tokens += reach;
            let reading = match behind > TEXT {
                true => behind as f64 * read * tokens / served,
                false => behind.saturating_sub(2) as f64 * read,
            };
            let seconds = self.costs.seconds(place.behind + k) + k as f64 * guess + reading;
            best = best.max(tokens / seconds);
        }
        best
    }

    /// A source has taken so long for its guesses, those that are forced left out, and had `behind` tokens to read first.
    pub(crate) fn guessed(&mut self, source: usize, guesses: usize, behind: usize, seconds: f64) {
        let plain = self.cost(1);
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
            if guess.is_forced() {
                continue;
            }
            if let Some(class) = source.classes.get_mut(guess.class) {
                class.learn(i < accepted);
            }
            source.overall.learn(i < accepted);
        }
    }
}

/// The most guesses after `behind` tokens of a pass, where `most` are allowed.
fn longest(behind: usize, most: usize) -> usize {
    most.min(MOST - 1).min(LONGEST.saturating_sub(behind))
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
        self.reach *= self.rate(guess.class);
        self.tokens
            .push(self.tokens[self.guesses.len()] + self.reach);
        self.guesses.push(guess);
    }

    /// How likely a guess of this class is right.
    pub(crate) fn rate(&self, class: usize) -> f64 {
        let class = self.source.classes.get(class);
        class.map_or(0.0, Acceptance::rate)
    }

    /// Takes what the grammar forces after the guesses.
    pub fn force(&mut self, tokens: &[TokenId]) {
        let Some((&before, _)) = tokens.split_first().and(self.tokens.split_last()) else {
            return;
        };
        // The logits before what is forced choose nothing: those after it do.
        let chosen = match self.tokens.get(self.tokens.len().wrapping_sub(2)) {
            Some(&chosen) => chosen,
            None => before,
        };
        if let Some(last) = self.tokens.last_mut() {
            *last = chosen;
        }
        let room = self.most - self.guesses.len();
        for &token in tokens.iter().take(room) {
            self.guesses.push(Guess {
                token,
                class: Guess::FORCED,
            });
            self.tokens.push(chosen);
            self.forced += 1;
        }
        if tokens.len() <= room
            && let Some(last) = self.tokens.last_mut()
        {
            *last = before;
        }
    }

    /// Guesses taken that are not forced.
    pub(crate) fn made(&self) -> usize {
        self.guesses.len() - self.forced
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
        let spent = guess * self.made() as f64;
        let (now, _) = self.best(spent);
        let rate = self.source.overall.rate();
        let (mut tokens, mut reach) = (self.tokens[k], self.reach);
        // A guess may pay only together with some that follow it.
        (1..=self.most - k).any(|more| {
            reach *= rate;
            tokens += reach;
            let seconds = self.costs.seconds(self.behind + k + more);
            tokens / (seconds + spent + guess * more as f64) > now
        })
    }

    /// The highest speed and the number of guesses that gives it, where guessing took `spent`.
    fn best(&self, spent: f64) -> (f64, usize) {
        let speed = |(k, tokens): (usize, &f64)| {
            let seconds = self.costs.seconds(self.behind + k) + spent;
            (tokens / seconds, k)
        };
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
            seconds: self.costs.seconds(self.behind + k) + spent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SuffixDrafter;

    fn guess(token: TokenId, class: usize) -> Guess {
        Guess { token, class }
    }

    /// The best of `priors`.
    fn surest() -> usize {
        let drafter = SuffixDrafter::new();
        let priors = drafter.priors().iter().enumerate();
        priors
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map_or(0, |(i, _)| i)
    }

    #[test]
    fn what_is_forced_counts_by_what_follows_it() {
        let drafter = SuffixDrafter::new();
        let controller = Controller::new(std::iter::once(&drafter as &dyn Drafter));
        let class = surest();
        // The whole of what is forced: the guess pays with the token after it.
        let mut gate = controller.gate(0, 1, 8);
        gate.push(guess(1, class));
        gate.force(&[2, 3]);
        assert_eq!((gate.len(), gate.made()), (3, 1));
        let tokens = gate.tokens.clone();
        assert_eq!(tokens[..3], [1.0; 3]);
        assert!(tokens[3] > 1.9);
        let plan = gate.plan(0.0);
        assert_eq!(plan.guesses.len(), 3);
        // A part of it: no token comes of the guess in this pass.
        let mut gate = controller.gate(0, 1, 2);
        gate.push(guess(1, class));
        gate.force(&[2, 3]);
        assert_eq!(gate.tokens, [1.0; 3]);
        assert!(gate.plan(0.0).guesses.is_empty());
    }

    #[test]
    fn what_is_likely_to_come_follows_the_texts_before() {
        let mut controller = Controller::new(std::iter::empty());
        assert_eq!(controller.likely(0, 1000), 1000.0 * LIKELY);
        controller.ended(0);
        assert_eq!(controller.likely(0, 1000), 1000.0 * LIKELY);
        (0..20).for_each(|_| controller.ended(30));
        assert_eq!(controller.likely(0, 1000), 30.0);
        assert_eq!(controller.likely(20, 1000), 15.0);
        assert_eq!(controller.likely(0, 10), 10.0 * LIKELY);
        // A few long ones among short ones count as what they are.
        (0..40).for_each(|i| controller.ended(if i % 4 == 3 { 400 } else { 10 }));
        let likely = controller.likely(0, 10_000);
        assert!((80.0..160.0).contains(&likely), "{likely}");
    }

    #[test]
    fn guesses_go_where_weights_are_waited_for() {
        let drafter = SuffixDrafter::new();
        let controller = Controller::new(std::iter::once(&drafter as &dyn Drafter));
        // One that is right half of the time.
        let priors = drafter.priors().iter().enumerate();
        let off = |prior: &f64| (prior - 0.5).abs();
        let class = priors.min_by(|a, b| off(a.1).total_cmp(&off(b.1)));
        let class = class.map_or(0, |(i, _)| i);
        let guesses = |behind| {
            let mut gate = controller.gate(0, behind, 100);
            (0..7).for_each(|i| gate.push(guess(i, class)));
            gate.plan(0.0).guesses.len()
        };
        // Beyond six tokens a pass waits for arithmetic, and each guess costs its share.
        assert!(
            guesses(6) > 0 && guesses(1) > guesses(6),
            "{} {}",
            guesses(1),
            guesses(6)
        );
        assert_eq!((guesses(LONGEST), guesses(1000)), (0, 0));
    }
}
