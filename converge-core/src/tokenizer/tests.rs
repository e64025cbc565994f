use converge_quant::{
    Metadata,
    gguf::{Array, Value},
};
use proptest::prelude::*;

use super::*;
use crate::CoreError;

/// A vocabulary of bytes and a few words, to be spoilt by tests.
#[derive(Clone)]
struct Parts {
    model: &'static str,
    pre: Option<&'static str>,
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
    more: Vec<(&'static str, Value)>,
}

/// The characters of the byte alphabet, by byte.
fn alphabet() -> Vec<char> {
    let mut chars = vec!['\0'; 256];
    for c in (0..0x200).filter_map(char::from_u32) {
        if let Some(byte) = super::alphabet::byte_of(c) {
            chars[byte as usize] = c;
        }
    }
    chars
}

impl Parts {
    fn new() -> Self {
        let mut parts = Self {
            model: "gpt2",
            pre: Some("gpt-2"),
            tokens: alphabet().into_iter().map(String::from).collect(),
            types: vec![1; 256],
            merges: Vec::new(),
            more: Vec::new(),
        };
        for merge in [
            "h e", "l l", "he ll", "hell o", "Ġ hello", "a a", "aa aa", "Ã ©",
        ] {
            parts.merge(merge);
        }
        for (text, kind) in [
            ("<|im_end|>", 3),
            ("<|x|>", 3),
            ("<tool_call>", 4),
            ("   ", 4),
            ("<unused0>", 5),
        ] {
            parts.token(text, kind);
        }
        parts
    }

    fn token(&mut self, text: &str, kind: i32) -> TokenId {
        self.tokens.push(text.to_owned());
        self.types.push(kind);
        (self.tokens.len() - 1) as TokenId
    }

    fn merge(&mut self, merge: &str) -> TokenId {
        self.merges.push(merge.to_owned());
        self.token(&merge.replace(' ', ""), 1)
    }

    fn id(&self, text: &str) -> TokenId {
        self.tokens.iter().position(|token| token == text).unwrap() as TokenId
    }

    fn metadata(&self) -> Metadata {
        let strings = |list: &[String]| Value::Array(Array::String(list.iter().collect()));
        let mut entries = vec![
            ("tokenizer.ggml.model", Value::String(self.model.to_owned())),
            ("tokenizer.ggml.tokens", strings(&self.tokens)),
            (
                "tokenizer.ggml.token_type",
                Value::Array(Array::I32(self.types.clone())),
            ),
            ("tokenizer.ggml.merges", strings(&self.merges)),
        ];
        if let Some(pre) = self.pre {
            entries.push(("tokenizer.ggml.pre", Value::String(pre.to_owned())));
        }
        entries.extend(self.more.iter().cloned());
        Metadata::from_entries(entries).unwrap()
    }

    fn build(&self) -> Tokenizer {
        Tokenizer::from_gguf(&self.metadata()).unwrap()
    }

    fn refused(&self) -> TokenizerError {
        match Tokenizer::from_gguf(&self.metadata()) {
            Err(CoreError::Tokenizer(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn spoilt(change: impl FnOnce(&mut Parts)) -> TokenizerError {
    let mut parts = Parts::new();
    change(&mut parts);
    parts.refused()
}

#[test]
fn merges_follow_their_ranks() {
    let parts = Parts::new();
    let tokenizer = parts.build();
    let encode = |text| tokenizer.encode(text, Special::Text).unwrap();
    assert!(encode("").is_empty());
    assert_eq!(
        encode("hello hello"),
        [parts.id("hello"), parts.id("Ġhello")]
    );
    assert_eq!(encode("hell"), [parts.id("hell")]);
    assert_eq!(
        encode("elle"),
        [parts.id("e"), parts.id("ll"), parts.id("e")]
    );
    // From the left: the odd one is the last.
    assert_eq!(
        encode("aaaaaaa"),
        [parts.id("aaaa"), parts.id("aa"), parts.id("a")]
    );
    assert_eq!(encode("é"), [parts.id("Ã©")]);
}

#[test]
fn special_tokens_are_parsed_only_on_demand() {
    let parts = Parts::new();
    let tokenizer = parts.build();
    let text = "hello<|im_end|><tool_call>";
    let parsed = tokenizer.encode(text, Special::Parse).unwrap();
    assert_eq!(
        parsed,
        [
            parts.id("hello"),
            parts.id("<|im_end|>"),
            parts.id("<tool_call>")
        ]
    );
    assert_eq!(tokenizer.decode(&parsed, false), text);
    assert_eq!(tokenizer.decode(&parsed, true), "hello<tool_call>");

    let data = tokenizer.encode(text, Special::Text).unwrap();
    assert!(
        data.iter()
            .all(|&id| !tokenizer.is_control(id) && id != parts.id("<tool_call>"))
    );
    assert_eq!(tokenizer.decode(&data, true), text);
    // User-defined and mere text: taken whole even in data.
    assert_eq!(
        tokenizer.encode("   ", Special::Text).unwrap(),
        [parts.id("   ")]
    );
    // Unused tokens cannot be written.
    assert!(
        !tokenizer
            .encode("<unused0>", Special::Parse)
            .unwrap()
            .contains(&parts.id("<unused0>"))
    );

    assert_eq!(
        tokenizer.special("<|im_end|>"),
        Some(parts.id("<|im_end|>"))
    );
    assert_eq!(tokenizer.special("<|im_end|>x"), None);
    assert_eq!(tokenizer.special("hello"), None);
    assert_eq!(tokenizer.specials().count(), 4);
    assert_eq!(tokenizer.token_bytes(parts.id("<|im_end|>")), b"");
    assert_eq!(tokenizer.token_bytes(parts.id("Ġhello")), b" hello");
    assert_eq!(tokenizer.token_text(parts.id("<|im_end|>")), "<|im_end|>");
    assert_eq!(tokenizer.token_bytes(TokenId::MAX), b"");
    assert!(tokenizer.is_control(TokenId::MAX));
}

#[test]
fn a_guard_keeps_data_from_being_parsed_and_leaves_no_trace() {
    let parts = Parts::new();
    let tokenizer = parts.build();
    let guard = '\u{F8FF}';
    let text = format!("he{guard}llo<{guard}|im_end|><|im_end|>{guard}");
    let tokens = tokenizer.encode_guarded(&text, Some(guard)).unwrap();
    let control = parts.id("<|im_end|>");
    assert_eq!(tokens.iter().filter(|&&id| id == control).count(), 1);
    assert_eq!(tokens.first(), Some(&parts.id("hello")));
    assert_eq!(tokens.last(), Some(&control));
    assert_eq!(
        tokenizer.decode(&tokens, false),
        "hello<|im_end|><|im_end|>"
    );
    let unguarded = tokenizer.encode_guarded("hello<|x|>", None).unwrap();
    assert_eq!(
        unguarded,
        tokenizer.encode("hello<|x|>", Special::Parse).unwrap()
    );
}

#[test]
fn ends_come_from_keys_and_from_names() {
    let mut parts = Parts::new();
    let (bos, eos) = (parts.token("<s>", 3), parts.token("<stop>", 3));
    parts.more = vec![
        ("tokenizer.ggml.bos_token_id", Value::U32(bos)),
        ("tokenizer.ggml.eos_token_id", Value::U32(eos)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ("tokenizer.ggml.eot_token_id", Value::U32(parts.id("<|x|>"))),
    ];
    // A file that calls an end of turn normal does not let data end a turn.
    let turn = parts.token("<end_of_turn>", 1);
    let tokenizer = parts.build();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(bos), Some(eos)));
    assert!(tokenizer.adds_bos());
    assert_eq!(
        tokenizer.ends(),
        [parts.id("<|im_end|>"), parts.id("<|x|>"), eos, turn]
    );
    assert!(tokenizer.is_end(turn) && tokenizer.is_control(turn) && !tokenizer.is_end(bos));
    assert!(
        !tokenizer
            .encode("<end_of_turn>", Special::Text)
            .unwrap()
            .contains(&turn)
    );

    // Nothing is added by encoding, and no key means no BOS, save for Llama 3.
    assert_ne!(
        tokenizer.encode("hello", Special::Parse).unwrap().first(),
        Some(&bos)
    );
    parts.more.remove(2);
    assert!(!parts.build().adds_bos());
    parts.pre = Some("llama-bpe");
    assert!(parts.build().adds_bos());
}

#[test]
fn a_whole_word_goes_before_merges_where_the_model_has_it_so() {
    let mut parts = Parts::new();
    let word = parts.token("xyz", 1);
    assert_eq!(parts.build().encode("xyz", Special::Text).unwrap().len(), 3);
    parts.pre = Some("llama-bpe");
    assert_eq!(parts.build().encode("xyz", Special::Text).unwrap(), [word]);
    // Never a control token.
    parts.types[word as usize] = 3;
    assert_eq!(parts.build().encode("xyz", Special::Text).unwrap().len(), 3);
}

#[test]
fn what_the_vocabulary_cannot_say_becomes_the_replacement_character() {
    let mut parts = Parts::new();
    let missing = alphabet()[0x13] as u32;
    parts.tokens[0x13] = "unsayable".to_owned();
    assert!(missing > 0);
    let tokenizer = parts.build();
    assert_eq!(tokenizer.unencodable("hello"), None);
    assert_eq!(tokenizer.unencodable("hé\u{13}"), Some((3, '\u{13}')));
    let tokens = tokenizer.encode("hé\u{13}llo", Special::Text).unwrap();
    assert_eq!(tokenizer.decode(&tokens, false), "hé\u{FFFD}llo");

    // A byte token stands in where the alphabet lacks one.
    let byte = parts.token("<0x13>", 6);
    assert_eq!(
        parts.build().encode("\u{13}", Special::Text).unwrap(),
        [byte]
    );
}

#[test]
fn unsupported_tokenizers_are_named() {
    let error = spoilt(|parts| parts.model = "rwkv");
    assert!(error.to_string().contains("`rwkv`") && error.to_string().contains("gpt2, gemma4"));
    let error = spoilt(|parts| parts.pre = Some("valkyrie"));
    assert!(error.to_string().contains("`valkyrie`") && error.to_string().contains("qwen2"));
    for pre in byte_level() {
        let mut parts = Parts::new();
        parts.pre = Some(pre);
        let tokenizer = parts.build();
        let text = "hello, it's 12345 \n\n  é";
        let tokens = tokenizer.encode(text, Special::Text).unwrap();
        assert_eq!(tokenizer.decode(&tokens, true), text, "{pre}");
    }
    let mut parts = Parts::new();
    parts.pre = None;
    parts.build();
}

#[test]
fn spoilt_vocabularies_are_refused() {
    use TokenizerError as E;
    let byte_of_replacement = 0xEF;
    let error = spoilt(|parts| parts.types.truncate(9));
    assert!(matches!(error, E::ListLength { found: 9, .. }), "{error}");
    let error = spoilt(|parts| {
        parts.tokens.clear();
        parts.types.clear();
    });
    assert!(matches!(error, E::VocabSize { found: 0, .. }), "{error}");
    let error = spoilt(|parts| parts.types[7] = 9);
    assert!(matches!(error, E::TokenType { id: 7, found: 9 }), "{error}");
    let error = spoilt(|parts| _ = parts.token("hello", 1));
    assert!(matches!(error, E::DuplicateToken { .. }), "{error}");
    let error = spoilt(|parts| _ = parts.token(&"x".repeat(257), 3));
    assert!(
        matches!(error, E::SpecialTooLong { found: 257, .. }),
        "{error}"
    );
    for bad in ["<0x1>", "<0x+1>", "<0xGG>", "0x11", "<0x111>", ""] {
        let error = spoilt(|parts| _ = parts.token(bad, 6));
        assert!(matches!(error, E::ByteToken { .. }), "{bad}: {error}");
    }
    let error = spoilt(|parts| parts.types[byte_of_replacement] = 3);
    assert!(matches!(error, E::MissingByte { byte: 0xEF }), "{error}");
    for bad in ["", " ", "ab", "a ", " a", "a b c", "a  b"] {
        let error = spoilt(|parts| parts.merges.push(bad.to_owned()));
        assert!(
            matches!(error, E::MalformedMerge { index: 8, .. }),
            "{bad}: {error}"
        );
    }
    for bad in ["q q", "nothing a", "a nothing", "< tool_call>"] {
        let error = spoilt(|parts| parts.merges.push(bad.to_owned()));
        assert!(
            matches!(error, E::UnknownMerge { index: 8, .. }),
            "{bad}: {error}"
        );
    }
    let error = spoilt(|parts| parts.merges.push("h e".to_owned()));
    assert!(
        matches!(error, E::DuplicateMerge { index: 8, .. }),
        "{error}"
    );
    for key in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eom_token_id"] {
        let error = spoilt(|parts| parts.more.push((key, Value::U32(5000))));
        assert!(
            matches!(error, E::RoleOutOfRange { id: 5000, .. }),
            "{error}"
        );
    }
    let key = "tokenizer.ggml.add_bos_token";
    let error = spoilt(|parts| parts.more.push((key, Value::Bool(true))));
    assert!(matches!(error, E::MissingBos), "{error}");
}

#[test]
fn missing_and_mistyped_keys_are_named() {
    let parts = Parts::new();
    let entries = || {
        parts
            .metadata()
            .iter()
            .map(|(k, v)| (k.to_owned(), v.clone()))
            .collect()
    };
    for key in
        ["model", "tokens", "token_type", "merges"].map(|key| format!("tokenizer.ggml.{key}"))
    {
        let without: Vec<(String, Value)> = entries();
        let without = without.into_iter().filter(|entry| entry.0 != key);
        let error = Tokenizer::from_gguf(&Metadata::from_entries(without).unwrap()).unwrap_err();
        assert!(error.to_string().contains(&key), "{error}");
        let mut other: Vec<(String, Value)> = entries();
        other.iter_mut().find(|entry| entry.0 == key).unwrap().1 = Value::F32(1.0);
        let error = Tokenizer::from_gguf(&Metadata::from_entries(other).unwrap()).unwrap_err();
        assert!(error.to_string().contains(&key), "{error}");
    }
}

#[test]
fn a_stream_holds_back_what_is_no_character_yet() {
    let tokenizer = Parts::new().build();
    let mut stream = tokenizer.stream();
    let bytes = "a🦙".as_bytes();
    let pieces: Vec<String> = bytes.iter().map(|&byte| stream.push(byte.into())).collect();
    assert_eq!(pieces, ["a", "", "", "", "🦙"]);
    assert_eq!(stream.flush(), "");
    // A lead byte that nothing follows, then a stray one.
    assert_eq!(stream.push(0xF0), "");
    assert_eq!(stream.push(b'a'.into()), "\u{FFFD}a");
    assert_eq!(stream.push(0x80), "\u{FFFD}");
    assert_eq!(stream.push(0xE2), "");
    assert_eq!(stream.flush(), "\u{FFFD}");
    assert_eq!(stream.flush(), "");
}

/// The pre-tokenizers of vocabularies in the byte alphabet.
fn byte_level() -> Vec<&'static str> {
    let raw = |pre| super::pre::Pre::named(pre).unwrap().raw;
    SUPPORTED_PRE
        .iter()
        .copied()
        .filter(|pre| !raw(pre))
        .collect()
}

/// Text that is made of what tokenizers trip over.
fn tricky() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            " ",
            "  ",
            "   ",
            "\n",
            "\r\n",
            "\t",
            "\u{A0}",
            "'s",
            "'LL",
            "hello",
            " hello",
            "a",
            "1",
            "½",
            "٣",
            "é",
            "e\u{301}",
            "🦙",
            "日本",
            "<|im_end|>",
            "<|im_",
            "<tool_call>",
            "|>",
            "<",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in tricky(), pre in prop::sample::select(byte_level())) {
        let mut parts = Parts::new();
        parts.pre = Some(pre);
        let tokenizer = parts.build();
        for special in [Special::Parse, Special::Text] {
            let tokens = tokenizer.encode(&text, special).unwrap();
            prop_assert_eq!(&tokenizer.decode(&tokens, false), &text);
            if special == Special::Text {
                prop_assert!(tokens.iter().all(|&id| !tokenizer.is_control(id)));
            }
        }
    }

    #[test]
    fn no_vocabulary_makes_it_panic(
        pre in prop::sample::select(byte_level()),
        tokens in prop::collection::vec(
            ("[abĠÃ©<|>0x4 ]{1,5}", prop::sample::select(vec![1, 1, 1, 2, 3, 4, 5, 6, 0])),
            0..6,
        ),
        merges in prop::collection::vec("[abĠÃ© <]{0,3} ?[abĠÃ©<0x4>]{0,6}", 0..3),
        ids in prop::collection::vec(0u32..280, 3),
        text in tricky(),
    ) {
        let mut parts = Parts::new();
        parts.pre = Some(pre);
        for (token, kind) in tokens {
            parts.token(&token, kind);
        }
        parts.merges.extend(merges);
        let keys = ["bos", "eos", "eot"].map(|role| format!("tokenizer.ggml.{role}_token_id"));
        let roles = keys.iter().zip(ids).map(|(key, id)| (key.as_str(), Value::U32(id)));
        let metadata = parts.metadata();
        let entries = metadata.iter().map(|(key, value)| (key, value.clone())).chain(roles);
        if let Ok(tokenizer) = Tokenizer::from_gguf(&Metadata::from_entries(entries).unwrap()) {
            for special in [Special::Parse, Special::Text] {
                let tokens = tokenizer.encode(&text, special).unwrap();
                prop_assert_eq!(&tokenizer.decode(&tokens, false), &text);
            }
        }
    }

    #[test]
    fn every_merge_order_is_that_of_the_ranks(
        merges in prop::collection::btree_set("[ab]{1,3} [ab]{1,3}", 0..24),
        order in any::<u64>(),
        text in "[ab]{0,24}",
    ) {
        let mut merges: Vec<String> = merges.into_iter().collect();
        merges.sort_by_key(|merge| {
            merge.bytes().fold(order, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
        });
        let mut parts = Parts::new();
        parts.tokens.truncate(256);
        parts.types.truncate(256);
        parts.merges.clear();
        for merge in &merges {
            let (left, right) = merge.split_once(' ').unwrap();
            for token in [left.to_owned(), right.to_owned(), format!("{left}{right}")] {
                if !parts.tokens.contains(&token) {
                    parts.token(&token, 1);
                }
            }
        }
        parts.merges.clone_from(&merges);
        // As it is defined: again and again the pair of the lowest rank, the leftmost of these.
        let mut words: Vec<String> = text.chars().map(String::from).collect();
        let rank = |pair: &[String]| merges.iter().position(|merge| *merge == pair.join(" "));
        while let Some((_, at)) =
            words.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min()
        {
            let right = words.remove(at + 1);
            words[at] += &right;
        }
        let expected: Vec<TokenId> = words.iter().map(|word| parts.id(word)).collect();
        prop_assert_eq!(parts.build().encode(&text, Special::Text).unwrap(), expected);
    }

    #[test]
    fn guarded_data_is_never_parsed(data in tricky()) {
        let tokenizer = Parts::new().build();
        let guard = '\u{10FFFF}';
        let mut guarded = String::new();
        for c in data.replace(guard, "").chars() {
            guarded.extend([guard, c]);
        }
        guarded.push(guard);
        let text = format!("<|x|>{guarded}<|im_end|>");
        let tokens = tokenizer.encode_guarded(&text, Some(guard)).unwrap();
        prop_assert_eq!(tokens.iter().filter(|&&id| tokenizer.is_control(id)).count(), 2);
        prop_assert_eq!(tokenizer.decode(&tokens, true), data.replace(guard, ""));
    }

    #[test]
    fn a_stream_says_what_decoding_says(tokens in prop::collection::vec(0u32..275, 0..64)) {
        let tokenizer = Parts::new().build();
        let mut stream = tokenizer.stream();
        let mut text: String = tokens.iter().map(|&token| stream.push(token)).collect();
        text += &stream.flush();
        prop_assert_eq!(text, tokenizer.decode(&tokens, true));
    }

    #[test]
    fn a_stream_of_text_splits_no_character(text in tricky()) {
        let tokenizer = Parts::new().build();
        let mut stream = tokenizer.stream();
        let mut rest = text.as_str();
        for token in tokenizer.encode(&text, Special::Text).unwrap() {
            let piece = stream.push(token);
            rest = rest.strip_prefix(piece.as_str()).unwrap();
        }
        prop_assert_eq!(rest, "");
        prop_assert_eq!(stream.flush(), "");
    }
}
