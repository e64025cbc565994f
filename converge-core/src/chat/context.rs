//! Messages and tools as template values, every data string passed through a map on its way.

use indexmap::IndexMap;
use minijinja::Value;
use serde_json::Value as Json;

use super::measure::Dict;
use super::{ChatError, Message, RenderOptions, ToolCall, ToolDef};

/// Deepest nesting of arguments and schemas.
pub(super) const MAX_DEPTH: usize = 128;

/// What becomes of a data string: itself, or itself with guards in it.
pub(super) type Map<'a> = &'a mut dyn FnMut(&str) -> String;

/// The template's variables for a conversation.
pub(super) fn variables(
    messages: &[Message],
    options: &RenderOptions<'_>,
    map: Map<'_>,
) -> Result<Vec<(String, Value)>, ChatError> {
    let mut variables = Vec::new();
    let messages: Vec<Value> = messages
        .iter()
        .map(|m| message(m, map))
        .collect::<Result<_, _>>()?;
    variables.push(("messages".into(), Value::from(messages)));
    let tools = if options.tools.is_empty() {
        Value::from(())
    } else {
        let tools: Vec<Value> = options
            .tools
            .iter()
            .map(|t| tool(t, map))
            .collect::<Result<_, _>>()?;
        Value::from(tools)
    };
    variables.push(("tools".into(), tools));
    variables.push(("documents".into(), Value::from(())));
    variables.push((
        "add_generation_prompt".into(),
        Value::from(options.add_generation_prompt),
    ));
    for (key, json) in &options.extra {
        variables.push((key.clone(), value(json, 0, map)?));
    }
    Ok(variables)
}

fn message(message: &Message, map: Map<'_>) -> Result<Value, ChatError> {
    let mut fields = vec![("role", Value::from(message.role.as_str()))];
    if let Some(name) = &message.name {
        fields.push(("name", Value::from(map(name))));
    }
    if let Some(id) = &message.tool_call_id {
        fields.push(("tool_call_id", Value::from(map(id))));
    }
    if let Some(reasoning) = &message.reasoning {
        fields.push(("reasoning_content", Value::from(map(reasoning))));
    }
    fields.push(("content", Value::from(map(&message.content))));
    if !message.tool_calls.is_empty() {
        let calls: Vec<Value> = message
            .tool_calls
            .iter()
            .map(|c| call(c, map))
            .collect::<Result<_, _>>()?;
        fields.push(("tool_calls", Value::from(calls)));
    }
    Ok(dict(fields))
}

fn call(call: &ToolCall, map: Map<'_>) -> Result<Value, ChatError> {
    let function = dict([
        ("name", Value::from(map(&call.name))),
        ("arguments", value(&call.arguments, 0, map)?),
    ]);
    let mut fields = Vec::new();
    if let Some(id) = &call.id {
        fields.push(("id", Value::from(map(id))));
    }
    fields.push(("type", Value::from("function")));
    fields.push(("function", function));
    Ok(dict(fields))
}

fn tool(tool: &ToolDef, map: Map<'_>) -> Result<Value, ChatError> {
    let function = dict([
        ("name", Value::from(map(&tool.name))),
        ("description", Value::from(map(&tool.description))),
        ("parameters", value(&tool.parameters, 0, map)?),
    ]);
    Ok(dict([
        ("type", Value::from("function")),
        ("function", function),
    ]))
}

fn value(json: &Json, depth: usize, map: Map<'_>) -> Result<Value, ChatError> {
    if depth > MAX_DEPTH {
        return Err(ChatError::TooDeep { limit: MAX_DEPTH });
    }
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => Value::from(i),
            (_, Some(u), _) => Value::from(u),
            (_, _, Some(f)) => Value::from(f),
            _ => Value::from(n.to_string()),
        },
        Json::String(s) => Value::from(map(s)),
        Json::Array(items) => Value::from(
            items
                .iter()
                .map(|item| value(item, depth + 1, map))
                .collect::<Result<Vec<Value>, _>>()?,
        ),
        Json::Object(fields) => {
            let mut entries = IndexMap::with_capacity(fields.len());
            for (key, field) in fields {
                entries.insert(Value::from(map(key)), value(field, depth + 1, map)?);
            }
            Dict::of(entries)
        }
    })
}

/// A dictionary in this order.
pub(super) fn dict<K: Into<Value>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
    Dict::of(
        entries
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect(),
    )
}
