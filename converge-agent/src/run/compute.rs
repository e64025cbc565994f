//! Observe: what there is to compute with, and how a chosen operation is carried out.

use serde_json::json;

use super::state::{Run, Stage};
use crate::{
    evidence::{Calculation, Evidence, FactValue},
    phase::{
        compare::{Comparison, Pick},
        compute::{Arithmetic, Decision, Fold, Operands, Operation, Side},
        plan::Kind,
    },
    tool::{
        decimal::Decimal,
        facts::{FactKind, facts_in},
    },
};

impl Run {
    /// Everything found and computed, as the model sees it.
    pub(super) fn found(&self) -> String {
        let mut text = String::from("Found:\n");
        for (at, evidence) in self.shown() {
            let fact = match (&evidence.fact, &evidence.value) {
                (Some(fact), Some(value)) => format!(", {fact} = {value}"),
                (Some(fact), None) => format!(", {fact}"),
                _ => String::new(),
            };
            text.push_str(&format!(
                "[{}] {}{fact}: {}\n",
                at + 1,
                evidence.source.path,
                evidence.quote
            ));
        }
        if self.evidence.is_empty() {
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

    /// What documents said, for the query of a table.
    pub(super) fn known(&self) -> Vec<String> {
        self.evidence
            .iter()
            .map(|evidence| format!("{}: {}", evidence.source.path, evidence.quote))
            .collect()
    }

    pub(super) fn operands(&self) -> Operands {
        let mut operands = Operands::default();
        let mut add = |text: &str| {
            for fact in facts_in(text) {
                let list = match fact.kind {
                    FactKind::Number(_) => &mut operands.numbers,
                    FactKind::Date(_) => &mut operands.dates,
                    FactKind::Name(_) => continue,
                };
                if fact.weak || is_year(&fact.kind) {
                    continue;
                }
                if let Some(written) = text.get(fact.span.clone())
                    && !list.iter().any(|known| known == written)
                {
                    list.push(written.to_owned());
                }
            }
        };
        for calculation in &self.calculations {
            add(&calculation.result);
        }
        for (_, evidence) in self.shown() {
            add(&evidence.quote);
        }
        add(&self.question);
        let kinds = self.scope.calculate;
        if !kinds.dates() {
            operands.dates.clear();
        }
        if !kinds.arithmetic() && !kinds.dates() {
            operands.numbers.clear();
        }
        operands.arithmetic = kinds.arithmetic();
        if kinds.arithmetic() && !kinds.compares() {
            operands.facts = self.compared(Kind::Number);
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
            Operation::Arithmetic { a, op, b } => {
                let (Some(x), Some(y)) = (number(&a), number(&b)) else {
                    return Stage::Answer;
                };
                let expression = match op {
                    Arithmetic::Add => format!("{x} + {y}"),
                    Arithmetic::Subtract => format!("{x} - {y}"),
                    Arithmetic::Multiply => format!("{x} * {y}"),
                    Arithmetic::Divide => format!("{x} / {y}"),
                    Arithmetic::PercentOf => format!("{x} / 100 * {y}"),
                };
                self.calculate(
                    "calculate",
                    json!({"expression": expression}),
                    expression,
                    &[&a, &b],
                )
            }
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
                self.calculate("date", args, expression, &[&by, &date])
            }
            Operation::Between { count, from, to } => {
                let expression = format!("{} from {from} to {to}", count.name());
                let args = json!({"op": "difference", "from": from, "to": to});
                self.calculate("date", args, expression, &[&from, &to])
            }
        }
    }

    fn calculate(
        &self,
        tool: &str,
        args: serde_json::Value,
        expression: String,
        operands: &[&str],
    ) -> Stage {
        // The same calculation again means that nothing is left to compute.
        if self
            .calculations
            .iter()
            .any(|done| done.expression == expression)
        {
            return Stage::Answer;
        }
        let from = operands
            .iter()
            .filter_map(|operand| self.origin(operand))
            .collect();
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

    /// The evidence that an operand stands in.
    fn origin(&self, operand: &str) -> Option<usize> {
        self.evidence.iter().position(|evidence| {
            facts_in(&evidence.quote)
                .iter()
                .any(|fact| evidence.quote.get(fact.span.clone()) == Some(operand))
        })
    }

    /// Takes a result and asks for the next calculation while there may be one.
    pub(super) fn computed(&mut self, calculation: Calculation) -> Stage {
        let again = self
            .calculations
            .iter()
            .any(|done| done.expression == calculation.expression);
        if !again {
            self.calculations.push(calculation);
        }
        let more = self.scope.calculate.arithmetic() || self.scope.calculate.dates();
        if again || !more || self.calculations.len() >= self.settings.calculations {
            Stage::Answer
        } else {
            Stage::Compute
        }
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

/// A number that reads like a year: "2024" is seldom an amount.
fn is_year(kind: &FactKind) -> bool {
    match kind {
        FactKind::Number(number) => number
            .to_i64()
            .is_some_and(|number| (1900..2100).contains(&number)),
        _ => false,
    }
}

fn number(text: &str) -> Option<Decimal> {
    match FactValue::read(text, Kind::Number)? {
        FactValue::Number(number) => Some(number),
        FactValue::Date(_) => None,
    }
}
