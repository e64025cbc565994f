//! What values cost: values are trees to a reader, but shared graphs in memory, so a few
//! statements can build one that would take forever to print or compare.

use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, State, Value};

use super::json::invalid;

/// Nesting that a value which a template builds may reach, above that of the data in it.
const MAX_DEPTH: usize = 64;

/// Bytes that one unit of fuel pays for, as the engine counts.
const BYTES_PER_FUEL: u64 = 64;

/// Nodes that one unit of fuel pays for.
const NODES_PER_FUEL: usize = 16;

/// What a template's value may measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    nodes: usize,
    bytes: usize,
}

impl Bounds {
    /// For a rendering with so many bytes of data.
    pub(super) fn new(data: usize) -> Self {
        Self {
            nodes: data.saturating_add(10_000),
            bytes: data.saturating_mul(16).saturating_add(4 << 20),
        }
    }

    /// `__bounded`: the value if it is within the bounds; what is lazy is computed.
    pub(super) fn bounded(self, state: &State, value: &Value) -> Result<Value, Error> {
        if is_namespace(value) {
            return Ok(value.clone());
        }
        self.kept(state, value)
    }

    /// `__kept`: the same, but not for a namespace.
    pub(super) fn kept(self, state: &State, value: &Value) -> Result<Value, Error> {
        let mut measured = Measured::default();
        match value.kind() {
            ValueKind::Iterable => {
                // A slice of a slice of a slice … would nest without end.
                let mut items = Vec::new();
                for item in value.try_iter()?.checked() {
                    let item = item?;
                    measured.visit(state, &item, 1, self)?;
                    items.push(item);
                }
                return Ok(Value::from(items));
            }
            ValueKind::Seq | ValueKind::Map => measured.visit(state, value, 0, self)?,
            _ => {}
        }
        Ok(value.clone())
    }
}

/// `__scalar`: the value if it is no container.
pub(super) fn scalar(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            Err(invalid("a list cannot be repeated with `*`"))
        }
        _ => Ok(value.clone()),
    }
}

/// Pays for `bytes` of work.
pub(super) fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / BYTES_PER_FUEL)
}

/// Bytes that `value` takes when written out (about), paid for as they are counted.
///
/// # Errors
/// Out of fuel, or the value is nested too deep (or in itself).
pub(super) fn measure(state: &State, value: &Value) -> Result<usize, Error> {
    let mut measured = Measured::default();
    let all = Bounds {
        nodes: usize::MAX,
        bytes: usize::MAX,
    };
    measured.visit(state, value, 0, all)?;
    Ok(measured.bytes)
}

#[derive(Default)]
struct Measured {
    nodes: usize,
    bytes: usize,
}

impl Measured {
    fn visit(
        &mut self,
        state: &State,
        value: &Value,
        depth: usize,
        bounds: Bounds,
    ) -> Result<(), Error> {
        self.nodes += 1;
        if self.nodes.is_multiple_of(NODES_PER_FUEL) {
            state.consume_fuel(1)?;
        }
        let bytes = match value.kind() {
            ValueKind::String => value.as_str().map_or(0, str::len) + 4,
            _ => 8,
        };
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(dict) = value.downcast_object_ref::<Dict>() {
            self.bytes = self.bytes.saturating_add(dict.bytes);
        } else if matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map
        ) {
            if depth >= MAX_DEPTH {
                return Err(invalid("a value is nested too deep"));
            }
            if is_namespace(value) {
                return Err(invalid("a namespace cannot be part of a value"));
            }
            let is_map = value.kind() == ValueKind::Map;
            for item in value.try_iter()?.checked() {
                let item = item?;
                self.visit(state, &item, depth + 1, bounds)?;
                if is_map {
                    self.visit(state, &value.get_item(&item)?, depth + 1, bounds)?;
                }
            }
        }
        if self.nodes > bounds.nodes || self.bytes > bounds.bytes {
            return Err(invalid("a value is too large"));
        }
        Ok(())
    }
}

fn is_namespace(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// A dictionary of the data: it knows its size, so that a template that passes it around pays
/// nothing for it.
#[derive(Debug)]
pub(super) struct Dict {
    entries: IndexMap<Value, Value>,
    bytes: usize,
}

impl Dict {
    /// Of these entries, in this order.
    pub(super) fn of(entries: IndexMap<Value, Value>) -> Value {
        let bytes = entries
            .iter()
            .flat_map(|(key, value)| [key, value])
            .fold(0usize, |sum, value| sum.saturating_add(written(value)));
        Value::from_object(Self { entries, bytes })
    }
}

/// Bytes that a value of the data takes when written out (about).
fn written(value: &Value) -> usize {
    if let Some(dict) = value.downcast_object_ref::<Dict>() {
        return dict.bytes.saturating_add(8);
    }
    match value.as_str() {
        Some(text) => text.len() + 4,
        None if value.kind() == ValueKind::Seq => value
            .try_iter()
            .map(|items| items.fold(8usize, |sum, item| sum.saturating_add(written(&item))))
            .unwrap_or(8),
        None => 8,
    }
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.entries.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.keys().cloned().collect())
    }
}
