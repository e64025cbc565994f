//! What a question names: people, firms and identifiers are looked up word for word before
//! anything is planned.
//!
//! A name that no file holds ends the run at once, and the line with an identifier is evidence that
//! leads on: the invoice names the supplier, the supplier's name finds the contract.

use std::collections::BTreeSet;

use crate::tool::{
    civil::is_month_or_weekday,
    facts::{FactKind, facts_in},
    table::Profile,
    words::{is_stop_word, stems},
};

/// Places of an identifier that are still worth reading one by one.
pub(super) const PLACES: usize = 4;

/// What a question names.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Named {
    /// As it stands in the question.
    pub text: String,
    /// With digits, such as `INV-2024-017`.
    pub identifier: bool,
}

impl Named {
    /// The word to look for: of several the first, which tells most.
    pub(super) fn word(&self) -> &str {
        if self.identifier {
            return &self.text;
        }
        let word = self.text.split(' ').next().unwrap_or(&self.text);
        let word = word
            .strip_suffix("'s")
            .or_else(|| word.strip_suffix("’s"))
            .unwrap_or(word);
        // "Fridays" stands where "Friday" does.
        word.strip_suffix('s').unwrap_or(word)
    }
}

impl Named {
    /// Its first two words.
    pub(super) fn head(&self) -> &str {
        let second = self.text.match_indices(' ').nth(1);
        second.map_or(&self.text, |(end, _)| &self.text[..end])
    }
}

/// The names and identifiers in a text. The word that begins a sentence is none, nor are titles,
/// months and short capitals such as "VAT".
pub(super) fn named_in(text: &str) -> Vec<Named> {
    let whole = text;
    let mut found = Vec::new();
    for fact in facts_in(whole) {
        let FactKind::Name(text) = fact.kind else {
            continue;
        };
        let digits = text.chars().any(|c| c.is_ascii_digit());
        let letters = text.chars().filter(|c| c.is_alphabetic()).count();
        if digits && text.len() >= 4 && !text.contains(' ') {
            found.push(Named {
                text,
                identifier: true,
            });
            continue;
        }
        let before = whole[..fact.span.start].trim_end();
        let titled = before.split(' ').next_back().is_some_and(is_title);
        let begins = !titled && sentence_begins(before);
        let words: Vec<&str> = text
            .split(' ')
            .skip(usize::from(begins))
            .skip_while(|word| is_title(word))
            .collect();
        let first = words.first().copied().unwrap_or_default();
        let low = first.chars().any(char::is_lowercase);
        if (!fact.weak || titled)
            && letters >= 4
            && first.len() >= 4
            && low
            && !is_month_or_weekday(first)
        {
            found.push(Named {
                text: words.join(" "),
                identifier: false,
            });
        }
    }
    found
}

fn sentence_begins(before: &str) -> bool {
    before.is_empty() || before.ends_with(['.', '?', '!', ':'])
}

fn is_title(word: &str) -> bool {
    let word = word.trim_end_matches('.').to_lowercase();
    ["mr", "mrs", "ms", "miss", "dr", "prof", "professor", "sir"].contains(&word.as_str())
}

/// Words of the question that no table knows, as stems: in a question about a table they speak of
/// something that only a document can say.
pub(super) fn beyond_tables(question: &str, tables: &[Profile]) -> BTreeSet<String> {
    let mut known: BTreeSet<String> = stems(PLAIN).collect();
    for table in tables {
        known.extend(stems(&table.path));
        for column in &table.columns {
            known.extend(stems(&column.name));
            known.extend(
                column
                    .distinct
                    .iter()
                    .flatten()
                    .flat_map(|text| stems(text)),
            );
        }
    }
    stems(question)
        .filter(|stem| stem.len() > 3 && !is_stop_word(stem) && !known.contains(stem))
        .filter(|stem| !stem.starts_with(|c: char| c.is_ascii_digit()))
        .filter(|stem| !is_month_or_weekday(stem))
        .collect()
}

/// How many of the words stand in a text.
pub(super) fn shared(words: &BTreeSet<String>, text: &str) -> usize {
    let there: BTreeSet<String> = stems(text).collect();
    words.intersection(&there).count()
}

/// Words with which questions speak of rows, sums and times.
const PLAIN: &str = "total sum many much number amount average mean most least more less highest \
    lowest largest smallest greatest high low large small great list name named still each every \
    per year month week day days quarter first second third last latest current currently \
    altogether together overall entire whole between during since until before after other \
    different which cost spend spent paid pay value table file row entry entries";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_identifiers_are_told_from_plain_words() {
        let texts = |question: &str| {
            named_in(question)
                .into_iter()
                .map(|one| (one.word().to_owned(), one.identifier))
                .collect::<Vec<_>>()
        };
        let name = |text: &str| (text.to_owned(), false);
        assert_eq!(
            texts("When does our contract with Fenwick Packaging end?"),
            [name("Fenwick")]
        );
        assert_eq!(
            texts("Which supplier sent invoice SF-2291 in February 2026?"),
            [("SF-2291".to_owned(), true)]
        );
        assert_eq!(
            texts("What did Dr. Miller's letter of Q4 2025 say?"),
            [name("Miller")]
        );
        assert!(texts("How much VAT did we pay in March?").is_empty());
        assert!(texts("Which loan ends first?").is_empty());
    }
}
