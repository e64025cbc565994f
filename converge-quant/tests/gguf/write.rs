//! What is written is read again; what fails leaves nothing.

use std::ops::ControlFlow;
use std::path::Path;

use converge_quant::gguf::{Array, Fault, TensorSpec, Value, Writer, copy};
use converge_quant::{GgmlType, Gguf, Metadata, QuantError};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::builder;

fn text() -> impl Strategy<Value = String> {
    "[a-zß-ÿ🦙._ ]{0,12}"
}

/// Every type of array, arrays of arrays up to the depth that the reader allows.
fn array() -> impl Strategy<Value = Array> {
    let plain = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(-1e30f32..1e30, 0..9).prop_map(Array::F32),
        vec(-1e300..1e300, 0..9).prop_map(Array::F64),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(text(), 0..9).prop_map(|all| Array::String(all.iter().collect())),
    ];
    plain.prop_recursive(2, 8, 3, |inner| vec(inner, 0..3).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e30f32..1e30).prop_map(Value::F32),
        (-1e300..1e300).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        text().prop_map(Value::String),
        array().prop_map(Value::Array),
    ]
}

/// A tensor of any type, decoded or not, with its bytes.
fn tensor() -> impl Strategy<Value = (TensorSpec, Vec<u8>)> {
    let types = proptest::sample::select(GgmlType::ALL);
    let shape = (vec(1..4usize, 0..3), 1..3usize, types);
    shape.prop_flat_map(|(mut shape, blocks, ggml_type)| {
        shape.push(blocks * ggml_type.block_len());
        let name = String::new();
        let spec = TensorSpec {
            name,
            ggml_type,
            shape,
        };
        let bytes = spec.bytes().unwrap();
        (Just(spec), vec(any::<u8>(), bytes..=bytes))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        entries in proptest::collection::btree_map("[a-z.]{1,9}", value(), 0..12),
        alignment in proptest::option::of(0..9u32),
        tensors in vec(tensor(), 0..6),
        piece in 1..500usize,
    ) {
        let mut metadata = Metadata::from_entries(entries).unwrap();
        if let Some(power) = alignment {
            metadata.set("general.alignment", 1 << power);
        }
        let (mut specs, bytes): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
        for (i, spec) in specs.iter_mut().enumerate() {
            spec.name = format!("tensor {i}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.gguf");
        let mut writer = Writer::create(&path, &metadata, &specs).unwrap();
        let size = writer.file_bytes();
        for bytes in &bytes {
            for piece in bytes.chunks(piece) {
                writer.write(piece).unwrap();
            }
        }
        writer.finish().unwrap();

        let read = Gguf::open(&path).unwrap();
        prop_assert_eq!(read.metadata(), &metadata);
        prop_assert_eq!(read.file_bytes(), size);
        let found: Vec<TensorSpec> = read.tensors().iter().map(TensorSpec::from).collect();
        prop_assert_eq!(found, specs);
        for (info, bytes) in read.tensors().iter().zip(&bytes) {
            prop_assert_eq!(&read.read(info).unwrap(), bytes);
        }
        prop_assert_eq!(files(folder.path()), ["any.gguf"]);
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn spec(name: &str, ggml_type: GgmlType, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        ggml_type,
        shape: shape.to_vec(),
    }
}

#[test]
fn a_copy_has_new_metadata_and_the_same_tensors() {
    let (folder, path) = builder::valid(2).file();
    let gguf = Gguf::open(&path).unwrap();
    let mut metadata = gguf.metadata().clone();
    assert_eq!(metadata.set("a.u32", 5u32), Some(Value::U32(3_000_000_000)));
    assert_eq!(metadata.set("new", "text"), None);
    assert!(metadata.remove("nested").is_some());
    assert_eq!(metadata.remove("nested"), None);
    metadata.rename("words", "z.words").unwrap();
    metadata.rename("flags", "a.flags").unwrap();
    metadata.rename("a.u8", "a.u8").unwrap();
    let taken = metadata.rename("a.u8", "a.i8").unwrap_err();
    assert!(matches!(taken, QuantError::DuplicateKey { .. }), "{taken}");
    let missing = metadata.rename("nested", "other").unwrap_err();
    assert!(
        matches!(missing, QuantError::MissingKey { .. }),
        "{missing}"
    );
    metadata.set("general.alignment", 512u32);

    let mut told = Vec::new();
    let to = folder.path().join("copy.gguf");
    let progress = |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    };
    copy(&gguf, &metadata, &to, progress).unwrap();
    assert_eq!(told.last(), Some(&(76, 76)));
    let copied = Gguf::open(&to).unwrap();
    assert_eq!(copied.metadata(), &metadata);
    assert_eq!(copied.metadata().get::<u32>("a.u32").unwrap(), 5);
    assert_eq!(copied.metadata().get::<String>("new").unwrap(), "text");
    assert_eq!(copied.metadata().get_strs("z.words").unwrap().len(), 3);
    assert_eq!(copied.metadata().value("words"), None);
    for info in gguf.tensors() {
        let found = copied.tensor(&info.name).unwrap();
        assert!(found.offset().is_multiple_of(512));
        assert_eq!(copied.read(found).unwrap(), gguf.read(info).unwrap());
    }
    // Over itself, too; the opened file is still what it was.
    metadata.remove("new");
    copy(&copied, &metadata, &to, |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(Gguf::open(&to).unwrap().metadata(), &metadata);
    let stopped = copy(&gguf, &metadata, &to, |_, _| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(stopped, QuantError::Cancelled), "{stopped}");
    assert_eq!(Gguf::open(&to).unwrap().metadata(), &metadata);
    assert_eq!(files(folder.path()), ["copy.gguf", "model.gguf"]);
}

#[test]
fn what_the_reader_would_refuse_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("no.gguf");
    let refuse = |metadata: &Metadata, tensors: &[TensorSpec]| {
        let error = Writer::create(&to, metadata, tensors).unwrap_err();
        let QuantError::Malformed { path, fault, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(path, to);
        fault
    };
    let none = Metadata::default();
    let f32 = |name: &str, shape: &[usize]| spec(name, GgmlType::F32, shape);
    for (tensors, expected) in [
        (vec![f32("a", &[1]), f32("a", &[2])], "DuplicateTensor"),
        (vec![spec("a", GgmlType::Q4_K, &[128, 2])], "PartialBlock"),
        (vec![f32("a", &[])], "NoDimensions"),
        (vec![f32("a", &[3, 0])], "ZeroDimension"),
        (vec![f32("a", &[1, 1, 1, 1, 1])], "OverLimit"),
        (vec![f32(&"a".repeat(300), &[1])], "OverLimit"),
        (vec![f32("a", &[usize::MAX / 2, 8])], "SizeOverflow"),
    ] {
        let fault = format!("{:?}", refuse(&none, &tensors));
        assert!(fault.starts_with(expected), "{fault}: {expected}");
    }
    for (key, value) in [
        ("general.alignment", Value::U32(48)),
        ("general.alignment", Value::U64(1 << 40)),
        ("general.alignment", Value::from("32")),
        ("a".repeat(70_000).as_str(), Value::U8(1)),
    ] {
        let metadata = Metadata::from_entries([(key, value)]).unwrap();
        refuse(&metadata, &[]);
    }
    let deep = (0..5).fold(Array::U8(vec![]), |inner, _| Array::Array(vec![inner]));
    let metadata = Metadata::from_entries([("deep", Value::Array(deep))]).unwrap();
    let fault = refuse(&metadata, &[]);
    assert!(matches!(fault, Fault::OverLimit { .. }), "{fault}");
    assert!(files(folder.path()).is_empty());
}

#[test]
fn an_unfinished_file_is_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model.gguf");
    std::fs::write(&to, "what was there").unwrap();
    let begin = || {
        let tensors = [
            spec("a", GgmlType::F32, &[2]),
            spec("b", GgmlType::F32, &[2]),
        ];
        Writer::create(&to, &Metadata::default(), &tensors).unwrap()
    };
    let wrong = |error, left: usize, given: usize, name: &str| {
        let QuantError::TensorBytes {
            tensor,
            expected,
            found,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((tensor.as_str(), expected, found), (name, left, given));
    };
    // Two at a time, each under a name of its own.
    let (mut one, other) = (begin(), begin());
    assert_eq!(files(folder.path()).len(), 3);
    one.write(&[0; 8]).unwrap();
    one.write(&[0; 3]).unwrap();
    wrong(one.write(&[0; 6]).unwrap_err(), 5, 6, "b");
    wrong(one.finish().unwrap_err(), 5, 0, "b");
    drop(other);
    let mut full = begin();
    full.write(&[0; 8]).unwrap();
    full.write(&[0; 8]).unwrap();
    wrong(full.write(&[0; 1]).unwrap_err(), 0, 1, "b");
    drop(full);
    assert_eq!(files(folder.path()), ["model.gguf"]);
    assert_eq!(std::fs::read(&to).unwrap(), b"what was there");

    for place in [folder.path().join("no/such/model.gguf"), "/".into()] {
        Writer::create(&place, &Metadata::default(), &[]).unwrap_err();
    }
    // A file larger than the system allows leaves nothing, either.
    let huge = [spec("a", GgmlType::F32, &[1 << 40, 1 << 20])];
    let error = Writer::create(&to, &Metadata::default(), &huge).unwrap_err();
    assert!(matches!(error, QuantError::Write { .. }), "{error}");
    assert_eq!(files(folder.path()), ["model.gguf"]);
}
