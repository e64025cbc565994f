//! The check that an answer stands on what was found: no invented number, date or name.

use std::collections::BTreeSet;

use jiff::civil::Date;

use crate::{
    evidence::spell,
    tool::{
        decimal::Decimal,
        facts::{FactKind, facts_in},
    },
};

/// What an answer may speak of.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    numbers: BTreeSet<Decimal>,
    dates: BTreeSet<Date>,
    words: BTreeSet<String>,
}

impl Ground {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all that a text states.
    pub fn add(&mut self, text: &str) {
        for fact in facts_in(text) {
            match fact.kind {
                FactKind::Number(number) => {
                    self.numbers.insert(number);
                }
                FactKind::Date(date) => {
                    self.dates.insert(date);
                }
                FactKind::Name(_) => {}
            }
        }
        self.words.extend(words(text));
    }

    /// The first thing in `answer` that nothing stands behind, in words for the model.
    pub fn reject(&self, answer: &str) -> Option<String> {
        for fact in facts_in(answer) {
            match &fact.kind {
                FactKind::Number(number)
                    if !self.numbers.contains(number) && !self.in_a_date(number) =>
                {
                    return Some(format!(
                        "the number {number} stands neither in the quotes nor in a calculation"
                    ));
                }
                FactKind::Date(date) if !self.dates.contains(date) => {
                    return Some(format!(
                        "the date {} stands neither in the quotes nor in a calculation",
                        spell(*date)
                    ));
                }
                FactKind::Name(name) => {
                    if let Some(word) = words(name).find(|word| !self.knows(word)) {
                        return Some(format!("the name \"{word}\" stands in no quote"));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// "in 2027" about 31 March 2027.
    fn in_a_date(&self, number: &Decimal) -> bool {
        self.dates
            .iter()
            .any(|date| *number == Decimal::from(i64::from(date.year())))
    }

    fn knows(&self, word: &str) -> bool {
        self.words.contains(word)
            || word
                .strip_suffix('s')
                .is_some_and(|stem| self.words.contains(stem))
            || self.words.contains(&format!("{word}s"))
    }
}

/// The words of a text in lower case, without possessives.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’')
        .map(|word| {
            let word = word.trim_matches(['\'', '’']);
            let word = word
                .strip_suffix("'s")
                .or_else(|| word.strip_suffix("’s"))
                .unwrap_or(word);
            word.to_lowercase()
        })
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> Ground {
        let mut ground = Ground::new();
        ground.add("The fee is GBP 640 per month until 31 May 2026. Corvane IT");
        ground.add("640 * 18 = 11520");
        ground.add("What does Corvane cost?");
        ground
    }

    #[test]
    fn what_was_found_passes_in_any_spelling() {
        for answer in [
            "Corvane costs £11,520 in total.",
            "It ends on 2026-05-31.",
            "It ends on May 31, 2026; Corvane's fee is 640.00.",
            "It ends in 2026.",
        ] {
            assert_eq!(ground().reject(answer), None, "{answer}");
        }
    }

    #[test]
    fn what_was_not_found_is_named() {
        for (answer, what) in [
            ("It costs 650.", "650"),
            ("It ends on 30 May 2026.", "30 May 2026"),
            ("It is paid to Kestrel.", "kestrel"),
        ] {
            let reason = ground().reject(answer).unwrap();
            assert!(reason.contains(what), "{reason}");
        }
    }
}
