//! A folder of snapshots: beginnings of prompts that outlive the process.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use converge_quant::{
    QuantError,
    folder::{Entry, Folder},
};
use sha2::{Digest as _, Sha256};

use super::{
    Arena, KvCache, SnapshotError, Transcript, common,
    snapshot::{hex, peek},
};
use crate::{CoreError, Result, TokenId};

/// How files of a store end.
const ENDING: &str = "kv";

/// A folder of sequences, one workspace's own, found by what a prompt begins with.
///
/// It holds private text: the folder and its files are for their owner alone, nothing goes into it
/// unless asked for, [`entries`](Self::entries) lists what is there and [`purge`](Self::purge)
/// removes it.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Folder,
}

impl Store {
    /// The folder, made where it is not there. Its files take at most `limit` bytes; the least
    /// recently used go first.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] where the folder cannot be made.
    pub fn new(folder: &Path, limit: u64) -> Result<Self> {
        let folder = Folder::new(folder, ENDING, limit);
        folder.make().map_err(io_error)?;
        Ok(Self { folder })
    }

    /// What is there, the most recently used first.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.folder.entries().map_err(io_error)
    }

    /// Removes every file; says how many there were.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] for the first that cannot be removed.
    pub fn purge(&self) -> Result<usize> {
        self.folder.purge().map_err(io_error)
    }

    /// Keeps a sequence; one with the same tokens is replaced.
    pub(crate) fn keep(&self, cache: &KvCache, tokens: &[TokenId]) -> Result<()> {
        let mut hash = Sha256::new();
        hash.update(cache.arena().model());
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        let mut name = hex(&hash.finalize());
        name.truncate(32);
        let path = self.folder.file(&name);
        let transcript = Transcript {
            tokens: tokens.to_vec(),
            ..Transcript::default()
        };
        cache.save(&path, &transcript)?;
        self.folder.trim().map_err(io_error)
    }

    /// The file whose cache has the most tokens in common with the beginning of `prompt`, and how
    /// many. What cannot be read is passed over with a warning: the prompt is then computed.
    pub(crate) fn longest(&self, arena: &Arena, prompt: &[TokenId]) -> Option<(usize, PathBuf)> {
        let warn = |path: &Path, error: &CoreError| {
            tracing::warn!(path = %path.display(), %error, "a stored beginning is passed over");
        };
        let entries = match self.entries() {
            Ok(entries) => entries,
            Err(error) => {
                warn(self.folder.path(), &error);
                return None;
            }
        };
        let length = |entry: Entry| match peek(arena, &entry.path) {
            Ok(Some((transcript, held))) => {
                let same = common(&transcript.tokens, prompt).min(held);
                Some((same, entry.path))
            }
            Ok(None) => None,
            Err(error) => {
                warn(&entry.path, &error);
                None
            }
        };
        let lengths = entries.into_iter().filter_map(length);
        lengths
            .max_by_key(|(same, _)| *same)
            .filter(|(same, _)| *same > 0)
    }

    /// Takes up a file that [`longest`](Self::longest) named; `None`, with a warning, where it cannot
    /// be used.
    pub(crate) fn open(arena: &Arc<Arena>, path: &Path) -> Option<KvCache> {
        match KvCache::open(arena, path) {
            Ok((cache, _)) => {
                Folder::touch(path);
                Some(cache)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a stored beginning is passed over");
                None
            }
        }
    }
}

/// What goes wrong in the folder is told as of a snapshot.
fn io_error(error: QuantError) -> CoreError {
    match error {
        QuantError::Io { path, source } => SnapshotError::Io { path, source }.into(),
        other => other.into(),
    }
}
