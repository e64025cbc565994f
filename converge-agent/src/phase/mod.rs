//! The four phases of a run as typed records: what the model is asked, the schema its answer is
//! held to, and the type the answer becomes.
//!
//! A phase never touches a file or a model. It turns what is known into messages and a JSON
//! schema, and text into a record. The schemas carry what a small model would get wrong when asked
//! in prose: only files that exist, only columns and values that a table has, only lines that
//! stand in the document, only numbers that were observed or computed.

pub mod answer;
pub mod compare;
pub mod compute;
pub mod extract;
pub mod plan;
pub mod query;
pub mod quote;
pub mod scope;
mod times;

use converge_core::chat::Message;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::error::{AgentError, Result};

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Which facts are needed and which files may hold them.
    Plan,
    /// Reading documents and querying tables.
    Execute,
    /// Computing with what was found.
    Observe,
    /// Answering, checking the answer, going back where it does not hold.
    Refine,
}

impl Phase {
    /// The phase's name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Execute => "execute",
            Self::Observe => "observe",
            Self::Refine => "refine",
        }
    }
}

/// One question to the model.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The phase that asks.
    pub phase: Phase,
    /// What it is about, for whoever watches: "read contracts/lease.md".
    pub about: String,
    /// The chat: a system message with examples first, so that calls of one kind share a prefix.
    pub messages: Vec<Message>,
    /// The JSON schema that the answer is held to.
    pub schema: Value,
    /// Tokens that the answer may take.
    pub max_tokens: usize,
}

/// Reads a record from generated JSON.
pub(crate) fn parse<T: DeserializeOwned>(phase: Phase, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| AgentError::Record {
        phase,
        source,
        text: text.chars().take(200).collect(),
    })
}

/// Schema of an object with exactly these properties, in this order, all required.
pub(crate) fn object<const N: usize>(properties: [(&str, Value); N]) -> Value {
    let required: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let properties: serde_json::Map<String, Value> = properties
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Schema of a string of at most `max` characters.
pub(crate) fn short_text(max: usize) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": max})
}

/// Schema of an array of `least..=most` of `items`.
pub(crate) fn list_of(items: Value, least: usize, most: usize) -> Value {
    json!({"type": "array", "items": items, "minItems": least, "maxItems": most})
}
