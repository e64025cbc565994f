//! Plan, first half: what kind of question it is.
//!
//! A small model that is offered a calculation calculates. So it is asked beforehand, with nothing
//! but the question and the tables' columns in view, whether there is anything to calculate; later
//! phases offer only that.

use converge_core::chat::Message;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Phase, Prompt, object, parse, plan::Listed};
use crate::error::Result;

/// Where the answer may stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In documents.
    #[default]
    Documents,
    /// In a table's rows.
    Table,
    /// In both.
    Both,
}

/// What there is to calculate with facts of documents. Tables add up by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calculation {
    /// Nothing: the answer is stated.
    #[default]
    Nothing,
    /// Which of several is first, last, greatest, least.
    Compare,
    /// A product, sum, difference or percentage.
    Arithmetic,
    /// A date before or after another, or the time between two.
    Dates,
    /// Which of several, and then a product, sum or difference.
    CompareAndArithmetic,
}

impl Calculation {
    /// Whether values of one fact are compared over documents.
    pub fn compares(self) -> bool {
        matches!(self, Self::Compare | Self::CompareAndArithmetic)
    }

    /// Whether numbers are calculated with.
    pub fn arithmetic(self) -> bool {
        matches!(self, Self::Arithmetic | Self::CompareAndArithmetic)
    }

    /// Whether dates are calculated with.
    pub fn dates(self) -> bool {
        self == Self::Dates
    }
}

/// What kind of question it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Where to look.
    pub place: Place,
    /// What to calculate.
    pub calculate: Calculation,
}

const SYSTEM: &str = "\
Sort a question about a folder of documents and tables. \"place\": documents if text such as a \
contract, letter, report or log states the answer, table if it is a row or a total of rows of one of \
the tables, both if a text and a table are needed. \"calculate\": nothing if the answer is stated \
somewhere or is a total of table rows; compare if several documents must be compared; arithmetic \
for a product, sum or difference of stated numbers; dates for a deadline or a span of time that is \
not stated; compare_and_arithmetic for both.";

/// The tables of all examples.
const TABLES: &str = "Tables: tickets.csv (day, hall, seats, price); staff.csv (name, role, hours)";

const EXAMPLES: [(&str, &str, &str); 12] = [
    ("How high is the fee for the organ?", "documents", "nothing"),
    (
        "How many tickets did the small hall sell in May?",
        "table",
        "nothing",
    ),
    (
        "Which loan runs longest, and what do we pay for it in total?",
        "documents",
        "compare_and_arithmetic",
    ),
    (
        "Who wrote to us about the broken window?",
        "documents",
        "nothing",
    ),
    (
        "By when must we cancel the rent of the hall so that it ends in October?",
        "documents",
        "dates",
    ),
    (
        "Until when does the loan of the harp run after its extension?",
        "documents",
        "nothing",
    ),
    (
        "Which tickets cost more than the house rules allow?",
        "both",
        "nothing",
    ),
    (
        "What does the tuning cost us in two years?",
        "documents",
        "arithmetic",
    ),
    ("Which role works most hours?", "table", "nothing"),
    (
        "Which of the instruments is insured for the highest sum?",
        "documents",
        "compare",
    ),
    (
        "How much higher is the new rent than the old one?",
        "documents",
        "arithmetic",
    ),
    (
        "How many days passed between the storm and the repair?",
        "documents",
        "dates",
    ),
];

/// Asks what kind of question it is.
pub fn prompt(question: &str, tables: &[Listed]) -> Prompt {
    let mut messages = vec![Message::system(SYSTEM)];
    for (question, place, calculate) in EXAMPLES {
        messages.push(Message::user(format!("{TABLES}\nQuestion: {question}")));
        messages.push(Message::assistant(format!(
            r#"{{"place":"{place}","calculate":"{calculate}"}}"#
        )));
    }
    let listed: Vec<String> = tables
        .iter()
        .map(|table| {
            let columns = table.title.strip_prefix("columns ").unwrap_or(&table.title);
            format!("{} ({columns})", table.path)
        })
        .collect();
    let listed = if listed.is_empty() {
        "none".to_owned()
    } else {
        listed.join("; ")
    };
    messages.push(Message::user(format!(
        "Tables: {listed}\nQuestion: {question}"
    )));
    let places = if tables.is_empty() {
        json!({"enum": ["documents"]})
    } else {
        json!({"enum": ["documents", "table", "both"]})
    };
    Prompt {
        phase: Phase::Plan,
        about: "kind of question".to_owned(),
        messages,
        schema: object([
            ("place", places),
            (
                "calculate",
                json!({"enum": ["nothing", "compare", "arithmetic", "dates", "compare_and_arithmetic"]}),
            ),
        ]),
        max_tokens: 40,
    }
}

/// Reads the kind.
///
/// # Errors
/// Text that is no such record.
pub fn record(text: &str) -> Result<Scope> {
    parse(Phase::Plan, text)
}
