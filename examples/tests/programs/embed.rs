//! `embed` on the models of both kinds.

use std::fs;

use crate::common::{good, model, object, refused};

const SAME: [&str; 2] = ["A dog runs in the park.", "A puppy is running outside."];
const OTHER: &str = "The central bank raised interest rates.";

#[test]
fn paraphrases_are_the_closest_pair() {
    let found = good("embed", &[SAME[0], OTHER, SAME[1]]);
    let first = found.lines().next().unwrap();
    assert!(SAME.iter().all(|text| first.contains(text)), "{found}");
    assert_eq!(found.lines().count(), 3);
}

#[test]
fn a_query_finds_the_paragraph_and_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.md");
    // One paragraph is longer than the model takes.
    let long = "The weather was fine and the walk was long. ".repeat(40);
    let text = format!("# Notes\n\n{OTHER}\n\n\n{long}\n\nThe puppy\nwas outside.\n");
    fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let found = good(
        "embed",
        &["--file", &path, "--query", SAME[0], "--top", "2"],
    );
    assert_eq!(found.lines().count(), 2);
    let first = found.lines().next().unwrap();
    assert!(
        first.ends_with("notes.md:8  The puppy was outside."),
        "{found}"
    );
    let all = good("embed", &["--file", &path, "--query", OTHER, "--json"]);
    let first = object(all.lines().next().unwrap());
    assert_eq!(first["text"], OTHER);
    assert!(first["similarity"].as_f64().unwrap() > 0.999_999);
    // The heading, three paragraphs, one of them in pieces.
    assert!(all.lines().count() > 4, "{all}");
}

#[test]
fn the_states_of_a_decoder_are_vectors_too() {
    let model = model();
    for pooling in ["mean", "last"] {
        let args = [
            "-m",
            &model,
            "--pooling",
            pooling,
            "--json",
            SAME[0],
            SAME[0],
        ];
        let found = good("embed", &args);
        let vectors: Vec<Vec<f64>> = found
            .lines()
            .map(|line| serde_json::from_value(object(line)["embedding"].clone()).unwrap())
            .collect();
        assert_eq!(vectors[0].len(), 576);
        assert_eq!(vectors[0], vectors[1]);
        let length: f64 = vectors[0].iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
}

#[test]
fn what_cannot_be_embedded_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let long = "word ".repeat(300);
    let folder = dir.path().display().to_string();
    let gguf = dir.path().join("broken.gguf");
    fs::write(&gguf, b"GGUF").unwrap();
    let gguf = gguf.display().to_string();
    refused(
        "embed",
        &["fine", &long],
        &["text 1", "302", "256", "split"],
    );
    refused("embed", &[], &["no text", "--file"]);
    refused(
        "embed",
        &["--model", &folder, "a"],
        &["config.json", "all-minilm-l6-v2"],
    );
    refused(
        "embed",
        &["--model", &gguf, "a"],
        &["broken.gguf", "get it again"],
    );
    refused("embed", &["--pooling", "last", "a"], &["GGUF"]);
    refused("embed", &["--file", "no/such.txt"], &["no/such.txt"]);
}
