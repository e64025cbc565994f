//! How long the terms among the quotes are: fees are per month and contracts for years, and a small
//! model multiplies the one by the other. Code counts, and tells it.

use jiff::{Unit, civil::Date};

use super::state::Run;
use crate::{
    evidence::{Calculation, Evidence},
    tool::facts::{FactKind, facts_in},
};

const MONTHS: i64 = 12;
/// Words between a number and its unit: "two more years".
const BETWEEN: usize = 2;

/// The length of a term, in each unit that it fills.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    /// As stated: "1 May 2021 to 30 April 2024", "2 years".
    term: String,
    lengths: Vec<(i64, &'static str)>,
    /// The evidence that states it; none for the question.
    stated: Option<usize>,
}

impl Run {
    /// What is known of the terms, a sentence each.
    pub(super) fn span_lines(&self) -> Vec<String> {
        self.spans().iter().map(Span::sentence).collect()
    }

    /// Lengths of the terms, as operands.
    pub(super) fn span_numbers(&self) -> Vec<String> {
        let spans = self.spans().into_iter();
        spans
            .flat_map(|span| span.lengths)
            .map(|(number, _)| number.to_string())
            .collect()
    }

    /// The lengths of terms that an expression uses, as calculations of their own.
    pub(super) fn spans_in(&self, expression: &str) -> Vec<Calculation> {
        let uses = |number: i64| {
            facts_in(expression).iter().any(|fact| match &fact.kind {
                FactKind::Number(used) => used.to_i64() == Some(number),
                _ => false,
            })
        };
        let mut used = Vec::new();
        for span in self.spans() {
            for (number, unit) in &span.lengths {
                if uses(*number) {
                    used.push(Calculation {
                        expression: format!("{unit} of {}", span.term),
                        result: number.to_string(),
                        from: span.stated.into_iter().collect(),
                    });
                }
            }
        }
        used
    }

    fn spans(&self) -> Vec<Span> {
        let stated = self.shown().flat_map(|(at, one)| spans_of(one, at));
        let asked = years(&self.question).map(|span| (None, span));
        let mut spans: Vec<Span> = Vec::new();
        for (at, span) in stated.chain(asked) {
            let known = spans.iter().any(|known| known.lengths == span.lengths);
            if !known {
                spans.push(Span { stated: at, ..span });
            }
        }
        spans
    }
}

fn spans_of(evidence: &Evidence, at: usize) -> impl Iterator<Item = (Option<usize>, Span)> {
    let term = term(&evidence.quote);
    let years = years(&evidence.quote);
    term.into_iter()
        .chain(years.collect::<Vec<_>>())
        .map(move |span| (Some(at), span))
}

impl Span {
    fn sentence(&self) -> String {
        let lengths: Vec<String> = self
            .lengths
            .iter()
            .map(|(number, unit)| format!("{number} {unit}"))
            .collect();
        format!("{} are {}", self.term, lengths.join(" or "))
    }
}

/// The lengths, in any unit, of a term that a text states by its two ends.
pub(super) fn lengths(text: &str) -> Vec<i64> {
    let lengths = term(text).map(|span| span.lengths).unwrap_or_default();
    lengths.into_iter().map(|(number, _)| number).collect()
}

/// The term of a text with two dates, both of which belong to it.
fn term(text: &str) -> Option<Span> {
    let dates: Vec<(Date, &str)> = facts_in(text)
        .into_iter()
        .filter_map(|fact| match fact.kind {
            FactKind::Date(date) => Some((date, text.get(fact.span)?)),
            _ => None,
        })
        .collect();
    let [(from, written_from), (to, written_to)] = dates.as_slice() else {
        return None;
    };
    if from >= to {
        return None;
    }
    let after = to.tomorrow().ok()?;
    let months = from.until((Unit::Month, after)).ok()?;
    let lengths = if months.get_days() == 0 {
        let months = i64::from(months.get_months());
        let years = (months % MONTHS == 0).then_some((months / MONTHS, "years"));
        std::iter::once((months, "months")).chain(years).collect()
    } else {
        let days = from.until((Unit::Day, after)).ok()?;
        vec![(i64::from(days.get_days()), "days")]
    };
    Some(Span {
        term: format!("{written_from} to {written_to}"),
        lengths,
        stated: None,
    })
}

/// Whole numbers of years in a text, from two on.
fn years(text: &str) -> impl Iterator<Item = Span> + '_ {
    facts_in(text).into_iter().filter_map(|fact| {
        let FactKind::Number(number) = fact.kind else {
            return None;
        };
        let number = number.to_i64().filter(|years| (2..=99).contains(years))?;
        let rest = text.get(fact.span.end..)?;
        let mut words = rest.split_whitespace().take(BETWEEN + 1);
        words
            .any(|word| word.to_lowercase().starts_with("years"))
            .then(|| Span {
                term: format!("{number} years"),
                lengths: vec![(number * MONTHS, "months")],
                stated: None,
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_measured_in_whole_months() {
        let lengths = |quote: &str| term(quote).map(|span| span.sentence());
        assert_eq!(
            lengths("From January 1st, 2025 to December 31st, 2026.").as_deref(),
            Some("January 1st, 2025 to December 31st, 2026 are 24 months or 2 years")
        );
        assert_eq!(
            lengths("It stood still from 14 November 2025 to 24 November 2025.").as_deref(),
            Some("14 November 2025 to 24 November 2025 are 11 days")
        );
        assert_eq!(lengths("It ends on 3 May 2025."), None);
        assert_eq!(
            lengths("Until 3 May 2025, no longer from 1 May 2024."),
            None
        );
    }

    #[test]
    fn years_are_told_in_months() {
        let told = |text: &str| -> Vec<String> { years(text).map(|one| one.sentence()).collect() };
        assert_eq!(told("over the two years of it"), ["2 years are 24 months"]);
        assert_eq!(told("for two more years"), ["2 years are 24 months"]);
        assert!(told("in 2024, 18 flats a year").is_empty());
    }
}
