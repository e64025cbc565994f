//! `tokenizer.json` and `tokenizer_config.json`: the keys `tokenizer.*`.

use std::path::Path;

use serde_json::Value;

use crate::gguf::{Metadata, Strings};
use crate::{QuantError, Result};

use super::FolderFault;
use super::config::Config;
use super::json::Json;

/// Kinds of tokens, as `tokenizer.ggml.token_type` numbers them.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// How text is split before the merges, by the expressions of `tokenizer.json`.
const SPLITS: [(&str, &str); 2] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
];

/// Sets the keys of the tokenizer for a vocabulary of `vocab` tokens.
pub(super) fn describe(
    folder: &Path,
    vocab: usize,
    config: &Config,
    metadata: &mut Metadata,
) -> Result<()> {
    let json = Json::read(&folder.join("tokenizer.json"))?;
    let kind = json.need("model.type", json.text("model.type")?)?;
    if kind != "BPE" {
        let fault = FolderFault::Unsupported {
            found: kind.to_owned(),
            supported: "BPE, of characters or of bytes".to_owned(),
        };
        return Err(json.error("model.type", fault));
    }
    let pieces = json.boolean("model.byte_fallback")?.unwrap_or(false);
    let merges = merges(&json)?;
    let mut table = Table::read(&json, vocab)?;
    if pieces {
        table.mark_bytes();
        if let Some(unknown) = json.text("model.unk_token")? {
            table.mark(unknown, UNKNOWN);
        }
    }

    let (model, pre) = match pieces {
        true => ("llama", "default"),
        false => ("gpt2", split_name(&json)?),
    };
    metadata.set("tokenizer.ggml.model", model);
    metadata.set("tokenizer.ggml.pre", pre);
    let tokens: Strings = table.tokens.iter().map(String::as_str).collect();
    metadata.set("tokenizer.ggml.tokens", tokens);
    if pieces {
        metadata.set("tokenizer.ggml.scores", table.scores(&merges));
        metadata.set("tokenizer.ggml.add_space_prefix", prefixes_space(&json));
    }
    metadata.set("tokenizer.ggml.token_type", table.kinds.clone());
    if !pieces {
        let joined = merges.iter().map(|(left, right)| format!("{left} {right}"));
        metadata.set("tokenizer.ggml.merges", joined.collect::<Strings>());
    }

    let more = Json::find(&folder.join("tokenizer_config.json"))?;
    special(&table, more.as_ref(), config, metadata);
    if let Some(adds) = adds_bos(&json, more.as_ref())? {
        metadata.set("tokenizer.ggml.add_bos_token", adds);
    }
    if let Some(template) = chat_template(folder, more.as_ref())? {
        metadata.set("tokenizer.chat_template", template);
    }
    Ok(())
}

/// The vocabulary, by id.
struct Table {
    tokens: Vec<String>,
    kinds: Vec<i32>,
}

impl Table {
    fn read(json: &Json, vocab: usize) -> Result<Self> {
        // Rows of the embeddings that no token has.
        let mut table = Self {
            tokens: (0..vocab).map(|id| format!("[PAD{id}]")).collect(),
            kinds: vec![UNUSED; vocab],
        };
        let entries = json.need("model.vocab", json.object("model.vocab")?)?;
        for (token, id) in entries {
            table.set(json, "model.vocab", id, token, NORMAL)?;
        }
        let added = json.list("added_tokens")?;
        for token in added.into_iter().flatten() {
            let text = token.get("content").and_then(Value::as_str);
            let text = json.need("added_tokens.content", text)?;
            let id = json.need("added_tokens.id", token.get("id"))?;
            let kind = match token.get("special").and_then(Value::as_bool) {
                Some(true) => CONTROL,
                _ => USER_DEFINED,
            };
            table.set(json, "added_tokens", id, text, kind)?;
        }
        Ok(table)
    }

    fn set(&mut self, json: &Json, field: &str, id: &Value, text: &str, kind: i32) -> Result<()> {
        let at = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let Some(at) = at.filter(|&at| at < self.tokens.len()) else {
            let fault = FolderFault::WrongType {
                expected: "an id below the number of embeddings",
                found: format!("{id} of {text:?}"),
            };
            return Err(json.error(field, fault));
        };
        text.clone_into(&mut self.tokens[at]);
        self.kinds[at] = kind;
        Ok(())
    }

    fn id(&self, token: &str) -> Option<usize> {
        self.tokens.iter().position(|one| one == token)
    }

    fn mark(&mut self, token: &str, kind: i32) {
        if let Some(id) = self.id(token) {
            self.kinds[id] = kind;
        }
    }

    /// `<0x00>` to `<0xFF>` stand for bytes.
    fn mark_bytes(&mut self) {
        for byte in 0..=255u8 {
            self.mark(&format!("<0x{byte:02X}>"), BYTE);
        }
    }

    /// What is merged first has the highest score; what no merge gives, none.
    fn scores(&self, merges: &[(&str, &str)]) -> Vec<f32> {
        let mut ids = std::collections::HashMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            ids.insert(token.as_str(), id);
        }
        let mut scores = vec![0.0; self.tokens.len()];
        let mut scored = vec![false; self.tokens.len()];
        for (rank, (left, right)) in merges.iter().enumerate() {
            let merged = format!("{left}{right}");
            if let Some(&id) = ids.get(merged.as_str()).filter(|&&id| !scored[id]) {
                scores[id] = -(rank as f32);
                scored[id] = true;
            }
        }
        for (score, scored) in scores.iter_mut().zip(scored) {
            if !scored {
                *score = -(merges.len() as f32);
            }
        }
        scores
    }
}

/// Pairs of merges: texts with a space between, or lists of two.
fn merges(json: &Json) -> Result<Vec<(&str, &str)>> {
    let list = json.need("model.merges", json.list("model.merges")?)?;
    list.iter()
        .map(|value| {
            let found = match value {
                Value::String(text) => text.split_once(' '),
                Value::Array(two) => match two.as_slice() {
                    [Value::String(left), Value::String(right)] => {
                        Some((left.as_str(), right.as_str()))
                    }
                    _ => None,
                },
                _ => None,
            };
            found.ok_or_else(|| wrong_merge(json, value))
        })
        .collect()
}

fn wrong_merge(json: &Json, value: &Value) -> QuantError {
    let fault = FolderFault::WrongType {
        expected: "two texts",
        found: value.to_string().chars().take(60).collect(),
    };
    json.error("model.merges", fault)
}

/// llama.cpp's name of the way text is split.
fn split_name(json: &Json) -> Result<&'static str> {
    let one = json.at("pre_tokenizer").cloned().unwrap_or_default();
    let steps = match one.get("pretokenizers") {
        Some(Value::Array(steps)) => steps.clone(),
        _ => vec![one],
    };
    let kind = |step: &Value| step.get("type").and_then(Value::as_str).map(str::to_owned);
    let kinds: Vec<String> = steps.iter().filter_map(kind).collect();
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let flag = |step: &Value, name: &str| step.get(name).and_then(Value::as_bool);
    let named = match (kinds.as_slice(), steps.as_slice()) {
        (["Split", "ByteLevel"], [split, _]) => {
            let expression = split.pointer("/pattern/Regex").and_then(Value::as_str);
            let known = SPLITS.iter().find(|(one, _)| Some(*one) == expression);
            known.map(|(_, name)| *name)
        }
        (["Digits", "ByteLevel"], [digits, _])
            if flag(digits, "individual_digits") == Some(true) =>
        {
            Some("smollm")
        }
        (["ByteLevel"], [bytes]) if flag(bytes, "use_regex") != Some(false) => Some("gpt-2"),
        _ => None,
    };
    named.ok_or_else(|| {
        let fault = FolderFault::Unsupported {
            found: Value::Array(steps).to_string().chars().take(300).collect(),
            supported: "the splits of gpt-2, llama-bpe, qwen2 and smollm".to_owned(),
        };
        json.error("pre_tokenizer", fault)
    })
}

/// Whether text begins with a space that it does not have.
fn prefixes_space(json: &Json) -> bool {
    let has = |field: &str, needle: &[&str]| {
        let text = json.at(field).map(Value::to_string).unwrap_or_default();
        needle.iter().any(|one| text.contains(one))
    };
    has("normalizer", &["\"Prepend\""])
        || has(
            "pre_tokenizer",
            &[
                "\"prepend_scheme\":\"first\"",
                "\"prepend_scheme\":\"always\"",
                "\"add_prefix_space\":true",
            ],
        )
}

/// Ids of the special tokens: by name from `tokenizer_config.json`, else from `config.json`.
fn special(table: &Table, more: Option<&Json>, config: &Config, metadata: &mut Metadata) {
    let named = |field: &str| {
        let value = more?.at(field)?;
        // A text, or an object that describes the token.
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        table.id(text).map(|id| id as u32)
    };
    let ids = &config.special;
    for (key, field, fallback) in [
        ("bos_token_id", "bos_token", ids.bos),
        ("eos_token_id", "eos_token", ids.eos),
        ("unknown_token_id", "unk_token", None),
        ("padding_token_id", "pad_token", ids.pad),
    ] {
        let inside = |id: &u32| (*id as usize) < table.tokens.len();
        if let Some(id) = named(field).or(fallback).filter(inside) {
            metadata.set(format!("tokenizer.ggml.{key}"), id);
        }
    }
}

/// Whether a text gets the token of its beginning, if the files say.
fn adds_bos(json: &Json, more: Option<&Json>) -> Result<Option<bool>> {
    if let Some(more) = more
        && let Some(adds) = more.boolean("add_bos_token")?
    {
        return Ok(Some(adds));
    }
    let Some(last) = json.at("post_processor") else {
        return Ok(None);
    };
    let steps = match last.get("processors") {
        Some(Value::Array(steps)) => steps.as_slice(),
        _ => std::slice::from_ref(last),
    };
    let template = steps.iter().find_map(|step| step.get("single"));
    Ok(template.map(|single| single.pointer("/0/SpecialToken").is_some()))
}

fn chat_template(folder: &Path, more: Option<&Json>) -> Result<Option<String>> {
    let file = folder.join("chat_template.jinja");
    if file.exists() {
        let read = std::fs::read_to_string(&file);
        return read
            .map(Some)
            .map_err(|source| QuantError::Io { path: file, source });
    }
    let Some(more) = more else {
        return Ok(None);
    };
    Ok(match more.at("chat_template") {
        Some(Value::String(template)) => Some(template.clone()),
        Some(Value::Array(templates)) => {
            let default = |one: &&Value| one.get("name").is_some_and(|name| name == "default");
            let found = templates.iter().find(default);
            let template = found.and_then(|one| one.get("template")?.as_str());
            template.map(str::to_owned)
        }
        _ => None,
    })
}
