//! Tokenizers against the `tokenizers` crate, set up as the models' own `tokenizer.json` has it:
//! the published expressions with their lookahead, over text that is hard to split.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use converge_core::tokenizer::{Special, Tokenizer};
use converge_quant::{
    Gguf, Metadata,
    gguf::{Array, Strings, Value},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
    SplitDelimiterBehavior,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{
        bert::BertPreTokenizer,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    utils::SysRegex,
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

fn compare(vocab: &str, pre: &str, ignore_merges: bool, stages: Vec<PreTokenizerWrapper>) {
    compare_cases(2000, vocab, pre, ignore_merges, stages);
}

fn compare_cases(
    cases: u32,
    vocab: &str,
    pre: &str,
    ignore_merges: bool,
    mut stages: Vec<PreTokenizerWrapper>,
) {
    let metadata = metadata(vocab, pre);
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    stages.push(ByteLevel::new(false, false, false).into());
    let oracle = oracle(&metadata, ignore_merges, stages);
    let config = ProptestConfig {
        cases,
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

/// The contractions as llama.cpp writes them.
const CONTRACTION: &str = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
/// Letters that are no small ones, and letters that are no capitals, as llama.cpp writes them.
const UPPER: &str = r"((?=[\p{L}])([^a-z]))";
const LOWER: &str = r"((?=[\p{L}])([^A-Z]))";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
/// Groups of three digits from the right, the first with what is before it.
const GROUPS: &str = r"(?:\P{N}*\p{N}{1,3}|\p{N}{3})(?=(?:\p{N}{3})*(?!\p{N}))|\P{N}+";
const HAN: &str = r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{2F800}-\x{2FA1F}";
const ASIAN: &str = r"[\x{800}-\x{1FFF}\x{200B}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{9FA5}\x{AC00}-\x{D7FF}]+";

/// The others, each with llama.cpp's expressions for it, lookahead and all. (A vocabulary that
/// belongs to none of them will do: it is the splitting that differs.)
#[test]
fn every_other_pre_tokenizer_splits_as_its_regexes() {
    let words = |letters: &str, digits: &str, rest: &str, lines: &str| {
        format!(
            r"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}|{rest}|{lines}|\s+(?!\S)|\s+"
        )
    };
    let after_marks = r" ?[^\s\p{L}\p{N}]+[\r\n]*";
    let lines = r"\s*[\r\n]+";
    let cased = |contraction: &str, digits: &str| {
        format!(
            r"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{contraction}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{contraction}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
    let caseless = |digits: &str| {
        format!(
            r"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+{CONTRACTION}?|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
    let kimi = format!(
        r"[{HAN}]+|[^\r\n\p{{L}}\p{{N}}]?[^\P{{L}}{HAN}]+{CONTRACTION}?|\p{{N}}{{1,3}}|{after_marks}|{lines}|\s+(?!\S)|\s+"
    );
    let threes = words(r"\p{L}+", r"\p{N}{1,3}", after_marks, lines);
    let jais2 = format!(
        r"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{after_marks}|{lines}|\s{{512}}(?!\S)|\s{{256}}(?!\S)|\s{{128}}(?!\S)|\s{{64}}(?!\S)|\s{{32}}(?!\S)|\s{{16}}(?!\S)|\s{{8}}(?!\S)|\s{{4}}(?!\S)|\s{{1,2}}(?!\S)|\s{{1}}"
    );
    let bloom = " ?[^(\\s|.,!?…。，、।۔،)]+";
    let cases: Vec<(&str, Vec<String>)> = vec![
        ("chatglm-bpe", vec![threes.clone()]),
        ("dbrx", vec![threes]),
        ("jais-2", vec![jais2]),
        ("stablelm2", vec![QWEN2.into()]),
        (
            "qwen35",
            vec![words(
                r"[\p{L}\p{M}]+",
                r"\p{N}",
                r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
                lines,
            )],
        ),
        (
            "seed-coder",
            vec![words(
                r"\p{L}+",
                r"\p{N}{1}",
                r" ?[^\s\p{L}\p{N}\r\n]+",
                lines,
            )],
        ),
        (
            "bailingmoe",
            vec![words(r"\p{L}+", r"\p{N}", after_marks, r"\s*[\r\n]")],
        ),
        (
            "exaone-moe",
            vec![words(
                r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
                r"\p{N}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
                r"\s*[\r\n]",
            )],
        ),
        ("tekken", vec![cased("", r"\p{N}")]),
        (
            "gpt-4o",
            vec![cased(&format!("{CONTRACTION}?"), r"\p{N}{1,3}")],
        ),
        ("tiny_aya", vec![GROUPS.into(), caseless(r"\p{N}{1,3}")]),
        ("kimi-k2", vec![kimi]),
        ("laguna", vec!["\\n+".into(), QWEN2.into()]),
        (
            "deepseek-v3",
            vec![
                r"\p{N}{1,3}".into(),
                "[一-龥぀-ゟ゠-ヿ]+".into(),
                DEEPSEEK3.into(),
            ],
        ),
        (
            "afmoe",
            vec![
                GROUPS.into(),
                "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ가-힯]+".into(),
                DEEPSEEK3.into(),
            ],
        ),
        (
            "deepseek-coder",
            vec![
                "[\r\n]".into(),
                r"\s?\p{L}+".into(),
                r"\s?\p{P}+".into(),
                ASIAN.into(),
                r"\p{N}".into(),
            ],
        ),
        (
            "falcon",
            vec![
                r"[\p{P}\$\+<=>\^~\|`]+".into(),
                GPT2.into(),
                "[0-9][0-9][0-9]".into(),
            ],
        ),
        ("command-r", vec![r"\p{N}".into(), GPT2.into()]),
        ("bloom", vec![bloom.into()]),
        ("viking", vec![bloom.into(), r"\p{N}".into()]),
        (
            "chameleon",
            vec![
                "<sentinel:[0-9]+>".into(),
                "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z".into(),
                r"([\t\n]|    |  )".into(),
                r"\p{N}".into(),
                r"[\p{P}!-/:-@\[-`{-~]".into(),
                GPT2.into(),
            ],
        ),
        (
            "superbpe",
            vec![r"\p{N}+".into(), r"(?=([0-9]{3})+(?![0-9]))".into()],
        ),
    ];
    for (pre, stages) in cases {
        let ignore_merges = pre == "tekken";
        let stages = stages.iter().map(|stage| split(stage)).collect();
        compare_cases(400, "gpt-2", pre, ignore_merges, stages);
    }
}

/// BERT's vocabulary as a GGUF file has it, and the tokenizer that it comes from.
fn bert() -> (Tokenizer, tokenizers::Tokenizer) {
    let path = converge_tests::model("all-minilm-l6-v2").join("tokenizer.json");
    let mut oracle = tokenizers::Tokenizer::from_file(&path).unwrap();
    oracle.with_truncation(None).unwrap();
    oracle.with_padding(None);
    let vocab = oracle.get_vocab_size(true) as u32;
    let written: Vec<String> = (0..vocab)
        .map(|id| oracle.id_to_token(id).unwrap())
        .map(|token| match token.strip_prefix("##") {
            Some(rest) => rest.to_owned(),
            None if token.starts_with('[') && token.len() > 1 => token,
            None => format!("▁{token}"),
        })
        .collect();
    let types = written
        .iter()
        .map(|token| match token.starts_with('[') && token.len() > 1 {
            true => 3,
            false => 1,
        });
    let entries = [
        ("tokenizer.ggml.model", Value::String("bert".to_owned())),
        (
            "tokenizer.ggml.token_type",
            Value::Array(Array::I32(types.collect())),
        ),
        (
            "tokenizer.ggml.tokens",
            Value::Array(Array::String(written.iter().collect())),
        ),
    ];
    let metadata = Metadata::from_entries(entries).unwrap();
    (Tokenizer::from_gguf(&metadata).unwrap(), oracle)
}

#[test]
fn bert_splits_as_its_own_tokenizer() {
    let (tokenizer, oracle) = bert();
    let config = ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..Default::default()
    };
    let is_punctuation = SysRegex::new(r"\p{P}").unwrap();
    TestRunner::new(config)
        .run(&tricky(), |text| {
            // The oracle's table of punctuation is of an older Unicode.
            let text: String = text
                .chars()
                .filter(|c| {
                    bert_cuts_at(*c) || is_punctuation.find_iter(&c.to_string()).count() == 0
                })
                .collect();
            let found = tokenizer.encode(&text, Special::Text).unwrap();
            let expected = oracle.encode(text.as_str(), false).unwrap();
            prop_assert_eq!(&found, expected.get_ids());
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Whether the oracle parts words at this character.
fn bert_cuts_at(c: char) -> bool {
    let mut text = PreTokenizedString::from(format!("a{c}a"));
    BertPreTokenizer.pre_tokenize(&mut text).unwrap();
    let pieces = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
    pieces.len() > 1
}

/// What a hostile text may take on a machine that is busy with other things.
const MOST: Duration = Duration::from_secs(30);

/// Every way of splitting, on text that makes backtracking and naive merging explode: a mebibyte for
/// each way of merging, a quarter for each way of splitting, where time by the square of the length
/// takes minutes.
#[test]
fn hostile_text_takes_no_longer_than_its_length() {
    let different = [
        "default",
        "llama-bpe",
        "jais-2",
        "deepseek-llm",
        "deepseek-coder",
        "deepseek-v3",
        "youtu",
        "falcon",
        "smollm",
        "qwen35",
        "laguna",
        "minicpm5",
        "exaone-moe",
        "viking",
        "tekken",
        "gpt-4o",
        "granite-embed-multi-97m",
        "tiny_aya",
        "kimi-k2",
        "chameleon",
        "superbpe",
        "afmoe",
    ];
    let quarter = 1 << 18;
    let mut tokenizers: Vec<(&str, usize, Tokenizer)> = different
        .into_iter()
        .map(|pre| {
            // The merges of a word, a word that is a token as it is, and no expression's matches.
            let whole = matches!(pre, "default" | "tekken" | "superbpe");
            let length = if whole { 4 * quarter } else { quarter };
            let tokenizer = Tokenizer::from_gguf(&metadata("gpt-2", pre)).unwrap();
            (pre, length, tokenizer)
        })
        .collect();
    tokenizers.push(("bert", 4 * quarter, bert().0));
    for (pre, length, tokenizer) in &tokenizers {
        for unit in ["a", " ", "\u{301}", "aGVsbG8gd29ybGQK"] {
            let text = unit.repeat(length / unit.len());
            let start = Instant::now();
            let tokens = tokenizer.encode(&text, Special::Text).unwrap();
            let took = start.elapsed();
            println!("{pre} {unit:?}: {:.3} s", took.as_secs_f64());
            // A second on a machine at rest.
            assert!(took < MOST, "{pre} {unit:?}: {took:?}");
            if tokenizer.is_lossless() {
                assert_eq!(tokenizer.decode(&tokens, false), text, "{pre} {unit:?}");
            }
        }
    }
}
