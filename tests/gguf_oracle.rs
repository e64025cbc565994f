//! Real models, read here and by candle: the same keys, values, tensors and bytes.

#![cfg(test)] // so that the lints know the helpers for tests, too

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use candle_core::quantized::gguf_file;
use converge_quant::Gguf;
use converge_quant::gguf::{Array, Value};
use converge_tests::model;

/// Candle's value in our terms.
fn ours(value: &gguf_file::Value) -> Value {
    use gguf_file::Value as C;
    match value {
        C::U8(v) => Value::U8(*v),
        C::I8(v) => Value::I8(*v),
        C::U16(v) => Value::U16(*v),
        C::I16(v) => Value::I16(*v),
        C::U32(v) => Value::U32(*v),
        C::I32(v) => Value::I32(*v),
        C::U64(v) => Value::U64(*v),
        C::I64(v) => Value::I64(*v),
        C::F32(v) => Value::F32(*v),
        C::F64(v) => Value::F64(*v),
        C::Bool(v) => Value::Bool(*v),
        C::String(v) => Value::String(v.clone()),
        C::Array(v) => Value::Array(array(v)),
    }
}

fn array(values: &[gguf_file::Value]) -> Array {
    use gguf_file::Value as C;
    match values.first().expect("the models have no empty arrays") {
        C::String(_) => Array::String(values.iter().map(|v| v.to_string().unwrap()).collect()),
        C::I32(_) => Array::I32(values.iter().map(|v| v.to_i32().unwrap()).collect()),
        C::F32(_) => Array::F32(values.iter().map(|v| v.to_f32().unwrap()).collect()),
        other => panic!("no such array in the models: {other:?}"),
    }
}

fn agrees_with_candle(name: &str) {
    let path = model(name);
    let gguf = Gguf::open(&path).unwrap();
    let reader = File::open(&path).unwrap();
    let content = gguf_file::Content::read(&mut &reader).unwrap();

    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.file_bytes(), reader.metadata().unwrap().len());
    let keys: BTreeSet<&str> = gguf.metadata().iter().map(|(key, _)| key).collect();
    let expected: BTreeSet<&str> = content.metadata.keys().map(String::as_str).collect();
    assert_eq!(keys, expected);
    for (key, value) in gguf.metadata().iter() {
        assert!(*value == ours(&content.metadata[key]), "{key}");
    }

    assert_eq!(gguf.tensors().len(), content.tensor_infos.len());
    let mut rows = Vec::new();
    for info in gguf.tensors() {
        let theirs = &content.tensor_infos[&info.name];
        assert_eq!(info.shape, theirs.shape.dims(), "{}", info.name);
        let name = info.ggml_type.name().replace('_', "");
        let their_name = format!("{:?}", theirs.ggml_dtype)
            .to_uppercase()
            .replace('_', "");
        assert_eq!(name, their_name, "{}", info.name);
        let bytes = gguf.read(info).unwrap();
        assert_eq!(bytes.len(), info.bytes());
        let mut expected = vec![0; bytes.len()];
        let start = content.tensor_data_offset + theirs.offset;
        (&reader).seek(SeekFrom::Start(start)).unwrap();
        (&reader).read_exact(&mut expected).unwrap();
        assert!(bytes == expected, "{}", info.name);
        let middle = info.rows() / 3..info.rows() - info.rows() / 3;
        gguf.read_rows(info, middle.clone(), &mut rows).unwrap();
        let place = middle.start * info.row_bytes()..middle.end * info.row_bytes();
        assert!(rows == bytes[place], "rows of {}", info.name);
        assert_eq!(gguf.tensor(&info.name).unwrap(), info);
    }
}

#[test]
fn smollm2_agrees_with_candle() {
    agrees_with_candle("smollm2-135m");
}

#[test]
fn gemma3_agrees_with_candle() {
    agrees_with_candle("gemma-3-270m");
}

#[test]
fn qwen_half_billion_agrees_with_candle() {
    agrees_with_candle("qwen2.5-coder-0.5b");
}

#[test]
fn qwen_one_and_a_half_billion_agrees_with_candle() {
    agrees_with_candle("qwen2.5-coder-1.5b");
}
