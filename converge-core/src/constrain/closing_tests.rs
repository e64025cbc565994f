use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{
    super::{
        Grammar, TokenEnv,
        tests::{END, toy},
    },
    *,
};
use crate::{CoreError, sample::noise};

/// An object of these properties, all of one schema.
fn object(names: &[&str], schema: &Value) -> Value {
    let properties: serde_json::Map<_, _> = names
        .iter()
        .map(|&name| (name.to_owned(), schema.clone()))
        .collect();
    json!({ "type": "object", "properties": properties, "required": names, "additionalProperties": false })
}

fn schemas() -> Vec<Value> {
    let leaf = json!({ "type": "object", "properties": { "kind": { "const": "leaf" }, "n": { "type": "integer" } },
        "required": ["kind", "n"], "additionalProperties": false });
    let add = json!({ "type": "object", "properties": { "kind": { "const": "add" },
        "left": { "$ref": "#/$defs/e" }, "right": { "$ref": "#/$defs/e" } },
        "required": ["kind", "left", "right"], "additionalProperties": false });
    vec![
        json!({}),
        json!({ "type": "string" }),
        json!({ "type": "string", "minLength": 30 }),
        json!({ "type": "integer" }),
        json!({ "type": "number", "minimum": 3, "maximum": 70 }),
        json!({ "type": "array", "items": { "type": "string" } }),
        json!({ "type": "array", "items": { "type": "number" }, "minItems": 3 }),
        json!({ "enum": ["a long answer", "no", "perhaps it is"] }),
        json!({ "type": "string", "pattern": "^[a-z]+@[a-z]+\\.(com|org)$" }),
        json!({ "type": "string", "format": "date-time" }),
        json!({ "type": "string", "format": "uuid" }),
        json!({ "type": "string", "format": "ipv4" }),
        json!({ "type": "string", "format": "email" }),
        json!({ "type": "object", "additionalProperties": { "type": "boolean" } }),
        json!({ "type": ["object", "null"], "properties": { "a": { "type": "string" } }, "required": ["a"] }),
        json!({ "type": "object", "properties": {
                "name": { "type": "string" },
                "tags": { "type": "array", "items": { "enum": ["red", "green", "blue"] } },
                "inner": { "type": "object", "properties": {
                    "x": { "type": "number" }, "y": { "type": "number" }, "z": { "type": "number" } },
                    "required": ["x", "y", "z"] },
                "note": { "anyOf": [{ "type": "string" }, { "type": "null" }] } },
            "required": ["name", "tags"] }),
        object(&["a", "b", "c", "d"], &json!({ "type": "number" })),
        object(
            &[
                "repositories",
                "cache",
                "index",
                "path",
                "pool",
                "service",
                "blobs",
            ],
            &json!({}),
        ),
        object(
            &["name", "year", "month", "data", "title"],
            &json!({ "type": "string" }),
        ),
        json!({ "type": "array", "minItems": 6, "items": object(&["x", "y"], &json!({ "type": "integer" })) }),
        json!({ "type": "array", "minItems": 12 }),
        json!({ "$defs": { "e": { "anyOf": [add, leaf] } }, "$ref": "#/$defs/e" }),
    ]
}

/// Whether it is JSON, its numbers however large.
fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Takes tokens at random within a budget.
fn wander(env: &TokenEnv, grammar: &Grammar, seed: u64, budget: usize) -> Result<Vec<u8>> {
    let mut constraint = grammar.start();
    let mut closing = Closing::new(&constraint, budget)?;
    let mut text = Vec::new();
    for step in 0..budget {
        assert!(closing.way.len() <= budget - step);
        let mask = constraint.mask()?;
        let draw = |t: &TokenId| noise::bits(seed, step as u64, *t);
        let drawn = mask.iter().max_by_key(draw).unwrap();
        if drawn == END {
            return Ok(text);
        }
        let Some(token) = closing.keep(drawn, budget - step)? else {
            break;
        };
        constraint.commit(token)?;
        text.extend_from_slice(env.endings().bytes(token));
        if constraint.is_done() {
            break;
        }
    }
    assert!(
        constraint.is_accepting()?,
        "{}",
        String::from_utf8_lossy(&text)
    );
    Ok(text)
}

#[test]
fn a_budget_always_suffices_or_is_refused_before_the_first_token() {
    let env = toy();
    for schema in schemas() {
        let grammar = Grammar::json_schema(&env, &schema).unwrap();
        let way = grammar.start().completion(400);
        let way = way.unwrap_or_else(|| panic!("{schema}"));
        for budget in (0..way.len()).step_by(1 + way.len() / 8) {
            match wander(&env, &grammar, 1, budget) {
                Err(CoreError::Constrain(ConstrainError::Budget { least, budget: b })) => {
                    assert!(least > budget && b == budget);
                }
                Err(other) => panic!("{other}"),
                // A narrower search may find what a wider one need not.
                Ok(text) => assert!(is_json(&text)),
            }
        }
        for seed in 0..60 {
            let budget = way.len() + (noise::bits(seed, 0, 1) % 40) as usize;
            let text = wander(&env, &grammar, seed, budget).unwrap();
            assert!(
                is_json(&text),
                "{schema} {}",
                String::from_utf8_lossy(&text)
            );
        }
    }
}
