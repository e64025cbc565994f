//! The built-in tools on the example archive.

use serde_json::json;

use super::*;

fn tools() -> Toolbox {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data");
    Toolbox::read_write(&Folder::open(data).unwrap()).unwrap()
}

fn call(name: &str, args: Value) -> ToolOutput {
    tools().call(name, &args, &ToolContext::default()).unwrap()
}

#[test]
fn questions_about_tables_are_answered_by_one_call() {
    for (args, answer) in [
        (
            json!({
                "path": "tables/expenses-2025-q4.csv",
                "filter": [
                    {"column": "employee", "op": "eq", "value": "Maud Ferris"},
                    {"column": "category", "op": "eq", "value": "travel"},
                    {"column": "date", "op": "eq", "value": "Q4 2025"}
                ],
                "aggregate": {"op": "sum", "column": "amount"}
            }),
            "sum of amount: 555.35 (",
        ),
        (
            json!({
                "path": "tables/hours-2026-02.csv",
                "filter": [
                    {"column": "employee", "op": "eq", "value": "owen castell"},
                    {"column": "task", "op": "contains", "value": "maintenance"}
                ],
                "aggregate": {"op": "sum", "column": "hours"}
            }),
            "sum of hours: 17.75 (",
        ),
    ] {
        let output = call("table", args);
        assert!(output.text.contains(answer), "{}", output.text);
        assert!(!output.sources.is_empty());
    }
}

#[test]
fn searches_find_the_file_that_answers() {
    for (query, path) in [
        (
            "deposit paid for the premises",
            "contracts/mill-lane-lease.md",
        ),
        (
            "loom maintenance notice before renewal",
            "contracts/halden-loom-maintenance.txt",
        ),
        (
            "Sorrel Freight agreement end amendment",
            "contracts/amendments/sorrel-freight-amendment-1.md",
        ),
        (
            "budget for the warping mill decision",
            "minutes/2026-03-09.md",
        ),
        (
            "Quillon offer IT support monthly price",
            "letters/2026-02-03-from-quillon-offer.txt",
        ),
        (
            "Nettle Pike notice agreement ends",
            "letters/2026-01-12-from-nettle-pike-notice.txt",
        ),
    ] {
        let output = call("search", json!({"query": query}));
        let first = &output.sources[..output.sources.len().min(5)];
        assert!(
            first.iter().any(|source| source.path == path),
            "{query}: {first:?}"
        );
    }
}

#[test]
fn the_whole_archive_is_listed_and_readable() {
    let listed = call("list", json!({}));
    let listed: list::ListResult = serde_json::from_value(listed.value).unwrap();
    assert!(listed.files.len() >= 25);
    for file in &listed.files {
        let output = call("read", json!({"path": file.path}));
        let read: read::ReadResult = serde_json::from_value(output.value).unwrap();
        assert_eq!(Some(read.total), file.lines, "{}", file.path);
        let _ = facts::facts_in(&output.text);
    }
}

#[test]
fn every_schema_compiles_to_a_grammar() {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    tokens.push(Vec::new());
    let encode = |text: &str| text.bytes().map(u32::from).collect();
    let env = converge_core::constrain::TokenEnv::new(tokens, &[256], encode).unwrap();
    for tool in tools().iter() {
        let grammar = converge_core::constrain::Grammar::json_schema(&env, &tool.input_schema());
        assert!(grammar.is_ok(), "{}: {:?}", tool.name(), grammar.err());
    }
}
