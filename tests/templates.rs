//! The chat templates of the conformance data, each with a vocabulary made for it.

use std::{collections::BTreeSet, fs};

use converge_core::{chat::ChatTemplate, tokenizer::Tokenizer};
use converge_quant::{
    Gguf, Metadata,
    gguf::{Array, Value},
};

use crate::conformance;

/// A template as the conformance data have it.
#[derive(Clone, Debug)]
pub struct TemplateFile {
    /// The file's name without `.json`.
    pub name: String,
    /// The template.
    pub source: String,
    bos: String,
    eos: String,
    bytes: Vec<String>,
}

/// Every template of the conformance data, by name.
///
/// # Panics
/// If the data are missing, with how to give them.
#[must_use]
pub fn chat_templates() -> Vec<TemplateFile> {
    let folder = conformance("chat");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; CONVERGE_CONFORMANCE must name the data's folder",
            folder.display()
        )
    });
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let gpt2 = Gguf::open(conformance("tokenizer").join("ggml-vocab-gpt-2.gguf"))
        .unwrap_or_else(|error| panic!("{error}"));
    let tokens = gpt2.metadata().get_strs("tokenizer.ggml.tokens").unwrap();
    let bytes: Vec<String> = tokens.iter().take(256).map(str::to_owned).collect();
    let read = |path: &std::path::PathBuf| {
        let file = fs::read_to_string(path).unwrap();
        let file: serde_json::Value = serde_json::from_str(&file).unwrap();
        let text = |key: &str| file[key].as_str().unwrap().to_owned();
        TemplateFile {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            source: text("template"),
            bos: text("bos_token"),
            eos: text("eos_token"),
            bytes: bytes.clone(),
        }
    };
    paths.iter().map(read).collect()
}

impl TemplateFile {
    /// The template, compiled.
    ///
    /// # Panics
    /// If it does not compile.
    #[must_use]
    pub fn compile(&self) -> ChatTemplate {
        ChatTemplate::from_source(&self.source, self.bos.as_str(), self.eos.as_str())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// What in the template reads like a control token.
    #[must_use]
    pub fn markers(&self) -> BTreeSet<String> {
        markers(&self.source)
    }

    /// A vocabulary of bytes in which the [`markers`](Self::markers) are control tokens, and the
    /// token that ends a text.
    ///
    /// # Panics
    /// If no tokenizer can be made of it.
    #[must_use]
    pub fn tokenizer(&self) -> Tokenizer {
        let mut markers = self.markers();
        let end = match self.eos.as_str() {
            "" => "<end-of-text>",
            end => end,
        };
        markers.insert(end.to_owned());
        let end = markers.iter().position(|marker| marker == end).unwrap();
        let end = u32::try_from(self.bytes.len() + end).unwrap();
        let tokens = self.bytes.iter().chain(&markers);
        let kinds = self
            .bytes
            .iter()
            .map(|_| 1)
            .chain(markers.iter().map(|_| 3));
        let none: [&String; 0] = [];
        let texts = |texts: Vec<&String>| Value::Array(Array::String(texts.into_iter().collect()));
        let entries = [
            ("tokenizer.ggml.model", Value::String("gpt2".to_owned())),
            ("tokenizer.ggml.pre", Value::String("gpt-2".to_owned())),
            ("tokenizer.ggml.tokens", texts(tokens.collect())),
            (
                "tokenizer.ggml.token_type",
                Value::Array(Array::I32(kinds.collect())),
            ),
            ("tokenizer.ggml.merges", texts(none.to_vec())),
            ("tokenizer.ggml.eos_token_id", Value::U32(end)),
        ];
        Tokenizer::from_gguf(&Metadata::from_entries(entries).unwrap()).unwrap()
    }
}

/// What in a template reads like a control token: `<…>`, and `[…]` in capitals, without spaces.
fn markers(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (open, close) in [('<', '>'), ('[', ']')] {
        for (at, _) in source.match_indices(open) {
            let rest = &source[at..];
            let Some(end) = rest[1..].find([open, close]).map(|end| end + 2) else {
                continue;
            };
            let marker = &rest[..end];
            let letters = marker[1..end - 1].trim_matches(['/', '|', '｜']);
            let shouts = letters.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            if marker.ends_with(close)
                && letters.chars().any(char::is_alphabetic)
                && letters
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_▁-:.|".contains(c))
                && (open == '<' || shouts)
            {
                found.insert(marker.to_owned());
            }
        }
    }
    found
}
