use serde::Deserialize;

use super::*;
use crate::CoreError;

pub(super) const END: TokenId = 256;

/// Every byte, an end token, and some longer tokens; text is cut greedily.
pub(super) fn toy() -> TokenEnv {
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
    tokens.push(Vec::new());
    for word in [
        "{\"", "\":", "\":\"", "\",\"", "name", "the", " the", "quote", "red", "ed fox",
    ] {
        tokens.push(word.as_bytes().to_vec());
    }
    let table = tokens.clone();
    let encode = move |text: &str| {
        let (mut rest, mut out) = (text.as_bytes(), Vec::new());
        while !rest.is_empty() {
            let best = (0..table.len())
                .filter(|&i| !table[i].is_empty() && rest.starts_with(&table[i]))
                .max_by_key(|&i| table[i].len())
                .unwrap();
            out.push(best as TokenId);
            rest = &rest[table[best].len()..];
        }
        out
    };
    TokenEnv::new(tokens, &[END], encode).unwrap()
}

/// Whether the grammar holds the text, byte by byte, and may end after it.
pub(super) fn holds(grammar: &Grammar, text: &str) -> bool {
    let mut constraint = grammar.start();
    for byte in text.bytes() {
        let token = TokenId::from(byte);
        if constraint.is_done() || constraint.allowed_prefix(&[token]).unwrap() == 0 {
            return false;
        }
        constraint.commit(token).unwrap();
    }
    constraint.is_accepting().unwrap()
}

/// Follows the grammar, taking of several tokens one by a fixed hash; returns the text.
pub(super) fn wander(
    grammar: &Grammar,
    tokens: &[Vec<u8>],
    seed: u64,
    use_forced: bool,
) -> Option<String> {
    let mut constraint = grammar.start();
    let mut out = Vec::new();
    let mut step = 0;
    while !constraint.is_done() {
        if step > 400 {
            return None;
        }
        if use_forced {
            for token in constraint.forced().unwrap() {
                constraint.commit(token).unwrap();
                out.push(token);
                step += 1;
            }
            if constraint.is_done() {
                break;
            }
        }
        let mask = constraint.mask().unwrap();
        let choice = if mask.allows(END) {
            END
        } else {
            let best = |t: &TokenId| crate::sample::noise::bits(seed, step, *t);
            mask.iter().max_by_key(best).unwrap()
        };
        constraint.commit(choice).unwrap();
        if choice == END {
            break;
        }
        out.push(choice);
        step += 1;
    }
    let bytes: Vec<u8> = out
        .iter()
        .flat_map(|&t| tokens[t as usize].clone())
        .collect();
    Some(String::from_utf8(bytes).unwrap())
}

#[test]
fn json_is_compact_unless_the_schema_says_otherwise() {
    let env = toy();
    let mut schema = json!({
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "boolean"}}},
        "required": ["a", "b"],
        "additionalProperties": false,
    });
    let grammar = Grammar::json_schema(&env, &schema).unwrap();
    assert!(holds(&grammar, r#"{"a":-12,"b":[true,false]}"#));
    for bad in [
        r#"{"a": 1,"b":[]}"#,
        r#"{"a":1, "b":[]}"#,
        r#" {"a":1,"b":[]}"#,
        r#"{"b":[],"a":1}"#,
        r#"{"a":1}"#,
        r#"{"a":"1","b":[]}"#,
        r#"{"a":1,"b":[]} "#,
    ] {
        assert!(!holds(&grammar, bad), "{bad}");
    }
    schema["x-guidance"] =
        json!({"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false});
    let spaced = Grammar::json_schema(&env, &schema).unwrap();
    assert!(holds(&spaced, r#"{"a": 1, "b": []}"#));
    assert!(!holds(&spaced, r#"{"a":1,"b":[]}"#));
}

/// A tool call.
#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(tag = "tool", rename_all = "snake_case", deny_unknown_fields)]
enum Call {
    /// Reads a file.
    Read {
        /// Which one.
        path: String,
        /// From this line on.
        line: Option<u32>,
    },
    /// Ends the run.
    Finish { verdict: Verdict },
}

/// What to think of it.
#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// It holds.
    Supported,
    /// It does not.
    Refuted,
}

#[test]
fn rust_types_become_grammars() {
    let grammar = Grammar::of::<Call>(&toy()).unwrap();
    for good in [
        r#"{"tool":"read","path":"a.txt","line":3}"#,
        r#"{"tool":"finish","verdict":"supported"}"#,
    ] {
        let sorted: Value = serde_json::from_str(good).unwrap();
        let either = holds(&grammar, good) || holds(&grammar, &reorder(&sorted));
        assert!(either, "{good}");
        serde_json::from_str::<Call>(good).unwrap();
    }
    assert!(!holds(&grammar, r#"{"tool":"finish","verdict":"maybe"}"#));
    assert!(!holds(&grammar, r#"{"tool":"delete"}"#));
}

/// The same object with its first key last: where a tagged enum's schema puts the tag.
fn reorder(value: &Value) -> String {
    let mut object = value.as_object().unwrap().clone();
    let first = object.keys().next().unwrap().clone();
    let tag = object.shift_remove(&first).unwrap();
    object.insert(first, tag);
    Value::from(object).to_string()
}

#[test]
fn schemas_that_cannot_be_held_are_refused() {
    let env = toy();
    for schema in [
        json!({"type": "object", "not": {"required": ["a"]}}),
        json!({"type": "array", "uniqueItems": true}),
        json!({"type": "nonsense"}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"type": "string", "format": "no-such-format"}),
        json!({"enum": []}),
        json!({"$ref": "#"}),
        json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}),
        json!(false),
        json!({"type": "string", "pattern": "("}),
        json!({"type": "integer", "minimum": 5, "maximum": 4}),
        json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        json!({"type": "string", "x-guidance": {"no_such_option": 1}}),
    ] {
        let got = Grammar::json_schema(&env, &schema);
        assert!(
            matches!(
                got,
                Err(CoreError::Constrain(ConstrainError::Schema { .. }))
            ),
            "{schema}: {got:?}"
        );
    }
}

#[test]
fn a_huge_pattern_neither_hangs_nor_runs_free() {
    let pattern = "^(((a{1,900}){1,900}){1,900}){1,900}$";
    let huge = json!({"type": "string", "pattern": pattern});
    let started = std::time::Instant::now();
    if let Ok(grammar) = Grammar::json_schema(&toy(), &huge) {
        let mut constraint = grammar.start();
        for byte in *b"\"aaa" {
            constraint.commit(TokenId::from(byte)).unwrap();
        }
        let mask = constraint.mask().unwrap();
        assert!(mask.allows(TokenId::from(b'a')) && !mask.allows(TokenId::from(b'b')));
    }
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn a_schema_that_never_ends_gives_tokens_in_portions() {
    let node = json!({
        "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"],
    });
    let schema = json!({"$ref": "#/$defs/A", "$defs": {"A": node}});
    let started = std::time::Instant::now();
    let mut constraint = Grammar::json_schema(&toy(), &schema).unwrap().start();
    let forced = constraint.forced().unwrap();
    assert!(
        !forced.is_empty() && forced.len() < 100_000,
        "{}",
        forced.len()
    );
    // It goes on until its limits, and says so.
    let error = forced
        .into_iter()
        .find_map(|token| constraint.commit(token).err());
    assert!(
        matches!(
            error,
            None | Some(CoreError::Constrain(ConstrainError::TooComplex { .. }))
        ),
        "{error:?}"
    );
    assert!(!constraint.is_done());
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn lark_with_regex_enum_and_json_inside() {
    let env = toy();
    let grammar = Grammar::lark(
        &env,
        r#"start: "go " DIRECTION " " number " " object
DIRECTION: "north" | "south"
number: /[0-9]{1,3}/
object: %json {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"],
  "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}}
"#,
    )
    .unwrap();
    assert!(holds(&grammar, r#"go north 42 {"x":1}"#));
    assert!(!holds(&grammar, r#"go west 42 {"x":1}"#));
    assert!(!holds(&grammar, r#"go south 4242 {"x":1}"#));
    for bad in ["start: missing", "start: /(/", "nonsense", ""] {
        let got = Grammar::lark(&env, bad);
        assert!(
            matches!(got, Err(CoreError::Constrain(ConstrainError::Lark { .. }))),
            "{bad}: {got:?}"
        );
    }
}

#[test]
fn lark_has_substrings_of_words_and_chars() {
    let env = toy();
    let words = Grammar::lark(&env, r#"start: %regex {"substring_words": "the red fox"}"#).unwrap();
    assert!(holds(&words, "red fox") && !holds(&words, "ed fox") && !holds(&words, "the fox"));
    let chars = Grammar::lark(&env, r#"start: %regex {"substring_chars": "the red fox"}"#).unwrap();
    assert!(holds(&chars, "ed fo") && !holds(&chars, "the fox"));
}

const SOURCE: &str = "§ 4 \"Fee\": 1,200 €\nper month\\year,\tpaid\nin advance.";

fn quote_schema(kind: &str) -> Value {
    json!({
        "type": "object",
        "properties": {
            "reason": {"type": "string", "maxLength": 20},
            "evidence": {
                "type": "array", "minItems": 1, "maxItems": 2,
                "items": {"$ref": "#/$defs/Evidence"},
            },
            "next": {"anyOf": [{"$ref": "#/$defs/Evidence"}, {"type": "null"}]},
        },
        "required": ["reason", "evidence", "next"],
        "$defs": {
            "Evidence": {
                "type": "object",
                "properties": {
                    "quote": {"type": "string", "minLength": 3, "x-substring": {kind: SOURCE}},
                    "line": {"$ref": "#/$defs/Line"},
                },
                "required": ["quote", "line"],
            },
            "Line": {"type": "integer", "minimum": 1, "maximum": 3},
        },
    })
}

#[test]
fn quotes_are_held_to_the_text() {
    let env = toy();
    let value = |quote: &str| {
        let item = json!({"quote": quote, "line": 2});
        json!({"reason": "so", "evidence": [item], "next": null}).to_string()
    };
    for (kind, good, bad) in [
        (
            "words",
            vec!["Fee", "\"Fee\": 1", "month\\year,\tpaid\nin", SOURCE],
            vec!["Fe", "onth", "Fee per", "", "1,", "per  month"],
        ),
        (
            "chars",
            vec!["onth\\ye", "€\nper", "200 €"],
            vec!["€ per", "a", "200€", "in advance.."],
        ),
        (
            "lines",
            vec!["in advance.", SOURCE],
            vec!["per month", "§ 4"],
        ),
    ] {
        let grammar = Grammar::json_schema(&env, &quote_schema(kind)).unwrap();
        for quote in good {
            assert!(holds(&grammar, &value(quote)), "{kind}: {quote:?}");
        }
        for quote in bad {
            assert!(!holds(&grammar, &value(quote)), "{kind}: {quote:?}");
        }
    }
}

#[test]
fn the_schema_around_a_quote_still_holds() {
    let grammar = Grammar::json_schema(&toy(), &quote_schema("words")).unwrap();
    let item = |line: i64| json!({"quote": "month", "line": line});
    let text =
        |e: Value, next: Value| json!({"reason": "r", "evidence": e, "next": next}).to_string();
    assert!(holds(&grammar, &text(json!([item(1), item(3)]), item(2))));
    for (evidence, next) in [
        (json!([]), json!(null)),
        (json!([item(1), item(1), item(1)]), json!(null)),
        (json!([item(4)]), json!(null)),
        (json!([item(1)]), json!("month")),
        (json!([{"quote": "month"}]), json!(null)),
        (json!([{"line": 1, "quote": "month"}]), json!(null)),
    ] {
        assert!(!holds(&grammar, &text(evidence, next)));
    }
    let long = json!({"reason": "x".repeat(21), "evidence": [item(1)], "next": null});
    assert!(!holds(&grammar, &long.to_string()));
}

#[test]
fn whatever_a_model_chooses_the_quote_is_in_the_text() {
    let env = toy();
    let tokens = env.factory().tok_env().tok_trie().all_tokens();
    let schema = json!({
        "type": "object",
        "properties": {
            "quote": {"type": "string", "minLength": 1, "x-substring": {"words": SOURCE}},
        },
        "required": ["quote"],
    });
    let grammar = Grammar::json_schema(&env, &schema).unwrap();
    for seed in 0..40 {
        let text = wander(&grammar, &tokens, seed, seed % 2 == 0).expect("a substring ends");
        let value: Value = serde_json::from_str(&text).unwrap();
        let quote = value["quote"].as_str().unwrap();
        assert!(!quote.is_empty() && SOURCE.contains(quote), "{quote:?}");
    }
}

#[test]
fn quotes_in_recursive_schemas_are_held() {
    // The second definition leads to the first, whose quote comes after it.
    let schema = json!({
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "next": {"anyOf": [{"$ref": "#/$defs/Link"}, {"type": "null"}]},
                    "quote": {"type": "string", "x-substring": {"words": "the red fox"}},
                },
                "required": ["next", "quote"],
            },
            "Link": {
                "type": "object",
                "properties": {"to": {"$ref": "#/$defs/Node"}},
                "required": ["to"],
            },
        },
    });
    let grammar = Grammar::json_schema(&toy(), &schema).unwrap();
    let node = |inner: Value, quote: &str| json!({"next": inner, "quote": quote});
    let chain = |quote: &str| node(json!({"to": node(Value::Null, quote)}), "red").to_string();
    assert!(holds(&grammar, &chain("red fox")));
    assert!(!holds(&grammar, &chain("grey fox")));
}

#[test]
fn deeply_nested_schemas_cost_no_more_than_their_size() {
    let env = toy();
    let nest = |leaf: Value, depth| {
        (0..depth).fold(
            leaf,
            |inner, _| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
        )
    };
    let started = std::time::Instant::now();
    let quote = json!({"type": "string", "x-substring": {"words": "red fox"}});
    let grammar = Grammar::json_schema(&env, &nest(quote.clone(), 30)).unwrap();
    let text = nest_value(json!("fox"), 30).to_string();
    assert!(holds(&grammar, &text) && !holds(&grammar, &text.replace("fox", "ox")));
    let null = || json!({"type": "null"});
    assert!(Grammar::json_schema(&env, &nest(null(), 60)).is_ok());
    let deep = [nest(quote, 70), nest(null(), 70), nest(null(), 200)];
    for schema in deep {
        let got = Grammar::json_schema(&env, &schema);
        assert!(
            matches!(
                got,
                Err(CoreError::Constrain(ConstrainError::TooComplex { .. }))
            ),
            "{got:?}"
        );
    }
    let lark = format!("start: {}\"a\"{}", "(".repeat(50_000), ")".repeat(50_000));
    let got = Grammar::lark(&env, &lark);
    assert!(
        matches!(
            got,
            Err(CoreError::Constrain(ConstrainError::TooComplex { .. }))
        ),
        "{got:?}"
    );
    let data = json!({"substring_words": "((((".repeat(500)});
    assert!(Grammar::lark(&env, &format!("start: %regex {data}")).is_ok());
    assert!(started.elapsed().as_secs() < 20);
}

fn nest_value(leaf: Value, depth: usize) -> Value {
    (0..depth).fold(leaf, |inner, _| json!({"a": inner}))
}

#[test]
fn substrings_that_cannot_be_expanded_are_refused() {
    let env = toy();
    let quote = json!({"type": "string", "x-substring": {"words": "a b"}});
    for (schema, at) in [
        (json!({"type": "object", "properties": {"q": quote}}), "#"),
        (
            json!({"type": "object", "additionalProperties": quote}),
            "#",
        ),
        (json!({"allOf": [quote]}), "#"),
        (json!({"x-substring": {"words": "a"}}), "#"),
        (
            json!({"type": "string", "x-substring": {"letters": "a"}}),
            "#",
        ),
        (json!({"type": "string", "x-substring": "a"}), "#"),
        (
            json!({"type": "string", "x-substring": {"words": "a"}, "pattern": "a"}),
            "#",
        ),
        (
            json!({"type": "array", "items": quote, "uniqueItems": true}),
            "#",
        ),
        (
            json!({"type": "object", "required": ["q"], "properties": {"q": {"not": quote}}}),
            "#/properties/q",
        ),
    ] {
        let got = Grammar::json_schema(&env, &schema);
        assert!(
            matches!(&got, Err(CoreError::Constrain(ConstrainError::Substring { path, .. })) if path == at),
            "{schema}: {got:?}"
        );
    }
}

#[test]
fn forced_tokens_are_those_the_mask_would_force() {
    let env = toy();
    let tokens = env.factory().tok_env().tok_trie().all_tokens();
    let grammar = Grammar::json_schema(
        &env,
        &json!({
            "type": "object",
            "properties": {"name": {"enum": ["the red fox", "the quote"]}, "done": {"const": true}},
            "required": ["name", "done"],
            "additionalProperties": false,
        }),
    )
    .unwrap();
    let start = grammar.start().forced().unwrap();
    let text: Vec<u8> = start
        .iter()
        .flat_map(|&t| tokens[t as usize].clone())
        .collect();
    assert!(
        text.starts_with(b"{\"name"),
        "{:?}",
        String::from_utf8_lossy(&text)
    );
    for seed in 0..20 {
        let with = wander(&grammar, &tokens, seed, true).unwrap();
        assert_eq!(with, wander(&grammar, &tokens, seed, false).unwrap());
        serde_json::from_str::<Value>(&with).unwrap();
    }
}

#[test]
fn what_is_not_allowed_is_refused_and_stays_refused() {
    let grammar = Grammar::json_schema(&toy(), &json!({"const": "ab"})).unwrap();
    let mut constraint = grammar.start();
    let got = constraint.commit(TokenId::from(b'x'));
    assert!(
        matches!(
            got,
            Err(CoreError::Constrain(ConstrainError::Refused {
                token: 120,
                ..
            }))
        ),
        "{got:?}"
    );
    assert!(constraint.mask().is_err());
    assert!(constraint.forced().is_err());
    assert!(!constraint.is_done());
    assert!(grammar.start().commit(9999).is_err());
    // The grammar itself is none the worse.
    assert!(holds(&grammar, "\"ab\""));
}

#[test]
fn a_complete_text_is_done_and_an_open_one_may_end() {
    let env = toy();
    let done = Grammar::json_schema(&env, &json!({"const": 7})).unwrap();
    let mut constraint = done.start();
    constraint.commit(TokenId::from(b'7')).unwrap();
    assert!(constraint.is_done() && constraint.is_accepting().unwrap());
    let open = Grammar::json_schema(&env, &json!({"type": "integer", "minimum": 0})).unwrap();
    let mut constraint = open.start();
    assert!(!constraint.is_accepting().unwrap());
    constraint.commit(TokenId::from(b'7')).unwrap();
    assert!(!constraint.is_done() && constraint.is_accepting().unwrap());
    let mask = constraint.mask().unwrap();
    assert!(mask.allows(END) && mask.allows(TokenId::from(b'1')));
    constraint.commit(END).unwrap();
    assert!(constraint.is_done());
}

#[test]
fn clones_go_their_own_ways() {
    let grammar = Grammar::json_schema(&toy(), &json!({"enum": ["ab", "cd"]})).unwrap();
    let mut a = grammar.start();
    a.commit(TokenId::from(b'"')).unwrap();
    let mut b = a.clone();
    a.commit(TokenId::from(b'a')).unwrap();
    b.commit(TokenId::from(b'c')).unwrap();
    assert!(a.mask().unwrap().allows(TokenId::from(b'b')));
    assert!(b.mask().unwrap().allows(TokenId::from(b'd')));
}

#[test]
fn vocabularies_out_of_bounds_are_refused() {
    let encode = |_: &str| Vec::new();
    let error = |tokens, end: &[TokenId]| TokenEnv::new(tokens, end, encode).unwrap_err();
    assert!(matches!(
        error(vec![vec![b'a'; 1001], vec![]], &[1]),
        CoreError::Constrain(ConstrainError::Vocabulary { found: 1001, .. })
    ));
    assert!(matches!(
        error(vec![vec![b'a']], &[]),
        CoreError::Constrain(ConstrainError::NoEndToken)
    ));
    assert!(matches!(
        error(vec![vec![b'a']], &[1]),
        CoreError::TokenOutOfRange { id: 1, vocab: 1 }
    ));
    let many: Vec<Vec<u8>> = (0..5000u32)
        .map(|i| [i.to_le_bytes(); 225].concat())
        .collect();
    assert!(matches!(
        error(many, &[0]),
        CoreError::Constrain(ConstrainError::Vocabulary {
            what: "sum of token bytes",
            ..
        })
    ));
}

#[test]
fn what_is_likely_is_forced_text() {
    let schema = json!({
        "type": "object",
        "properties": { "name": { "enum": ["red", "red fox"] }, "quote": { "type": "integer" } },
        "required": ["name", "quote"],
        "additionalProperties": false,
    });
    let grammar = Grammar::json_schema(&toy(), &schema).unwrap();
    let mut constraint = grammar.start();
    let mut seen = 0;
    for byte in br#"{"name":"red","quote":12}"# {
        let likely = constraint.likely().unwrap();
        let allowed = constraint.allowed_prefix(&likely).unwrap();
        assert_eq!(allowed, likely.len());
        seen += usize::from(!likely.is_empty());
        // Asking changes nothing.
        constraint.commit(TokenId::from(*byte)).unwrap();
    }
    assert!(seen > 5 && constraint.likely().unwrap().is_empty());
}
