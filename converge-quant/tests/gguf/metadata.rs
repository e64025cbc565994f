//! The typed getter.

use converge_quant::gguf::{Array, Metadata, Strings, Value};
use converge_quant::{Gguf, QuantError};

use crate::builder::valid;

fn metadata() -> Metadata {
    let (_directory, path) = valid(3).file();
    Gguf::open(&path).unwrap().metadata().clone()
}

#[test]
fn every_value_type_is_read() {
    let metadata = metadata();
    assert_eq!(metadata.len(), 16);
    assert_eq!(
        metadata.get::<&str>("general.architecture").unwrap(),
        "llama"
    );
    assert_eq!(metadata.get::<u8>("a.u8").unwrap(), 200);
    assert_eq!(metadata.get::<i32>("a.i8").unwrap(), -3);
    assert_eq!(metadata.get::<u16>("a.u16").unwrap(), 40_000);
    assert_eq!(metadata.get::<i64>("a.i16").unwrap(), -300);
    assert_eq!(metadata.get::<u32>("a.u32").unwrap(), 3_000_000_000);
    assert_eq!(metadata.get::<i32>("a.i32").unwrap(), -70_000);
    assert_eq!(metadata.get::<f32>("a.f32").unwrap(), 1.5);
    assert!(metadata.get::<bool>("a.bool").unwrap());
    assert_eq!(metadata.get::<u64>("a.u64").unwrap(), u64::MAX);
    assert_eq!(metadata.get::<i64>("a.i64").unwrap(), i64::MIN);
    assert_eq!(metadata.get::<f32>("a.f64").unwrap(), 0.25);
    assert_eq!(
        metadata.get::<Vec<String>>("words").unwrap(),
        ["grüß", "", "dich"]
    );
    assert_eq!(metadata.get::<Vec<bool>>("flags").unwrap(), [false, true]);
    let nested = Array::Array(vec![
        Array::U32(vec![7, 8]),
        Array::String(["x"].into_iter().collect()),
    ]);
    assert_eq!(metadata.get::<&Array>("nested").unwrap(), &nested);
    let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
    assert_eq!(keys[..2], ["general.architecture", "a.u8"]);
    assert_eq!(keys[15], "general.alignment");
}

#[test]
fn strings_are_had_without_a_copy() {
    let metadata = metadata();
    let words = metadata.get_strs("words").unwrap();
    assert_eq!(words.len(), 3);
    assert_eq!(words.get(0), Some("grüß"));
    assert_eq!(words.get(1), Some(""));
    assert_eq!(words.get(2), Some("dich"));
    assert_eq!(words.get(3), None);
    assert!(words.iter().eq(["grüß", "", "dich"]));
    assert_eq!(words, &["grüß", "", "dich"].iter().collect::<Strings>());
}

#[test]
fn wrong_requests_are_typed_errors() {
    let metadata = metadata();
    assert_eq!(metadata.find::<u32>("nothing").unwrap(), None);
    assert!(matches!(
        metadata.get::<u32>("nothing"),
        Err(QuantError::MissingKey { key }) if key == "nothing"
    ));
    assert!(matches!(
        metadata.find::<u32>("a.f32"),
        Err(QuantError::WrongType { key, found: "f32", .. }) if key == "a.f32"
    ));
    assert!(matches!(
        metadata.get::<u32>("a.i8"),
        Err(QuantError::OutOfRange { found: -3, .. })
    ));
    assert!(matches!(
        metadata.get::<usize>("a.i64"),
        Err(QuantError::OutOfRange { .. })
    ));
    assert!(matches!(
        metadata.get::<Vec<f32>>("words"),
        Err(QuantError::WrongType {
            found: "array of strings",
            ..
        })
    ));
    assert!(metadata.get::<bool>("a.u8").is_err());
    assert!(metadata.get::<f32>("a.u8").is_err());
    assert!(metadata.get_strs("flags").is_err());
}

#[test]
fn metadata_can_be_made_without_a_file() {
    let entries = [
        ("b", Value::U32(1)),
        ("a", Value::Array(Array::I32(vec![1, 2, -1]))),
    ];
    let metadata = Metadata::from_entries(entries.clone()).unwrap();
    assert_eq!(metadata.get::<u64>("b").unwrap(), 1);
    assert_eq!(metadata.get::<&[i32]>("a").unwrap(), [1, 2, -1]);
    assert_eq!(metadata.get::<Vec<i64>>("a").unwrap(), [1, 2, -1]);
    assert!(matches!(
        metadata.get::<Vec<u32>>("a"),
        Err(QuantError::OutOfRange { found: -1, .. })
    ));
    let twice = entries.into_iter().chain([("b", Value::Bool(true))]);
    assert!(matches!(
        Metadata::from_entries(twice),
        Err(QuantError::DuplicateKey { key }) if key == "b"
    ));
}
