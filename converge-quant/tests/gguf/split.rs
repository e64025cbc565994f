//! Files in several parts.

use std::path::{Path, PathBuf};

use converge_quant::gguf::{Fault, Field};
use converge_quant::{Gguf, Limits, QuantError};
use tempfile::TempDir;

use crate::builder::{Bytes, code};
use crate::malformed::refused_at;

/// What the keys of a part say.
#[derive(Clone, Copy)]
struct Says {
    number: u32,
    count: u32,
    tensors: u32,
}

/// A part with one tensor `t<number>` that holds the part's number.
fn part(number: u32, says: Says) -> Bytes {
    named_part(&format!("t{number}"), number, says)
}

fn named_part(tensor: &str, number: u32, says: Says) -> Bytes {
    Bytes::header(1, 4)
        .key("split.no", code::U16)
        .raw(&(says.number as u16).to_le_bytes())
        .key("split.count", code::U16)
        .raw(&(says.count as u16).to_le_bytes())
        .key("split.tensors.count", code::I32)
        .u32(says.tensors)
        .key("part", code::U32)
        .u32(number)
        .tensor(tensor, &[2], 0, 0)
        .align(32)
        .f32(number as f32)
        .f32(0.5)
}

fn right(number: u32) -> Says {
    Says {
        number,
        count: 3,
        tensors: 3,
    }
}

fn name(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("model-q4_k_m-{:05}-of-00003.gguf", number + 1))
}

/// A right set of three, with one part replaced, or removed.
fn set(replaced: u32, by: Option<&Bytes>) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let path = name(directory.path(), number);
        if number != replaced {
            std::fs::write(path, part(number, right(number)).0).unwrap();
        } else if let Some(by) = by {
            std::fs::write(path, &by.0).unwrap();
        }
    }
    directory
}

/// The refusal of a set whose first part is opened; the fault must be in part `at`.
fn refused(directory: &TempDir, at: u32) -> (Field, Fault) {
    match Gguf::open(name(directory.path(), 0)).expect_err("refused") {
        QuantError::Malformed {
            path, field, fault, ..
        } => {
            assert_eq!(path, name(directory.path(), at));
            (field, fault)
        }
        other => panic!("not a malformed part: {other:?}"),
    }
}

fn value(key: &str) -> Field {
    Field::Value {
        key: key.to_owned(),
    }
}

#[test]
fn any_part_opens_the_whole() {
    let directory = set(3, None);
    for opened in 0..3 {
        let gguf = Gguf::open(name(directory.path(), opened)).unwrap();
        assert_eq!(gguf.path(), name(directory.path(), 0));
        assert_eq!(gguf.paths().len(), 3);
        assert_eq!(gguf.metadata().get::<u32>("part").unwrap(), 0);
        assert_eq!(gguf.tensors().len(), 3);
        let files = gguf.paths().map(|path| std::fs::metadata(path).unwrap());
        assert_eq!(gguf.file_bytes(), files.map(|file| file.len()).sum::<u64>());
        for number in 0..3 {
            let info = gguf.tensor(&format!("t{number}")).unwrap();
            assert_eq!(info.part(), number);
            let bytes = gguf.read(info).unwrap();
            assert_eq!(bytes[..4], (number as f32).to_le_bytes());
        }
    }
}

#[test]
fn a_merged_file_is_no_set() {
    for count in [0, 1] {
        let says = Says {
            number: 0,
            count,
            tensors: 1,
        };
        let (_directory, path) = part(0, says).file();
        assert_eq!(Gguf::open(path).unwrap().tensors().len(), 1);
    }
}

#[test]
fn missing_part() {
    for missing in 1..3 {
        let directory = set(missing, None);
        assert!(matches!(
            Gguf::open(name(directory.path(), 0)),
            Err(QuantError::MissingPart { path, parts: 3 })
                if path == name(directory.path(), missing)
        ));
    }
}

#[test]
fn the_same_part_twice() {
    let directory = set(2, Some(&part(1, right(1))));
    let fault = Fault::Mismatch {
        expected: 2,
        found: 1,
    };
    assert_eq!(refused(&directory, 2), (value("split.no"), fault));
}

#[test]
fn part_of_another_set() {
    let says = Says {
        count: 4,
        ..right(1)
    };
    let directory = set(1, Some(&part(1, says)));
    let fault = Fault::Mismatch {
        expected: 3,
        found: 4,
    };
    assert_eq!(refused(&directory, 1), (value("split.count"), fault));
}

#[test]
fn number_beyond_the_count() {
    let directory = set(0, Some(&part(0, right(3))));
    let fault = Fault::Mismatch {
        expected: 2,
        found: 3,
    };
    assert_eq!(refused(&directory, 0), (value("split.no"), fault));
}

#[test]
fn tensors_missing_from_the_set() {
    for number in 0..3 {
        let says = Says {
            tensors: 4,
            ..right(number)
        };
        let directory = set(number, Some(&part(number, says)));
        let fault = Fault::Mismatch {
            expected: 3,
            found: 4,
        };
        let expected = (value("split.tensors.count"), fault);
        assert_eq!(refused(&directory, number), expected);
    }
}

#[test]
fn tensor_in_two_parts() {
    let directory = set(2, Some(&named_part("t0", 2, right(2))));
    let fault = Fault::DuplicateTensor {
        tensor: "t0".to_owned(),
    };
    assert_eq!(refused(&directory, 2).1, fault);
}

#[test]
fn part_that_does_not_know_its_set() {
    let bytes = Bytes::header(0, 1).key("part", code::U32).u32(1);
    let directory = set(1, Some(&bytes));
    let expected = (value("split.count"), Fault::MissingKey);
    assert_eq!(refused(&directory, 1), expected);
    let bytes = Bytes::header(0, 1).key("split.count", code::U16);
    let directory = set(0, Some(&bytes.raw(&[3, 0])));
    let expected = (value("split.no"), Fault::MissingKey);
    assert_eq!(refused(&directory, 0), expected);
}

#[test]
fn split_keys_of_the_wrong_type() {
    let bytes = Bytes::header(0, 1).key("split.count", code::STRING);
    let (_directory, path) = bytes.string("3").file();
    let (offset, field, fault) = refused_at(&path, &Limits::default());
    assert_eq!((offset, field), (24, value("split.count")));
    assert!(matches!(
        fault,
        Fault::WrongType {
            found: "string",
            ..
        }
    ));
}

#[test]
fn part_under_another_name() {
    let (_directory, path) = part(1, right(1)).file();
    assert!(matches!(
        Gguf::open(&path),
        Err(QuantError::PartName { path: named, expected })
            if named == path && expected == "-00002-of-00003.gguf"
    ));
    // A name that says another number.
    let directory = set(0, Some(&part(1, right(1))));
    assert!(matches!(
        Gguf::open(name(directory.path(), 0)),
        Err(QuantError::PartName { .. })
    ));
}

#[test]
fn too_many_parts() {
    let says = Says {
        number: 0,
        count: 60_000,
        tensors: 1,
    };
    let (_directory, path) = part(0, says).file();
    let (_, field, fault) = refused_at(&path, &Limits::default());
    assert_eq!(field, value("split.count"));
    let expected = Fault::OverLimit {
        limit: "parts",
        allowed: 512,
        found: 60_000,
    };
    assert_eq!(fault, expected);
}

#[test]
fn the_limit_on_tensors_holds_for_the_set() {
    let directory = set(3, None);
    let limits = Limits {
        tensors: 2,
        ..Limits::default()
    };
    assert!(matches!(
        Gguf::open_with(name(directory.path(), 0), &limits),
        Err(QuantError::Malformed {
            path,
            fault: Fault::OverLimit { limit: "tensors", .. },
            ..
        }) if path == name(directory.path(), 2)
    ));
}
