//! Whole runs with real tools over a small folder and a script in place of the model.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::{
    phase::Prompt,
    tool::{Folder, ToolContext, Toolbox},
};

const LEASE: &str = "# Lease of the hall\n\nThe lease runs from 1 May 2023 to 30 April 2025.\nThe rent is EUR 75.00 per month.\n";
const CLEANING: &str = "# Cleaning contract\n\nThe contract ends on 31 December 2024.\nThe fee is EUR 40.00 per month for 14 months.\n";
const TICKETS: &str =
    "day,hall,seats\n2024-05-01,small,12\n2024-05-02,large,80\n2024-05-03,small,13\n";

fn folder() -> (tempfile::TempDir, Toolbox) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("lease.md", LEASE),
        ("cleaning.md", CLEANING),
        ("tickets.csv", TICKETS),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let tools = Toolbox::read_only(&Folder::open(dir.path()).unwrap()).unwrap();
    (dir, tools)
}

/// Runs to the end; `script` answers each prompt. At every step the run is stored and read back.
fn play(question: &str, tools: &Toolbox, mut script: impl FnMut(&Prompt) -> Value) -> Outcome {
    let mut run = Run::new(question, Settings::default());
    for _ in 0..100 {
        let stored = serde_json::to_string(&run).unwrap();
        run = serde_json::from_str(&stored).unwrap();
        assert_eq!(serde_json::to_string(&run).unwrap(), stored);
        match run.next_step() {
            Step::Call { tool, args, .. } => {
                run.called(tools.call(&tool, &args, &ToolContext::default()))
                    .unwrap();
            }
            Step::Generate(prompt) if prompt.about == "kind of question" => run
                .generated(r#"{"place":"both","calculate":"compare_and_arithmetic"}"#)
                .unwrap(),
            Step::Generate(prompt) => run.generated(&script(&prompt).to_string()).unwrap(),
            Step::Done(outcome) => return outcome,
        }
    }
    panic!("the run does not end");
}

fn plan(documents: &[&str], tables: &[&str]) -> Value {
    json!({
        "facts": [{"fact": "end date", "kind": "date"}, {"fact": "fee", "kind": "number"}],
        "documents": documents,
        "tables": tables,
    })
}

fn extracted(prompt: &Prompt) -> Value {
    if prompt.about.ends_with("cleaning.md") {
        json!({
            "facts": {
                "end date": {"line": "The contract ends on 31 December 2024.", "end date": "31 December 2024"},
                "fee": {"line": "The fee is EUR 40.00 per month for 14 months.", "fee": "40.00"},
            },
            "other_lines": [],
        })
    } else {
        json!({
            "facts": {
                "end date": {"line": "The lease runs from 1 May 2023 to 30 April 2025.", "end date": "30 April 2025"},
                "fee": null,
            },
            "other_lines": [],
        })
    }
}

#[test]
fn plans_reads_folds_calculates_and_answers_with_citations() {
    let (_dir, tools) = folder();
    let mut decisions =
        vec![json!({"need": "product", "compute": {"a": "40.00", "op": "multiply", "b": "14"}})];
    let outcome = play(
        "Which contract ends first, what is its fee in total?",
        &tools,
        |prompt| match prompt.about.as_str() {
            "plan" => plan(&["lease.md", "cleaning.md"], &[]),
            "compare" => json!({"pick": "earliest", "fact": "end date"}),
            "compute" => decisions
                .pop()
                .unwrap_or(json!({"need": "nothing", "compute": null})),
            "answer" => json!({
                "answer": "The cleaning contract ends first, on 31 December 2024, and costs 560.",
                "cite": [2],
            }),
            _ => extracted(prompt),
        },
    );
    assert_eq!(outcome.stop, StopReason::Done);
    let results: Vec<&str> = outcome
        .calculations
        .iter()
        .map(|calculation| calculation.result.as_str())
        .collect();
    assert_eq!(results, ["31 December 2024 (cleaning.md)", "560"]);
    assert!(
        outcome
            .citations
            .iter()
            .any(|citation| citation.source.to_string() == "cleaning.md:3"),
        "{:?}",
        outcome.citations
    );
}

#[test]
fn an_invented_number_goes_back_and_an_honest_answer_passes() {
    let (_dir, tools) = folder();
    let mut answers = vec![
        json!({"answer": "It ends on 31 December 2024.", "cite": [1]}),
        json!({"answer": "It ends on 30 December 2024.", "cite": [1]}),
    ];
    let outcome = play(
        "When does the cleaning end?",
        &tools,
        |prompt| match prompt.about.as_str() {
            "plan" => plan(&["cleaning.md"], &[]),
            "compute" => json!({"need": "nothing", "compute": null}),
            "answer" => answers.pop().unwrap(),
            _ => extracted(prompt),
        },
    );
    assert_eq!(outcome.stop, StopReason::Done);
    assert_eq!(outcome.answer, "It ends on 31 December 2024.");
    assert!(answers.is_empty());
}

#[test]
fn nothing_but_inventions_ends_as_not_found() {
    let (_dir, tools) = folder();
    let outcome = play(
        "When does the cleaning end?",
        &tools,
        |prompt| match prompt.about.as_str() {
            "plan" => plan(&["cleaning.md"], &[]),
            "compute" => json!({"need": "nothing", "compute": null}),
            "answer" => json!({"answer": "Mr Pemberton says 99.", "cite": [1]}),
            _ => extracted(prompt),
        },
    );
    assert_eq!(outcome.stop, StopReason::NoProgress);
    assert!(outcome.answer.starts_with("Not found"));
}

#[test]
fn a_table_is_queried_and_its_rows_are_cited() {
    let (_dir, tools) = folder();
    let outcome = play(
        "How many seats did the small hall have?",
        &tools,
        |prompt| match prompt.about.as_str() {
            "plan" => json!({"facts": [], "documents": [], "tables": ["tickets.csv"]}),
            "compute" => json!({"need": "nothing", "compute": null}),
            "answer" => json!({"answer": "The small hall had 25 seats.", "cite": [1]}),
            about if about.starts_with("query") => json!({
                "where": [{"column": "hall", "op": "eq", "value": "small"}],
                "group_by": null, "compute": "sum", "column": "seats", "order": "none",
            }),
            _ => json!({"facts": {"what the question asks for": null}, "other_lines": []}),
        },
    );
    assert_eq!(outcome.stop, StopReason::Done, "{}", outcome.answer);
    assert_eq!(outcome.citations[0].source.path, "tickets.csv");
}

#[test]
fn what_is_missing_sends_the_run_back_to_read_more() {
    let (_dir, tools) = folder();
    let mut asked = 0;
    let outcome = play("zzz", &tools, |prompt| match prompt.about.as_str() {
        "plan" => plan(&["lease.md"], &[]),
        "compare" => json!({"pick": "earliest", "fact": "end date"}),
        "compute" => json!({"need": "nothing", "compute": null}),
        "answer" => {
            asked += 1;
            if asked == 1 {
                json!({"missing": "the cleaning", "read": ["cleaning.md"]})
            } else {
                json!({"answer": "It ends on 31 December 2024.", "cite": [2]})
            }
        }
        _ => extracted(prompt),
    });
    assert_eq!(outcome.answer, "It ends on 31 December 2024.");
}

#[test]
fn text_that_is_no_record_leaves_the_run_where_it_was() {
    let (_dir, tools) = folder();
    let mut run = Run::new("When?", Settings::default());
    while let Step::Call { tool, args, .. } = run.next_step() {
        run.called(tools.call(&tool, &args, &ToolContext::default()))
            .unwrap();
    }
    let before = run.clone();
    for text in ["", "{", "{\"facts\": 3}", "[1, 2]", "null"] {
        assert!(run.generated(text).is_err(), "{text:?}");
        assert_eq!(run, before);
    }
}
