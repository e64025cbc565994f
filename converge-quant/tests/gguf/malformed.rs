//! One test for each way a file can be wrong: refused with the error that names field and place,
//! in under 50 ms and 64 MB.

use std::path::Path;
use std::time::Duration;

use converge_quant::gguf::{Fault, Field};
use converge_quant::{GgmlType, Gguf, Limits, QuantError, Result};

use crate::builder::{Bytes, code, valid};
use crate::{memory, time};

const MOST_BYTES: usize = 64 << 20;
const MOST_TIME: Duration = Duration::from_millis(50);

/// Opens a file within the bound of memory.
pub(crate) fn open_in_memory(path: &Path, limits: &Limits) -> Result<Gguf> {
    let (result, bytes) = memory::peak(|| Gguf::open_with(path, limits));
    assert!(bytes < MOST_BYTES, "{bytes} bytes");
    result
}

/// Opens a file within the bounds of memory and time.
fn open_bounded(path: &Path, limits: &Limits) -> Result<Gguf> {
    // The best of several runs, for the machine may be busy with other things.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let before = time::spent();
        let result = open_in_memory(path, limits);
        best = best.min(time::spent() - before);
        if best < MOST_TIME {
            return result;
        }
    }
    panic!("{best:?}");
}

/// Offset, field and fault of the refusal.
pub(crate) fn refused_at(path: &Path, limits: &Limits) -> (u64, Field, Fault) {
    match open_bounded(path, limits).expect_err("refused") {
        QuantError::Malformed {
            path: named,
            offset,
            field,
            fault,
        } => {
            assert_eq!(named, path);
            (offset, field, fault)
        }
        other => panic!("not a malformed file: {other:?}"),
    }
}

/// Asserts that the bytes are refused so.
fn refused(bytes: &Bytes, offset: u64, field: Field, fault: Fault) {
    let (_directory, path) = bytes.file();
    let found = refused_at(&path, &Limits::default());
    assert_eq!(found, (offset, field, fault));
}

fn value(key: &str) -> Field {
    Field::Value {
        key: key.to_owned(),
    }
}

fn shape(tensor: &str) -> Field {
    Field::TensorShape {
        tensor: tensor.to_owned(),
    }
}

fn place(tensor: &str) -> Field {
    Field::TensorOffset {
        tensor: tensor.to_owned(),
    }
}

// The file as a whole.

#[test]
fn empty_file() {
    let fault = Fault::Truncated { needed: 4, left: 0 };
    refused(&Bytes::default(), 0, Field::Magic, fault);
}

#[test]
fn directory_and_missing_file() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        Gguf::open(directory.path()),
        Err(QuantError::NotAFile { path }) if path == directory.path()
    ));
    let missing = directory.path().join("missing.gguf");
    assert!(matches!(
        Gguf::open(&missing),
        Err(QuantError::Io { path, source })
            if path == missing && source.kind() == std::io::ErrorKind::NotFound
    ));
}

#[cfg(unix)]
#[test]
fn device() {
    let zero = Path::new("/dev/zero");
    assert!(matches!(
        Gguf::open(zero),
        Err(QuantError::NotAFile { path }) if path == zero
    ));
}

#[test]
fn wrong_magic() {
    for found in [*b"GGML", *b"PK\x03\x04", *b"FUGG", [0; 4], [0xff; 4]] {
        let bytes = Bytes::default().raw(&found).raw(&[0; 100]);
        refused(&bytes, 0, Field::Magic, Fault::BadMagic { found });
    }
}

#[test]
fn wrong_version() {
    for found in [0, 1, 4, 0xffff, 0x0001_0001, u32::MAX] {
        let bytes = Bytes::default().raw(b"GGUF").u32(found).raw(&[0; 100]);
        refused(
            &bytes,
            4,
            Field::Version,
            Fault::UnsupportedVersion { found },
        );
    }
}

#[test]
fn big_endian() {
    let bytes = Bytes::default().raw(b"GGUF").u32(3u32.swap_bytes());
    refused(&bytes, 4, Field::Version, Fault::BigEndian { version: 3 });
}

// Counts.

#[test]
fn more_tensors_than_bytes() {
    let fault = Fault::Truncated {
        needed: 32_000,
        left: 8 + 100,
    };
    let bytes = Bytes::header(1000, 0).raw(&[0; 100]);
    refused(&bytes, 8, Field::TensorCount, fault);
    let fault = Fault::OverLimit {
        limit: "tensors",
        allowed: 65_536,
        found: u64::MAX,
    };
    refused(&Bytes::header(u64::MAX, 0), 8, Field::TensorCount, fault);
}

#[test]
fn more_entries_than_bytes() {
    let fault = Fault::Truncated {
        needed: 13_000,
        left: 100,
    };
    let bytes = Bytes::header(0, 1000).raw(&[0; 100]);
    refused(&bytes, 16, Field::MetadataCount, fault);
    let fault = Fault::OverLimit {
        limit: "metadata_entries",
        allowed: 16_384,
        found: 1 << 63,
    };
    refused(&Bytes::header(0, 1 << 63), 16, Field::MetadataCount, fault);
}

// Metadata.

#[test]
fn key_longer_than_the_file() {
    let bytes = Bytes::header(0, 1).u64(1 << 40).raw(&[b'k'; 20]);
    let fault = Fault::Truncated {
        needed: 1 << 40,
        left: 20,
    };
    refused(&bytes, 24, Field::Key { index: 0 }, fault);
}

#[test]
fn key_longer_than_the_limit() {
    let bytes = Bytes::header(0, 1).key(&"k".repeat(65_536), code::U8).u8(0);
    let fault = Fault::OverLimit {
        limit: "key_bytes",
        allowed: 65_535,
        found: 65_536,
    };
    refused(&bytes, 24, Field::Key { index: 0 }, fault);
}

#[test]
fn key_not_utf8() {
    let bytes = Bytes::header(0, 1)
        .u64(5)
        .raw(b"ab\xffcd")
        .u32(code::U8)
        .u8(0);
    let fault = Fault::NotUtf8 { valid_bytes: 2 };
    refused(&bytes, 32, Field::Key { index: 0 }, fault);
}

#[test]
fn key_twice() {
    let bytes = Bytes::header(0, 3)
        .key("same", code::U8)
        .u8(0)
        .key("other", code::U8)
        .u8(0);
    let at = bytes.len();
    let bytes = bytes.key("same", code::U32).u32(0);
    let fault = Fault::DuplicateKey {
        key: "same".to_owned(),
    };
    refused(&bytes, at, value("same"), fault);
}

#[test]
fn unknown_value_type() {
    for unknown in [13, 255, u32::MAX] {
        let bytes = Bytes::header(0, 1).key("k", unknown).raw(&[0; 8]);
        let fault = Fault::UnknownValueType { code: unknown };
        refused(&bytes, 33, value("k"), fault);
    }
}

#[test]
fn invalid_boolean() {
    let bytes = Bytes::header(0, 1).key("k", code::BOOL).u8(2);
    refused(&bytes, 37, value("k"), Fault::InvalidBool { found: 2 });
    let bytes = Bytes::header(0, 1)
        .array("k", code::BOOL, 3)
        .raw(&[1, 0, 255]);
    let fault = Fault::InvalidBool { found: 255 };
    refused(&bytes, 51, value("k"), fault);
}

#[test]
fn string_longer_than_the_file() {
    for len in [11, 1 << 32, u64::MAX] {
        let bytes = Bytes::header(0, 1).key("k", code::STRING).u64(len);
        let fault = Fault::Truncated {
            needed: len,
            left: 10,
        };
        refused(&bytes.raw(&[b'x'; 10]), 37, value("k"), fault);
    }
}

#[test]
fn string_not_utf8() {
    let bytes = Bytes::header(0, 1).key("k", code::STRING).u64(2);
    let fault = Fault::NotUtf8 { valid_bytes: 0 };
    refused(&bytes.raw(b"\xc0\x80"), 45, value("k"), fault);
}

#[test]
fn string_of_an_array_not_utf8_by_itself() {
    // The two halves of one character: together valid, apart not.
    let bytes = Bytes::header(0, 1)
        .array("k", code::STRING, 2)
        .u64(1)
        .raw(b"\xc3")
        .u64(1)
        .raw(b"\xbc");
    let fault = Fault::NotUtf8 { valid_bytes: 0 };
    refused(&bytes, 57, value("k"), fault);
}

#[test]
fn string_of_an_array_longer_than_the_file() {
    let bytes = Bytes::header(0, 1)
        .array("k", code::STRING, 2)
        .string("one")
        .u64(1 << 60);
    let fault = Fault::Truncated {
        needed: 1 << 60,
        left: 0,
    };
    refused(&bytes, 60, value("k"), fault);
}

#[test]
fn array_longer_than_the_file() {
    for (element, size) in [
        (code::U8, 1),
        (code::U16, 2),
        (code::F32, 4),
        (code::BOOL, 1),
        (code::STRING, 8),
        (code::ARRAY, 12),
        (code::F64, 8),
    ] {
        for count in [101, 1 << 40, u64::MAX] {
            let bytes = Bytes::header(0, 1).array("k", element, count);
            let fault = Fault::Truncated {
                needed: count.saturating_mul(size),
                left: 100,
            };
            // Numbers are refused where they begin, the rest at the count.
            let at = if size >= 8 && element != code::F64 {
                41
            } else {
                49
            };
            refused(&bytes.raw(&[0; 100]), at, value("k"), fault);
        }
    }
}

#[test]
fn array_of_an_unknown_type() {
    let bytes = Bytes::header(0, 1).array("k", 77, 1).raw(&[0; 100]);
    let fault = Fault::UnknownValueType { code: 77 };
    refused(&bytes, 37, value("k"), fault);
    // Even an empty one.
    let bytes = Bytes::header(0, 1).array("k", 77, 0).raw(&[0; 100]);
    let fault = Fault::UnknownValueType { code: 77 };
    refused(&bytes, 37, value("k"), fault);
}

#[test]
fn arrays_nested_too_deep() {
    let mut bytes = Bytes::header(0, 1).key("k", code::ARRAY);
    for _ in 0..100_000 {
        bytes = bytes.u32(code::ARRAY).u64(1);
    }
    let fault = Fault::OverLimit {
        limit: "array_depth",
        allowed: 4,
        found: 5,
    };
    refused(&bytes, 37 + 4 * 12, value("k"), fault);
}

#[test]
fn arrays_nested_too_deep_whatever_the_limit() {
    let mut bytes = Bytes::header(0, 1).key("k", code::ARRAY);
    for _ in 0..1_000_000 {
        bytes = bytes.u32(code::ARRAY).u64(1);
    }
    let (_directory, path) = bytes.file();
    let limits = Limits {
        array_depth: u32::MAX,
        ..Limits::default()
    };
    let fault = Fault::OverLimit {
        limit: "array_depth",
        allowed: 64,
        found: 65,
    };
    let found = refused_at(&path, &limits);
    assert_eq!(found, (37 + 64 * 12, value("k"), fault));
}

#[test]
fn alignment_not_a_power_of_two() {
    for found in [0, 3, 33, u32::MAX] {
        let bytes = Bytes::header(0, 1).key("general.alignment", code::U32);
        let fault = Fault::InvalidAlignment {
            found: found.into(),
        };
        refused(&bytes.u32(found), 24, value("general.alignment"), fault);
    }
}

#[test]
fn alignment_too_large() {
    for found in [1 << 22, 1 << 63] {
        let bytes = Bytes::header(1, 1)
            .key("general.alignment", code::U64)
            .u64(found)
            .tensor("t", &[1], 0, 0);
        let fault = Fault::OverLimit {
            limit: "alignment",
            allowed: 1 << 21,
            found,
        };
        refused(&bytes, 24, value("general.alignment"), fault);
    }
}

#[test]
fn alignment_not_an_integer() {
    let bytes = Bytes::header(0, 1).key("general.alignment", code::F32);
    let fault = Fault::WrongType {
        expected: "an integer of 64 bits, unsigned",
        found: "f32",
    };
    refused(&bytes.f32(32.0), 24, value("general.alignment"), fault);
}

// Tensors.

#[test]
fn tensor_name_longer_than_file_or_limit() {
    let bytes = Bytes::header(1, 0).u64(1000).raw(&[b't'; 100]);
    let fault = Fault::Truncated {
        needed: 1000,
        left: 100,
    };
    refused(&bytes, 24, Field::TensorName { index: 0 }, fault);
    let bytes = Bytes::header(1, 0).tensor(&"t".repeat(257), &[1], 0, 0);
    let fault = Fault::OverLimit {
        limit: "name_bytes",
        allowed: 256,
        found: 257,
    };
    refused(&bytes, 24, Field::TensorName { index: 0 }, fault);
}

#[test]
fn tensor_name_not_utf8() {
    let bytes = Bytes::header(1, 0).u64(2).raw(b"t\x80").raw(&[0; 24]);
    let fault = Fault::NotUtf8 { valid_bytes: 1 };
    refused(&bytes, 32, Field::TensorName { index: 0 }, fault);
}

#[test]
fn no_dimensions() {
    let bytes = Bytes::header(1, 0).tensor("t", &[], 0, 0).raw(&[0; 100]);
    refused(&bytes, 33, shape("t"), Fault::NoDimensions);
}

#[test]
fn too_many_dimensions() {
    let bytes = Bytes::header(1, 0).tensor("t", &[1; 5], 0, 0);
    let fault = |found| Fault::OverLimit {
        limit: "dimensions",
        allowed: 4,
        found,
    };
    refused(&bytes, 33, shape("t"), fault(5));
    let found = u32::MAX;
    let bytes = Bytes::header(1, 0).string("t").u32(found).raw(&[1; 100]);
    refused(&bytes, 33, shape("t"), fault(found.into()));
}

#[test]
fn dimension_of_zero() {
    let bytes = Bytes::header(1, 0).tensor("t", &[32, 0, 1], 0, 0);
    refused(&bytes, 45, shape("t"), Fault::ZeroDimension { index: 1 });
}

#[test]
fn product_of_dimensions_overflows() {
    let bytes = Bytes::header(1, 0).tensor("t", &[1 << 32, 2, 1 << 31], 0, 0);
    refused(&bytes, 53, shape("t"), Fault::SizeOverflow);
    // The elements fit, their bytes do not.
    let bytes = Bytes::header(1, 0).tensor("t", &[1 << 62], 0, 0);
    refused(&bytes, 33, shape("t"), Fault::SizeOverflow);
}

#[test]
fn rows_not_whole_blocks() {
    // 16 x 16 would be a whole block, but its rows are not.
    for (ggml_type, row) in [
        (GgmlType::Q4_0, 16),
        (GgmlType::Q4_K, 16),
        (GgmlType::IQ2_XXS, 128),
        (GgmlType::Q8_0, 33),
    ] {
        let bytes = Bytes::header(1, 0)
            .tensor("t", &[row, 32], ggml_type.code(), 0)
            .align(32)
            .raw(&[0; 4096]);
        let fault = Fault::PartialBlock { ggml_type, row };
        refused(&bytes, 33, shape("t"), fault);
    }
}

#[test]
fn unknown_tensor_type() {
    for unknown in [4, 5, 31, 36, 42, u32::MAX] {
        let bytes = Bytes::header(1, 0).tensor("t", &[32], unknown, 0);
        let field = Field::TensorType {
            tensor: "t".to_owned(),
        };
        let fault = Fault::UnknownTensorType { code: unknown };
        refused(&bytes, 45, field, fault);
    }
}

#[test]
fn offset_not_aligned() {
    let bytes = Bytes::header(1, 0).tensor("t", &[1], 0, 16);
    let fault = Fault::Unaligned {
        offset: 16,
        alignment: 32,
    };
    refused(&bytes.align(32).raw(&[0; 100]), 49, place("t"), fault);
}

#[test]
fn offset_outside_the_file() {
    let bytes = Bytes::header(1, 0).tensor("t", &[4], 0, 64).align(32);
    let data = bytes.len();
    // One byte is missing.
    let bytes = bytes.raw(&[0; 64 + 15]);
    let fault = Fault::OutOfFile {
        end: data + 80,
        len: data + 79,
    };
    refused(&bytes, 49, place("t"), fault);
}

#[test]
fn end_of_a_tensor_overflows() {
    let offset = u64::MAX - 31;
    let bytes = Bytes::header(1, 0).tensor("t", &[4], 0, offset).align(32);
    refused(&bytes.raw(&[0; 64]), 49, place("t"), Fault::SizeOverflow);
}

#[test]
fn tensors_overlap() {
    let bytes = Bytes::header(3, 0).tensor("c", &[1], 0, 64);
    let at = bytes.len() + 9 + 4 + 8 + 4;
    let bytes = bytes
        .tensor("b", &[8], 0, 32)
        .tensor("a", &[9], 0, 0)
        .align(32)
        .raw(&[0; 100]);
    let fault = Fault::Overlap {
        other: "a".to_owned(),
    };
    refused(&bytes, at, place("b"), fault);
}

#[test]
fn tensor_twice() {
    let bytes = Bytes::header(3, 0)
        .tensor("same", &[1], 0, 0)
        .tensor("other", &[1], 0, 32);
    let at = bytes.len();
    let bytes = bytes.tensor("same", &[1], 0, 64).align(32).raw(&[0; 100]);
    let fault = Fault::DuplicateTensor {
        tensor: "same".to_owned(),
    };
    refused(&bytes, at, Field::TensorName { index: 2 }, fault);
}

#[test]
fn a_valid_file_opens_within_the_same_bounds() {
    let (_directory, path) = valid(3).file();
    open_bounded(&path, &Limits::default()).unwrap();
}
