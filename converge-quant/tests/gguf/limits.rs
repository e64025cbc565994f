//! Large files that state large things: the limits hold memory and time.

use std::fs::File;
use std::path::PathBuf;

use converge_quant::gguf::{Fault, Field};
use converge_quant::{Limits, QuantError};
use tempfile::TempDir;

use crate::builder::{Bytes, code};
use crate::malformed::{open_in_memory, refused_at};

const LARGE: u64 = 8 << 30;

/// The bytes, then zeros up to 8 GiB that take no place on the disk.
fn large(bytes: &Bytes) -> (TempDir, PathBuf) {
    let (directory, path) = bytes.file();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(LARGE).unwrap();
    (directory, path)
}

fn over_header_bytes(bytes: &Bytes) -> bool {
    let (_directory, path) = large(bytes);
    let (_, field, fault) = refused_at(&path, &Limits::default());
    assert_eq!(
        field,
        Field::Value {
            key: "k".to_owned()
        }
    );
    matches!(
        fault,
        Fault::OverLimit {
            limit: "header_bytes",
            ..
        }
    )
}

#[test]
fn values_larger_than_the_header_may_be() {
    let header = || Bytes::header(0, 1);
    assert!(over_header_bytes(
        &header().key("k", code::STRING).u64(1 << 32)
    ));
    for element in [code::U8, code::BOOL, code::U64, code::STRING, code::ARRAY] {
        let bytes = header().array("k", element, 1 << 29);
        assert!(over_header_bytes(&bytes), "element type {element}");
    }
    // A string inside an array.
    let bytes = header().array("k", code::STRING, 2).u64(1 << 32);
    assert!(over_header_bytes(&bytes));
}

/// As much as the limits let through, so that the bound on memory is the real one.
#[test]
fn the_largest_header_stays_within_bounds() {
    // Empty strings, the text of which costs nothing and the lengths everything.
    let count = (32 << 20) / 8 - 100;
    let bytes = Bytes::header(0, 2).array("k", code::STRING, count);
    let (_directory, path) = large(&bytes);
    // The zeros that follow are an entry with an empty key and a value of type 0.
    let gguf = open_in_memory(&path, &Limits::default()).unwrap();
    assert_eq!(gguf.metadata().get_strs("k").unwrap().len() as u64, count);
    drop(gguf);

    let bytes = Bytes::header(0, 2).array("k", code::F32, (32 << 20) / 4 - 100);
    let (_directory, path) = large(&bytes);
    open_in_memory(&path, &Limits::default()).unwrap();
}

#[test]
fn arrays_in_arrays_are_counted() {
    // Two levels of empty arrays of type 0.
    let bytes = Bytes::header(0, 1).array("k", code::ARRAY, 65_537);
    let (_directory, path) = large(&bytes);
    let (offset, _, fault) = refused_at(&path, &Limits::default());
    assert_eq!(offset, 41);
    let expected = Fault::OverLimit {
        limit: "nested_arrays",
        allowed: 65_536,
        found: 65_537,
    };
    assert_eq!(fault, expected);
    let bytes = Bytes::header(0, 1).array("k", code::ARRAY, 65_536);
    let (_directory, path) = large(&bytes);
    open_in_memory(&path, &Limits::default()).unwrap();
}

#[test]
fn the_most_entries_and_tensors_stay_within_bounds() {
    let mut bytes = Bytes::header(65_536, 16_384);
    for entry in 0..16_384 {
        bytes = bytes.key(&format!("key.{entry}"), code::U8).u8(0);
    }
    for tensor in 0..65_536 {
        let name = format!("{tensor:0>200}");
        bytes = bytes.tensor(&name, &[1, 1, 1, 1], 24, tensor * 32);
    }
    let (_directory, path) = large(&bytes.align(32));
    let gguf = open_in_memory(&path, &Limits::default()).unwrap();
    assert_eq!(gguf.tensors().len(), 65_536);
}

#[test]
fn each_limit_can_be_lowered() {
    let (_directory, path) = crate::builder::valid(3).file();
    let default = Limits::default;
    for (name, limits) in [
        (
            "header_bytes",
            Limits {
                header_bytes: 500,
                ..default()
            },
        ),
        (
            "metadata_entries",
            Limits {
                metadata_entries: 15,
                ..default()
            },
        ),
        (
            "tensors",
            Limits {
                tensors: 2,
                ..default()
            },
        ),
        (
            "key_bytes",
            Limits {
                key_bytes: 19,
                ..default()
            },
        ),
        (
            "name_bytes",
            Limits {
                name_bytes: 5,
                ..default()
            },
        ),
        (
            "array_depth",
            Limits {
                array_depth: 1,
                ..default()
            },
        ),
        (
            "nested_arrays",
            Limits {
                nested_arrays: 1,
                ..default()
            },
        ),
        (
            "dimensions",
            Limits {
                dimensions: 1,
                ..default()
            },
        ),
        (
            "alignment",
            Limits {
                alignment: 32,
                ..default()
            },
        ),
    ] {
        match open_in_memory(&path, &limits) {
            Err(QuantError::Malformed {
                fault: Fault::OverLimit { limit, .. },
                ..
            }) => assert_eq!(limit, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}
