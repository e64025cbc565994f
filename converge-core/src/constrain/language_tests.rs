//! Regular expressions, and calls of tools.

use super::tests::{END, holds, toy, wander};
use super::*;
use crate::{CoreError, chat::ChatTemplate};

fn problem(got: Result<Grammar>) -> ConstrainError {
    match got {
        Err(CoreError::Constrain(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_regular_expression_holds_the_whole_text() {
    let env = toy();
    for (regex, good, bad) in [
        (
            r"[a-z]{2,4}-\d+",
            vec!["ab-1", "abcd-2026"],
            vec!["a-1", "ab-", "ab-1x", " ab-1"],
        ),
        (r"a/b|c\/d", vec!["a/b", "c/d"], vec!["a", "c\\/d"]),
        (r"(?i)yes|no", vec!["YES", "no"], vec!["yes no", ""]),
        (r#""[^"\\]*""#, vec!["\"\"", "\"é ü\""], vec!["\"\\\"", "x"]),
        (
            "line\nline\\t\\\\",
            vec!["line\nline\t\\"],
            vec!["line line"],
        ),
        ("x*", vec!["", "xxx"], vec!["xy"]),
        ("^a$", vec!["a"], vec!["^a$"]),
        ("#a // b", vec!["#a // b"], vec!["#a "]),
    ] {
        let grammar = Grammar::regex(&env, regex).unwrap();
        for text in good {
            assert!(holds(&grammar, text), "{regex}: {text:?}");
        }
        for text in bad {
            assert!(!holds(&grammar, text), "{regex}: {text:?}");
        }
    }
}

#[test]
fn what_no_grammar_holds_is_refused() {
    let env = toy();
    let bad = [
        "",
        "a\\",
        "(",
        "a)",
        "(?=a)b",
        "a(?!b)",
        r"\bword\b",
        "a^b",
        r"(a)\1",
        "a(?P<stop>b)",
        "a(?<stop>b)",
        r"[^\x00-\u{10FFFF}]",
    ];
    let held: Vec<&str> = bad
        .into_iter()
        .filter(|regex| match Grammar::regex(&env, regex) {
            Ok(_) => true,
            Err(CoreError::Constrain(ConstrainError::Regex { .. })) => false,
            Err(other) => panic!("{regex}: {other:?}"),
        })
        .collect();
    assert!(held.is_empty(), "{held:?}");
    let deep = format!("{}a{}", "(".repeat(50_000), ")".repeat(50_000));
    for got in [
        Grammar::regex(&env, &deep),
        // A quote in a regular expression, a quote in a comment: neither begins a string.
        Grammar::lark(&env, &format!("start: /\"/ {deep}")),
        Grammar::lark(&env, &format!("start: x // \"\nx: {deep}")),
        Grammar::lark(&env, &format!("start: /{deep}/")),
    ] {
        let got = problem(got);
        assert!(matches!(got, ConstrainError::TooComplex { .. }), "{got:?}");
    }
}

fn tools() -> Vec<ToolDef> {
    let read = json!({
        "type": "object",
        "properties": {"path": {"$ref": "#/$defs/path"}},
        "required": ["path"],
        "additionalProperties": false,
        "$defs": {"path": {"type": "string", "maxLength": 8}},
    });
    let add = json!({
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": false,
    });
    vec![
        ToolDef::new("read", "", read),
        ToolDef::new("a\"dd", "", add),
    ]
}

#[test]
fn an_answer_is_text_or_one_call() {
    let grammar = Grammar::tools_or_text(&toy(), &tools(), &CallFormat::hermes()).unwrap();
    let read =
        "<tool_call>\n{\"name\": \"read\", \"arguments\": {\"path\": \"a.txt\"}}\n</tool_call>";
    let add =
        "<tool_call>\n{\"name\": \"a\\\"dd\", \"arguments\": {\"a\": 1, \"b\": -2}}\n</tool_call>";
    for good in [
        "",
        "Hello.\n\nIt is {\"name\": 1}.",
        "a < b, <tool>, <tool_call",
        "<tool_cal>",
        read,
        add,
        &format!("I look.\n{read}"),
        &format!("<tool_call {add}"),
    ] {
        assert!(holds(&grammar, good), "{good}");
    }
    for bad in [
        "<tool_call>",
        "it is <tool_call> that I mean",
        &read.replace("\n{", "{"),
        &read.replace("read", "write"),
        &read.replace("a.txt", "a long path"),
        &read.replace("path", "file"),
        &read.replace(": ", ":"),
        &read[..read.len() - 1],
        &add.replace("-2", "\"2\""),
        &add.replace(", \"b\": -2", ""),
        &format!("{read}."),
        &format!("{read}\n{add}"),
        &format!("<tool_call>{read}"),
    ] {
        assert!(!holds(&grammar, bad), "{bad}");
    }
}

#[test]
fn whatever_a_model_chooses_a_begun_call_is_a_call() {
    let env = toy();
    let tokens = env.factory().tok_env().tok_trie().all_tokens();
    let format = CallFormat {
        // Short enough to be hit upon.
        begin: "e".to_owned(),
        ..CallFormat::hermes()
    };
    let grammar = Grammar::tools_or_text(&env, &tools(), &format).unwrap();
    let mut calls = 0;
    for seed in 0..40 {
        let mut constraint = grammar.start();
        // `wander` takes the end as soon as it may: begin with text, and the opening.
        for byte in format!("{seed} xe").bytes() {
            constraint.commit(TokenId::from(byte)).unwrap();
        }
        assert!(!constraint.mask().unwrap().allows(END), "a call has begun");
        let started = Grammar {
            compiled: Arc::new(constraint.matcher),
            vocab: grammar.vocab,
            endings: Arc::clone(&grammar.endings),
        };
        let Some(text) = wander(&started, &tokens, seed, seed % 2 == 0) else {
            continue;
        };
        let call = text.strip_suffix("\n</tool_call>").unwrap();
        let call: Value = serde_json::from_str(call).unwrap();
        assert!(
            ["read", "a\"dd"].contains(&call["name"].as_str().unwrap()),
            "{call}"
        );
        calls += 1;
    }
    assert!(calls > 10, "{calls}");
}

#[test]
fn a_call_may_begin_with_a_control_token() {
    let tokenizer = crate::generate::toy::tokenizer();
    let opening = tokenizer.special("<|im_start|>").unwrap();
    let env = TokenEnv::of(&tokenizer).unwrap();
    let format = CallFormat {
        begin: "<|im_start|>[".to_owned(),
        ..CallFormat::mistral()
    };
    let grammar = Grammar::tools_or_text(&env, &tools(), &format).unwrap();
    // Its characters are text like any other.
    assert!(holds(&grammar, "<|im_start|> and on"));
    for before in ["", "I look. "] {
        let mut constraint = grammar.start();
        for byte in before.bytes() {
            constraint.commit(TokenId::from(byte)).unwrap();
        }
        assert!(
            constraint.mask().unwrap().allows(opening),
            "after {before:?}"
        );
        constraint.commit(opening).unwrap();
        assert!(!constraint.is_accepting().unwrap());
        for byte in r#"[{"name": "read", "arguments": {"path": "x"}}]"#.bytes() {
            constraint.commit(TokenId::from(byte)).unwrap();
        }
        assert!(constraint.is_done());
    }
    let mut constraint = grammar.start();
    constraint.commit(opening).unwrap();
    assert!(constraint.commit(opening).is_err());
}

#[test]
fn control_tokens_may_stand_anywhere_in_the_format_of_calls() {
    let tokenizer = crate::generate::toy::tokenizer();
    let control = tokenizer.special("<|im_start|>").unwrap();
    let env = TokenEnv::of(&tokenizer).unwrap();
    let call = r#"{"name": "read", "arguments": {"path": "x"}}"#;
    for (begin, end) in [
        ("CALL<|im_start|>", "<|im_start|>"),
        ("CALL [", "]<|im_start|>"),
        ("<|im_start|>[<|im_start|>\n", "\n<|im_start|>]"),
    ] {
        let format = CallFormat {
            begin: begin.to_owned(),
            end: end.to_owned(),
            ..CallFormat::hermes()
        };
        let grammar = Grammar::tools_or_text(&env, &tools(), &format).unwrap();
        let mut constraint = grammar.start();
        let parts = format!("{begin}{call}{end}");
        for (at, part) in parts.split("<|im_start|>").enumerate() {
            if at > 0 {
                constraint.commit(control).unwrap();
            }
            for byte in part.bytes() {
                constraint.commit(TokenId::from(byte)).unwrap();
            }
        }
        assert!(constraint.is_done(), "{parts}");
        // The characters of a control token are not the token.
        let mut constraint = grammar.start();
        let bytes = parts.bytes().map(TokenId::from);
        let held = bytes
            .map(|byte| constraint.commit(byte))
            .all(|got| got.is_ok());
        assert!(!held || !constraint.is_done(), "{parts}");
    }
}

#[test]
fn tools_that_cannot_be_held_are_refused() {
    let env = TokenEnv::of(&crate::generate::toy::tokenizer()).unwrap();
    let refused = |tools: &[ToolDef], format: &CallFormat| {
        problem(Grammar::tools_or_text(&env, tools, format))
    };
    let hermes = CallFormat::hermes();
    let one = |parameters| [ToolDef::new("t", "", parameters)];
    let with = |begin: &str, end: &str| CallFormat {
        begin: begin.to_owned(),
        end: end.to_owned(),
        ..hermes.clone()
    };
    for (tools, format) in [
        (vec![], hermes.clone()),
        (vec![tools()[0].clone(), tools()[0].clone()], hermes.clone()),
        (one(json!([])).to_vec(), hermes.clone()),
        (
            one(json!({
                "type": "object",
                "properties": {"q": {"type": "string", "x-substring": {"words": "a b"}}},
                "required": ["q"],
                "additionalProperties": false,
            }))
            .to_vec(),
            hermes.clone(),
        ),
        (tools(), with("", "")),
        (tools(), with("\ncall", "")),
        (tools(), with("<tool_call>", "<|im_end|>")),
        (tools(), with("<tool_call>", "\n<|im_end|>")),
        (tools(), with("<|im_end|>", "")),
        (tools(), with("CALL<|im_end|>", "")),
    ] {
        let got = refused(&tools, &format);
        assert!(matches!(got, ConstrainError::Tools { .. }), "{got:?}");
    }
    let got = refused(
        &one(json!({"properties": {"a": {"type": "nonsense"}}})),
        &hermes,
    );
    assert!(matches!(got, ConstrainError::Schema { .. }), "{got:?}");
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!({"properties": {"a": deep}});
    }
    let got = refused(&one(deep), &hermes);
    assert!(matches!(got, ConstrainError::TooComplex { .. }), "{got:?}");
}

#[test]
fn the_format_is_read_off_the_template() {
    let of = |source: &str| CallFormat::of(&ChatTemplate::from_source(source, "", "").unwrap());
    let calls = |begin: &str, end: &str| {
        format!(
            "{{% for m in messages %}}{{{{ m.content }}}}{{% for c in m.tool_calls %}}{begin}\
             {{{{ c.function | tojson }}}}{end}{{% endfor %}}{{% endfor %}}"
        )
    };
    assert_eq!(of(&calls("<tool_call>\\n", "")), None);
    assert_eq!(
        of(&calls("{{ '<tool_call>\\n' }}", "")),
        Some(CallFormat::hermes())
    );
    assert_eq!(
        of(&calls("[TOOL_CALLS][", "]")),
        Some(CallFormat::mistral())
    );
    assert_eq!(of("{{ messages[0].content }}"), None);
}
