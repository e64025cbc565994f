use serde_json::json;

use super::*;
use crate::CoreError;

fn render(template: &str, options: &RenderOptions<'_>) -> Result<String> {
    ChatTemplate::from_source(template, "<s>", "</s>")?.render(&[Message::user("hi")], options)
}

fn plain(template: &str) -> String {
    render(template, &RenderOptions::default()).unwrap()
}

fn error(template: &str) -> ChatError {
    match render(template, &RenderOptions::default()) {
        Err(CoreError::Chat(e)) => e,
        other => panic!("{template}: expected a chat error, got {other:?}"),
    }
}

#[test]
fn python_methods() {
    for (expression, expected) in [
        ("'  a b '.strip()", "a b"),
        ("'xxaxx'.strip('x')", "a"),
        ("' a '.lstrip() ~ '|' ~ ' a '.rstrip()", "a | a"),
        ("'a,b,c'.split(',')", "['a', 'b', 'c']"),
        ("'a,b,c'.split(',', 1)", "['a', 'b,c']"),
        ("'a,b,c'.rsplit(',', 1)", "['a,b', 'c']"),
        ("' a  b '.split()", "['a', 'b']"),
        ("' a  b c '.split(None, 1)", "['a', 'b c ']"),
        ("' a  b c '.rsplit(None, 1)", "[' a  b', 'c']"),
        ("'a\\r\\nb\\n'.splitlines()", "['a', 'b']"),
        ("'aXbX'.partition('X')", "('a', 'X', 'bX')"),
        ("'aXbX'.rpartition('X')", "('aXb', 'X', '')"),
        ("'aaa'.replace('a', 'b', 2)", "bba"),
        ("'-'.join(['a', 'b'])", "a-b"),
        ("'{} {1} {x}'.format(1, 2, x=3)", "error"),
        ("'{} {}'.format(1, 'b')", "1 b"),
        ("'{a}-{{}}'.format(a=1)", "1-{}"),
        ("'abc'.startswith(('x', 'a'))", "True"),
        ("'abc'.endswith('bc')", "True"),
        ("'abc'.removeprefix('a').removesuffix('c')", "b"),
        ("'äbc'.find('c')", "2"),
        ("'abc'.find('x')", "-1"),
        ("'aBc'.upper() ~ 'aBc'.lower()", "ABCabc"),
        (
            "'hello world'.title() ~ 'hELLO'.capitalize()",
            "Hello WorldHello",
        ),
        ("'-5'.zfill(4)", "-005"),
        ("'12'.isdigit() ~ ''.isdigit()", "TrueFalse"),
        (
            "{'a': 1}.get('a') ~ {'a': 1}.get('b') ~ {}.get('b', 2)",
            "1None2",
        ),
        ("{'b': 1, 'a': 2}.items() | list", "[('b', 1), ('a', 2)]"),
        ("{'items': 1}.items() | list", "[('items', 1)]"),
        ("{'b': 1, 'a': 2}.keys() | list", "['b', 'a']"),
        ("[1, 2, 1].count(1)", "2"),
        ("messages[::-1][0].content[1:]", "i"),
        ("1.0 ~ true ~ none", "1.0TrueNone"),
    ] {
        let template = format!("{{{{ {expression} }}}}");
        match render(&template, &RenderOptions::default()) {
            Ok(text) => assert_eq!(text, expected, "{expression}"),
            Err(e) => assert_eq!(expected, "error", "{expression}: {e}"),
        }
    }
}

#[test]
fn tojson_is_pythons() {
    let options = RenderOptions {
        extra: json!({"v": {
            "z": [1, -2, 1.0, 1e16, 1.5e-7, 0.1, true, null, []],
            "a": "<ä> \"'\\ \n\u{1}\u{7f}", "empty": {}
        }})
        .as_object()
        .cloned()
        .unwrap(),
        ..RenderOptions::default()
    };
    assert_eq!(
        render("{{ v | tojson }}", &options).unwrap(),
        "{\"z\": [1, -2, 1.0, 1e+16, 1.5e-07, 0.1, true, null, []], \
         \"a\": \"<ä> \\\"'\\\\ \\n\\u0001\u{7f}\", \"empty\": {}}"
    );
    assert_eq!(
        render("{{ {'b': [1, {}], 'a': 2} | tojson(indent=2) }}", &options).unwrap(),
        "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": 2\n}"
    );
    assert_eq!(
        render(
            "{{ {'b': 1, 'a': 'ä😀'} | tojson(ensure_ascii=True, sort_keys=true, \
             separators=(',', ':')) }}",
            &options
        )
        .unwrap(),
        "{\"a\":\"\\u00e4\\ud83d\\ude00\",\"b\":1}"
    );
}

#[test]
fn generation_blocks_render_their_body() {
    assert_eq!(
        plain("a{% generation %}b{%- endgeneration -%} c{{ 'generation' }}"),
        "abcgeneration"
    );
    // A scope of its own: what is set in it ends with it.
    assert_eq!(
        plain(
            "{% set x = 1 %}{% set generation = 3 %}\
             {%+ generation +%}{% set x = 2 %}{{ x }}{{ generation }}{% endgeneration %}{{ x }}"
        ),
        "231"
    );
    assert_eq!(
        plain(
            "{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% break %}{% endfor %}"
        ),
        "x\n"
    );
}

#[test]
fn clock_is_given() {
    let options = RenderOptions {
        now: Some(jiff::civil::date(2026, 1, 2).at(3, 4, 5, 0)),
        ..RenderOptions::default()
    };
    assert_eq!(
        render("{{ strftime_now('%d %b %Y %H:%M') }}", &options).unwrap(),
        "02 Jan 2026 03:04"
    );
    assert!(matches!(
        error("{{ strftime_now('%!') }}"),
        ChatError::Render { .. }
    ));
}

#[test]
fn errors_are_typed() {
    match error("a\n{{ raise_exception('no ' ~ messages[0].content) }}") {
        ChatError::TemplateError { message, line } => assert_eq!((&*message, line), ("no hi", 2)),
        other => panic!("{other:?}"),
    }
    match error("a\n{% macro f() %}{{ raise_exception('deep') }}{% endmacro %}{{ f() }}") {
        ChatError::TemplateError { message, .. } => assert_eq!(message, "deep"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        error("a\n{{ a b }}"),
        ChatError::TemplateSyntax { line: 2, .. }
    ));
    assert!(matches!(error("{{ a.b.c }}"), ChatError::Render { .. }));
    assert!(matches!(
        error("{{ 'a'.nonsense() }}"),
        ChatError::Render { .. }
    ));
    assert!(matches!(
        error("{% include 'other' %}"),
        ChatError::Render { .. }
    ));
}

#[test]
fn a_file_without_a_template_gets_a_stated_fallback() {
    use converge_quant::gguf::{Array, Metadata, Value};
    let file = |template: Option<&str>, tokens: &[&str]| {
        let mut entries = vec![
            (
                "tokenizer.ggml.tokens",
                Value::Array(Array::String(tokens.iter().collect())),
            ),
            ("tokenizer.ggml.bos_token_id", Value::U32(0)),
        ];
        if let Some(template) = template {
            entries.push(("tokenizer.chat_template", Value::String(template.into())));
        }
        ChatTemplate::from_gguf(&Metadata::from_entries(entries).unwrap())
    };
    let messages = [Message::system("s"), Message::user("u")];
    let options = RenderOptions::default();
    let chatml = file(None, &["<s>", "<|im_start|>", "<|im_end|>"]).unwrap();
    assert_eq!(
        chatml.render(&messages, &options).unwrap(),
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(chatml.fallback(), Some(Fallback::ChatMl));
    let plain = file(None, &["<s>", "<|im_start|>"]).unwrap();
    assert_eq!(plain.render(&messages, &options).unwrap(), "s\n\nu");
    assert_eq!(plain.fallback(), Some(Fallback::Plain));
    let own = file(Some("{{ bos_token }}{{ eos_token }}."), &["<s>"]).unwrap();
    assert_eq!(own.render(&messages, &options).unwrap(), "<s>.");
    assert_eq!(own.fallback(), None);
}
