//! What was found: quotes with their place, and results of calculations.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::{
    phase::plan::Kind,
    tool::{
        Source, civil,
        decimal::Decimal,
        facts::{FactKind, facts_in},
    },
};

/// The value of a fact. Dates are less than numbers: the order is of use within a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactValue {
    /// A calendar date.
    Date(#[serde(with = "civil::as_text")] Date),
    /// An exact number.
    Number(Decimal),
}

impl FactValue {
    /// Reads the first value of that kind in a text; none for [`Kind::Text`].
    pub fn read(text: &str, kind: Kind) -> Option<Self> {
        facts_in(text)
            .into_iter()
            .find_map(|fact| match (kind, fact.kind) {
                (Kind::Date, FactKind::Date(date)) => Some(Self::Date(date)),
                (Kind::Number, FactKind::Number(number)) => Some(Self::Number(number)),
                _ => None,
            })
    }
}

impl std::fmt::Display for FactValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Date(date) => f.write_str(&spell(*date)),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A date as answers spell it: `31 May 2026`.
pub fn spell(date: Date) -> String {
    date.strftime("%-d %B %Y").to_string()
}

/// A quote, word for word, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// File and lines.
    pub source: Source,
    /// The text as it stands there, white space folded; for a table, the result and its rows.
    pub quote: String,
    /// The wanted fact that it states, if it was found as one.
    pub fact: Option<String>,
    /// That fact's value.
    pub value: Option<FactValue>,
}

/// A calculation that was done, never by the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calculation {
    /// What was computed: `18 * 640`, `90 days before 2027-01-14`.
    pub expression: String,
    /// What came out.
    pub result: String,
    /// Indices of the evidence that its numbers come from.
    pub from: Vec<usize>,
}
