//! Observe: what there is to compute with, and how a chosen operation is carried out.

use serde_json::json;

use super::{
    span,
    state::{Run, Stage},
};
use crate::{
    evidence::{Calculation, Evidence, FactValue},
    phase::{
        compare::{Comparison, Pick},
        compute::{Decision, Fold, Operands, Operation, Side},
        plan::Kind,
    },
    tool::{
        civil::is_month_or_weekday,
        decimal::Decimal,
        facts::{Fact, FactKind, facts_in},
    },
};

impl Run {
    /// Everything found and computed, as the model sees it.
    pub(super) fn found(&self) -> String {
        let mut text = String::from("Found:\n");
        let latest = self.latest();
        // The latest comes first: a small model answers with what it reads first.
        let mut shown: Vec<(usize, &Evidence)> = self.shown().collect();
        shown.sort_by_key(|(_, one)| latest != Some(one.source.path.as_str()));
        let mut under: Option<&str> = None;
        for (at, evidence) in shown {
            let path = evidence.source.path.as_str();
            let fact = match (&evidence.fact, &evidence.value) {
                (Some(fact), Some(value)) => format!(", {fact} = {value}"),
                (Some(fact), None) => format!(", {fact}"),
                _ => String::new(),
            };
            // The lines of one document stand under its name.
            if fact.is_empty() {
                if under != Some(path) {
                    let latest = if latest == Some(path) {
                        " (the latest)"
                    } else {
                        ""
                    };
                    text.push_str(&format!("{path}{latest}\n"));
                }
                under = Some(path);
                text.push_str(&format!("[{}] {}\n", at + 1, evidence.quote));
            } else {
                under = None;
                text.push_str(&format!("[{}] {path}{fact}: {}\n", at + 1, evidence.quote));
            }
        }
        if self.shown().next().is_none() {
            text.push_str("nothing\n");
        }
        if self.calculations.is_empty() {
            text.push_str("Computed: nothing yet");
        } else {
            text.push_str("Computed:");
            for calculation in &self.calculations {
                text.push_str(&format!(
                    "\n{} = {}",
                    calculation.expression, calculation.result
                ));
            }
        }
        text
    }

    /// Of several documents with a date in their path the one with the latest.
    fn latest(&self) -> Option<&str> {
        let mut dated: Vec<(jiff::civil::Date, &str)> = Vec::new();
        for (_, evidence) in self.shown() {
            let path = evidence.source.path.as_str();
            let known = dated.iter().any(|(_, known)| *known == path);
            if let Some(date) = date_in_name(path)
                && !known
            {
                dated.push((date, path));
            }
        }
        dated.sort();
        let last = dated.last().map(|(_, path)| *path);
        last.filter(|_| dated.len() > 1)
    }

    /// What documents said, for the query of a table.
    pub(super) fn known(&self) -> Vec<String> {
        let mut known = Vec::new();
        for (_, evidence) in self.shown() {
            push(
                &mut known,
                format!("{}: {}", evidence.source.path, evidence.quote),
            );
        }
        known
    }

    pub(super) fn operands(&self) -> Operands {
        let mut operands = Operands::default();
        let kinds = self.scope.calculate;
        let texts = self.calculations.iter().map(|one| one.result.as_str());
        let texts = texts.chain(self.shown().map(|(_, evidence)| evidence.quote.as_str()));
        for text in texts.chain([self.question.as_str()]) {
            let lengths = span::lengths(text);
            for fact in facts_in(text).iter().filter(|fact| !fact.weak) {
                match &fact.kind {
                    FactKind::Number(number)
                        if !is_year(text, fact, *number) && !is_label(text, fact) =>
                    {
                        // From the begin of a term its length leads to its end, which is known.
                        let count = number.to_i64();
                        if count.is_some_and(|count| !lengths.contains(&count)) {
                            push(&mut operands.counts, number.to_string());
                        }
                        for written in written(text, fact, *number) {
                            push(&mut operands.numbers, written);
                        }
                    }
                    FactKind::Date(_) => {
                        let written = text.get(fact.span.clone()).unwrap_or_default();
                        push(&mut operands.dates, written.to_owned());
                    }
                    _ => {}
                }
            }
        }
        for number in self.span_numbers() {
            push(&mut operands.numbers, number);
        }
        for constant in YEAR {
            push(&mut operands.numbers, constant.to_owned());
        }
        operands.arithmetic = kinds.arithmetic();
        if kinds.arithmetic() && !kinds.compares() {
            operands.facts = self.compared(Kind::Number);
        }
        if !kinds.dates() {
            operands.dates.clear();
        }
        operands
    }

    /// The facts of a kind that at least two documents state.
    pub(super) fn compared(&self, kind: Kind) -> Vec<String> {
        let wanted = self.plan.facts.iter().filter(|wanted| wanted.kind == kind);
        wanted
            .filter(|wanted| {
                let mut files = self
                    .valued(&wanted.fact)
                    .map(|(_, one, _)| &one.source.path);
                let first = files.next();
                files.any(|path| Some(path) != first)
            })
            .map(|wanted| wanted.fact.clone())
            .collect()
    }

    /// The first step of observe: a comparison, a calculation, or neither.
    pub(super) fn observe(&self) -> Stage {
        let calculate = self.scope.calculate;
        let comparable = || {
            Kind::VALUED
                .into_iter()
                .any(|kind| !self.compared(kind).is_empty())
        };
        if self.evidence.is_empty() {
            Stage::Answer
        } else if calculate.compares() && self.calculations.is_empty() && comparable() {
            Stage::Compare
        } else if calculate.arithmetic() || calculate.dates() {
            Stage::Compute
        } else {
            Stage::Answer
        }
    }

    pub(super) fn is_table(&self, path: &str) -> bool {
        self.tables.iter().any(|table| table.path == path)
    }

    /// Carries out a comparison: the rest of the run speaks of the document that it singles out.
    pub(super) fn compare(&mut self, comparison: &Comparison) -> Stage {
        let value = |at: &(usize, &Evidence, &FactValue)| at.2.clone();
        let of_kind = |at: &(usize, &Evidence, &FactValue)| {
            let date = matches!(at.2, FactValue::Date(_));
            date == matches!(comparison.pick, Pick::Earliest | Pick::Latest)
        };
        let values = self.valued(&comparison.fact).filter(of_kind);
        // Of equal ones the first that was read.
        let picked = match comparison.pick {
            Pick::Earliest | Pick::Smallest => values.min_by_key(|one| (value(one), one.0)),
            Pick::Latest | Pick::Largest => {
                values.min_by_key(|one| (std::cmp::Reverse(value(one)), one.0))
            }
        };
        let Some((at, evidence, value)) = picked else {
            return Stage::Answer;
        };
        let path = evidence.source.path.clone();
        let calculation = Calculation {
            expression: format!("{} {}", comparison.pick.name(), comparison.fact),
            result: format!("{value} ({path})"),
            from: vec![at],
        };
        self.focus = Some(path);
        self.calculations.push(calculation);
        self.observe()
    }

    fn valued<'a>(
        &'a self,
        fact: &'a str,
    ) -> impl Iterator<Item = (usize, &'a Evidence, &'a FactValue)> {
        self.evidence
            .iter()
            .enumerate()
            .filter(move |(_, evidence)| evidence.fact.as_deref() == Some(fact))
            .filter_map(|(at, evidence)| Some((at, evidence, evidence.value.as_ref()?)))
    }

    /// Carries out a decision, or goes on to the answer.
    pub(super) fn decide(&mut self, decision: Decision) -> Stage {
        let Some(operation) = decision.compute else {
            return Stage::Answer;
        };
        match operation {
            Operation::Fold { fold, fact } => match self.fold(fold, &fact) {
                Some(calculation) => self.computed(calculation),
                None => Stage::Answer,
            },
            Operation::Arithmetic { expression } => self.calculate(
                "calculate",
                json!({"expression": expression}),
                expression.clone(),
            ),
            Operation::Shift {
                by,
                unit,
                side,
                date,
            } => {
                let Some(amount) = number(&by).and_then(Decimal::to_i64) else {
                    return Stage::Answer;
                };
                let (word, op) = match side {
                    Side::Before => ("before", "subtract"),
                    Side::After => ("after", "add"),
                };
                let expression = format!("{amount} {} {word} {date}", unit.name());
                let args = json!({
                    "op": op, "date": date, "amount": amount, "unit": unit.name(),
                });
                self.calculate("date", args, expression)
            }
            Operation::Between { count, from, to } => {
                let expression = format!("{} from {from} to {to}", count.name());
                let args = json!({"op": "difference", "from": from, "to": to});
                self.calculate("date", args, expression)
            }
        }
    }

    fn calculate(&self, tool: &str, args: serde_json::Value, expression: String) -> Stage {
        // The same calculation again means that nothing is left to compute.
        if self
            .calculations
            .iter()
            .any(|done| done.expression == expression)
        {
            return Stage::Answer;
        }
        let from = self.origins(&expression);
        Stage::Calculate {
            tool: tool.to_owned(),
            args,
            calculation: Calculation {
                expression,
                result: String::new(),
                from,
            },
        }
    }

    /// The evidence that the numbers and dates of an expression come from.
    pub(super) fn origins(&self, expression: &str) -> Vec<usize> {
        let mut origins = Vec::new();
        for used in facts_in(expression) {
            let with = self.shown().find(|(_, one)| {
                facts_in(&one.quote)
                    .iter()
                    .any(|fact| fact.kind == used.kind)
            });
            if let Some((at, _)) = with
                && !origins.contains(&at)
            {
                origins.push(at);
            }
        }
        origins
    }

    /// Takes a result; there is one calculation beside a comparison.
    pub(super) fn computed(&mut self, calculation: Calculation) -> Stage {
        let spans = self.spans_in(&calculation.expression);
        self.calculations.extend(spans);
        self.calculations.push(calculation);
        Stage::Answer
    }

    fn fold(&self, fold: Fold, fact: &str) -> Option<Calculation> {
        let numbers: Vec<(usize, Decimal)> = self
            .valued(fact)
            .filter_map(|(at, _, value)| match value {
                FactValue::Number(number) => Some((at, *number)),
                FactValue::Date(_) => None,
            })
            .collect();
        let (word, result) = match fold {
            Fold::Total => {
                let sum = numbers
                    .iter()
                    .try_fold(Decimal::from(0), |sum, (_, number)| {
                        sum.checked_add(*number).ok()
                    })?;
                ("total", sum.to_string())
            }
            Fold::Count => ("count of", numbers.len().to_string()),
        };
        Some(Calculation {
            expression: format!("{word} {fact}"),
            result,
            from: numbers.into_iter().map(|(at, _)| at).collect(),
        })
    }
}

/// Months, quarters and weeks of a year.
const YEAR: [&str; 3] = ["12", "4", "52"];

fn push(list: &mut Vec<String>, text: String) {
    if !list.contains(&text) {
        list.push(text);
    }
}

/// A number as an expression may write it: plain, and with the digits and commas it has in the
/// text, which a model copies.
fn written(text: &str, fact: &Fact, number: Decimal) -> Vec<String> {
    let after = text.get(fact.span.end..).unwrap_or_default().trim_start();
    if ["%", "percent", "per cent"]
        .iter()
        .any(|word| after.starts_with(word))
    {
        // 30% is as well written 0.30 and 0.3.
        let percent = Decimal::new(1, 2).and_then(|percent| number.checked_mul(percent).ok());
        let part = percent.map(|part| part.to_string());
        let part = part.into_iter().flat_map(|part| {
            let tenths = part.len() == "0.3".len();
            let padded = tenths.then(|| format!("{part}0"));
            padded.into_iter().chain([part])
        });
        return std::iter::once(format!("{number}%")).chain(part).collect();
    }
    let mut forms = vec![number.to_string()];
    let span = text.get(fact.span.clone()).unwrap_or_default();
    let digits = |keep: &str| -> String {
        let kept = |c: &char| c.is_ascii_digit() || keep.contains(*c);
        span.chars().filter(kept).collect()
    };
    for form in [digits("."), digits(",.")] {
        let same = form
            .replace(',', "")
            .parse::<Decimal>()
            .is_ok_and(|value| value == number);
        if same && !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

/// The date at the begin of a file's name, as `minutes/2026-03-09-board.md` has it.
fn date_in_name(path: &str) -> Option<jiff::civil::Date> {
    let name = path.rsplit('/').next()?;
    let digits = name.find(|c: char| c.is_ascii_digit())?;
    name.get(digits..digits + 10)?.parse().ok()
}

/// A number that names a day, an hour or a clause rather than an amount: "17 November", "08:40",
/// "clause 6".
fn is_label(text: &str, fact: &Fact) -> bool {
    let before = text.get(..fact.span.start).unwrap_or_default();
    let after = text.get(fact.span.end..).unwrap_or_default();
    let word = |word: Option<&str>| {
        let letters = |c: char| !c.is_alphabetic();
        word.map(|word| word.trim_matches(letters).to_lowercase())
            .unwrap_or_default()
    };
    let previous = word(before.split_whitespace().next_back());
    let next = word(after.split_whitespace().next());
    let time = after.starts_with(':') || before.ends_with(':');
    let clause = ["clause", "section", "paragraph", "article", "no", "point"];
    let beside = !before.ends_with(',') && is_month_or_weekday(&previous);
    time || beside || is_month_or_weekday(&next) || clause.contains(&previous.as_str())
}

/// A number that reads like a year, which is seldom an amount: "2024", not "1,950" nor "GBP 1950".
fn is_year(text: &str, fact: &Fact, number: Decimal) -> bool {
    let span = text.get(fact.span.clone()).unwrap_or_default();
    let before = text.get(..fact.span.start).unwrap_or_default();
    let unit = before
        .split_whitespace()
        .next_back()
        .is_some_and(|word| word.len() == 3 && word.bytes().all(|c| c.is_ascii_uppercase()));
    let plain = span.len() == 4 && span.bytes().all(|c| c.is_ascii_digit());
    let years = number
        .to_i64()
        .is_some_and(|number| (1900..2100).contains(&number));
    years && plain && !unit && !before.ends_with(['£', '$', '€'])
}

fn number(text: &str) -> Option<Decimal> {
    match FactValue::read(text, Kind::Number)? {
        FactValue::Number(number) => Some(number),
        FactValue::Date(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_years_and_clauses_are_no_amounts() {
        let text =
            "Clause 6 of 2024: GBP 1,950 per quarter from 17 November, 08:40, 8% off, £1950.";
        let mut numbers = Vec::new();
        for fact in facts_in(text).iter().filter(|fact| !fact.weak) {
            if let FactKind::Number(number) = fact.kind
                && !is_year(text, fact, number)
                && !is_label(text, fact)
            {
                numbers.extend(written(text, fact, number));
            }
        }
        assert_eq!(numbers, ["1950", "1,950", "8%", "0.08", "1950"]);
    }

    #[test]
    fn a_date_is_read_from_the_name_of_a_file() {
        assert_eq!(
            date_in_name("minutes/2026-03-09-board.md").map(|date| date.to_string()),
            Some("2026-03-09".to_owned())
        );
        assert_eq!(date_in_name("minutes/2026.md"), None);
    }
}
