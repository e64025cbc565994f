//! The key-value part of a file.

use crate::error::{QuantError, Result};

use super::value::{FromValue, Mismatch, Strings, Value};

/// One key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Value,
    /// Where the entry begins in its file.
    pub(crate) offset: u64,
}

/// The metadata of a file: keys in the file's order, each once.
///
/// Values are had by type: `metadata.get::<u32>("llama.block_count")?`. See [`FromValue`] for the
/// types and for what is converted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<Entry>,
    /// Indices of `entries`, in the order of their keys.
    by_key: Vec<u32>,
}

impl Metadata {
    /// Metadata that comes from no file, for tests and for writers.
    ///
    /// # Errors
    /// [`QuantError::DuplicateKey`] if a key occurs twice.
    pub fn from_entries<K: Into<String>>(
        entries: impl IntoIterator<Item = (K, Value)>,
    ) -> Result<Self> {
        let entries = entries.into_iter().map(|(key, value)| Entry {
            key: key.into(),
            value,
            offset: 0,
        });
        Self::new(entries.collect()).map_err(|twice| QuantError::DuplicateKey { key: twice.key })
    }

    /// # Errors
    /// The later of two entries with the same key.
    pub(crate) fn new(mut entries: Vec<Entry>) -> Result<Self, Entry> {
        let mut by_key: Vec<u32> = (0..entries.len() as u32).collect();
        by_key.sort_by(|&a, &b| entries[a as usize].key.cmp(&entries[b as usize].key));
        let twice = by_key
            .windows(2)
            .find(|two| entries[two[0] as usize].key == entries[two[1] as usize].key);
        match twice {
            // The sort is stable, so the later one comes second.
            Some(two) => Err(entries.swap_remove(two[1] as usize)),
            None => Ok(Self { entries, by_key }),
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        let entry = |index: u32| &self.entries[index as usize];
        self.by_key
            .binary_search_by(|&index| entry(index).key.as_str().cmp(key))
            .ok()
            .map(|at| entry(self.by_key[at]))
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// [`QuantError::MissingKey`], [`QuantError::WrongType`] or [`QuantError::OutOfRange`].
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.find(key)?.ok_or_else(|| QuantError::MissingKey {
            key: key.to_owned(),
        })
    }

    /// The value of a key that may be missing.
    ///
    /// # Errors
    /// [`QuantError::WrongType`] or [`QuantError::OutOfRange`].
    pub fn find<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(Entry { value, .. }) = self.entry(key) else {
            return Ok(None);
        };
        let error = |mismatch| {
            let key = key.to_owned();
            match mismatch {
                Mismatch::Type => QuantError::WrongType {
                    key,
                    expected: T::EXPECTED,
                    found: value.type_name(),
                },
                Mismatch::Range { found } => QuantError::OutOfRange {
                    key,
                    expected: T::EXPECTED,
                    found,
                },
            }
        };
        T::from_value(value).map(Some).map_err(error)
    }

    /// The strings of a key that must be there, without a copy.
    ///
    /// # Errors
    /// [`QuantError::MissingKey`] or [`QuantError::WrongType`].
    pub fn get_strs(&self, key: &str) -> Result<&Strings> {
        self.get(key)
    }

    /// The value of a key, whatever its type.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Keys and values in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|entry| (entry.key.as_str(), &entry.value))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
