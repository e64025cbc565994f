//! Conversations that grow, and calls of tools, by the templates of real models.

use converge_core::{
    LoadOptions,
    chat::{Conversation, Message, RenderOptions, ToolCall, ToolDef},
    constrain::{CallFormat, Grammar, TokenEnv},
    generate::{Generate as _, Request},
    load,
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
fn a_conversation_tells_which_templates_rewrite_it() {
    let options = RenderOptions {
        now: Some("2026-01-02T03:04:05".parse().unwrap()),
        ..RenderOptions::default()
    };
    let (mut kept, mut rewritten) = (0, Vec::new());
    for file in chat_templates() {
        let (template, tokenizer) = (file.compile(), file.tokenizer());
        let mut talk = Conversation::default();
        let mut grows = true;
        let answers = ["<think>\nHm.\n</think>\n\nIt is one.", "It is two."];
        for (question, answer) in ["One?", "And two?"].into_iter().zip(answers) {
            let asked = talk.ask(
                &template,
                &tokenizer,
                vec![Message::user(question)],
                &options,
            );
            let asked = asked.unwrap_or_else(|error| panic!("{}: {error}", file.name));
            let tokens = tokenizer.encode_continuation(answer).unwrap();
            grows &= asked.held() == talk.len();
            talk.answered(asked, Message::assistant(answer), &tokens);
        }
        if !grows {
            continue;
        }
        match talk.check(&template, &tokenizer, &options).unwrap() {
            None => kept += 1,
            Some(difference) => {
                assert_ne!(difference.held, difference.rendered, "{}", file.name);
                rewritten.push((file.name, difference.turn));
            }
        }
    }
    println!("{kept} as they were; rewritten: {rewritten:?}");
    assert!(
        kept >= 10
            && rewritten
                .iter()
                .any(|(name, _)| name.contains("DeepSeek-R1")),
        "{rewritten:?}"
    );
}

#[test]
fn after_a_summary_a_session_goes_on_from_what_stays() {
    let gguf = converge_tests::model("smollm2-135m");
    let mut session = load(&gguf, &LoadOptions::default()).unwrap();
    let options = RenderOptions::default();
    let mut talk = Conversation::new(vec![Message::system("You know looms.")]);
    let mut say = |talk: &mut Conversation, question: &str| {
        let ask = vec![Message::user(question)];
        let asked = talk.ask(session.chat(), session.tokenizer(), ask, &options);
        let asked = asked.unwrap();
        let mut request = Request::new(asked.prompt().to_vec());
        request.max_tokens = 20;
        let answer = session.generate(&request, &mut |_| ()).unwrap();
        talk.answered(asked, Message::assistant(answer.text), &answer.tokens);
        answer.usage
    };
    for question in [
        "What is a loom?",
        "And a shuttle?",
        "And a warp?",
        "And a weft?",
    ] {
        say(&mut talk, question);
    }
    let session = load(&gguf, &LoadOptions::default()).unwrap();
    let summary = Message::assistant("Looms, shuttles and warps.");
    let done = talk.compact(
        session.chat(),
        session.tokenizer(),
        1..3,
        (vec![Message::user("What was said?")], summary),
        &options,
    );
    let done = done.unwrap();
    assert!(done.kept >= talk.turns()[0].len() && done.after == talk.len());
    let usage = say(&mut talk, "And cloth?");
    assert_eq!(usage.reused, done.kept);
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
