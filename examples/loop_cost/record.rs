//! A real run: questions about a folder, answered with calls of tools.

use std::path::Path;

use anyhow::{Context as _, ensure};
use converge_agent::tool::{Folder, ToolContext, Toolbox};
use converge_core::{
    chat::{Message, RenderOptions},
    generate::{Cancel, Generate as _, Request, Session, StopReason},
};
use converge_examples::{cli::Interrupted, models};
use serde_json::{Value, json};

use crate::replay::{Call, Transcript};

const INSTRUCTIONS: &str = "You answer questions about the files of a folder. Find out with calls \
                            what is in them: `search` for words, `read` a file. Answer when a file \
                            has shown what was asked for, in one sentence. Files:";
const QUESTIONS: &str = include_str!("../questions/archive.jsonl");
/// Calls that a question may take.
const CALLS: usize = 5;
/// Tokens of an answer.
const ANSWER: usize = 96;
/// Bytes of what a tool gave.
const RESULT: usize = 500;

/// Asks questions until so many calls of the model have been made.
pub(crate) fn record(
    session: &mut Session,
    folder: &Path,
    calls: usize,
    cancel: &Cancel,
) -> anyhow::Result<Transcript> {
    let folder = Folder::open(folder)?;
    let tools = Toolbox::read_only(&folder)?;
    let context = ToolContext {
        cancel: Some(cancel),
        permit: None,
    };
    let files = folder.walk(&context)?.files;
    let files: Vec<String> = files.into_iter().map(|file| file.path).collect();
    let instructions = format!("{INSTRUCTIONS}\n{}", files.join("\n"));
    let options = RenderOptions::default();
    let mut questions = QUESTIONS.lines().map(|line| {
        let line: Value = serde_json::from_str(line)?;
        let text = line.get("question").and_then(Value::as_str);
        Ok(text.context("a question")?.to_owned())
    });

    let mut transcript = Transcript {
        model: models::DEFAULT.to_owned(),
        prefix: Vec::new(),
        calls: Vec::new(),
    };
    let mut conversation = Vec::new();
    let mut next: Option<Message> = None;
    let mut asked = 0;
    let mut unread = Vec::new();
    while transcript.calls.len() < calls {
        let message = match next.take() {
            Some(message) => message,
            None => {
                asked = 0;
                let question: anyhow::Result<String> = match questions.next() {
                    Some(question) => question,
                    None => break,
                };
                Message::user(question?)
            }
        };
        if asked == 0 {
            unread = files.clone();
        }
        let before = conversation.len();
        if conversation.is_empty() {
            let messages = [Message::system(&*instructions), message];
            let (chat, tokenizer) = (session.chat(), session.tokenizer());
            conversation = chat.encode(tokenizer, &messages, &options)?;
            let other = [Message::system(&*instructions), Message::user("?")];
            let other = chat.encode(tokenizer, &other, &options)?;
            let same = conversation.iter().zip(&other).take_while(|(a, b)| a == b);
            transcript.prefix = conversation.iter().copied().take(same.count()).collect();
        } else {
            let next = session
                .chat()
                .encode_next(session.tokenizer(), &[message], &options)?;
            conversation.extend(next.context("the model's template has no place to go on")?);
        }
        let mut request = Request::new(conversation.clone());
        request.grammar = Some(session.compile(&schema(&unread, asked))?);
        request.max_tokens = ANSWER;
        request.cancel = cancel.clone();
        let generation = session.generate(&request, &mut |_| ())?;
        ensure!(generation.stop != StopReason::Cancelled, Interrupted);
        eprintln!(
            "{:>3} {}",
            transcript.calls.len() + 1,
            generation.text.replace('\n', " ")
        );
        let from = before.max(transcript.prefix.len());
        transcript.calls.push(Call {
            new: conversation.get(from..).unwrap_or_default().to_vec(),
            answer: generation.tokens.len(),
        });
        conversation.extend(&generation.tokens);
        asked += 1;
        let call: Value = serde_json::from_str(&generation.text).unwrap_or_default();
        let name = call.get("call").and_then(Value::as_str);
        if let Some(name) = name.filter(|_| asked <= CALLS) {
            let mut arguments = call.clone();
            if let Some(object) = arguments.as_object_mut() {
                object.remove("call");
            }
            let path = call.get("path").and_then(Value::as_str);
            unread.retain(|file| Some(file.as_str()) != path);
            let given = match tools.call(name, &arguments, &context) {
                Ok(output) => output.text,
                Err(error) => error.to_string(),
            };
            let end = given.floor_char_boundary(RESULT);
            next = Some(Message::tool(name, given.get(..end).unwrap_or_default()));
        }
    }
    Ok(transcript)
}

/// What may be said: a call, from the third on an answer, at last only that; no file twice.
fn schema(unread: &[String], asked: usize) -> Value {
    let search = json!({
        "type": "object",
        "properties": {
            "call": { "const": "search" },
            "query": { "type": "string", "minLength": 3, "maxLength": 60 },
        },
        "required": ["call", "query"],
        "additionalProperties": false,
    });
    let read = json!({
        "type": "object",
        "properties": { "call": { "const": "read" }, "path": { "enum": unread } },
        "required": ["call", "path"],
        "additionalProperties": false,
    });
    let answer = json!({
        "type": "object",
        "properties": { "answer": { "type": "string", "maxLength": 200 } },
        "required": ["answer"],
        "additionalProperties": false,
    });
    match asked {
        0 | 1 => json!({ "anyOf": [search, read] }),
        CALLS => answer,
        _ => json!({ "anyOf": [search, read, answer] }),
    }
}
