//! The programs as a user runs them, on a real model.

#![cfg(test)] // so that the lints know the helpers for tests, too

#[path = "programs/cache.rs"]
mod cache;
#[path = "programs/chat.rs"]
mod chat;
mod common;
#[path = "programs/embed.rs"]
mod embed;
#[path = "programs/quantize.rs"]
mod quantize;
#[path = "programs/synthetic.rs"]
mod synthetic;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use common::{good, model, object, program, refused, run};
use converge_examples::models;
use serde_json::{Value, json};

#[test]
fn help_is_there_and_usage_errors_end_with_2() {
    for name in [
        "bench",
        "cache",
        "chat",
        "embed",
        "fetch",
        "generate",
        "inspect",
        "quantize",
        "score",
        "speculative",
        "synthetic",
        "tokenize",
    ] {
        assert!(good(name, &["--help"]).contains("Usage:"), "{name}");
        assert_eq!(
            run(name, &["--no-such-option"]).status.code(),
            Some(2),
            "{name}"
        );
    }
    // Nothing asked for.
    for name in [
        "bench",
        "cache",
        "fetch",
        "quantize",
        "score",
        "speculative",
        "synthetic",
    ] {
        assert_eq!(run(name, &[]).status.code(), Some(2), "{name}");
    }
}

#[test]
fn inspect_tells_types_bits_and_memory() {
    let found = object(&good("inspect", &[&model(), "--json", "--ctx", "1000"]));
    assert_eq!(found["architecture"], "llama");
    assert_eq!(found["unsupported"], Value::Null);
    assert_eq!(
        found["types"][0],
        json!({
            "type": "Q4_1", "tensors": 210, "weights": 106_168_320, "bytes": 66_355_200,
            "bits_per_weight": 5.0,
        })
    );
    // 30 layers, 3 heads of 64, keys and values, 1000 positions, 2 bytes.
    let kv = &found["memory"]["kv_f16"];
    assert_eq!(kv["kv_bytes"], 30 * 3 * 64 * 2 * 1000 * 2);
    assert_eq!(kv["fits"], true);
    let text = good("inspect", &[&model(), "--tensors", "--memory", "0.1"]);
    for words in [
        "5.74 bits",
        "does not fit in 0.1 GB",
        "blk.29.ffn_up.weight",
        "tokenizer.ggml.pre",
    ] {
        assert!(text.contains(words), "{words} not in {text}");
    }
}

#[test]
fn tokenize_there_and_back() {
    let model = model();
    let with = |args: &[&str]| good("tokenize", &[&["--model", &model], args].concat());
    let text = "naïve 🦙<|im_end|>\n";
    let found = object(&with(&["--json", text]));
    assert_eq!(found["text"], text);
    let ids: Vec<String> = found["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    // As an id, and as what it is: the lines are as many as the tokens.
    let lines = with(&[text]);
    assert_eq!(lines.lines().count(), ids.len(), "{lines}");
    assert!(lines.contains("\\xF0"), "{lines}");
    assert!(lines.ends_with(" \"\\n\"\n"), "{lines}");
    assert_eq!(with(&["--decode", &ids.join(", ")]), format!("{text}\n"));
    // Data is no control token unless it is said to be.
    assert!(!lines.contains("<|im_end|>"), "{lines}");
    let parsed = with(&["--special", text]);
    assert!(parsed.contains("end \"<|im_end|>\""), "{parsed}");
    assert!(parsed.lines().count() < ids.len());
    refused(
        "tokenize",
        &["--model", &model, "--decode", "1 x"],
        &["\"x\"", "token id"],
    );
    refused(
        "tokenize",
        &["--model", &model, "--decode", "1 99999999"],
        &["99999999", "49152"],
    );
}

#[test]
fn generate_answers_streams_and_repeats_itself() {
    let model = model();
    let ask = |args: &[&str]| {
        let fixed = [
            "--model",
            &model,
            "--f32",
            "--ctx",
            "256",
            "--max-tokens",
            "24",
        ];
        good("generate", &[&fixed, args].concat())
    };
    let question = "What is the capital of France?";
    let text = ask(&[question]);
    assert!(text.contains("Paris"), "{text}");
    let line = ask(&[question, "--json"]);
    let found = object(&line);
    assert_eq!(found["text"].as_str().unwrap(), text.trim_end_matches('\n'));
    assert_eq!(found["stop"], "end_of_text");
    assert_eq!(
        found["decoded"].as_u64().unwrap(),
        found["tokens"].as_array().unwrap().len() as u64
    );
    // Drawn, yet the same for the same seed.
    let draw = |seed| ask(&[question, "--temperature", "1.5", "--seed", seed]);
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
    // Every way of choosing, and those that exclude each other.
    let with = |args: &[&str]| ask(&[&[question, "--temperature", "1"], args].concat());
    assert_eq!(with(&["--mirostat", "2"]), with(&["--mirostat", "2"]));
    assert_ne!(with(&["--typical-p", "0.2"]), with(&["--top-p", "0.2"]));
    let letters = ["--raw", "a b c d a b c d a b c d"];
    let dry = ["--dry", "9", "--dry-length", "3", "--dry-breaker", "\\n"];
    assert!(ask(&letters).contains("d d d d d"));
    assert!(!ask(&[&letters[..], &dry].concat()).contains("d d d d d"));
    let both = [
        "-m",
        &model,
        "--temperature",
        "1",
        "--mirostat",
        "5",
        "--top-k",
        "9",
        "hi",
    ];
    refused("generate", &both, &["mirostat", "top_k"]);
    refused(
        "generate",
        &["-m", &model, "--mirostat", "5", "hi"],
        &["temperature 0"],
    );
    // Raw text, ended by a stop string.
    let found = object(&ask(&["--raw", "1, 2, 3, 4,", "--stop", "7", "--json"]));
    assert_eq!(found["text"], " 5, 6, ");
    assert_eq!(found["stop_string"], "7");
}

#[test]
fn generate_holds_json_to_its_schema() {
    let model = model();
    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("schema.json");
    let schema_text = schema.display().to_string();
    fs::write(
        &schema,
        r#"{"type": "object", "properties": {
        "city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}
    }, "required": ["city", "sure"], "additionalProperties": false}"#,
    )
    .unwrap();
    let args = |max| {
        [
            "--model",
            &model,
            "--f32",
            "--ctx",
            "256",
            "--schema",
            &schema_text,
            "--max-tokens",
            max,
            "Capital of France?",
        ]
        .map(str::to_owned)
    };
    let with = |max| args(max).to_vec();
    let call = |args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run("generate", &args)
    };
    let output = call(&with("60"));
    assert!(output.status.success());
    let answer = object(&String::from_utf8(output.stdout).unwrap());
    assert!(
        ["Paris", "Rome"].contains(&answer["city"].as_str().unwrap()),
        "{answer}"
    );
    assert!(answer["sure"].is_boolean(), "{answer}");
    // Cut short is an error, not half an object with exit code 0.
    let output = call(&with("2"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--max-tokens"));
    // A schema that is none is refused before a model is loaded.
    fs::write(&schema, "{").unwrap();
    let output = call(&with("9"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("schema.json"));
}

#[test]
fn generate_holds_the_answer_to_what_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let model = model();
    let fixed = ["-m", &model, "--f32", "--ctx", "512", "--max-tokens", "40"];
    let ask = |args: &[&str]| {
        let args = [&fixed, args, &["Capital of France?"]].concat();
        good("generate", &args).trim_end().to_owned()
    };
    let held = ask(&["--regex", "(Rome|Paris), [0-9]{3}!"]);
    assert!(
        ["Rome, ", "Paris, "]
            .iter()
            .any(|city| held.starts_with(city)),
        "{held}"
    );
    assert!(held.ends_with('!'), "{held}");
    let lark = write(
        "answer.lark",
        "start: CITY \" of \" CITY\nCITY: \"Rome\" | \"Paris\"\n",
    );
    let held = ask(&["--grammar", &lark]);
    assert_eq!(held.split(" of ").count(), 2, "{held}");
    let bad = |args: &[&str], words: &[&str]| {
        refused("generate", &[&fixed, args, &["hi"]].concat(), words);
    };
    bad(&["--regex", "(?=a)b"], &["regular expression"]);
    bad(
        &["--grammar", &write("bad.lark", "start: missing")],
        &["Lark", "missing"],
    );
    let tool = json!([{"type": "function", "function": {"name": "capital", "description": "",
        "parameters": {"properties": {"country": {"type": "string"}}, "required": ["country"]}}}]);
    let tools = write("tools.json", &tool.to_string());
    bad(&["--tools", &tools], &["chat template", "--schema"]);
    bad(&["--tools", &lark], &["answer.lark"]);
    let both = ["--tools", &tools, "--regex", "a", "hi"];
    assert_eq!(run("generate", &both).status.code(), Some(2));
    // A model that was trained on calls.
    let model = models::ensure("qwen2.5-coder-0.5b")
        .unwrap()
        .display()
        .to_string();
    let question = "Look up the capital of France with your tool.";
    let args = [
        "-m",
        &model,
        "--ctx",
        "1024",
        "--max-tokens",
        "90",
        "--tools",
        &tools,
        question,
    ];
    let answer = good("generate", &args);
    if let Some((_, call)) = answer.split_once("<tool_call>") {
        let call = object(call.trim().strip_suffix("</tool_call>").unwrap());
        assert_eq!(call["name"], "capital", "{answer}");
        assert!(call["arguments"]["country"].is_string(), "{answer}");
    }
}

#[test]
fn a_context_that_is_too_small_says_which_would_do() {
    let model = model();
    let text = "word ".repeat(40);
    refused(
        "generate",
        &["-m", &model, "--ctx", "16", &text],
        &["--ctx", "context of 16"],
    );
    refused(
        "generate",
        &["-m", &model, "--ctx", "100000", "hi"],
        &["100000", "8192"],
    );
    refused(
        "bench",
        &["-m", &model, "--ctx", "16", "--prompt", "32"],
        &["context of 16"],
    );
}

#[test]
fn score_writes_the_shape_that_it_reads() {
    let model = model();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in.jsonl");
    let tokens = [504, 3575, 282, 4649, 314, 7042]; // "The capital of France is Paris"
    let line = json!({"id": "a", "extra": [1], "tokens": tokens});
    fs::write(
        &file,
        format!("{line}\n\n{}\n", json!({"id": "b", "text": "One two"})),
    )
    .unwrap();
    let out = good(
        "score",
        &[&model, "--jsonl", file.to_str().unwrap(), "--f32"],
    );
    let rows: Vec<Value> = out.lines().map(object).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["id"], "a");
    assert_eq!(rows[0]["extra"], json!([1]));
    assert_eq!(rows[0]["tokens"], json!(tokens));
    let positions = rows[0]["positions"].as_array().unwrap();
    assert_eq!(positions.len(), tokens.len());
    assert_eq!(positions[5]["next"], Value::Null);
    for position in positions {
        let top = position["top"].as_array().unwrap();
        assert_eq!(top.len(), 5);
        assert!(
            top.is_sorted_by(|a, b| a[1].as_f64() >= b[1].as_f64()),
            "{top:?}"
        );
    }
    let last = &positions[4]["next"];
    assert!(last.as_f64().unwrap() > -4.0, "Paris after `is`: {last}");
    assert_eq!(
        rows[1]["positions"].as_array().unwrap().len(),
        rows[1]["tokens"].as_array().unwrap().len()
    );

    fs::write(&file, "{\"id\": 1}\n").unwrap();
    refused(
        "score",
        &[&model, "--jsonl", file.to_str().unwrap()],
        &["line 1", "`tokens`"],
    );
}

#[test]
fn perplexity_is_that_of_the_log_probabilities_in_windows_too() {
    let model = model();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in.txt");
    fs::write(
        &file,
        "The quick brown fox jumps over the lazy dog. ".repeat(6),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let of = |ctx| {
        let out = good(
            "score",
            &[&model, "--text", file, "--f32", "--json", "--ctx", ctx],
        );
        let found = object(&out);
        assert_eq!(
            found["scored"].as_u64().unwrap() + 1,
            found["tokens"].as_u64().unwrap()
        );
        found["mean_negative_log_probability"].as_f64().unwrap()
    };
    let jsonl = dir.path().join("in.jsonl");
    fs::write(
        &jsonl,
        json!({"text": fs::read_to_string(file).unwrap()}).to_string(),
    )
    .unwrap();
    let row = object(&good(
        "score",
        &[&model, "--jsonl", jsonl.to_str().unwrap(), "--f32"],
    ));
    let next: Vec<f64> = row["positions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| p["next"].as_f64())
        .collect();
    let mean = -next.iter().sum::<f64>() / next.len() as f64;
    assert!((of("512") - mean).abs() < 1e-4);
    // A repeated sentence is still well predicted from half of a small window.
    let windowed = of("32");
    assert!(
        windowed > mean && windowed < mean + 1.5,
        "{windowed} {mean}"
    );
}

#[test]
fn bench_measures_what_is_asked_for_and_no_more() {
    let args = [
        "--prompt", "8", "--gen", "2", "--passes", "1,4", "--reps", "2", "--depth", "5", "--f32",
    ];
    let out = good("bench", &[&[model().as_str()][..], &args].concat());
    let rows: Vec<Value> = out.lines().map(object).collect();
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            assert!(row["tokens_per_second"].as_f64().unwrap() > 0.0, "{row}");
            assert_eq!(row["depth"], 5);
            (
                row["test"].as_str().unwrap(),
                row["n"].as_u64().unwrap(),
                row["rep"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [("prefill", 8), ("decode", 2), ("pass", 1), ("pass", 4)];
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|&(test, n)| [(test, n, 0), (test, n, 1)])
        .collect();
    assert_eq!(found, expected);
    let out = good(
        "bench",
        &[
            "-m",
            &model(),
            "--passes",
            "3",
            "--reps",
            "1",
            "--all-logits",
            "--threads",
            "1",
            "--json",
        ],
    );
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn fetch_lists_and_finds_what_is_there() {
    let path = model();
    assert_eq!(good("fetch", &[models::SMALLEST]).trim_end(), path);
    let list = good("fetch", &["--list", "--json"]);
    let here = list
        .lines()
        .map(object)
        .find(|row| row["name"] == models::SMALLEST)
        .unwrap();
    assert_eq!(here["here"], true);
    refused("fetch", &["nothing-like-it"], &["smollm2-135m"]);
}

#[test]
fn without_python_a_missing_model_says_where_to_put_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program("fetch");
    command
        .arg("qwen2.5-coder-1.5b")
        .env("CONVERGE_MODELS", dir.path())
        .env("PATH", dir.path());
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = stderr.lines().last().unwrap();
    for words in [
        "install Python",
        "put the file",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        "cc324af0",
    ] {
        assert!(error.contains(words), "{words} not in {error}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_generation_at_once_and_keeps_what_was_said() {
    let mut command = program("generate");
    let mut child = command
        .args([
            "-m",
            &model(),
            "--f32",
            "--raw",
            "--max-tokens",
            "4000",
            "Once upon a time",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let first = out.fill_buf().unwrap().len();
    assert!(first > 0);
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let start = std::time::Instant::now();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    assert!(text.ends_with('\n'), "{text}");
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(said.contains("cancelled"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut command = program("inspect");
    let mut child = command
        .arg(model())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said, "");
}
