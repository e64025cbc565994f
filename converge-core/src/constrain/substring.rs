//! Strings held to a substring of a given text, inside a JSON Schema.
//!
//! A string schema may carry the extension
//!
//! ```json
//! {"type": "string", "x-substring": {"words": "the text"}, "minLength": 1}
//! ```
//!
//! and is then held to a contiguous part of the text: whole `"words"`, `"chars"`, whole `"lines"`,
//! or consecutive elements of a list of `"chunks"`. The value is exactly such a part once the JSON
//! is parsed; escapes are dealt with here. `minLength` and `maxLength` count characters.
//!
//! JSON Schema has no such thing, so the way from the root to such a string is written out as a
//! Lark grammar around it: objects with every property required and in order, arrays, `anyOf`,
//! `oneOf` and `$ref`. Everything beside the way stays a `%json` schema of its own.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use llguidance::substring::chunk_into_words;
use serde_json::{Map, Value, json};

use super::{ConstrainError, compact};
use crate::Result;

/// The extension's keyword.
pub const KEYWORD: &str = "x-substring";
/// Deepest nesting of schemas on the way to a substring.
const MAX_DEPTH: usize = 64;
/// Most characters of text in all substrings of a schema.
const MAX_TEXT: usize = 1 << 20;

/// Keywords of JSON Schema whose value is a schema or a list of schemas.
const SCHEMAS: [&str; 16] = [
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a map of schemas.
const SCHEMA_MAPS: [&str; 4] = [
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// The Lark grammar of a schema that contains [`KEYWORD`]; `None` for one that does not.
pub(super) fn to_lark(root: &Value) -> Result<Option<String>> {
    let mut writer = Writer {
        root,
        rules: String::new(),
        count: 0,
        named: HashMap::new(),
        text: 0,
    };
    if !writer.reaches(root) {
        return Ok(None);
    }
    let start = writer.expression(root, "#", 0)?;
    Ok(Some(format!("start: {start}\n{}", writer.rules)))
}

struct Writer<'a> {
    root: &'a Value,
    rules: String,
    count: usize,
    /// Rules of `$ref`s already begun, so that recursive schemas end.
    named: HashMap<&'a str, String>,
    text: usize,
}

fn error(path: &str, problem: &'static str) -> ConstrainError {
    ConstrainError::Substring {
        path: path.to_owned(),
        problem,
    }
}

/// A Lark or JSON string literal.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The text as it stands between the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = quoted(text);
    quoted
        .get(1..quoted.len().saturating_sub(1))
        .unwrap_or_default()
        .to_owned()
}

impl<'a> Writer<'a> {
    fn resolve(&self, reference: &str) -> Option<&'a Value> {
        self.root.pointer(reference.strip_prefix('#')?)
    }

    /// Whether a substring stands in the schema, or in what it refers to. Looks wherever a schema
    /// can stand: a substring that cannot be expanded must be an error later on, never overlooked.
    fn reaches(&self, schema: &'a Value) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![schema];
        while let Some(schema) = open.pop() {
            let Some(object) = schema.as_object() else {
                continue;
            };
            if object.contains_key(KEYWORD) {
                return true;
            }
            for (key, value) in object {
                match key.as_str() {
                    "$ref" | "$dynamicRef" => {
                        if let Some(reference) = value.as_str()
                            && seen.insert(reference)
                        {
                            open.extend(self.resolve(reference));
                        }
                    }
                    key if SCHEMA_MAPS.contains(&key) => {
                        open.extend(value.as_object().into_iter().flat_map(Map::values));
                    }
                    key if SCHEMAS.contains(&key) => match value {
                        Value::Array(list) => open.extend(list),
                        one => open.push(one),
                    },
                    _ => {}
                }
            }
        }
        false
    }

    fn rule(&mut self, body: &str) -> String {
        let name = format!("r{}", self.count);
        self.count += 1;
        let _ = writeln!(self.rules, "{name}: {body}");
        name
    }

    fn terminal(&mut self, body: &str) -> String {
        let name = format!("T{}", self.count);
        self.count += 1;
        let _ = writeln!(self.rules, "{name}: {body}");
        name
    }

    /// The Lark expression of a schema.
    fn expression(&mut self, schema: &'a Value, path: &str, depth: usize) -> Result<String> {
        if depth > MAX_DEPTH {
            return Err(error(path, "schemas are nested too deeply").into());
        }
        if !self.reaches(schema) {
            return Ok(self.plain(schema));
        }
        let Some(object) = schema.as_object() else {
            return Ok(self.plain(schema));
        };
        if let Some(of) = object.get(KEYWORD) {
            return self.substring(object, of, path);
        }
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            if let Some(name) = self.named.get(reference) {
                return Ok(name.clone());
            }
            let target = self
                .resolve(reference)
                .ok_or_else(|| error(path, "$ref leads nowhere"))?;
            let name = format!("d{}", self.named.len());
            self.named.insert(reference, name.clone());
            let body = self.expression(target, reference, depth + 1)?;
            let _ = writeln!(self.rules, "{name}: {body}");
            return Ok(name);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(options) = object.get(key).and_then(Value::as_array) {
                let mut alternatives = Vec::new();
                for (i, option) in options.iter().enumerate() {
                    alternatives.push(self.expression(
                        option,
                        &format!("{path}/{key}/{i}"),
                        depth + 1,
                    )?);
                }
                return Ok(self.rule(&alternatives.join(" | ")));
            }
        }
        match object.get("type").and_then(Value::as_str) {
            Some("object") => self.object(object, path, depth),
            Some("array") => self.array(object, path, depth),
            _ => Err(error(
                path,
                "only objects, arrays, anyOf, oneOf and $ref may contain it",
            )
            .into()),
        }
    }

    /// A schema without substrings, with the definitions that it may refer to.
    fn plain(&mut self, schema: &Value) -> String {
        let mut schema = schema.clone();
        if let Some(object) = schema.as_object_mut() {
            for key in ["$defs", "definitions", "x-guidance"] {
                if let Some(value) = self.root.get(key) {
                    object.entry(key).or_insert_with(|| value.clone());
                }
            }
        }
        let schema = compact(&schema);
        self.rule(&format!("%json {schema}"))
    }

    fn object(
        &mut self,
        object: &'a Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<String> {
        let properties = object
            .get("properties")
            .and_then(Value::as_object)
            .ok_or_else(|| error(path, "the object around it needs properties"))?;
        let required: Vec<&str> = object
            .get("required")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut body = String::new();
        for (i, (name, schema)) in properties.iter().enumerate() {
            if !required.contains(&name.as_str()) {
                return Err(error(
                    path,
                    "every property of the object around it must be required",
                )
                .into());
            }
            let opening = if i == 0 {
                "{"
            } else {
                self.style("item_separator", ",")
            };
            let colon = self.style("key_separator", ":");
            let literal = format!("{opening}{}{colon}", quoted(name));
            let value = self.expression(schema, &format!("{path}/properties/{name}"), depth + 1)?;
            let _ = write!(body, "{} {value} ", quoted(&literal));
        }
        if required.iter().any(|r| !properties.contains_key(*r)) {
            return Err(error(path, "a required property has no schema").into());
        }
        body.push_str(r#""}""#);
        Ok(self.rule(&body))
    }

    fn array(
        &mut self,
        object: &'a Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<String> {
        let items = object
            .get("items")
            .ok_or_else(|| error(path, "the array around it needs items"))?;
        if object.contains_key("prefixItems") || object.contains_key("uniqueItems") {
            return Err(error(path, "prefixItems and uniqueItems are not supported here").into());
        }
        let count = |key: &str| match object.get(key) {
            None => Ok(None),
            Some(n) => match n.as_u64().filter(|&n| n <= 100_000) {
                Some(n) => Ok(Some(n)),
                None => Err(error(path, "minItems and maxItems must be at most 100000")),
            },
        };
        let (min, max) = (count("minItems")?.unwrap_or(0), count("maxItems")?);
        if max.is_some_and(|max| max < min) {
            return Err(error(path, "maxItems is below minItems").into());
        }
        let item = self.expression(items, &format!("{path}/items"), depth + 1)?;
        if max == Some(0) {
            return Ok(self.rule(r#""[]""#));
        }
        let more = min.saturating_sub(1);
        let separator = quoted(self.style("item_separator", ","));
        let range = match max {
            Some(max) => format!("{{{more},{}}}", max - 1),
            None => format!("{{{more},}}"),
        };
        let rest = self.rule(&format!("{separator} {item}"));
        let filled = format!(r#""[" {item} {rest}{range} "]""#);
        Ok(self.rule(&if min == 0 {
            format!(r#""[]" | {filled}"#)
        } else {
            filled
        }))
    }

    /// A separator of the root's `x-guidance`.
    fn style(&self, key: &str, default: &'static str) -> &'a str
    where
        'static: 'a,
    {
        self.root
            .get("x-guidance")
            .and_then(|g| g.get(key))
            .and_then(Value::as_str)
            .unwrap_or(default)
    }

    fn substring(
        &mut self,
        schema: &'a Map<String, Value>,
        of: &'a Value,
        path: &str,
    ) -> Result<String> {
        if schema.get("type").and_then(Value::as_str) != Some("string") {
            return Err(error(path, "the type must be string").into());
        }
        let unsupported =
            |k: &&String| matches!(k.as_str(), "pattern" | "format" | "enum" | "const");
        if schema.keys().any(|k| unsupported(&k)) {
            return Err(error(
                path,
                "pattern, format, enum and const cannot stand beside it",
            )
            .into());
        }
        let Some((kind, text)) = of
            .as_object()
            .filter(|m| m.len() == 1)
            .and_then(|m| m.iter().next())
        else {
            return Err(error(path, "it must be an object with one key").into());
        };
        let chunks: Vec<&str> = match (kind.as_str(), text) {
            ("words", Value::String(text)) => chunk_into_words(text),
            ("lines", Value::String(text)) => text.split_inclusive('\n').collect(),
            ("chars", Value::String(text)) => text.split_inclusive(|_: char| true).collect(),
            ("chunks", Value::Array(list)) => {
                let strings: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                strings.ok_or_else(|| error(path, "chunks must be strings"))?
            }
            _ => {
                return Err(error(
                    path,
                    "its key must be words, chars or lines with a text, or chunks with a list",
                )
                .into());
            }
        };
        self.text += chunks.iter().map(|c| c.len()).sum::<usize>();
        if self.text > MAX_TEXT {
            return Err(error(path, "the texts are longer than a mebibyte").into());
        }
        let chunks: Vec<String> = chunks
            .into_iter()
            .filter(|c| !c.is_empty())
            .map(escaped)
            .collect();
        let regex = json!({ "substring_chunks": chunks });
        let part = self.terminal(&format!("%regex {regex}"));
        let length = |key: &str| match schema.get(key) {
            None => Ok(None),
            Some(n) => match n.as_u64().filter(|&n| n <= 100_000) {
                Some(n) => Ok(Some(n)),
                None => Err(error(
                    path,
                    "minLength and maxLength must be at most 100000",
                )),
            },
        };
        let body = match (length("minLength")?, length("maxLength")?) {
            (None | Some(0), None) => part,
            (min, max) => {
                // One character of the value is one plain character or one escape.
                let max = max.map(|m| m.to_string()).unwrap_or_default();
                let unit = r#"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u[0-9a-f]{4})"#;
                self.terminal(&format!("{part} & /{unit}{{{},{max}}}/", min.unwrap_or(0)))
            }
        };
        Ok(self.terminal(&format!(r#""\"" {body} "\"""#)))
    }
}
