use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn archive(files: &[(&str, &str)]) -> (tempfile::TempDir, Folder) {
    let temp = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let folder = Folder::open(temp.path()).unwrap();
    (temp, folder)
}

fn small() -> (tempfile::TempDir, Folder) {
    archive(&[
        (
            "contracts/acme.md",
            "# Service agreement\n\nBetween Acme Ltd and the client.\n\n## Term\n\n\
             This agreement terminates on 31 March 2026.\n\n## Fees\n\nThe fee is $1,200.00 a\n\
             month, payable in advance.\n",
        ),
        (
            "contracts/bolt.md",
            "# Service agreement\n\nBetween Bolt GmbH and the client.\n\n## Term\n\n\
             This agreement terminates on 30 June 2025.\n",
        ),
        (
            "tables/invoices.csv",
            "date,customer,amount\n2025-01-02,Acme,100\n2025-01-03,Bolt,20\n",
        ),
        ("notes.txt", "Lunch is at noon.\n"),
    ])
}

fn run(folder: &Folder, query: &str) -> Vec<(String, String)> {
    let args = SearchArgs {
        query: query.to_owned(),
        ..SearchArgs::default()
    };
    let result = search(folder, &args, &ToolContext::default()).unwrap();
    result
        .hits
        .into_iter()
        .map(|hit| (hit.source.to_string(), hit.text))
        .collect()
}

#[test]
fn the_passage_that_fits_best_comes_first() {
    let (_temp, folder) = small();
    let hits = run(&folder, "When does the Bolt contract's termination happen?");
    assert_eq!(hits[0].0, "contracts/bolt.md:5-7");
    assert_eq!(
        hits[0].1,
        "## Term\n\nThis agreement terminates on 30 June 2025."
    );
    assert_eq!(
        run(&folder, "monthly FEES of acme: 1200.00")[0].0,
        "contracts/acme.md:9-12"
    );
    assert_eq!(
        run(&folder, "invoice amounts Bolt")[0].0,
        "tables/invoices.csv:3"
    );
    assert_eq!(run(&folder, "zebra"), []);
    // Only common words: then they count.
    assert_eq!(run(&folder, "what is at")[0].0, "notes.txt:1");
}

#[test]
fn results_are_limited_and_say_so() {
    let (_temp, folder) = small();
    let args = json!({"query": "agreement", "limit": 1, "path": "contracts/"});
    let output = tool(folder.clone())
        .call(&args, &ToolContext::default())
        .unwrap();
    assert!(output.truncated);
    assert_eq!(output.sources.len(), 1);
    let result: SearchResult = serde_json::from_value(output.value).unwrap();
    assert_eq!((result.hits.len(), result.matched, result.files), (1, 4, 2));
    for query in ["", " ?! ", "\u{0}"] {
        let args = SearchArgs {
            query: query.to_owned(),
            ..SearchArgs::default()
        };
        let error = search(&folder, &args, &ToolContext::default()).unwrap_err();
        assert!(matches!(error, ToolError::EmptyQuery));
    }
}

#[test]
fn an_exact_phrase_is_found_across_lines_in_any_case() {
    let (_temp, folder) = small();
    let exact = |query: &str| {
        let args = SearchArgs {
            query: query.to_owned(),
            exact: true,
            ..SearchArgs::default()
        };
        let result = search(&folder, &args, &ToolContext::default()).unwrap();
        result
            .hits
            .iter()
            .map(|hit| hit.source.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(exact("$1,200.00 A  month"), ["contracts/acme.md:11-12"]);
    assert_eq!(
        exact("bolt"),
        ["contracts/bolt.md:3", "tables/invoices.csv:3"]
    );
    assert_eq!(exact("terminates in"), [""; 0]);
}

#[test]
fn quotes_are_located_despite_typography() {
    let text = "One “smart”\n  quote – here.\nOne two one two three.\n";
    assert_eq!(locate(text, "\"smart\" quote - here"), Some((1, 2)));
    assert_eq!(locate(text, "one two three"), Some((3, 3)));
    assert_eq!(locate(text, "one one"), None);
    assert_eq!(locate(text, " . "), None);
}

proptest! {
    #[test]
    fn a_piece_of_a_text_is_located_in_it(text in "[a-c \n]{1,60}", start in 0_usize..60, len in 1_usize..20) {
        let chars: Vec<char> = text.chars().collect();
        let start = start.min(chars.len() - 1);
        let piece: String = chars[start..(start + len).min(chars.len())].iter().collect();
        let normal = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        match locate(&text, &piece) {
            Some((first, last)) => {
                let lines: Vec<&str> = text.lines().collect();
                let found = normal(&lines[first - 1..last].join(" "));
                prop_assert!(found.contains(&normal(&piece)), "{:?} in {:?}", piece, found);
            }
            None => prop_assert!(piece.trim().is_empty()),
        }
    }

    #[test]
    fn no_text_or_query_panics(text in "(\\PC|\n){0,80}", query in "\\PC{0,20}", exact: bool) {
        let (_temp, folder) = archive(&[("a.md", &text), ("b.csv", &text)]);
        let args = SearchArgs { query, exact, ..SearchArgs::default() };
        match search(&folder, &args, &ToolContext::default()) {
            Ok(result) => {
                for hit in &result.hits {
                    prop_assert!(hit.source.first <= hit.source.last && hit.score > 0.0);
                }
            }
            Err(error) => prop_assert!(matches!(error, ToolError::EmptyQuery)),
        }
    }
}
