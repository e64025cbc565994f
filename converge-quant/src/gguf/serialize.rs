//! The bytes of a header's fields, as [`header`](super::header) reads them.

use super::value::{Array, Value};
use super::write::TensorSpec;

/// Length and text.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Name, dimensions (row length first), type, offset.
pub(super) fn tensor(tensor: &TensorSpec, offset: u64, out: &mut Vec<u8>) {
    string(&tensor.name, out);
    out.extend((tensor.shape.len() as u32).to_le_bytes());
    for &dimension in tensor.shape.iter().rev() {
        out.extend((dimension as u64).to_le_bytes());
    }
    out.extend(tensor.ggml_type.code().to_le_bytes());
    out.extend(offset.to_le_bytes());
}

/// Type and value.
pub(super) fn value(value: &Value, out: &mut Vec<u8>) {
    macro_rules! number {
        ($code:literal, $number:expr) => {{
            out.extend(u32::to_le_bytes($code));
            out.extend($number.to_le_bytes());
        }};
    }
    match value {
        Value::U8(v) => number!(0, v),
        Value::I8(v) => number!(1, v),
        Value::U16(v) => number!(2, v),
        Value::I16(v) => number!(3, v),
        Value::U32(v) => number!(4, v),
        Value::I32(v) => number!(5, v),
        Value::F32(v) => number!(6, v),
        Value::Bool(v) => number!(7, u8::from(*v)),
        Value::String(v) => {
            out.extend(8u32.to_le_bytes());
            string(v, out);
        }
        Value::Array(v) => {
            out.extend(9u32.to_le_bytes());
            array(v, out);
        }
        Value::U64(v) => number!(10, v),
        Value::I64(v) => number!(11, v),
        Value::F64(v) => number!(12, v),
    }
}

/// Type of the elements, their count, the elements.
fn array(array: &Array, out: &mut Vec<u8>) {
    let mut head = |code: u32| {
        out.extend(code.to_le_bytes());
        out.extend((array.len() as u64).to_le_bytes());
    };
    macro_rules! numbers {
        ($code:literal, $numbers:expr) => {{
            head($code);
            out.extend($numbers.iter().flat_map(|v| v.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(v) => numbers!(0, v),
        Array::I8(v) => numbers!(1, v),
        Array::U16(v) => numbers!(2, v),
        Array::I16(v) => numbers!(3, v),
        Array::U32(v) => numbers!(4, v),
        Array::I32(v) => numbers!(5, v),
        Array::F32(v) => numbers!(6, v),
        Array::Bool(v) => {
            head(7);
            out.extend(v.iter().map(|&v| u8::from(v)));
        }
        Array::String(v) => {
            head(8);
            for one in v.iter() {
                string(one, out);
            }
        }
        Array::Array(v) => {
            head(9);
            for one in v {
                self::array(one, out);
            }
        }
        Array::U64(v) => numbers!(10, v),
        Array::I64(v) => numbers!(11, v),
        Array::F64(v) => numbers!(12, v),
    }
}
