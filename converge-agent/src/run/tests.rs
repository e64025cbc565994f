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

fn play(question: &str, tools: &Toolbox, script: impl FnMut(&Prompt) -> Value) -> Outcome {
    play_as("both", "compare_and_arithmetic", question, tools, script)
}

/// Runs to the end as a question of that kind; `script` answers each prompt. At every step the run
/// is stored and read back.
fn play_as(
    place: &str,
    calculate: &str,
    question: &str,
    tools: &Toolbox,
    mut script: impl FnMut(&Prompt) -> Value,
) -> Outcome {
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
                .generated(&json!({"place": place, "calculate": calculate}).to_string())
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
        vec![json!({"reasoning": "product", "compute": {"expression": "40.00 * 14"}})];
    let outcome = play(
        "Which contract ends first, what is its fee in total?",
        &tools,
        |prompt| match prompt.about.as_str() {
            "plan" => plan(&["lease.md", "cleaning.md"], &[]),
            "compare" => json!({"pick": "earliest", "fact": "end date"}),
            "compute" => decisions
                .pop()
                .unwrap_or(json!({"reasoning": "nothing", "compute": null})),
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
            "compute" => json!({"reasoning": "nothing", "compute": null}),
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
            "compute" => json!({"reasoning": "nothing", "compute": null}),
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
            "compute" => json!({"reasoning": "nothing", "compute": null}),
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
        "compute" => json!({"reasoning": "nothing", "compute": null}),
        "answer" => {
            asked += 1;
            if asked == 1 {
                json!({"missing": "end of the cleaning"})
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

fn box_of(files: &[(&str, &str)]) -> (tempfile::TempDir, Toolbox) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let tools = Toolbox::read_only(&Folder::open(dir.path()).unwrap()).unwrap();
    (dir, tools)
}

#[test]
fn a_name_that_no_file_holds_ends_the_run_without_a_call() {
    let (_dir, tools) = folder();
    let question = "When does our contract with Fenwick Packaging end?";
    let outcome = play(question, &tools, |prompt| panic!("asked {}", prompt.about));
    assert_eq!(outcome.stop, StopReason::NotFound);
    assert_eq!(
        outcome.answer,
        "Not found: no file mentions Fenwick Packaging."
    );
}

const MAINTENANCE: &str = "Agreement MA-114\n\nWith Halder Machines Ltd.\n\n1. The fee is 75.00 per month.\n\n2. The term ends on 30 April 2025.\n";
const LETTER: &str = "About agreement MA-114\n\nDear all,\n\nour fee rises to 80.00 per month in May.\n\nThe roses are in bloom.\n";

#[test]
fn the_document_in_question_brings_along_the_letter_that_changes_it() {
    let (_dir, tools) = box_of(&[
        ("maintenance.txt", MAINTENANCE),
        ("letter.txt", LETTER),
        ("cleaning.md", CLEANING),
    ]);
    let mut read = Vec::new();
    let outcome = play_as(
        "documents",
        "arithmetic",
        "What does the maintenance cost in a year?",
        &tools,
        |prompt| match prompt.about.as_str() {
            "plan" => json!({
                "facts": [{"fact": "fee", "kind": "number"}],
                "documents": ["maintenance.txt"], "tables": [],
            }),
            "compute" => {
                json!({"reasoning": "the new fee", "compute": {"expression": "80.00 * 12"}})
            }
            "answer" => json!({"answer": "It costs 960.", "cite": [1]}),
            about => {
                read.push(about.to_owned());
                if about.ends_with("letter.txt") {
                    json!({"asked": "the fee", "lines": [
                        "our fee rises to 80.00 per month in May.",
                        "The roses are in bloom.",
                    ]})
                } else if read.len() == 1 {
                    json!({
                        "facts": {"fee": {"line": "1. The fee is 75.00 per month.", "fee": "75.00"}},
                        "other_lines": [],
                    })
                } else {
                    json!({"asked": "the fee", "lines": ["1. The fee is 75.00 per month."]})
                }
            }
        },
    );
    assert_eq!(
        read,
        [
            "read maintenance.txt",
            "read maintenance.txt",
            "read letter.txt"
        ]
    );
    assert_eq!(outcome.calculations[0].result, "960");
    // The letter is cited for its number, whatever the model cites; the roses are no evidence.
    let cited: Vec<&str> = outcome
        .citations
        .iter()
        .map(|citation| citation.quote.as_str())
        .collect();
    assert_eq!(
        cited,
        [
            "1. The fee is 75.00 per month.",
            "our fee rises to 80.00 per month in May."
        ]
    );
}

#[test]
fn a_query_without_a_row_is_asked_once_more_and_the_identifier_is_cited() {
    let (_dir, tools) = box_of(&[(
        "invoices.csv",
        "invoice,firm,amount\nAB-1001,Acme,10\nAB-1002,Bolt,20\n",
    )]);
    let mut asked = 0;
    let outcome = play_as(
        "table",
        "nothing",
        "How much is invoice AB-1002?",
        &tools,
        |prompt| match prompt.about.as_str() {
            "plan" => json!({"facts": [], "documents": [], "tables": ["invoices.csv"]}),
            "answer" => json!({"answer": "It is 20.", "cite": [2]}),
            _ => {
                asked += 1;
                // At first the number is taken for an amount.
                let amount = if asked == 1 { "1002" } else { "20" };
                json!({
                    "where": [
                        {"column": "invoice", "op": "eq", "value": "AB-1002"},
                        {"column": "amount", "op": "eq", "value": amount},
                    ],
                    "group_by": null, "compute": "rows", "column": null, "order": "none",
                })
            }
        },
    );
    assert_eq!(asked, 2);
    assert_eq!(outcome.stop, StopReason::Done);
    assert!(
        outcome
            .citations
            .iter()
            .any(|one| one.quote.contains("AB-1002,Bolt"))
    );
}

#[test]
fn a_condition_that_nobody_spoke_of_is_dropped_before_nothing_is_found() {
    let (_dir, tools) = box_of(&[("expenses.csv", "kind,amount\ntravel,10\nfood,30\nfood,40\n")]);
    let outcome = play_as(
        "table",
        "nothing",
        "Which expenses were above 20?",
        &tools,
        |prompt| match prompt.about.as_str() {
            "plan" => json!({"facts": [], "documents": [], "tables": ["expenses.csv"]}),
            "answer" => json!({"answer": "Those of 30 and of 40.", "cite": [1]}),
            _ => json!({
                "where": [
                    {"column": "kind", "op": "eq", "value": "travel"},
                    {"column": "amount", "op": "gt", "value": "20"},
                ],
                "group_by": null, "compute": "rows", "column": null, "order": "none",
            }),
        },
    );
    assert_eq!(outcome.stop, StopReason::Done);
    let quote = &outcome.citations[0].quote;
    assert!(quote.contains("3: food | 30\n4: food | 40"), "{quote}");
}
