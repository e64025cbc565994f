//! The key-value part of a file.

use std::mem;

use crate::error::{QuantError, Result};

use super::value::{FromValue, Mismatch, Strings, Value};

/// Where the parts of a split file say what they are.
const SPLIT_KEYS: &str = "split.";

/// One key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Value,
    /// Where the entry begins in its file.
    pub(crate) offset: u64,
}

/// The metadata of a file: keys in the file's order, each once.
///
/// Values are had by type: `metadata.get::<u32>("llama.block_count")?`. See [`FromValue`] for the
/// types and for what is converted. [`set`](Metadata::set), [`remove`](Metadata::remove) and
/// [`rename`](Metadata::rename) change them for a file to be [written](super::Writer).
///
/// Equal are those with the same keys and values in the same order, wherever they stood.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<Entry>,
    /// Indices of `entries`, in the order of their keys.
    by_key: Vec<u32>,
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
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
        let at = self.position(key).ok()?;
        Some(&self.entries[self.by_key[at] as usize])
    }

    /// Where in `by_key` a key is, or would be.
    fn position(&self, key: &str) -> Result<usize, usize> {
        let entry = |index: u32| &self.entries[index as usize];
        self.by_key
            .binary_search_by(|&index| entry(index).key.as_str().cmp(key))
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

    /// Gives a key a value: in its place if the key is there, else at the end. The value that it
    /// had is returned.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.position(&key) {
            Ok(at) => {
                let entry = &mut self.entries[self.by_key[at] as usize];
                Some(mem::replace(&mut entry.value, value))
            }
            Err(at) => {
                self.by_key.insert(at, self.entries.len() as u32);
                let offset = 0;
                self.entries.push(Entry { key, value, offset });
                None
            }
        }
    }

    /// Takes a key and its value out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.position(key).ok()?;
        let index = self.by_key.remove(at);
        for other in self.by_key.iter_mut().filter(|other| **other > index) {
            *other -= 1;
        }
        Some(self.entries.remove(index as usize).value)
    }

    /// Gives the value of `from` the key `to`, in its place.
    ///
    /// # Errors
    /// [`QuantError::MissingKey`] if there is no `from`, [`QuantError::DuplicateKey`] if `to` is
    /// there already.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let at = self.position(from).map_err(|_| QuantError::MissingKey {
            key: from.to_owned(),
        })?;
        if from == to {
            return Ok(());
        }
        let Err(mut new) = self.position(to) else {
            return Err(QuantError::DuplicateKey { key: to.to_owned() });
        };
        let index = self.by_key.remove(at);
        if new > at {
            new -= 1;
        }
        self.by_key.insert(new, index);
        to.clone_into(&mut self.entries[index as usize].key);
        Ok(())
    }

    /// Without what only a part of a split file says.
    pub(crate) fn without_split(mut self) -> Self {
        let keys = self.iter().map(|(key, _)| key.to_owned());
        let split: Vec<String> = keys.filter(|key| key.starts_with(SPLIT_KEYS)).collect();
        for key in split {
            self.remove(&key);
        }
        self
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
