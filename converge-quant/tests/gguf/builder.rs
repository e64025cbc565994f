//! Builds GGUF files byte by byte, right or wrong.

use std::path::PathBuf;

use tempfile::TempDir;

/// Codes of value types.
pub(crate) mod code {
    pub(crate) const U8: u32 = 0;
    pub(crate) const I8: u32 = 1;
    pub(crate) const U16: u32 = 2;
    pub(crate) const I16: u32 = 3;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
    pub(crate) const U64: u32 = 10;
    pub(crate) const I64: u32 = 11;
    pub(crate) const F64: u32 = 12;
}

/// The bytes of a file as far as they are written.
#[derive(Clone, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// Magic, version 3, counts.
    pub(crate) fn header(tensors: u64, entries: u64) -> Self {
        Self::default()
            .raw(b"GGUF")
            .u32(3)
            .u64(tensors)
            .u64(entries)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn f32(self, value: f32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    /// Length and text.
    pub(crate) fn string(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// A key and the type of the value that must follow.
    pub(crate) fn key(self, key: &str, code: u32) -> Self {
        self.string(key).u32(code)
    }

    /// A key and the head of an array whose elements must follow.
    pub(crate) fn array(self, key: &str, code: u32, count: u64) -> Self {
        self.key(key, code::ARRAY).u32(code).u64(count)
    }

    /// A tensor's description; `ne` is the file's order, row length first.
    pub(crate) fn tensor(self, name: &str, ne: &[u64], ggml_type: u32, offset: u64) -> Self {
        let mut bytes = self.string(name).u32(ne.len() as u32);
        for &dimension in ne {
            bytes = bytes.u64(dimension);
        }
        bytes.u32(ggml_type).u64(offset)
    }

    /// Zeros up to a multiple of `alignment`, where the tensor data begins.
    pub(crate) fn align(mut self, alignment: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self
    }

    /// A file of its own directory.
    pub(crate) fn file(&self) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        std::fs::write(&path, &self.0).unwrap();
        (directory, path)
    }
}

/// A small file with every value type and three tensors, one of them quantized.
pub(crate) fn valid(version: u32) -> Bytes {
    Bytes::default()
        .raw(b"GGUF")
        .u32(version)
        .u64(3)
        .u64(16)
        .key("general.architecture", code::STRING)
        .string("llama")
        .key("a.u8", code::U8)
        .u8(200)
        .key("a.i8", code::I8)
        .raw(&(-3i8).to_le_bytes())
        .key("a.u16", code::U16)
        .raw(&40_000u16.to_le_bytes())
        .key("a.i16", code::I16)
        .raw(&(-300i16).to_le_bytes())
        .key("a.u32", code::U32)
        .u32(3_000_000_000)
        .key("a.i32", code::I32)
        .raw(&(-70_000i32).to_le_bytes())
        .key("a.f32", code::F32)
        .f32(1.5)
        .key("a.bool", code::BOOL)
        .u8(1)
        .key("a.u64", code::U64)
        .u64(u64::MAX)
        .key("a.i64", code::I64)
        .raw(&i64::MIN.to_le_bytes())
        .key("a.f64", code::F64)
        .raw(&0.25f64.to_le_bytes())
        .array("words", code::STRING, 3)
        .string("grüß")
        .string("")
        .string("dich")
        .array("flags", code::BOOL, 2)
        .u8(0)
        .u8(1)
        .array("nested", code::ARRAY, 2)
        .u32(code::U32)
        .u64(2)
        .u32(7)
        .u32(8)
        .u32(code::STRING)
        .u64(1)
        .string("x")
        .key("general.alignment", code::U32)
        .u32(64)
        .tensor("matrix", &[2, 3], 0, 128)
        .tensor("vector", &[4], 0, 0)
        .tensor("blocks", &[32, 2], 2, 64)
        .align(64)
        .f32(1.0)
        .f32(2.0)
        .f32(3.0)
        .f32(4.0)
        .align(64)
        .raw(&[0xa5; 36])
        .align(64)
        .f32(10.0)
        .f32(11.0)
        .f32(20.0)
        .f32(21.0)
        .f32(30.0)
        .f32(31.0)
}
