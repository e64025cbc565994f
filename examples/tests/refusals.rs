//! What the programs say to files that are not what they need: each message says what to do.

#![cfg(test)] // so that the lints know the helpers for tests, too

mod common;

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};
use common::{good, model, object, program, refused};
use converge_examples::{engine, models};

const WIDTH: usize = 32;
const VOCAB: usize = 8;

/// A llama of one layer, without a tokenizer.
struct Tiny {
    metadata: BTreeMap<String, Value>,
    /// Shapes, rows first.
    tensors: BTreeMap<String, Vec<usize>>,
}

impl Tiny {
    fn new() -> Self {
        let text = |text: &str| Value::String(text.into());
        let mut metadata = BTreeMap::from([
            ("general.architecture".to_owned(), text("llama")),
            (
                "llama.attention.layer_norm_rms_epsilon".to_owned(),
                Value::F32(1e-5),
            ),
        ]);
        for (key, n) in [
            ("embedding_length", WIDTH),
            ("feed_forward_length", WIDTH),
            ("attention.head_count", 1),
            ("block_count", 1),
            ("context_length", 64),
        ] {
            metadata.insert(format!("llama.{key}"), Value::U32(n as u32));
        }
        let mut tensors = BTreeMap::from([("token_embd.weight".to_owned(), vec![VOCAB, WIDTH])]);
        tensors.insert("output_norm.weight".into(), vec![WIDTH]);
        for part in ["attn_norm", "ffn_norm"] {
            tensors.insert(format!("blk.0.{part}.weight"), vec![WIDTH]);
        }
        for part in [
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
        ] {
            tensors.insert(format!("blk.0.{part}.weight"), vec![WIDTH, WIDTH]);
        }
        Self { metadata, tensors }
    }

    fn text(mut self, key: &str, value: &str) -> Self {
        self.metadata
            .insert(key.into(), Value::String(value.into()));
        self
    }

    /// With the lists of a tokenizer.
    fn vocabulary(self, tokens: &[&str]) -> Self {
        let mut with = self.text("tokenizer.ggml.model", "llama");
        let each = |value: Value| Value::Array(vec![value; tokens.len()]);
        let texts = tokens.iter().map(|&text| Value::String(text.into()));
        for (key, value) in [
            ("tokens", Value::Array(texts.collect())),
            ("scores", each(Value::F32(0.0))),
            ("token_type", each(Value::I32(1))),
        ] {
            with.metadata.insert(format!("tokenizer.ggml.{key}"), value);
        }
        with
    }

    fn write(&self, path: &Path) -> String {
        let tensors: Vec<(&str, QTensor)> = self
            .tensors
            .iter()
            .map(|(name, shape)| {
                let zeros = Tensor::zeros(&shape[..], candle_core::DType::F32, &Device::Cpu);
                let tensor = QTensor::quantize(&zeros.unwrap(), GgmlDType::F32);
                (name.as_str(), tensor.unwrap())
            })
            .collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, t)| (*name, t)).collect();
        let metadata: Vec<_> = self
            .metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        gguf_file::write(&mut fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
        path.display().to_string()
    }
}

#[test]
fn what_is_no_model_is_refused_in_one_line() {
    let model = model();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let mut half = vec![0; 2 << 20];
    fs::File::open(&model)
        .unwrap()
        .read_exact(&mut half)
        .unwrap();
    let truncated = write("half.gguf", &half);
    let text = write("text.gguf", b"This is no model.");
    let empty = write("empty.gguf", b"");
    let of_version = |version: [u8; 4]| [&b"GGUF"[..], &version, &[0; 16], b"and more"].concat();
    let big_endian = write("big.gguf", &of_version([0, 0, 0, 3]));
    let first = write("first.gguf", &of_version([1, 0, 0, 0]));
    let huge = [b"GGUF\x03\0\0\0", &[0xff; 8][..], &[0xff; 8], &[0; 64]].concat();
    let huge = write("huge.gguf", &huge);
    let folder = dir.path().display().to_string();
    for name in ["inspect", "generate", "score", "bench", "tokenize"] {
        let with = |model: &str, words: &[&str]| {
            let mut args = vec!["--model", model];
            match name {
                "generate" | "tokenize" => args.push("hello"),
                "score" => args.extend(["--text", &text]),
                "bench" => args.extend(["--gen", "1"]),
                _ => {}
            }
            refused(name, &args, words);
        };
        with("no-such-model", &["smollm2-135m", "path of a .gguf"]);
        with("no/such/file.gguf", &["no/such/file.gguf", "no file"]);
        with(&folder, &["folder"]);
        with(&truncated, &["half.gguf", "not a whole one"]);
        with(&text, &["text.gguf", "GGUF"]);
        with(&empty, &["empty.gguf", "not a whole one"]);
        with(&big_endian, &["big-endian", "little-endian conversion"]);
        with(&first, &["version 1", "another conversion"]);
        with(&huge, &["18446744073709551615", "get it again"]);
        with("all-minilm-l6-v2", &["no GGUF model", "smollm2-135m"]);
    }
}

/// Read without a fault, yet nothing that could be run: `inspect` shows what is there and says
/// why, `generate` refuses in the same words.
#[test]
fn what_cannot_be_run_says_what_to_give_instead() {
    let dir = tempfile::tempdir().unwrap();
    let mut no_tensor = Tiny::new();
    no_tensor.tensors.remove("blk.0.attn_k.weight");
    let mut wrong_shape = Tiny::new();
    let half = vec![WIDTH, WIDTH / 2];
    wrong_shape
        .tensors
        .insert("blk.0.ffn_up.weight".into(), half);
    let mut no_size = Tiny::new();
    no_size.metadata.remove("llama.embedding_length");
    let mut odd_size = Tiny::new();
    odd_size
        .metadata
        .insert("llama.attention.head_count".into(), Value::U32(3));
    let mut adapter = Tiny::new().text("general.type", "adapter");
    adapter.tensors =
        BTreeMap::from([("blk.0.attn_q.weight.lora_a".to_owned(), vec![4usize, WIDTH])]);
    let mut image_part = Tiny::new().text("general.architecture", "clip");
    image_part.tensors = BTreeMap::from([("v.patch_embd.weight".to_owned(), vec![WIDTH, WIDTH])]);
    let mut vocabulary = Tiny::new().vocabulary(&["<unk>", "a"]);
    vocabulary.tensors.clear();
    let unknown = Tiny::new().text("general.architecture", "mamba");
    let cases: [(&str, Tiny, &[&str]); 8] = [
        (
            "unknown",
            unknown,
            &["`mamba`", "gemma3", "give a model of one of these"],
        ),
        (
            "no-tensor",
            no_tensor,
            &["blk.0.attn_k.weight", "get it again"],
        ),
        (
            "shape",
            wrong_shape,
            &["blk.0.ffn_up.weight", "[32, 16]", "get it again"],
        ),
        (
            "no-size",
            no_size,
            &["llama.embedding_length", "get it again"],
        ),
        (
            "odd-size",
            odd_size,
            &["llama.attention.head_count", "another conversion"],
        ),
        ("adapter", adapter, &["LoRA", "merged into"]),
        ("mmproj", image_part, &["mmproj", "language part"]),
        ("vocabulary", vocabulary, &["no weights", "whole model"]),
    ];
    for (name, tiny, words) in cases {
        let path = tiny.write(&dir.path().join(format!("{name}.gguf")));
        refused("generate", &["-m", &path, "hello"], words);
        let found = object(&good("inspect", &[&path, "--json"]));
        let why = found["unsupported"].as_str().unwrap();
        for word in words {
            assert!(why.contains(word), "{word:?} not in {why}");
        }
        assert!(good("inspect", &[&path]).contains(why));
    }
}

#[test]
fn a_file_without_a_usable_tokenizer_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let none = Tiny::new().write(&dir.path().join("none.gguf"));
    let other = Tiny::new().text("tokenizer.ggml.model", "rwkv");
    let other = other.write(&dir.path().join("other.gguf"));
    let words = Tiny::new()
        .vocabulary(&["<unk>", "a"])
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "unheard-of");
    let words = words.write(&dir.path().join("words.gguf"));
    for name in ["generate", "tokenize"] {
        refused(
            name,
            &["-m", &none, "hello"],
            &["tokenizer.ggml.model", "convert the model again"],
        );
        refused(
            name,
            &["-m", &other, "hello"],
            &["`rwkv`", "supported are", "give another"],
        );
        refused(
            name,
            &["-m", &words, "hello"],
            &["`unheard-of`", "qwen2", "give another model"],
        );
    }
    let adapted = Tiny::new().text("general.architecture", "glm4");
    let adapted = adapted.write(&dir.path().join("adapted.gguf"));
    let found = object(&good("inspect", &[&adapted, "--json"]));
    assert_eq!(found["adapted"], true);
    assert!(good("inspect", &[&adapted]).contains("computed anew"));
    // It is a model none the less.
    let found = object(&good("inspect", &[&none, "--json"]));
    assert_eq!(found["unsupported"], serde_json::Value::Null);
}

/// A set of files is one model: named by any of them, refused in full when one is missing.
#[test]
fn a_split_model_is_read_from_any_part_and_names_the_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let whole = Tiny::new();
    let path = |n: usize| dir.path().join(format!("tiny-{n:05}-of-00002.gguf"));
    let mut parts = [Tiny::new(), Tiny::new()];
    parts[1].metadata.clear();
    for (n, part) in parts.iter_mut().enumerate() {
        part.tensors
            .retain(|name, _| name.starts_with("blk.") == (n == 1));
        for (key, value) in [
            ("split.no", Value::U16(n as u16)),
            ("split.count", Value::U16(2)),
            (
                "split.tensors.count",
                Value::I32(whole.tensors.len() as i32),
            ),
        ] {
            part.metadata.insert(key.into(), value);
        }
        part.write(&path(n + 1));
    }
    for n in [1, 2] {
        let found = object(&good("inspect", &[path(n).to_str().unwrap(), "--json"]));
        assert_eq!(found["unsupported"], serde_json::Value::Null);
        assert_eq!(found["tensor_count"], whole.tensors.len());
    }
    fs::remove_file(path(2)).unwrap();
    refused(
        "inspect",
        &[path(1).to_str().unwrap()],
        &[
            "tiny-00002-of-00002.gguf",
            "all are needed in one directory",
        ],
    );
}

#[test]
fn every_known_model_can_be_inspected_and_generates() {
    for name in engine::text_models() {
        models::ensure(name).unwrap();
        let found = object(&good("inspect", &[name, "--json"]));
        assert_eq!(found["unsupported"], serde_json::Value::Null, "{name}");
        let text = good(
            "generate",
            &[
                "-m",
                name,
                "--ctx",
                "64",
                "--max-tokens",
                "4",
                "--raw",
                "Monday, Tuesday, Wednesday,",
            ],
        );
        assert!(text.contains("Thursday"), "{name}: {text}");
    }
}

/// A model that continues texts is told so, and goes on from the message.
#[test]
fn a_model_without_a_chat_template_continues_the_message() {
    models::ensure("gemma-3-270m").unwrap();
    let output = program("generate")
        .args(["-m", "gemma-3-270m", "--ctx", "64", "--max-tokens", "4"])
        .arg("Monday, Tuesday, Wednesday,")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no chat template"), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Thursday"));
}

#[test]
fn what_cannot_come_to_a_good_end_is_refused_before_the_work() {
    let model = model();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    refused(
        "generate",
        &["-m", &model, "--threads", "10000", "Hi"],
        &["--threads 10000", "give at most"],
    );
    let missing = path("llama-server");
    refused(
        "loop_cost",
        &["-m", &model, "--server", &missing],
        &["llama-server", "build llama.cpp"],
    );

    let suite = path("suite.jsonl");
    let line = r#"{"name": "a", "messages": [{"role": "user", "content": "Hi"}]"#;
    fs::write(&suite, format!("{line}}}\n{line}, \"shema\": {{}}}}\n")).unwrap();
    let speculative = |args: &[&str], words: &[&str]| {
        let common = ["-m", model.as_str(), "--draft", "none"];
        refused("speculative", &[&common, args].concat(), words);
    };
    speculative(&["--suite", &suite], &["line 2", "shema"]);
    speculative(&["--max-tokens", "0", "Hi"], &["0 tokens"]);
    let nowhere = path("no/plot.svg");
    speculative(&["--plot", &nowhere, "Hi"], &["cannot write", "plot.svg"]);
}

/// A damaged file of packed weights is told on stderr, and the answer is the same.
#[test]
fn a_damaged_file_of_packed_weights_is_told() {
    let model = model();
    let store = tempfile::tempdir().unwrap();
    let answer = || {
        let output = program("generate")
            .args(["-m", &model, "--raw", "--max-tokens", "4", "--packed"])
            .args(["read", "Monday, Tuesday,"])
            .env("CONVERGE_PACKED", store.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        (output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let (first, said) = answer();
    assert!(!said.contains("passed over"), "{said}");
    let files = fs::read_dir(store.path()).unwrap();
    let file = files
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "tiles"))
        .unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (second, said) = answer();
    assert!(said.contains("passed over"), "{said}");
    assert!(first == second);
}
