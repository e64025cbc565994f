//! SentencePiece, WordPiece and BPE over characters, on small vocabularies.

use converge_quant::{
    Metadata,
    gguf::{Array, Value},
};
use proptest::prelude::*;

use super::*;
use crate::CoreError;

/// A vocabulary: texts, types and scores.
#[derive(Clone)]
struct Parts {
    tokens: Vec<(String, i32, f32)>,
    more: Vec<(&'static str, Value)>,
}

impl Parts {
    fn new(model: &str) -> Self {
        let model = Value::String(model.to_owned());
        Self {
            tokens: Vec::new(),
            more: vec![("tokenizer.ggml.model", model)],
        }
    }

    fn token(&mut self, text: &str, kind: i32, score: f32) -> TokenId {
        self.tokens.push((text.to_owned(), kind, score));
        (self.tokens.len() - 1) as TokenId
    }

    fn set(&mut self, key: &'static str, value: Value) {
        self.more.retain(|(known, _)| *known != key);
        self.more.push((key, value));
    }

    fn id(&self, text: &str) -> TokenId {
        self.tokens
            .iter()
            .position(|token| token.0 == text)
            .unwrap() as TokenId
    }

    fn build(&self) -> crate::Result<Tokenizer> {
        let texts: Vec<&String> = self.tokens.iter().map(|token| &token.0).collect();
        let mut entries = vec![
            (
                "tokenizer.ggml.tokens",
                Value::Array(Array::String(texts.into_iter().collect())),
            ),
            (
                "tokenizer.ggml.token_type",
                Value::Array(Array::I32(
                    self.tokens.iter().map(|token| token.1).collect(),
                )),
            ),
            (
                "tokenizer.ggml.scores",
                Value::Array(Array::F32(
                    self.tokens.iter().map(|token| token.2).collect(),
                )),
            ),
        ];
        entries.extend(self.more.iter().cloned());
        Tokenizer::from_gguf(&Metadata::from_entries(entries).unwrap())
    }

    fn refused(&self) -> TokenizerError {
        match self.build() {
            Err(CoreError::Tokenizer(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

/// `<unk> <s> </s>`, all bytes, some pieces, user-defined tokens.
fn spm() -> Parts {
    let mut parts = Parts::new("llama");
    parts.token("<unk>", 2, 0.0);
    parts.token("<s>", 3, 0.0);
    parts.token("</s>", 3, 0.0);
    for byte in 0..=255u8 {
        parts.token(&format!("<0x{byte:02X}>"), 6, 0.0);
    }
    for (text, score) in [
        ("▁", -9.0),
        ("h", -9.5),
        ("e", -9.6),
        ("l", -9.7),
        ("o", -9.8),
        ("▁h", -3.0),
        ("▁he", -4.0),
        ("ll", -2.0),
        ("lo", -1.0),
        ("▁hello", -5.0),
        ("llo", -4.5),
        ("<", -20.0),
        ("s", -20.0),
        (">", -20.0),
        ("<s", -21.0),
    ] {
        parts.token(text, 1, score);
    }
    parts.token("\n\n", 4, -1000.0);
    parts.token("[tool]", 4, -1000.0);
    parts
}

#[test]
fn pieces_join_by_score() {
    let parts = spm();
    let tokenizer = parts.build().unwrap();
    let encode = |text: &str| tokenizer.encode(text, Special::Text).unwrap();
    assert!(encode("").is_empty());
    // `lo` comes before `ll`, and then `llo` can be made of `l` and `lo`.
    assert_eq!(encode("hello"), [parts.id("▁hello")]);
    assert_eq!(
        encode("ll lo"),
        ["▁", "ll", "▁", "lo"].map(|text| parts.id(text))
    );
    assert_eq!(
        tokenizer.encode_continuation("lo").unwrap(),
        [parts.id("lo")]
    );
    // Bytes for what is no token.
    let bytes = [0xC3, 0xA9].map(|byte: u8| parts.id(&format!("<0x{byte:02X}>")));
    assert_eq!(encode("é"), [&[parts.id("▁")][..], &bytes].concat());
    // Defined by the user: whole even in data, if it is no markup.
    assert_eq!(encode("\n\n"), [parts.id("\n\n")]);
    assert!(!encode("[tool]").contains(&parts.id("[tool]")));
    assert_eq!(
        tokenizer.encode("[tool]", Special::Parse).unwrap(),
        [parts.id("[tool]")]
    );
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert!(tokenizer.adds_bos() && tokenizer.is_end(2) && tokenizer.is_lossless());
    assert_eq!(tokenizer.token_bytes(parts.id("▁he")), b" he");
}

#[test]
fn data_joins_to_no_control_token() {
    let parts = spm();
    let tokenizer = parts.build().unwrap();
    // `<s` and `>` would join to it, as its score is the highest.
    let data = tokenizer.encode("<s>", Special::Text).unwrap();
    assert!(data.iter().all(|&id| !tokenizer.is_control(id)), "{data:?}");
    assert_eq!(tokenizer.decode(&data, true), "<s>");
    assert_eq!(tokenizer.encode("<s>", Special::Parse).unwrap(), [1]);
    // Nor does text that reads like a byte become one.
    let data = tokenizer.encode("<0x41>", Special::Text).unwrap();
    assert_eq!(tokenizer.decode(&data, true), "<0x41>");
}

#[test]
fn the_space_in_front_is_put_and_taken_away() {
    let mut parts = spm();
    let tokenizer = parts.build().unwrap();
    let tokens = tokenizer.encode("hello</s>hello", Special::Parse).unwrap();
    let hello = parts.id("▁hello");
    assert_eq!(tokens, [hello, 2, hello]);
    assert_eq!(tokenizer.decode(&tokens, false), "hello</s>hello");
    assert_eq!(tokenizer.decode(&tokens, true), "hellohello");
    // Text that goes on keeps it; text after a control token does not.
    assert_eq!(tokenizer.stream_after(Some(hello)).push(hello), " hello");
    assert_eq!(tokenizer.stream_after(Some(2)).push(hello), "hello");
    assert_eq!(tokenizer.stream_after(None).push(hello), "hello");
    parts.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let tokenizer = parts.build().unwrap();
    let tokens = tokenizer.encode(" hello", Special::Text).unwrap();
    assert_eq!(tokens, [hello]);
    assert_eq!(tokenizer.decode(&tokens, true), " hello");
    parts.set("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true));
    let tokenizer = parts.build().unwrap();
    let found = tokenizer.encode("  lo   lo ", Special::Text).unwrap();
    assert_eq!(found, ["lo", "▁", "lo"].map(|text| parts.id(text)));
    assert!(!tokenizer.is_lossless());
}

#[test]
fn phi_3_drops_the_white_space_after_its_special_tokens() {
    let mut parts = spm();
    let hello = parts.id("▁hello");
    parts.set("general.name", Value::String("Phi-3 mini".to_owned()));
    let tokenizer = parts.build().unwrap();
    let encode = |text: &str| tokenizer.encode(text, Special::Parse).unwrap();
    assert_eq!(encode("</s> \n hello"), [2, hello]);
    assert_eq!(encode("<s>\nhello").len(), 6, "not after this one");
    let guarded = tokenizer.encode_guarded("</s>\n\u{F8FF}hello", Some('\u{F8FF}'));
    assert_eq!(guarded.unwrap(), [2, hello]);
}

#[test]
fn without_bytes_there_must_be_an_unknown() {
    let mut parts = spm();
    parts.tokens.retain(|token| token.1 != 6);
    let tokenizer = parts.build().unwrap();
    assert_eq!(
        tokenizer.encode("é", Special::Text).unwrap(),
        [parts.id("▁"), 0]
    );
    assert_eq!(tokenizer.unencodable("hé"), Some((1, 'é')));
    parts.tokens[0].1 = 3;
    assert!(matches!(
        parts.refused(),
        TokenizerError::MissingUnknown { .. }
    ));
    let mut parts = spm();
    parts.tokens[5].2 = f32::NAN;
    assert!(matches!(
        parts.refused(),
        TokenizerError::Score { id: 5, .. }
    ));
}

#[test]
fn word_pieces_are_the_longest_from_the_left() {
    let mut parts = Parts::new("bert");
    for text in ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] {
        parts.token(text, 3, 0.0);
    }
    for text in ["▁un", "aff", "able", "▁naive", "▁,", "▁日", "a", "ff"] {
        parts.token(text, 1, 0.0);
    }
    parts.set("tokenizer.ggml.bos_token_id", Value::U32(2));
    let tokenizer = parts.build().unwrap();
    let encode = |text: &str| tokenizer.encode(text, Special::Text).unwrap();
    let ids =
        |texts: &[&str]| -> Vec<TokenId> { texts.iter().map(|text| parts.id(text)).collect() };
    assert_eq!(encode("UNAFFABLE"), ids(&["▁un", "aff", "able"]));
    assert_eq!(encode("naïve,日日"), ids(&["▁naive", "▁,", "▁日", "▁日"]));
    assert_eq!(encode(" unxyz \u{7}un "), ids(&["[UNK]", "▁un"]));
    assert_eq!(encode("nai\u{308}ve"), ids(&["▁naive"]));
    assert!(encode(" \u{301}\n").is_empty());
    assert_eq!(encode("[CLS]"), ids(&["[UNK]", "[UNK]", "[UNK]"]));
    assert_eq!(
        tokenizer.encode("[CLS]un", Special::Parse).unwrap(),
        ids(&["[CLS]", "▁un"])
    );
    assert_eq!(
        tokenizer.decode(&ids(&["▁un", "aff", "▁naive"]), true),
        "unaff naive"
    );
    assert!(!tokenizer.is_lossless() && tokenizer.adds_bos());
    parts.tokens[1].0 = "[PAD1]".to_owned();
    assert!(matches!(
        parts.refused(),
        TokenizerError::MissingUnknown { .. }
    ));
}

/// `<pad> </s> <unk>` and pieces whose scores no two ways of cutting share.
fn t5() -> Parts {
    let mut parts = Parts::new("t5");
    for (text, kind) in [("<pad>", 3), ("</s>", 3), ("<unk>", 2)] {
        parts.token(text, kind, 0.0);
    }
    let pieces = [
        "▁", "a", "b", "c", "ab", "bc", "abc", "▁a", "▁ab", "ca", "cab", "aa", "aaa", "▁é", "fi",
    ];
    for (at, text) in (1..).zip(pieces) {
        let score = -3.0 - (at as f32).sqrt() / text.chars().count() as f32;
        parts.token(text, 1, score);
    }
    parts.set("tokenizer.ggml.add_space_prefix", Value::Bool(true));
    parts
}

/// Maps `A` to `a` and `ﬁ` to `fi`: a trie, then the replacements.
fn charsmap() -> Vec<u8> {
    const LEAF: u32 = 1 << 8;
    let mut nodes = vec![0u32; 0x2000];
    nodes[0] = 0x100 << 10;
    nodes[0x141] = 0x41 | LEAF | 0x200 << 10;
    nodes[0x341] = 1 << 31;
    nodes[0x1EF] = 0xEF | 0x400 << 10;
    nodes[0x543] = 0xAC | 0x800 << 10;
    nodes[0xDC2] = 0x81 | LEAF | 0x1000 << 10;
    nodes[0x1DC2] = 1 << 31 | 2;
    let mut bytes = (4 * nodes.len() as u32).to_le_bytes().to_vec();
    bytes.extend(nodes.iter().flat_map(|node| node.to_le_bytes()));
    bytes.extend(b"a\0fi\0");
    bytes
}

#[test]
fn unigrams_are_the_likeliest() {
    use tokenizers::{Model as _, models::unigram::Unigram};
    let parts = t5();
    let tokenizer = parts.build().unwrap();
    let vocab = parts.tokens.iter();
    let vocab = vocab.map(|(text, _, score)| (text.clone(), f64::from(*score)));
    let mut vocab: Vec<(String, f64)> = vocab.collect();
    // There the unlikeliest of all tokens counts, here of those that are text.
    for special in &mut vocab[..3] {
        special.1 = -3.0;
    }
    let oracle = Unigram::from(vocab, Some(2), false).unwrap();
    proptest!(|(text in "[abc é🦙]{0,24}")| {
        let found = tokenizer.encode(&text, Special::Text).unwrap();
        let trimmed = text.trim_start_matches(' ');
        let spaces = text.len() - trimmed.len() + usize::from(!trimmed.is_empty());
        let spaced = format!("{}{}", "▁".repeat(spaces), trimmed.replace(' ', "▁"));
        let expected = oracle.tokenize(&spaced).unwrap();
        let expected: Vec<TokenId> = expected.iter().map(|token| token.id).collect();
        prop_assert_eq!(found, expected, "{:?}", spaced);
    });
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(1)));
    assert!(!tokenizer.adds_bos() && !tokenizer.is_lossless());
    let one = [parts.id("▁ab")];
    assert_eq!(tokenizer.encode("ab", Special::Text).unwrap(), one);
    assert_eq!(tokenizer.decode(&one, false), "ab");
}

#[test]
fn unigrams_are_of_normalized_text() {
    let mut parts = t5();
    let map = "tokenizer.ggml.precompiled_charsmap";
    let squeezes = "tokenizer.ggml.remove_extra_whitespaces";
    parts.set(squeezes, Value::Bool(true));
    parts.set(map, Value::Array(Array::U8(charsmap())));
    let signed = charsmap().into_iter().map(u8::cast_signed).collect();
    let mut other = parts.clone();
    other.set(map, Value::Array(Array::I8(signed)));
    for parts in [&parts, &other] {
        let tokenizer = parts.build().unwrap();
        let encode = |text: &str| tokenizer.encode(text, Special::Text).unwrap();
        assert_eq!(encode("  AB \u{FB01} "), encode("a\u{42} fi"));
        let space = parts.id("▁");
        assert_eq!(
            encode("\u{FB01}  c"),
            ["▁", "fi", "▁", "c"].map(|text| parts.id(text))
        );
        assert!(encode("   ").is_empty());
        assert!(!tokenizer.encode_continuation("c").unwrap().contains(&space));
    }
    let whole = charsmap();
    for damaged in [&whole[..0], &whole[..3], &whole[..100]] {
        parts.set(map, Value::Array(Array::U8(damaged.to_vec())));
        let error = parts.refused().to_string();
        assert!(error.contains("precompiled_charsmap"), "{error}");
    }
    // Nodes that lead anywhere are no harm.
    let mut wild = whole.clone();
    let end = wild.len() - 5;
    for (at, byte) in (0u32..).zip(&mut wild[4..end]) {
        *byte = (at.wrapping_mul(0x9E37_79B1) >> 24) as u8;
    }
    parts.set(map, Value::Array(Array::U8(wild)));
    parts
        .build()
        .unwrap()
        .encode("AB \u{FB01} é🦙", Special::Text)
        .unwrap();
}

/// BPE over characters, with `▁` for a space.
fn gemma4() -> Parts {
    let mut parts = Parts::new("gemma4");
    for byte in 0..=255u8 {
        parts.token(&format!("<0x{byte:02X}>"), 6, 0.0);
    }
    for text in ["▁", "a", "b", "\n", "▁a", "ab", "\n\n", "▁▁", "#", "#"] {
        parts.token(text, 1, 0.0);
    }
    let merges = ["▁ a", "a b", "▁ ▁"].map(str::to_owned);
    let merges = Value::Array(Array::String(merges.iter().collect()));
    parts.set("tokenizer.ggml.merges", merges);
    parts
}

#[test]
fn characters_merge_and_lines_stay_apart() {
    let parts = gemma4();
    let tokenizer = parts.build().unwrap();
    let encode = |text: &str| tokenizer.encode(text, Special::Text).unwrap();
    let ids =
        |texts: &[&str]| -> Vec<TokenId> { texts.iter().map(|text| parts.id(text)).collect() };
    assert_eq!(encode(" ab"), ids(&["▁a", "b"]));
    assert_eq!(encode("ab\n\nab"), ids(&["ab", "\n\n", "ab"]));
    // No token for three: three of one, as no merge joins them.
    assert_eq!(encode("\n\n\n"), ids(&["\n", "\n", "\n"]));
    assert_eq!(encode("é"), [0xC3, 0xA9]);
    // Of two tokens with one text the later.
    assert_eq!(encode("#"), [(parts.tokens.len() - 1) as TokenId]);
    assert_eq!(tokenizer.decode(&encode("  a é\n"), true), "  a é\n");
}

/// Text that is made of what these trip over, without `▁`.
fn tricky() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            " ", "  ", "\n", "\n\n", "h", "hello", " hello", "llo", "<s>", "</s>", "[tool]",
            "<unk>", "<0x41>", "é", "e\u{301}", "🦙", "日本", "a", "b", "#",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().replace('▁', ""))
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in tricky(), prefix in any::<bool>(), which in any::<bool>()) {
        let mut parts = if which { spm() } else { gemma4() };
        parts.set("tokenizer.ggml.add_space_prefix", Value::Bool(prefix));
        let tokenizer = parts.build().unwrap();
        let data = tokenizer.encode(&text, Special::Text).unwrap();
        prop_assert_eq!(tokenizer.decode(&data, false), text.as_str());
        prop_assert!(data.iter().all(|&id| !tokenizer.is_control(id)));
        let parsed = tokenizer.encode(&text, Special::Parse).unwrap();
        prop_assert_eq!(tokenizer.decode(&parsed, false), text.as_str());
        let mut stream = tokenizer.stream();
        let mut streamed: String = parsed.iter().map(|&token| stream.push(token)).collect();
        streamed += &stream.flush();
        prop_assert_eq!(streamed, tokenizer.decode(&parsed, true));
        // The beginning, and what goes on: both decode to the whole.
        let half = text.floor_char_boundary(text.len() / 2);
        let (head, tail) = text.split_at(half);
        if !head.is_empty() && !head.ends_with(['\n', ']']) {
            let mut both = tokenizer.encode(head, Special::Text).unwrap();
            both.extend(tokenizer.encode_continuation(tail).unwrap());
            prop_assert_eq!(tokenizer.decode(&both, false), text.as_str());
        }
    }
}
