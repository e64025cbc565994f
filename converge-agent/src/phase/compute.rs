//! Observe: choose what to compute with what was found; code computes it.
//!
//! Every operand is a number or date that stands in the evidence, in the question or in an earlier
//! result: the grammar offers no other. The model never adds up itself.

use converge_core::chat::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Phase, Prompt, object, parse, short_text};
use crate::error::Result;

/// How the values of one fact, over documents, become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// The sum.
    Total,
    /// How many documents state the fact.
    Count,
}

/// Arithmetic on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// `a + b`
    Add,
    /// `a - b`
    Subtract,
    /// `a * b`
    Multiply,
    /// `a / b`
    Divide,
    /// `a` percent of `b`
    PercentOf,
}

/// Unit of a span of days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Calendar days.
    Days,
    /// Seven days.
    Weeks,
    /// Calendar months.
    Months,
    /// Calendar years.
    Years,
}

impl Unit {
    /// The unit's name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Days => "days",
            Self::Weeks => "weeks",
            Self::Months => "months",
            Self::Years => "years",
        }
    }
}

/// What to compute next. Operands are texts that stand in what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Operation {
    /// The values of a fact over all documents.
    Fold {
        /// How.
        fold: Fold,
        /// Of which fact.
        fact: String,
    },
    /// Two numbers.
    Arithmetic {
        /// First operand.
        a: String,
        /// What is done.
        op: Arithmetic,
        /// Second operand.
        b: String,
    },
    /// A date some time before or after another.
    Shift {
        /// How many units.
        by: String,
        /// Of which length.
        unit: Unit,
        /// `before` or `after`.
        side: Side,
        /// The date to start from.
        date: String,
    },
    /// The time between two dates.
    Between {
        /// Unit of the result.
        count: Unit,
        /// First date.
        from: String,
        /// Second date.
        to: String,
    },
}

/// Before or after a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Earlier.
    Before,
    /// Later.
    After,
}

/// What the model decided: a calculation, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What is still to compute, in words; short.
    pub need: String,
    /// The calculation; `None` where nothing is left to compute.
    pub compute: Option<Operation>,
}

/// The operands on offer.
#[derive(Clone, Debug, Default)]
pub struct Operands {
    /// Facts with numbers that at least two documents state.
    pub facts: Vec<String>,
    /// Numbers as written.
    pub numbers: Vec<String>,
    /// Dates as written.
    pub dates: Vec<String>,
    /// Whether numbers may be added, multiplied and so on.
    pub arithmetic: bool,
}

const SYSTEM: &str = "\
You decide what to compute to answer a question from what was found. Say what is needed, then give \
one calculation, or null if the answer already stands in what was found or nothing needs computing. \
Compute only with the numbers of the things that the question is about.";

const EXAMPLES: [(&str, &str); 5] = [
    (
        "Question: Which loan ends first, and what do we pay for it in total?\n\n\
         Found:\n\
         [1] loans/harp-loan.txt, end date of the loan = 30 June 2022: The harp is lent until 30 June 2022, for 14 months.\n\
         [2] loans/harp-loan.txt, total payment = 40: The fee is 40.00 per month.\n\
         Computed:\n\
         earliest end date of the loan = 30 June 2022 (loans/harp-loan.txt)",
        r#"{"need":"40.00 per month for 14 months","compute":{"a":"40.00","op":"multiply","b":"14"}}"#,
    ),
    (
        "Question: What does the tuning cost us in two years?\n\n\
         Found:\n\
         [1] loans/organ-loan.txt, cost of the tuning = 35: The tuning costs 35.00 per quarter.\n\
         Computed:\n\
         35 * 4 = 140",
        r#"{"need":"140 per year for two years","compute":{"a":"140","op":"multiply","b":"two"}}"#,
    ),
    (
        "Question: By when must we cancel the rent of the hall so that it ends in October?\n\n\
         Found:\n\
         [1] halls/rent.txt, end date of the rent = 31 October 2023: Rented until 31 October 2023.\n\
         [2] halls/rent.txt, notice period = 6: It can be cancelled 6 weeks before the end.\n\
         Computed: nothing yet",
        r#"{"need":"6 weeks before 31 October 2023","compute":{"by":"6","unit":"weeks","side":"before","date":"31 October 2023"}}"#,
    ),
    (
        "Question: By when must we cancel the rent of the hall so that it ends in October?\n\n\
         Found:\n\
         [1] halls/rent.txt, end date of the rent = 31 October 2023: Rented until 31 October 2023.\n\
         [2] halls/rent.txt, notice period = 6: It can be cancelled 6 weeks before the end.\n\
         Computed:\n\
         6 weeks before 31 October 2023 = 2023-09-19 (Tuesday)",
        r#"{"need":"nothing","compute":null}"#,
    ),
    (
        "Question: How much higher is the new rent than the old one?\n\n\
         Found:\n\
         [1] halls/letter.txt, new rent = 310: From May the rent is 310 instead of 285.\n\
         Computed: nothing yet",
        r#"{"need":"310 less 285","compute":{"a":"310","op":"subtract","b":"285"}}"#,
    ),
];

/// Asks for the next calculation.
pub fn prompt(question: &str, found: &str, operands: &Operands) -> Prompt {
    let mut messages = vec![Message::system(SYSTEM)];
    for (user, assistant) in EXAMPLES {
        messages.push(Message::user(user));
        messages.push(Message::assistant(assistant));
    }
    messages.push(Message::user(format!("Question: {question}\n\n{found}")));
    Prompt {
        phase: Phase::Observe,
        about: "compute".to_owned(),
        messages,
        schema: object([
            ("need", short_text(80)),
            ("compute", json!({"anyOf": choices(operands)})),
        ]),
        max_tokens: 160,
    }
}

fn choices(operands: &Operands) -> Vec<Value> {
    let units = json!({"enum": ["days", "weeks", "months", "years"]});
    let mut choices = vec![json!({"type": "null"})];
    if !operands.facts.is_empty() {
        choices.push(object([
            ("fold", json!({"enum": ["total", "count"]})),
            ("fact", json!({"enum": operands.facts})),
        ]));
    }
    let numbers = json!({"enum": operands.numbers});
    let dates = json!({"enum": operands.dates});
    if operands.arithmetic && operands.numbers.len() >= 2 {
        choices.push(object([
            ("a", numbers.clone()),
            (
                "op",
                json!({"enum": ["add", "subtract", "multiply", "divide", "percent_of"]}),
            ),
            ("b", numbers.clone()),
        ]));
    }
    if !operands.numbers.is_empty() && !operands.dates.is_empty() {
        choices.push(object([
            ("by", numbers),
            ("unit", units.clone()),
            ("side", json!({"enum": ["before", "after"]})),
            ("date", dates.clone()),
        ]));
    }
    if operands.dates.len() >= 2 {
        choices.push(object([
            ("count", units),
            ("from", dates.clone()),
            ("to", dates),
        ]));
    }
    choices
}

/// Reads the decision.
///
/// # Errors
/// Text that is no such record.
pub fn record(text: &str) -> Result<Decision> {
    parse(Phase::Observe, text)
}
