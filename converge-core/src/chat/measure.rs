//! What values cost: values are trees to a reader, but shared graphs in memory, so a few
//! statements can build one that would take forever to print or compare.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::json::invalid;

/// Nesting that a value of a template may reach.
const MAX_DEPTH: usize = 200;

/// Bytes that one unit of fuel pays for, as the engine counts.
const BYTES_PER_FUEL: u64 = 64;

/// Pays for `bytes` of work.
pub(super) fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / BYTES_PER_FUEL)
}

/// Bytes that `value` takes when written out (about), paid for as they are counted.
///
/// # Errors
/// Out of fuel, or the value is nested too deep (or in itself).
pub(super) fn measure(state: &State, value: &Value) -> Result<usize, Error> {
    let mut size = 0;
    visit(state, value, 0, &mut size)?;
    Ok(size)
}

fn visit(state: &State, value: &Value, depth: usize, size: &mut usize) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String => *size += value.as_str().map_or(0, str::len) + 2,
        ValueKind::Seq | ValueKind::Iterable => {
            deeper(depth)?;
            for item in value.try_iter()?.checked() {
                node(state)?;
                visit(state, &item?, depth + 1, size)?;
            }
            *size += 2;
        }
        ValueKind::Map => {
            deeper(depth)?;
            for key in value.try_iter()?.checked() {
                let key = key?;
                node(state)?;
                visit(state, &key, depth + 1, size)?;
                visit(state, &value.get_item(&key)?, depth + 1, size)?;
            }
            *size += 2;
        }
        ValueKind::Invalid => return Err(Error::new(ErrorKind::InvalidOperation, "invalid value")),
        _ => *size += 8,
    }
    Ok(())
}

/// A sixteenth of a unit would do, the engine counts whole ones: real values are small.
fn node(state: &State) -> Result<(), Error> {
    state.consume_fuel(1)
}

fn deeper(depth: usize) -> Result<(), Error> {
    if depth >= MAX_DEPTH {
        return Err(invalid("a value is nested too deep"));
    }
    Ok(())
}
