//! Conversations that grow, and calls of tools, by the templates of real models.

use converge_core::{
    chat::{Message, RenderOptions, ToolCall, ToolDef},
    constrain::{CallFormat, Grammar, TokenEnv},
    tokenizer::Special,
};
use converge_tests::chat_templates;
use serde_json::json;

#[test]
fn what_follows_an_answer_is_what_the_whole_conversation_has_there() {
    let options = RenderOptions {
        now: Some("2026-01-02T03:04:05".parse().unwrap()),
        ..RenderOptions::default()
    };
    let (mut same, mut others, mut none) = (0, Vec::new(), Vec::new());
    for file in chat_templates() {
        let (template, tokenizer) = (file.compile(), file.tokenizer());
        let encode = |messages: &[Message]| template.encode(&tokenizer, messages, &options);
        let (first, next) = (Message::user("One?"), Message::user("And two?"));
        let answer = Message::assistant("It is one.");
        let mut grown = encode(std::slice::from_ref(&first)).unwrap();
        let tail = template.encode_next(&tokenizer, std::slice::from_ref(&next), &options);
        let Some(tail) = tail.unwrap_or_else(|error| panic!("{}: {error}", file.name)) else {
            none.push(file.name);
            continue;
        };
        grown.extend(tokenizer.encode_continuation("It is one.").unwrap());
        grown.extend(&tail);
        match encode(&[first, answer, next.clone()]).unwrap() == grown {
            true => same += 1,
            // Templates that write history otherwise than they had the model write it.
            false => others.push(file.name.clone()),
        }
        // Whatever else it writes, the next message is there.
        let text = tokenizer.decode(&tail, false);
        assert!(text.contains("And two?"), "{}: {text}", file.name);
    }
    assert!(
        same >= 19,
        "{same} the same; not so {others:?}; without an end {none:?}"
    );
}

#[test]
fn the_calls_that_templates_write_are_what_the_grammar_holds() {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    let tool = ToolDef::new("forecast", "The weather to come", parameters);
    let tools = std::slice::from_ref(&tool);
    let call = ToolCall {
        id: Some("abcdefgh1".to_owned()),
        name: tool.name.clone(),
        arguments: json!({"city": "Lodz, \"PL\"", "days": 3}),
    };
    let mut held = Vec::new();
    for file in chat_templates() {
        let (template, tokenizer) = (file.compile(), file.tokenizer());
        let Some(format) = CallFormat::of(&template) else {
            continue;
        };
        let options = RenderOptions {
            add_generation_prompt: false,
            ..RenderOptions::with_tools(tools)
        };
        let messages = [
            Message::user("And then?"),
            Message::calls(vec![call.clone()]),
        ];
        let text = template.render(&messages, &options).unwrap();
        let begin = text.rfind(&format.begin).unwrap();
        let object = begin + format.begin.len();
        let end = object + text[object..].find(&format.end).unwrap() + format.end.len();
        let written = &text[begin..end];
        let env = TokenEnv::of(&tokenizer).unwrap_or_else(|error| panic!("{}: {error}", file.name));
        let grammar = Grammar::tools_or_text(&env, tools, &format)
            .unwrap_or_else(|error| panic!("{}: {error}", file.name));
        let mut constraint = grammar.start();
        for token in tokenizer.encode(written, Special::Parse).unwrap() {
            let at = tokenizer.token_text(token).into_owned();
            constraint
                .commit(token)
                .unwrap_or_else(|error| panic!("{}: {written:?} at {at:?}: {error}", file.name));
        }
        assert!(constraint.is_done(), "{}: {written:?}", file.name);
        held.push(file.name);
    }
    assert!(held.len() >= 4, "{held:?}");
}
