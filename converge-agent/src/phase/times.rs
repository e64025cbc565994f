//! Which dates a query may name: those that the question and the documents speak of. Any other
//! would be made up.

use std::collections::BTreeSet;

use crate::tool::{
    civil::month_of,
    facts::{FactKind, facts_in},
    words,
};

/// What texts say of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// Whether a day is named.
    days: bool,
    /// Months, 1 to 12.
    months: BTreeSet<i8>,
    /// Whether quarters are spoken of.
    quarters: bool,
}

/// Words for parts of a year that are no month: their months follow from none.
const SEASONS: [&str; 7] = [
    "half", "spring", "summer", "autumn", "fall", "winter", "season",
];

impl Times {
    /// Those of a question; days and months of what documents said where it names none itself.
    pub(super) fn of(question: &str, known: &[String]) -> Self {
        let mut times = Self::default();
        times.add(question);
        if times.months.is_empty() {
            known.iter().for_each(|text| times.add(text));
        }
        for word in words::stems(question) {
            times.quarters |= word == "quarter" || is_quarter(&word);
            if SEASONS.contains(&word.as_str()) {
                times.months.extend(1..=12);
            }
        }
        times
    }

    fn add(&mut self, text: &str) {
        for fact in facts_in(text) {
            if let FactKind::Date(date) = fact.kind {
                self.months.insert(date.month());
                self.days = true;
            }
        }
        let names = text.split(|c: char| !c.is_alphanumeric());
        self.months.extend(names.filter_map(month_of));
        self.months.extend(numbered_months(text));
    }

    /// The regular expression of the dates that a query may name: a year, and its quarters, months
    /// and days where they are spoken of.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::from("^([12][0-9]{3}");
        if !self.months.is_empty() {
            let months: Vec<String> = self.months.iter().map(|m| format!("{m:02}")).collect();
            let day = if self.days { "(-[0-3][0-9])?" } else { "" };
            pattern.push_str(&format!("(-({}){day})?", months.join("|")));
        }
        if self.quarters {
            pattern.push_str("|Q[1-4] [12][0-9]{3}");
        }
        pattern.push_str(")$");
        pattern
    }
}

/// "q3".
fn is_quarter(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next() == Some('q')
        && chars
            .as_str()
            .parse()
            .is_ok_and(|n: u8| (1..=4).contains(&n))
}

/// The month of each `2025-10` and `10/2025`.
fn numbered_months(text: &str) -> impl Iterator<Item = i8> + '_ {
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '-' | '/');
    text.split(move |c| !digits(c)).filter_map(|word| {
        let (first, second) = word.split_once(['-', '/'])?;
        let month = match (first.len(), second.len()) {
            (4, 1..=2) => second,
            (1..=2, 4) => first,
            _ => return None,
        };
        month.parse().ok().filter(|month| (1..=12).contains(month))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(question: &str) -> String {
        Times::of(question, &[]).pattern()
    }

    #[test]
    fn only_what_is_spoken_of_can_be_named() {
        assert_eq!(pattern("How many in 2025?"), "^([12][0-9]{3})$");
        assert_eq!(
            pattern("How many in the fourth quarter of 2025?"),
            "^([12][0-9]{3}|Q[1-4] [12][0-9]{3})$"
        );
        assert_eq!(
            pattern("How many in Q4 2025?"),
            "^([12][0-9]{3}|Q[1-4] [12][0-9]{3})$"
        );
        assert_eq!(
            pattern("How many in October or 2025-11?"),
            "^([12][0-9]{3}(-(10|11))?)$"
        );
        assert_eq!(
            pattern("How many since 3 March 2025?"),
            "^([12][0-9]{3}(-(03)(-[0-3][0-9])?)?)$"
        );
        assert!(pattern("How many in the first half of 2025?").contains("|06|"));
        let known = ["The lease ends on 30 June 2026.".to_owned()];
        let times = Times::of("What came in after the end of the lease?", &known);
        assert_eq!(times.pattern(), "^([12][0-9]{3}(-(06)(-[0-3][0-9])?)?)$");
    }
}
