//! The function schemas of the Berkeley Function Calling Leaderboard, as JSON Schema, with a check of
//! values that shares no code with the grammars.

use std::{collections::HashSet, fs};

use converge_core::{generate::Cancel, hub};
use converge_examples::models::{Fetch, Job, JobFile, Pip};
use serde_json::{Map, Value, json};

/// Name, size and SHA-256 of the files, of those that the package has under Apache-2.0.
const FILES: [(&str, u64, &str); 7] = [
    (
        "BFCL_v4_simple_python.json",
        283_274,
        "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991",
    ),
    (
        "BFCL_v4_multiple.json",
        316_583,
        "aef168155ebd74b7ac2401198b201343bc7d16d7a3d7e0d4e6d8ee82c6969b2a",
    ),
    (
        "BFCL_v4_parallel.json",
        171_896,
        "19f51a82eff42e5d62541aa500115a056eb78f437c2ba1f10415fd7c8e5dda84",
    ),
    (
        "BFCL_v4_parallel_multiple.json",
        347_080,
        "8863ea8433239f55c5f016154cf0830853c89f693c6ea270396a2fa121960579",
    ),
    (
        "BFCL_v4_live_simple.json",
        260_140,
        "1af2ac87dca47556db7b7e37e51e28b459a38b594e3c7b3c792b4903598ca0c4",
    ),
    (
        "BFCL_v4_simple_java.json",
        86_619,
        "13d2303a125b08754f0e41995b9273b5005fa8ed8ebfaa24ef53b4d83c4b5c6e",
    ),
    (
        "BFCL_v4_simple_javascript.json",
        47_063,
        "329e67fedf79a6243d93dbda4b388d12bd2d31f1f2163d92cb6ef676d1764f44",
    ),
];

const REQUIREMENT: &str = "bfcl-eval==2026.3.23";

/// A function of the leaderboard and a question that it answers.
pub struct Function {
    /// Its name.
    pub name: String,
    /// What a user asks.
    pub question: String,
    /// Its parameters as JSON Schema.
    pub schema: Value,
}

/// The functions, each schema once; fetched into the models' folder if they are not there yet.
///
/// # Panics
/// If they cannot be had, or are not what they were.
#[must_use]
pub fn functions() -> Vec<Function> {
    let mut seen = HashSet::new();
    let mut functions = Vec::new();
    for line in read().lines().filter(|line| !line.trim().is_empty()) {
        let entry: Value = serde_json::from_str(line).expect("a line of JSON");
        let question = &entry["question"][0];
        let question = question.as_array().into_iter().flatten();
        let mut question = question.filter_map(|message| message["content"].as_str());
        let question = question.next_back().unwrap_or_default();
        for function in entry["function"].as_array().into_iter().flatten() {
            let schema = schema(&function["parameters"]);
            if seen.insert(schema.to_string()) {
                functions.push(Function {
                    name: function["name"].as_str().unwrap_or_default().to_owned(),
                    question: question.to_owned(),
                    schema,
                });
            }
        }
    }
    functions
}

fn read() -> String {
    let files = FILES.map(|(name, size, sha256)| JobFile {
        path: format!("bfcl/{name}"),
        size,
        sha256: sha256.to_owned(),
        member: format!("bfcl_eval/data/{name}"),
    });
    let job = Job {
        name: "bfcl".to_owned(),
        path: "bfcl".to_owned(),
        files: files.into(),
        requirements: vec![REQUIREMENT.to_owned()],
        otherwise: "try again with a connection".to_owned(),
        upstream: None,
    };
    let cache = hub::cache_dir().expect("a folder for models");
    let folder = Fetch::new(cache, Cancel::new()).run(&job, &mut Pip::new(Cancel::new()));
    let folder = folder.unwrap_or_else(|error| panic!("{error:#}"));
    let read = |(name, ..): &(&str, _, _)| {
        let path = folder.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    FILES.iter().map(read).collect::<Vec<_>>().join("\n")
}

/// Parameters as JSON Schema: the names of types are those of Python, Java and JavaScript.
fn schema(parameters: &Value) -> Value {
    let mut schema = Map::new();
    let kind = match parameters["type"].as_str().unwrap_or_default() {
        "dict" | "object" | "HashMap" | "Hashtable" => "object",
        "float" | "double" | "number" => "number",
        "integer" | "int" | "long" | "byte" | "short" => "integer",
        "array" | "tuple" | "Array" | "ArrayList" | "Queue" | "Stack" => "array",
        "string" | "String" | "char" => "string",
        "boolean" | "Boolean" => "boolean",
        "" | "any" | "Any" | "Bigint" => "",
        other => panic!("an unknown type: {other}"),
    };
    if !kind.is_empty() {
        schema.insert("type".to_owned(), kind.into());
    }
    for key in [
        "enum", "minItems", "maxItems", "minimum", "maximum", "format",
    ] {
        if let Some(value) = parameters.get(key) {
            schema.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(items) = parameters.get("items") {
        schema.insert("items".to_owned(), self::schema(items));
    }
    if let Some(properties) = parameters["properties"].as_object() {
        let converted = properties
            .iter()
            .map(|(name, property)| (name.clone(), self::schema(property)));
        let converted: Map<_, _> = converted.collect();
        schema.insert("properties".to_owned(), converted.into());
        schema.insert("additionalProperties".to_owned(), json!(false));
        if let Some(required) = parameters.get("required") {
            schema.insert("required".to_owned(), required.clone());
        }
    }
    schema.into()
}

/// Checks a value against a schema of [`functions`].
///
/// # Errors
/// What is wrong, and where.
pub fn check(schema: &Value, value: &Value) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {value} for {schema}"));
    let is_kind = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        Some(_) => return wrong("an unknown type"),
    };
    if !is_kind {
        return wrong("another type");
    }
    if let Some(list) = schema["enum"].as_array()
        && !list.contains(value)
    {
        return wrong("none of the list");
    }
    if let Some(n) = value.as_f64() {
        let least = schema["minimum"].as_f64().unwrap_or(f64::NEG_INFINITY);
        let most = schema["maximum"].as_f64().unwrap_or(f64::INFINITY);
        if !(least..=most).contains(&n) {
            return wrong("out of range");
        }
    }
    if let Some(items) = value.as_array() {
        let count = items.len() as u64;
        if schema["minItems"]
            .as_u64()
            .is_some_and(|least| count < least)
            || schema["maxItems"].as_u64().is_some_and(|most| count > most)
        {
            return wrong("too few or too many");
        }
        if let Some(schema) = schema.get("items") {
            items.iter().try_for_each(|item| check(schema, item))?;
        }
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !name.as_str().is_some_and(|name| object.contains_key(name)) {
                return wrong("a required property is missing");
            }
        }
        for (name, value) in object {
            match schema["properties"].get(name) {
                Some(schema) => check(schema, value)?,
                None if schema["additionalProperties"] == false => {
                    return wrong("a property too many");
                }
                None => {}
            }
        }
    }
    Ok(())
}
