//! "One of these tools, or text": a grammar for answers that may end in a call.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{ConstrainError, TokenEnv, spaced, substring};
use crate::{
    Result,
    chat::{ChatTemplate, Message, RenderOptions, ToolCall, ToolDef},
};

/// How a model writes a call: `begin`, a JSON object of two keys (three, where calls may have an id),
/// `end`.
///
/// The JSON is spaced as Python writes it, which is what models are trained on:
/// `{"name": "read", "arguments": {"path": "a.txt"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFormat {
    /// What a call begins with. Its first part, up to white space or a control token of the
    /// vocabulary, is what no text may contain.
    pub begin: String,
    /// What it ends with.
    pub end: String,
    /// The key of the tool's name.
    pub name: String,
    /// The key of its arguments.
    pub arguments: String,
    /// The key of the call's id, nine letters and digits after the arguments, which may be left out;
    /// `None` where calls have none.
    pub id: Option<String>,
}

impl CallFormat {
    /// `<tool_call>`, the object, `</tool_call>`, a line each: Hermes, Qwen 2.5, Qwen 3 and many
    /// more.
    pub fn hermes() -> Self {
        Self::new("<tool_call>\n", "\n</tool_call>")
    }

    /// `[TOOL_CALLS][`, the object, `]`: Mistral 7B v0.3 to Nemo.
    pub fn mistral() -> Self {
        Self {
            id: Some("id".to_owned()),
            ..Self::new("[TOOL_CALLS][", "]")
        }
    }

    fn new(begin: &str, end: &str) -> Self {
        Self {
            begin: begin.to_owned(),
            end: end.to_owned(),
            name: "name".to_owned(),
            arguments: "arguments".to_owned(),
            id: None,
        }
    }

    /// The format that a chat template writes calls in, where it is one of the above: found out by
    /// having it write one.
    pub fn of(template: &ChatTemplate) -> Option<Self> {
        let known = [Self::hermes(), Self::mistral()];
        known.into_iter().find(|format| format.is_that_of(template))
    }

    fn is_that_of(&self, template: &ChatTemplate) -> bool {
        let call = ToolCall {
            // As some templates want ids: nine letters and digits.
            id: Some("abcdefgh1".to_owned()),
            name: "tool".to_owned(),
            arguments: json!({"key": "value"}),
        };
        let messages = [Message::user("text"), Message::calls(vec![call])];
        let options = RenderOptions {
            add_generation_prompt: false,
            ..RenderOptions::default()
        };
        let written = format!(
            "{}{{\"{}\": \"tool\", \"{}\": {{\"key\": \"value\"}}",
            self.begin, self.name, self.arguments
        );
        let rendered = template.render(&messages, &options);
        rendered.is_ok_and(|text| text.contains(&written))
    }
}

/// A compiled format: what stands around the tools in the Lark grammar.
struct Frame {
    /// Rules for the text and for what opens a call, without the rule `call`.
    head: String,
    /// What follows the opening before the object.
    rest: String,
}

/// The Lark grammar of text that may end in a call of one of the tools.
pub(super) fn to_lark(env: &TokenEnv, tools: &[ToolDef], format: &CallFormat) -> Result<String> {
    let problem = |name: &str, problem| ConstrainError::Tools {
        name: name.to_owned(),
        problem,
    };
    if tools.is_empty() {
        return Err(problem("", "there is none").into());
    }
    let Frame { head, rest } = frame(env, format)?;
    let mut names = HashSet::new();
    let mut rules = String::new();
    let mut all = Vec::new();
    let after = match &format.id {
        Some(id) => {
            let before = format!(", {}: \"", Value::from(id.as_str()));
            let before = substring::quoted(&before);
            format!(
                "({before} /[a-zA-Z0-9]{{9}}/ {})? \"}}\"",
                substring::quoted("\"")
            )
        }
        None => "\"}\"".to_owned(),
    };
    for (at, tool) in tools.iter().enumerate() {
        if !names.insert(tool.name.as_str()) {
            return Err(problem(&tool.name, "there is another of that name").into());
        }
        super::check_depth(&tool.parameters)?;
        if substring::to_lark(&tool.parameters)?.is_some() {
            return Err(problem(&tool.name, "x-substring is not held in calls").into());
        }
        let mut schema = spaced(&tool.parameters, ", ", ": ");
        let Some(object) = schema.as_object_mut() else {
            return Err(problem(&tool.name, "its parameters are no JSON Schema").into());
        };
        // Arguments are an object whatever the schema leaves open.
        object.entry("type").or_insert_with(|| "object".into());
        let key = |key: &str| Value::from(key).to_string();
        let before = format!(
            "{{{}: {}, {}: ",
            key(&format.name),
            key(&tool.name),
            key(&format.arguments)
        );
        let before = substring::quoted(&before);
        rules += &format!("tool_{at}: {before} %json {schema} {after}\n");
        all.push(format!("tool_{at}"));
    }
    let (rest, end) = (sequence(env, &rest)?, sequence(env, &format.end)?);
    let all = all.join(" | ");
    Ok(format!("{head}call: {rest} ({all}) {end}\n{rules}"))
}

fn frame(env: &TokenEnv, format: &CallFormat) -> Result<Frame, ConstrainError> {
    if let Some((id, rest)) = env.control(&format.begin) {
        if env.is_end(id) {
            return Err(ends_the_text());
        }
        let head = format!("start: TEXT? opening?\nTEXT: /(?s:.+)/\nopening: <[{id}]> call\n");
        let rest = rest.to_owned();
        return Ok(Frame { head, rest });
    }
    let begin = &format.begin;
    let stops = |&(at, c): &(usize, char)| {
        let rest = begin.get(at..).unwrap_or_default();
        c.is_whitespace() || env.control(rest).is_some()
    };
    let stop = begin.char_indices().find(stops);
    let (trigger, rest) = begin.split_at(stop.map_or(begin.len(), |(at, _)| at));
    if trigger.is_empty() {
        return Err(ConstrainError::Tools {
            name: String::new(),
            problem: "nothing tells the beginning of a call from text",
        });
    }
    // Matched lazily: the moment that the trigger is complete, a call has begun.
    let head = format!(
        "start: TEXT | opening call\n\
         TEXT: /(?s:.*)/ & ~/(?s:.*){}(?s:.*)/\n\
         opening[lazy]: /(?s:.*)/ {}\n",
        literal(trigger),
        substring::quoted(trigger)
    );
    let rest = rest.to_owned();
    Ok(Frame { head, rest })
}

fn ends_the_text() -> ConstrainError {
    ConstrainError::Tools {
        name: String::new(),
        problem: "a token that ends the text stands in the format of calls",
    }
}

/// A text in Lark, control tokens of the vocabulary as themselves.
fn sequence(env: &TokenEnv, text: &str) -> Result<String, ConstrainError> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let Some((id, after)) = env.control(rest) else {
            plain.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            continue;
        };
        if env.is_end(id) {
            return Err(ends_the_text());
        }
        if !plain.is_empty() {
            parts.push(substring::quoted(&std::mem::take(&mut plain)));
        }
        parts.push(format!("<[{id}]>"));
        rest = after;
    }
    if !plain.is_empty() {
        parts.push(substring::quoted(&plain));
    }
    Ok(parts.join(" "))
}

/// A regular expression that matches this text alone.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 4);
    for c in text.chars() {
        match c {
            _ if c.is_ascii_alphanumeric() || !c.is_ascii() => out.push(c),
            _ => out += &format!("\\x{:02X}", u32::from(c)),
        }
    }
    out
}
