//! JSON files, with errors that name file and field.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{QuantError, Result};

use super::FolderFault;

/// Bytes of a JSON file that are read at most; vocabularies have about 20 million.
const MOST_BYTES: u64 = 256 << 20;

/// A JSON file.
#[derive(Debug)]
pub(super) struct Json {
    path: PathBuf,
    root: Value,
}

impl Json {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let io = |source| QuantError::Io {
            path: path.to_owned(),
            source,
        };
        let found = fs::metadata(path).map_err(io)?.len();
        if found > MOST_BYTES {
            let expected = MOST_BYTES;
            return Err(fault(path, "size", FolderFault::Size { expected, found }));
        }
        let bytes = fs::read(path).map_err(io)?;
        let root = serde_json::from_slice(&bytes).map_err(|error| {
            let message = error.to_string();
            fault(path, "JSON", FolderFault::Syntax { message })
        })?;
        Ok(Self {
            path: path.to_owned(),
            root,
        })
    }

    /// `None` if there is no such file.
    pub(super) fn find(path: &Path) -> Result<Option<Self>> {
        match path.exists() {
            true => Self::read(path).map(Some),
            false => Ok(None),
        }
    }

    /// The value at a path of keys with dots between; nothing where it is null.
    pub(super) fn at(&self, field: &str) -> Option<&Value> {
        let mut value = &self.root;
        for key in field.split('.') {
            value = value.get(key)?;
        }
        Some(value).filter(|value| !value.is_null())
    }

    pub(super) fn error(&self, field: &str, fault: FolderFault) -> QuantError {
        self::fault(&self.path, field, fault)
    }

    fn typed<'a, T>(
        &'a self,
        field: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.at(field) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| {
            let found = value.to_string().chars().take(60).collect();
            self.error(field, FolderFault::WrongType { expected, found })
        })
    }

    pub(super) fn need<T>(&self, field: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| self.error(field, FolderFault::Missing))
    }

    pub(super) fn integer(&self, field: &str) -> Result<Option<u32>> {
        let read = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        self.typed(field, "an integer of 32 bits, unsigned", read)
    }

    pub(super) fn float(&self, field: &str) -> Result<Option<f32>> {
        self.typed(field, "a number", |value| value.as_f64().map(|x| x as f32))
    }

    pub(super) fn boolean(&self, field: &str) -> Result<Option<bool>> {
        self.typed(field, "a boolean", Value::as_bool)
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&str>> {
        self.typed(field, "a text", Value::as_str)
    }

    pub(super) fn object(&self, field: &str) -> Result<Option<&serde_json::Map<String, Value>>> {
        self.typed(field, "an object", Value::as_object)
    }

    pub(super) fn list(&self, field: &str) -> Result<Option<&Vec<Value>>> {
        self.typed(field, "a list", Value::as_array)
    }
}

/// An error about a field of a file.
pub(super) fn fault(path: &Path, field: &str, fault: FolderFault) -> QuantError {
    QuantError::Folder {
        path: path.to_owned(),
        field: field.to_owned(),
        fault,
    }
}
