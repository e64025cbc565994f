//! Tokenizers against the token ids that llama.cpp gave for the same vocabularies.
//!
//! Runs every file of the folder `tokenizer` (`X.gguf`, `X.gguf.inp`, `X.gguf.out`) and `logits`
//! (`X.jsonl`, for the model `X.gguf`) in the folder that `CONVERGE_CONFORMANCE` names, else in
//! `data/conformance` beside this file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use converge_core::{
    hub,
    tokenizer::{Special, Tokenizer},
};
use converge_quant::Gguf;
use converge_tests::{conformance, model};

/// The files of a folder with that extension, sorted; at least `least`.
fn files(folder: &Path, extension: &str, least: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; CONVERGE_CONFORMANCE must name the data's folder",
            folder.display()
        )
    });
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    assert!(
        files.len() >= least,
        "{}: {} files",
        folder.display(),
        files.len()
    );
    files
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn load(path: &Path) -> Tokenizer {
    let name = file_name(path);
    let gguf = Gguf::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    Tokenizer::from_gguf(gguf.metadata()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn tokenizer_conformance() {
    let mut tested = 0;
    for path in files(&conformance("tokenizer"), "gguf", 4) {
        let name = file_name(&path).to_owned();
        let tokenizer = load(&path);
        let read = |extension: &str| {
            let path = path.with_extension(format!("gguf.{extension}"));
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let (texts, expected) = (read("inp"), read("out"));
        // A separator stands after each text, or between them.
        let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        texts.pop_if(|last| last.trim().is_empty());
        let expected: Vec<&str> = expected.lines().collect();
        assert_eq!(texts.len(), expected.len(), "{name}");
        for (text, ids) in texts.into_iter().zip(expected) {
            let expected: Vec<u32> = ids
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
            let found = tokenizer.encode(text, Special::Text).unwrap();
            assert_eq!(found, expected, "{name}: {text:?}");
            if tokenizer.is_lossless() && tokenizer.unencodable(text).is_none() {
                assert_eq!(tokenizer.decode(&found, false), text, "{name}");
            }
        }
        tested += 1;
    }
    assert!(tested >= 4, "{tested} vocabularies tested");
}

/// The pre-tokenizers as the models themselves have them, on text of some length.
#[test]
fn tokenizer_conformance_on_the_texts_of_the_logits() {
    for path in files(&conformance("logits"), "jsonl", 3) {
        let file = path.with_extension("gguf");
        let file = file_name(&file);
        let entry = hub::catalogue()
            .iter()
            .find(|entry| entry.path == file)
            .unwrap_or_else(|| panic!("{file} is not in the catalogue"));
        let tokenizer = load(&model(entry.name));
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["model_sha256"], entry.files[0].sha256);
            let text = line["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(line["tokens"].clone()).unwrap();
            let mut found: Vec<u32> = tokenizer
                .bos()
                .filter(|_| tokenizer.adds_bos())
                .into_iter()
                .collect();
            // The chat texts hold control tokens.
            found.extend(tokenizer.encode(text, Special::Parse).unwrap());
            let id = line["id"].as_str().unwrap();
            if id.starts_with("long-") {
                // Cut after so many tokens, the text given whole.
                found.truncate(expected.len());
            }
            assert_eq!(found, expected, "{file}: {id}");
        }
    }
}

/// A mebibyte of the same again and again: what makes naive merging and backtracking explode.
#[test]
fn hostile_text_takes_no_longer_than_its_length() {
    let vocabularies = ["gpt-2", "llama-bpe", "qwen2", "starcoder", "llama-spm"];
    let vocabularies = vocabularies.map(|name| {
        let path = conformance("tokenizer").join(format!("ggml-vocab-{name}.gguf"));
        (name, path)
    });
    for (vocab, path) in vocabularies
        .into_iter()
        .chain([("gemma-3-270m", model("gemma-3-270m"))])
    {
        let tokenizer = load(&path);
        for unit in [
            "a",
            " ",
            "\n",
            " \n",
            "1",
            "!",
            "🦙",
            "\t a",
            "\u{301}",
            "aGVsbG8gd29ybGQK",
        ] {
            let text = unit.repeat((1 << 20) / unit.len());
            let start = Instant::now();
            let tokens = tokenizer.encode(&text, Special::Parse).unwrap();
            let seconds = start.elapsed().as_secs_f64();
            println!("{vocab} {unit:?}: {} tokens, {seconds:.3} s", tokens.len());
            // Quadratic time would be hours.
            assert!(seconds < 20.0, "{vocab} {unit:?}: {seconds} s");
            assert_eq!(tokenizer.decode(&tokens, false), text);
        }
    }
}
