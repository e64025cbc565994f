//! Tokenizers against the `tokenizers` crate, set up as the models' own `tokenizer.json` has it:
//! the published expressions with their lookahead, over text that is hard to split.

use std::path::Path;

use converge_core::tokenizer::{Special, Tokenizer};
use converge_quant::{
    Gguf, Metadata,
    gguf::{Strings, Value},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokenizers::{
    PreTokenizerWrapper, SplitDelimiterBehavior,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn split(regex: &str) -> PreTokenizerWrapper {
    let pattern = SplitPattern::Regex(regex.to_owned());
    Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        .unwrap()
        .into()
}

/// The metadata of a vocabulary file, with another pre-tokenizer.
fn metadata(vocab: &str, pre: &str) -> Metadata {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(
        "data/conformance/tokenizer/ggml-vocab-{vocab}.gguf"
    ));
    let gguf = Gguf::open(&path).unwrap_or_else(|error| panic!("{error}"));
    let entries = gguf.metadata().iter().map(|(key, value)| match key {
        "tokenizer.ggml.pre" => (key, Value::String(pre.to_owned())),
        _ => (key, value.clone()),
    });
    Metadata::from_entries(entries).unwrap()
}

fn oracle(
    metadata: &Metadata,
    ignore_merges: bool,
    stages: Vec<PreTokenizerWrapper>,
) -> tokenizers::Tokenizer {
    let strings = |key: &str| -> &Strings { metadata.get_strs(key).unwrap() };
    let vocab: Vocab = strings("tokenizer.ggml.tokens")
        .iter()
        .map(str::to_owned)
        .zip(0..)
        .collect();
    let merges = strings("tokenizer.ggml.merges")
        .iter()
        .map(|merge| merge.split_once(' ').unwrap())
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .build()
        .unwrap();
    let mut oracle = tokenizers::Tokenizer::new(bpe);
    oracle.with_pre_tokenizer(Some(Sequence::new(stages)));
    oracle
}

/// Text made of what splitting and merging trip over.
fn tricky() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            " ", "  ", "     ", "\n", "\r", "\r\n", "\n\n\n", "\t", "\u{B}", "\u{A0}", "\u{2028}",
            "\u{3000}", "\u{85}", "'", "'s", "'S", "'ll", "'lL", "'Re", "'ſ", "n't", "’s", "hello",
            " the", "Internationalisation", "aaaaaaaaaaaaaaaaaaaaaaaaa", "1", "12", "12345678901",
            "½", "Ⅷ", "٣٤", "²", "é", "e\u{301}", "\u{301}", "ǅ", "ʰ", "नमस्ते", "日本語", "한국어", "🦙",
            "👩‍👩‍👧‍👦", "\u{200D}", "\u{FEFF}", "$", "+=", "?!", "...", "_", "://", "<|im_end|>", "==", "\0",
        ])
        .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[ a-zA-Z0-9'\n]{0,12}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn compare(vocab: &str, pre: &str, ignore_merges: bool, mut stages: Vec<PreTokenizerWrapper>) {
    let metadata = metadata(vocab, pre);
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    stages.push(ByteLevel::new(false, false, false).into());
    let oracle = oracle(&metadata, ignore_merges, stages);
    let config = ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..Default::default()
    };
    TestRunner::new(config)
        .run(&tricky(), |text| {
            let found = tokenizer.encode(&text, Special::Text).unwrap();
            if tokenizer.unencodable(&text).is_none() {
                let expected = oracle.encode(text.as_str(), false).unwrap();
                prop_assert_eq!(&found, expected.get_ids());
                prop_assert_eq!(tokenizer.decode(&found, false), text);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{pre}: {error}"));
}

#[test]
fn gpt_2_splits_as_its_regex() {
    compare("gpt-2", "gpt-2", false, vec![split(GPT2)]);
}

#[test]
fn llama_bpe_splits_as_its_regex() {
    compare("llama-bpe", "llama-bpe", true, vec![split(LLAMA3)]);
}

#[test]
fn qwen2_splits_as_its_regex() {
    compare("qwen2", "qwen2", false, vec![split(QWEN2)]);
}

#[test]
fn smollm_splits_as_digits_and_gpt_2() {
    compare(
        "starcoder",
        "smollm",
        false,
        vec![Digits::new(true).into(), split(GPT2)],
    );
}

#[test]
fn the_default_splits_as_its_four_regexes() {
    let punctuation = r"[\p{P}\$\+<=>\^~\|]+";
    let stages = [punctuation, GPT2, r"\p{N}+", "[0-9][0-9][0-9]"].map(split);
    compare("gpt-2", "default", false, stages.into());
}
