//! A folder of snapshots: beginnings of prompts that outlive the process.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
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
    folder: PathBuf,
    limit: u64,
}

/// A file of a [`Store`].
#[derive(Clone, Debug)]
pub struct StoreEntry {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was written or last used.
    pub used: SystemTime,
}

impl Store {
    /// The folder, made where it is not there. Its files take at most `limit` bytes; the least
    /// recently used go first.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] where the folder cannot be made.
    pub fn new(folder: &Path, limit: u64) -> Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let folder = folder.to_owned();
        builder.create(&folder).map_err(|e| io_error(&folder, e))?;
        Ok(Self { folder, limit })
    }

    /// What is there, the most recently used first.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn entries(&self) -> Result<Vec<StoreEntry>> {
        let io = |e| io_error(&self.folder, e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            // Another process may have removed it.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            entries.push(StoreEntry {
                path,
                bytes: metadata.len(),
                used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        entries.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.path.cmp(&b.path)));
        Ok(entries)
    }

    /// Removes every file; says how many there were.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] for the first that cannot be removed.
    pub fn purge(&self) -> Result<usize> {
        let entries = self.entries()?;
        for entry in &entries {
            fs::remove_file(&entry.path).map_err(|e| io_error(&entry.path, e))?;
        }
        Ok(entries.len())
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
        let path = self.folder.join(name).with_extension(ENDING);
        let transcript = Transcript {
            tokens: tokens.to_vec(),
            ..Transcript::default()
        };
        cache.save(&path, &transcript)?;
        let mut total = 0u64;
        for entry in self.entries()? {
            total = total.saturating_add(entry.bytes);
            if total > self.limit {
                fs::remove_file(&entry.path).map_err(|e| io_error(&entry.path, e))?;
            }
        }
        Ok(())
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
                warn(&self.folder, &error);
                return None;
            }
        };
        let length = |entry: StoreEntry| match peek(arena, &entry.path) {
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
                // Only the order in which files go depends on it.
                let _ = fs::File::open(path).and_then(|f| f.set_modified(SystemTime::now()));
                Some(cache)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a stored beginning is passed over");
                None
            }
        }
    }
}

fn io_error(path: &Path, source: io::Error) -> CoreError {
    SnapshotError::Io {
        path: path.to_owned(),
        source,
    }
    .into()
}
