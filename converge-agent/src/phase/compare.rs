//! Observe, for a question that compares: which fact decides, and which way.

use converge_core::chat::Message;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Phase, Prompt, object, parse};
use crate::error::Result;

/// Which of several values is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The first date.
    Earliest,
    /// The last date.
    Latest,
    /// The least number.
    Smallest,
    /// The greatest number.
    Largest,
}

impl Pick {
    /// The pick as a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Latest => "latest",
            Self::Smallest => "smallest",
            Self::Largest => "largest",
        }
    }
}

/// The comparison that a question makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Which value.
    pub pick: Pick,
    /// Of which fact.
    pub fact: String,
}

const SYSTEM: &str = "\
A question asks which of several things comes first, last, least or most. Say by which fact it is \
decided, and whether the earliest, latest, smallest or largest is meant.";

const EXAMPLES: [(&str, &str); 4] = [
    (
        "Question: Which loan runs out first, and what do we pay for it in total?\n\
         Facts: end date of the loan, total payment",
        r#"{"pick":"earliest","fact":"end date of the loan"}"#,
    ),
    (
        "Question: Which of the instruments is insured for the highest sum?\n\
         Facts: insured sum, end date of the insurance",
        r#"{"pick":"largest","fact":"insured sum"}"#,
    ),
    (
        "Question: Which of the instruments was bought last, and who sold it?\n\
         Facts: name of the seller, date of purchase",
        r#"{"pick":"latest","fact":"date of purchase"}"#,
    ),
    (
        "Question: Whose offer is cheapest?\nFacts: price",
        r#"{"pick":"smallest","fact":"price"}"#,
    ),
];

/// Asks for the comparison. `dates` and `numbers` are the facts with values of that kind; one of
/// them at least holds something.
pub fn prompt(question: &str, dates: &[String], numbers: &[String]) -> Prompt {
    let mut messages = vec![Message::system(SYSTEM)];
    for (user, assistant) in EXAMPLES {
        messages.push(Message::user(user));
        messages.push(Message::assistant(assistant));
    }
    let facts: Vec<&str> = dates.iter().chain(numbers).map(String::as_str).collect();
    messages.push(Message::user(format!(
        "Question: {question}\nFacts: {}",
        facts.join(", ")
    )));
    let mut choices = Vec::new();
    for (facts, picks) in [
        (dates, ["earliest", "latest"]),
        (numbers, ["smallest", "largest"]),
    ] {
        if !facts.is_empty() {
            choices.push(object([
                ("pick", json!({"enum": picks})),
                ("fact", json!({"enum": facts})),
            ]));
        }
    }
    Prompt {
        phase: Phase::Observe,
        about: "compare".to_owned(),
        messages,
        schema: json!({"anyOf": choices}),
        max_tokens: 60,
    }
}

/// Reads the comparison.
///
/// # Errors
/// Text that is no such record.
pub fn record(text: &str) -> Result<Comparison> {
    parse(Phase::Observe, text)
}
