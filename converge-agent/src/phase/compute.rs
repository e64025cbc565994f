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
    /// Numbers with `+ - * / ( )`.
    Arithmetic {
        /// The expression; every number in it was on offer.
        expression: String,
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
    /// How to get to the answer, in a sentence or two.
    pub reasoning: String,
    /// The calculation; `None` where the answer is stated.
    pub compute: Option<Operation>,
}

/// The operands on offer.
#[derive(Clone, Debug, Default)]
pub struct Operands {
    /// Facts with numbers that at least two documents state.
    pub facts: Vec<String>,
    /// Numbers as an expression writes them: `1950`, `14.90`, `8%`.
    pub numbers: Vec<String>,
    /// Whole numbers, for spans of days or months.
    pub counts: Vec<String>,
    /// Dates as written.
    pub dates: Vec<String>,
    /// Whether numbers may be added, multiplied and so on.
    pub arithmetic: bool,
}

const SYSTEM: &str = "\
You decide what to compute to answer a question from what was found. Say what is asked, which \
numbers or dates of the thing in question are known (newer ones replace older ones), and how they \
go together. A year has 12 months, 4 quarters and 52 weeks. Then give one calculation that leads to \
the answer, or null if the answer is stated.";

const EXAMPLES: [(&str, &str); 8] = [
    (
        "Question: Which loan ends first, and what do we pay for it in total?\n\n\
         Found:\n\
         [1] loans/harp-loan.txt, end date of the loan = 30 June 2022: The harp is lent until 30 June 2022, for 14 months.\n\
         [2] loans/harp-loan.txt, total payment = 40: The fee is 40.00 per month.\n\
         Computed:\n\
         earliest end date of the loan = 30 June 2022 (loans/harp-loan.txt)",
        r#"{"reasoning":"Asked: the total payment for the loan of the harp, which ends first. Known: 40.00 per month; 14 months. So: 40.00 times 14.","compute":{"expression":"40.00 * 14"}}"#,
    ),
    (
        "Question: What does the tuning cost us in two years?\n\n\
         Found:\n\
         loans/organ-loan.txt\n\
         [1] 1. The organ is lent from 1 May 2021 to 30 April 2024.\n\
         [2] 2. The Society pays 75.00 per month.\n\
         [3] 3. The tuning costs 35.00 per quarter.\n\
         letters/abbey.txt\n\
         [4] The price of the tuning changes from 35.00 to 38.00 per quarter.\n\
         Computed: nothing yet",
        r#"{"reasoning":"Asked: the cost of the tuning in two years. Known: 38.00 per quarter after the change; 4 quarters a year; two years. So: 38.00 times 4 times 2.","compute":{"expression":"38.00 * 4 * 2"}}"#,
    ),
    (
        "Question: What did we pay for the organ over the whole of its term?\n\n\
         Found:\n\
         loans/organ-loan.txt\n\
         [1] 1. The organ is lent from 1 May 2021 to 30 April 2024.\n\
         [2] 2. The Society pays 75.00 per month for each of the 2 keyboards.\n\
         Computed: nothing yet\n\
         1 May 2021 to 30 April 2024 are 36 months or 3 years",
        r#"{"reasoning":"Asked: the payment for the organ over its term. Known: 75.00 per month for each of 2 keyboards; the term is 36 months. So: 75.00 times 2 keyboards times 36 months.","compute":{"expression":"75.00 * 2 * 36"}}"#,
    ),
    (
        "Question: By when must we cancel the rent of the hall so that it ends in October?\n\n\
         Found:\n\
         halls/rent.txt\n\
         [1] RENT OF THE SMALL HALL\n\
         [2] 1. Rented from 1 November 2020 to 31 October 2023.\n\
         [3] 2. The rent is 210.00 per month.\n\
         [4] 3. It can be cancelled 6 weeks before the end of the term.\n\
         Computed: nothing yet",
        r#"{"reasoning":"Asked: the last day to cancel. Known: 6 weeks before the end of the term; the term ends on 31 October 2023. So: 6 weeks before 31 October 2023.","compute":{"by":"6","unit":"weeks","side":"before","date":"31 October 2023"}}"#,
    ),
    (
        "Question: What discount do we get for the three broken chairs?\n\n\
         Found:\n\
         halls/chairs.txt\n\
         [1] 2. The price of a chair is 80.00.\n\
         [2] 4. For each broken chair 15% of the price is taken off.\n\
         Computed: nothing yet",
        r#"{"reasoning":"Asked: the discount for three chairs. Known: 15% of the price for each; the price is 80.00; three chairs. So: 15% of 80.00 times 3.","compute":{"expression":"15% * 80.00 * 3"}}"#,
    ),
    (
        "Question: How much of the money for the party is left?\n\n\
         Found:\n\
         notes/meeting-may.txt\n\
         [1] The meeting gives 310 for the party.\n\
         [2] Ada has spent 285.\n\
         Computed: nothing yet",
        r#"{"reasoning":"Asked: what is left for the party. Known: 310 given; 285 spent. So: 310 less 285.","compute":{"expression":"310 - 285"}}"#,
    ),
    (
        "Question: Until when may we keep the piano?\n\n\
         Found:\n\
         loans/piano-loan.txt\n\
         [1] 2. The piano is lent until 31 May 2022.\n\
         [2] 3. The Society insures it.\n\
         letters/piano.txt\n\
         [3] You may keep the piano until 31 May 2024.\n\
         Computed: nothing yet",
        r#"{"reasoning":"Asked: the end of the loan of the piano. Known: the later letter states 31 May 2024. So: nothing to compute.","compute":null}"#,
    ),
    (
        "Question: When does the rent of the store end?\n\n\
         Found:\n\
         letters/owner.txt (the latest)\n\
         [1] We give notice with this letter: the rent of the store ends on 30 September 2022.\n\
         halls/store.txt\n\
         [2] 5. Each side may end it with three months' notice.\n\
         Computed: nothing yet",
        r#"{"reasoning":"Asked: the end of the rent of the store. Known: the notice states 30 September 2022, which has the three months in it. So: nothing to compute.","compute":null}"#,
    ),
];

/// Asks for the next calculation. `spans` tells how long the terms among the quotes are.
pub fn prompt(question: &str, found: &str, spans: &[String], operands: &Operands) -> Prompt {
    let mut messages = vec![Message::system(SYSTEM)];
    for (user, assistant) in EXAMPLES {
        messages.push(Message::user(user));
        messages.push(Message::assistant(assistant));
    }
    let mut user = format!("Question: {question}\n\n{found}");
    if operands.arithmetic && !spans.is_empty() {
        user.push_str(&format!("\n{}", spans.join("; ")));
    }
    messages.push(Message::user(user));
    Prompt {
        phase: Phase::Observe,
        about: "compute".to_owned(),
        messages,
        schema: object([
            ("reasoning", short_text(320)),
            ("compute", json!({"anyOf": choices(operands)})),
        ]),
        max_tokens: 260,
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
    let dates = json!({"enum": operands.dates});
    if operands.arithmetic && operands.numbers.len() >= 2 {
        let pattern = expressions(&operands.numbers);
        choices.push(object([(
            "expression",
            json!({"type": "string", "pattern": pattern}),
        )]));
    }
    if !operands.counts.is_empty() && !operands.dates.is_empty() {
        choices.push(object([
            ("by", json!({"enum": operands.counts})),
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

/// The pattern of expressions over these numbers: two to six of them, brackets around parts.
fn expressions(numbers: &[String]) -> String {
    let numbers: Vec<String> = numbers
        .iter()
        .map(|number| number.replace('.', "\\."))
        .collect();
    let number = format!("\\(?({})\\)?", numbers.join("|"));
    format!("^{number}( [-+*/] {number}){{1,5}}$")
}

/// Reads the decision.
///
/// # Errors
/// Text that is no such record.
pub fn record(text: &str) -> Result<Decision> {
    parse(Phase::Observe, text)
}
