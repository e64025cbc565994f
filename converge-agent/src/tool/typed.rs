//! From a Rust type and a function to a [`Tool`].

use std::marker::PhantomData;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Effect, Tool, ToolContext, ToolError, ToolOutput};

/// A tool made of a function over typed arguments.
///
/// ```
/// use converge_agent::tool::{Effect, FnTool, ToolOutput};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Repeat {
///     /// What to say.
///     word: String,
///     /// How often.
///     times: u8,
/// }
///
/// let tool = FnTool::new("repeat", "Says a word again.", Effect::ReadOnly, |args: Repeat, _| {
///     ToolOutput::new(&args.times, args.word.repeat(args.times.into()))
/// });
/// # use converge_agent::tool::Tool;
/// let output = tool.call(&serde_json::json!({"word": "so ", "times": 2}), &Default::default());
/// assert_eq!(output?.text, "so so ");
/// # Ok::<(), converge_agent::tool::ToolError>(())
/// ```
pub struct FnTool<A, F> {
    name: String,
    description: String,
    effect: Effect,
    schema: Value,
    run: F,
    args: PhantomData<fn(A)>,
}

impl<A, F> FnTool<A, F>
where
    A: DeserializeOwned + JsonSchema,
    F: Fn(A, &ToolContext<'_>) -> Result<ToolOutput, ToolError> + Send + Sync,
{
    /// A tool named `name` that runs `run`; the schema comes from `A`.
    pub fn new(name: &str, description: &str, effect: Effect, run: F) -> Self {
        Self {
            name: name.to_owned(),
            description: description.to_owned(),
            effect,
            schema: input_schema_of::<A>(),
            run,
            args: PhantomData,
        }
    }
}

impl<A, F> Tool for FnTool<A, F>
where
    A: DeserializeOwned + JsonSchema,
    F: Fn(A, &ToolContext<'_>) -> Result<ToolOutput, ToolError> + Send + Sync,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn input_schema(&self) -> Value {
        self.schema.clone()
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn call(&self, args: &Value, context: &ToolContext<'_>) -> Result<ToolOutput, ToolError> {
        let args = A::deserialize(args).map_err(|source| ToolError::Arguments {
            tool: self.name.clone(),
            source,
        })?;
        (self.run)(args, context)
    }
}

/// The JSON schema (draft 2020-12) of `T` as a grammar and a prompt can use it: without
/// references, titles and number formats, with `enum` for the variants of a plain Rust enum, and
/// with `anyOf` for `oneOf` otherwise (the variants of a tagged enum exclude each other by their
/// tag).
pub fn input_schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    simplify(&mut schema);
    if let Value::Object(root) = &mut schema {
        // The tool's own description says it.
        root.remove("description");
    }
    schema
}

/// The values of variants that are nothing but constants.
fn constants(variants: &Value) -> Option<Vec<Value>> {
    variants
        .as_array()?
        .iter()
        .map(|variant| variant.get("const").cloned())
        .collect()
}

fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(variants) = object.remove("oneOf") {
                match constants(&variants) {
                    Some(values) => object.insert("enum".to_owned(), Value::Array(values)),
                    None => object.insert("anyOf".to_owned(), variants),
                };
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            object.remove("title");
            object.remove("format");
            for (key, value) in object.iter_mut() {
                match (key.as_str(), value) {
                    // The keys of these are names, not keywords.
                    ("properties" | "$defs" | "patternProperties", Value::Object(named)) => {
                        simplify_each(named);
                    }
                    ("const" | "enum" | "default" | "examples", _) => {}
                    (_, value) => simplify(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

fn simplify_each(named: &mut Map<String, Value>) {
    named.iter_mut().for_each(|(_, schema)| simplify(schema));
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "op", rename_all = "snake_case")]
    enum Shape {
        /// A square.
        Square {
            side: u32,
        },
        Circle {
            radius: Option<f64>,
            title: String,
        },
    }

    #[test]
    fn a_tagged_enum_becomes_any_of_without_formats() {
        let schema = input_schema_of::<Shape>();
        assert_eq!(
            schema,
            json!({"anyOf": [
                {"description": "A square.", "type": "object",
                 "properties": {"side": {"type": "integer", "minimum": 0},
                                "op": {"type": "string", "const": "square"}},
                 "required": ["op", "side"]},
                {"type": "object",
                 "properties": {"radius": {"type": ["number", "null"]},
                                "title": {"type": "string"},
                                "op": {"type": "string", "const": "circle"}},
                 "required": ["op", "title"]},
            ]})
        );
    }

    /// A unit.
    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Unit {
        /// Short.
        Day,
        /// Long.
        Year,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Plain {
        /// One
        /// of them.
        #[serde(rename = "unit")]
        _unit: Unit,
    }

    #[test]
    fn a_plain_enum_becomes_its_values() {
        let schema = input_schema_of::<Plain>();
        assert_eq!(
            schema["properties"]["unit"],
            json!({"description": "One of them.", "enum": ["day", "year"]})
        );
        assert!(schema.get("description").is_none());
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused_by_name() {
        let tool = FnTool::new(
            "area",
            "",
            Effect::ReadOnly,
            |shape: Shape, _| match shape {
                Shape::Square { side } => ToolOutput::new(&side.saturating_mul(side), "area"),
                Shape::Circle { radius, title } => ToolOutput::new(&radius, title),
            },
        );
        let context = ToolContext::default();
        let good = tool
            .call(&json!({"op": "square", "side": 3}), &context)
            .unwrap();
        assert_eq!(good.value, json!(9));
        for bad in [
            json!({"op": "square"}),
            json!({"op": "x"}),
            json!(null),
            json!({"side": 1}),
        ] {
            let error = tool.call(&bad, &context).unwrap_err();
            assert!(matches!(error, ToolError::Arguments { ref tool, .. } if tool == "area"));
        }
    }
}
