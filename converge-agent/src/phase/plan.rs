//! Plan: which facts the question needs, and which files may hold them.

use converge_core::chat::Message;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Phase, Prompt, list_of, object, parse, scope::Place, short_text};
use crate::error::Result;

/// What a fact's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A calendar date.
    Date,
    /// An amount, a count, a percentage, a duration.
    Number,
    /// Anything that is told in words: a name, a reason, a decision.
    Text,
}

impl Kind {
    /// The kinds whose values can be compared.
    pub const VALUED: [Self; 2] = [Self::Date, Self::Number];
}

/// A fact to look up in every document that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What to look for, in a few words.
    pub fact: String,
    /// What its value is.
    pub kind: Kind,
}

/// What to read, and what to look for in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Facts to look up in the documents.
    pub facts: Vec<Wanted>,
    /// Documents to read.
    pub documents: Vec<String>,
    /// Tables to query.
    pub tables: Vec<String>,
}

const SYSTEM: &str = "\
You plan how to answer a question from a private folder of files. Name the facts to look up in the \
documents (with kind date, number or text), the documents that may state them, and the tables to \
query. Look up plain facts as a document would state them, not the result of a calculation. \
Documents can be changed by later letters, amendments and minutes: read those too.";

const EXAMPLES: [(&str, &str); 4] = [
    (
        "Files:\n\
         loans/harp-loan.txt: Loan of a concert harp\n\
         loans/harp-loan-extension.txt: Extension of the harp loan\n\
         loans/piano-loan.txt: Loan of a grand piano\n\
         loans/organ-loan.txt: Loan of a chamber organ\n\
         notes/meeting-may.txt: Meeting of 4 May\n\
         Tables:\n\
         lists/tickets.csv: columns day, hall, seats, price\n\
         Search found:\n\
         loans/harp-loan.txt: The loan of the harp ends on 30 June 2022.\n\n\
         Question: Which loan runs longest, and what do we pay for it in total?",
        r#"{"facts":[{"fact":"end date of the loan","kind":"date"},{"fact":"start date of the loan","kind":"date"},{"fact":"fee per month","kind":"number"},{"fact":"length of the loan","kind":"number"}],"documents":["loans/harp-loan.txt","loans/harp-loan-extension.txt","loans/piano-loan.txt","loans/organ-loan.txt"],"tables":[]}"#,
    ),
    (
        "Files:\n\
         loans/harp-loan.txt: Loan of a concert harp\n\
         notes/meeting-may.txt: Meeting of 4 May\n\
         Tables:\n\
         lists/tickets.csv: columns day, hall, seats, price\n\
         lists/staff.csv: columns name, role, phone\n\n\
         Question: How many tickets did the small hall sell in May?",
        r#"{"facts":[],"documents":[],"tables":["lists/tickets.csv"]}"#,
    ),
    (
        "Files:\n\
         halls/hall-rent.txt: Rent of the small hall\n\
         rules/house-rules.md: House rules\n\
         Tables:\n\
         lists/rooms.csv: columns room, tenant, deposit\n\n\
         Question: By when must we cancel the rent of the hall so that it ends in October?",
        r#"{"facts":[{"fact":"end date of the rent","kind":"date"},{"fact":"notice period","kind":"number"}],"documents":["halls/hall-rent.txt"],"tables":[]}"#,
    ),
    (
        "Files:\n\
         rules/house-rules.md: House rules\n\
         notes/meeting-may.txt: Meeting of 4 May\n\
         notes/meeting-june.txt: Meeting of 8 June\n\
         Tables:\n\
         lists/rooms.csv: columns room, tenant, deposit\n\n\
         Question: Which rooms paid less than the deposit that the house rules ask for?",
        r#"{"facts":[{"fact":"deposit","kind":"number"}],"documents":["rules/house-rules.md"],"tables":["lists/rooms.csv"]}"#,
    ),
];

/// A file as the plan sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Path below the folder.
    pub path: String,
    /// A line that tells it apart: a title, or the columns of a table.
    pub title: String,
}

/// Asks for the plan. `hits` are the lines that a search for the question's words found.
pub fn prompt(
    question: &str,
    documents: &[Listed],
    tables: &[Listed],
    hits: &[Listed],
    place: Place,
) -> Prompt {
    let mut messages = vec![Message::system(SYSTEM)];
    for (user, assistant) in EXAMPLES {
        messages.push(Message::user(user));
        messages.push(Message::assistant(assistant));
    }
    let mut user = String::from("Files:\n");
    for file in documents {
        user.push_str(&format!("{}: {}\n", file.path, file.title));
    }
    user.push_str("Tables:\n");
    for file in tables {
        user.push_str(&format!("{}: {}\n", file.path, file.title));
    }
    if !hits.is_empty() {
        user.push_str("Search found:\n");
    }
    for hit in hits.iter().take(5) {
        user.push_str(&format!("{}: {}\n", hit.path, hit.title));
    }
    user.push_str(&format!("\nQuestion: {question}"));
    messages.push(Message::user(user));
    let paths =
        |files: &[Listed]| -> Vec<String> { files.iter().map(|file| file.path.clone()).collect() };
    // At least one where the question needs one, none where it does not.
    let some = |files: &[Listed], needed: bool, most: usize| {
        if files.is_empty() || !needed {
            json!({"const": []})
        } else {
            list_of(json!({"enum": paths(files)}), 1, most)
        }
    };
    let text = place != Place::Table || tables.is_empty();
    let rows = place != Place::Documents;
    let fact = object([
        ("fact", short_text(48)),
        ("kind", json!({"enum": ["date", "number", "text"]})),
    ]);
    Prompt {
        phase: Phase::Plan,
        about: "plan".to_owned(),
        messages,
        schema: object([
            (
                "facts",
                if text {
                    list_of(fact, 1, 4)
                } else {
                    json!({"const": []})
                },
            ),
            ("documents", some(documents, text, 10)),
            ("tables", some(tables, rows, 1)),
        ]),
        max_tokens: 400,
    }
}

/// Reads the plan; files named twice count once.
///
/// # Errors
/// Text that is no such record.
pub fn record(text: &str) -> Result<Plan> {
    let mut plan: Plan = parse(Phase::Plan, text)?;
    for files in [&mut plan.documents, &mut plan.tables] {
        let mut seen = std::collections::BTreeSet::new();
        files.retain(|path| seen.insert(path.clone()));
    }
    let mut seen = std::collections::BTreeSet::new();
    // "line" is the key of the quote itself.
    plan.facts
        .retain(|wanted| wanted.fact != "line" && seen.insert(wanted.fact.to_lowercase()));
    Ok(plan)
}
