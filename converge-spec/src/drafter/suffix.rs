//! Guesses what followed the same words before.
//!
//! The longest suffix of the text that occurred before, in the request or in anything that this
//! process generated, and what followed it last: prompt lookup (Saxena 2023) over texts that
//! grow, as in SuffixDecoding (Oliaro et al., arXiv 2411.04975), with a suffix automaton, which takes
//! a token in without a search.
//!
//! Under a grammar the guesses are ones that it allows, they go on behind what it forces, and where it
//! forces text that may be cut into tokens in several ways, they are the tokens that spell it:
//!
//! ```text
//!   …"path":"a.md   ",    "    tool    ":"    search
//!                   └ guessed  └ forced └ spelled └ followed before
//! ```

use converge_core::{Result, TokenId, constrain::Constraint, generate::Place};

use super::{
    Drafter, Gate, Guess, Store,
    automaton::{Automaton, Cursor},
};

/// Tokens of earlier texts that are kept; at the limit, all but the present one are forgotten.
const LIMIT: usize = 1 << 18;

/// Where texts part, so many tokens before it are read again, to match longer suffixes than none.
const OVERLAP: usize = 32;

/// Lengths of matches that form classes of their own; longer ones are with the last.
const LENGTHS: [usize; 9] = [1, 2, 3, 4, 6, 9, 14, 24, 40];

/// Before anything is learned: matches that had several continuations, and those that had one, by
/// length; and what the grammar forces, in the tokens that spell it.
const PRIORS: [f64; 2 * LENGTHS.len() + 1] = [
    0.15, 0.25, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, //
    0.2, 0.4, 0.55, 0.7, 0.8, 0.88, 0.93, 0.95, 0.97, //
    0.8,
];

/// The class of guesses that spell what the grammar forces.
const SPELLED: usize = 2 * LENGTHS.len();

/// See the [module](self).
#[derive(Debug)]
pub struct SuffixDrafter {
    automaton: Automaton,
    /// The present text.
    text: Vec<TokenId>,
    store: Option<Store>,
}

impl Default for SuffixDrafter {
    fn default() -> Self {
        Self::new()
    }
}

impl SuffixDrafter {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self {
            automaton: Automaton::new(),
            text: Vec::new(),
            store: None,
        }
    }

    /// Knows the texts of a store, and adds to it what is generated.
    #[must_use]
    pub fn with_store(store: Store) -> Self {
        let mut drafter = Self {
            store: Some(store),
            ..Self::new()
        };
        drafter.read_store();
        drafter
    }

    fn read_store(&mut self) {
        for text in self.store.iter().flat_map(Store::texts) {
            text.iter().for_each(|&t| self.automaton.push(t));
            self.automaton.end();
        }
    }
}

/// A way on from the end of the text, guess by guess.
struct Walk<'a> {
    automaton: &'a Automaton,
    cursor: Cursor,
    constraint: Option<Constraint>,
}

impl Walk<'_> {
    /// What comes next: what followed before, or what spells the text that the grammar forces.
    fn guess(&mut self, gate: &Gate<'_>) -> Result<Option<Guess>> {
        let mut spelled = None;
        if let Some(constraint) = &mut self.constraint {
            let likely = constraint.likely()?;
            if let Some(&token) = likely.first()
                && constraint.allowed_prefix(&[token])? == 1
            {
                let class = SPELLED;
                spelled = Some(Guess { token, class });
            }
        }
        while let Some(step) = self.automaton.next(&mut self.cursor) {
            let class = class(usize::from(step.only), step.matched);
            if spelled.is_some_and(|spelled| gate.rate(spelled.class) >= gate.rate(class)) {
                break;
            }
            if let Some(constraint) = &mut self.constraint
                && constraint.allowed_prefix(&[step.token])? == 0
            {
                // What followed a shorter match may be allowed.
                self.automaton.shorten(&mut self.cursor);
                continue;
            }
            let token = step.token;
            return Ok(Some(Guess { token, class }));
        }
        Ok(spelled)
    }

    /// Goes on by a guess, and by what is forced after it.
    fn go_on(&mut self, token: TokenId, gate: &mut Gate<'_>) -> Result<()> {
        self.automaton.advance(&mut self.cursor, token);
        let Some(constraint) = &mut self.constraint else {
            return Ok(());
        };
        constraint.commit(token)?;
        let forced = constraint.forced()?;
        gate.force(&forced);
        for token in forced {
            constraint.commit(token)?;
            self.automaton.advance(&mut self.cursor, token);
        }
        Ok(())
    }
}

/// The class of a match of this length, in the row `kind` of the priors.
fn class(kind: usize, length: usize) -> usize {
    let column = LENGTHS.iter().rposition(|&least| length >= least);
    kind * LENGTHS.len() + column.unwrap_or(0)
}

impl Drafter for SuffixDrafter {
    fn name(&self) -> &'static str {
        "suffix"
    }

    fn priors(&self) -> &[f64] {
        &PRIORS
    }

    fn commit(&mut self, text: &[TokenId]) {
        if !text.starts_with(&self.text) || self.automaton.text().len() > LIMIT {
            let known = self.text.iter().zip(text);
            let mut common = known.take_while(|(a, b)| a == b).count();
            if self.automaton.text().len() > LIMIT {
                self.automaton = Automaton::new();
                self.read_store();
                common = 0;
            } else {
                self.automaton.end();
            }
            self.text.truncate(common.saturating_sub(OVERLAP));
        }
        for &token in text.get(self.text.len()..).unwrap_or_default() {
            self.automaton.push(token);
        }
        self.text.clear();
        self.text.extend_from_slice(text);
    }

    fn finish(&mut self, text: &[TokenId], prompt: usize) {
        self.commit(text);
        if let Some(store) = &mut self.store
            && let Err(error) = store.add(text.get(prompt..).unwrap_or_default())
        {
            tracing::warn!("a text is not kept for later runs: {error}");
        }
    }

    fn propose(&mut self, place: &Place<'_>, gate: &mut Gate<'_>) -> Result<()> {
        let mut walk = Walk {
            automaton: &self.automaton,
            cursor: self.automaton.end_of_text(),
            constraint: place.constraint.cloned(),
        };
        while gate.is_open() {
            match walk.guess(gate) {
                Ok(Some(guess)) => {
                    gate.push(guess);
                    if let Err(error) = walk.go_on(guess.token, gate) {
                        tracing::debug!("guesses end at the grammar: {error}");
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!("guesses end at the grammar: {error}");
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use converge_core::generate::Cancel;

    use super::*;
    use crate::{controller::Controller, toy};

    /// The first token guessed after `text`.
    fn guess(drafter: &mut SuffixDrafter, text: &[TokenId]) -> Option<TokenId> {
        let controller = Controller::new(std::iter::once(&*drafter as &dyn Drafter));
        let mut gate = controller.gate(0, 1, 8);
        drafter.commit(text);
        let place = Place {
            history: text,
            prompt: 1,
            constraint: None,
            behind: 1,
            most: 8,
            cancel: &Cancel::new(),
        };
        drafter.propose(&place, &mut gate).unwrap();
        let plan = gate.plan(0.0);
        plan.guesses.first().map(|guess| guess.token)
    }

    #[test]
    fn a_request_knows_those_before_it_whatever_they_share() {
        let mut drafter = SuffixDrafter::new();
        assert_eq!(guess(&mut drafter, &[1, 2, 3, 4, 5, 9]), None);
        // Goes on from it.
        assert_eq!(guess(&mut drafter, &[1, 2, 3, 4, 5, 9, 3, 4]), Some(5));
        // Begins like it, and with nothing like it.
        assert_eq!(guess(&mut drafter, &[1, 2, 7, 3, 4]), Some(5));
        assert_eq!(guess(&mut drafter, &[8, 8, 6, 2, 7, 3]), Some(4));
        // The same again, and a part of it.
        assert_eq!(guess(&mut drafter, &[8, 8, 6, 2, 7, 3]), Some(4));
        assert_eq!(guess(&mut drafter, &[8, 8, 6]), Some(2));
        // What comes after a text is not what another begins with.
        assert_eq!(guess(&mut drafter, &[5, 9]), Some(3));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut drafter = SuffixDrafter::new();
        for i in 0..6 {
            let text: Vec<_> = (0..60_000).map(|n| n * 7 % 50_000 + i).collect();
            drafter.commit(&text);
            assert!(drafter.automaton.text().len() <= LIMIT + 2 * text.len());
        }
        assert!(drafter.automaton.text().len() < 6 * 60_000);
    }

    #[test]
    fn a_store_makes_texts_known_to_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(directory.path(), &toy::tokenizer(), Store::LIMIT).unwrap();
        let mut drafter = SuffixDrafter::with_store(open());
        drafter.finish(&[0, 1, 2, 3, 4, 5, 6], 2);
        let mut drafter = SuffixDrafter::with_store(open());
        assert_eq!(guess(&mut drafter, &[6, 3, 4]), Some(5));
        // The prompt is not kept.
        assert_eq!(guess(&mut drafter, &[6, 0]), None);
    }
}
