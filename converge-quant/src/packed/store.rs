//! The folder of files of packed weights.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    file::{Fault, Header, PackedFile},
    key::Key,
};
use crate::{Result, folder::Folder, gguf::Source};

/// How files of packed weights end.
const ENDING: &str = "tiles";

/// How a file of packed weights is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PackedMode {
    /// Read into memory of the process, every byte checked. A file that changes or shrinks meanwhile
    /// costs a warning: the model is packed then.
    #[default]
    Read,
    /// Mapped, read only: processes that use the same model share one copy, which the system may
    /// drop and read again. Every byte is checked when the model is loaded.
    ///
    /// **Hazard**: if any program cuts the file short while it is mapped, the system ends this process
    /// (SIGBUS), and what is written into it changes the weights of a running model. Files of a
    /// [`PackedStore`] are only ever replaced by whole ones; the mode is for folders that no other
    /// program writes to, on disks of this machine.
    Map,
}

/// A folder of packed weights, a file a model, so that a model need not be packed again each time
/// that it is loaded.
///
/// A file takes about as many bytes as the model's own. It is used while path, size, time and header
/// of the model's files are those that it was made of, and while its checksums are right; else the
/// model is packed and the file is replaced. What cannot be written or read is a warning
/// (`tracing`), never an error. The folder and its files are for their owner alone.
#[derive(Clone, Debug)]
pub struct PackedStore {
    folder: Folder,
    mode: PackedMode,
}

/// A file of a [`PackedStore`].
#[derive(Clone, Debug)]
pub struct PackedEntry {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was written or last used.
    pub used: SystemTime,
    /// The files that it was made of, with the SHA-256 that each had then; none where its header
    /// cannot be read.
    pub sources: Vec<(PathBuf, [u8; 32])>,
}

impl PackedStore {
    /// Bytes that the files of a folder take at most, unless told otherwise.
    pub const LIMIT: u64 = 32 << 30;

    /// The folder at `path`, which is made when something is to be written.
    #[must_use]
    pub fn new(path: &Path, mode: PackedMode) -> Self {
        Self {
            folder: Folder::new(path, ENDING, Self::LIMIT),
            mode,
        }
    }

    /// With at most so many bytes in the folder: the least recently used files go. A model that
    /// takes more is not kept.
    #[must_use]
    pub fn with_limit(mut self, bytes: u64) -> Self {
        self.folder = Folder::new(self.folder.path(), ENDING, bytes);
        self
    }

    /// How files are used.
    #[must_use]
    pub fn mode(&self) -> PackedMode {
        self.mode
    }

    /// What is there, the most recently used first; nothing where there is no folder.
    ///
    /// # Errors
    /// [`QuantError::Io`](crate::QuantError::Io).
    pub fn entries(&self) -> Result<Vec<PackedEntry>> {
        let entries = self.folder.entries()?.into_iter();
        let with_sources = entries.map(|entry| {
            let header = Source::open(&entry.path).map_err(Fault::from);
            let header = header.and_then(|source| Header::read(&source));
            let sources = header.map_or_else(
                |_| Vec::new(),
                |(header, _)| {
                    let paths = header.key.parts.into_iter().map(|part| part.path.into());
                    paths.zip(header.digests).collect()
                },
            );
            PackedEntry {
                path: entry.path,
                bytes: entry.bytes,
                used: entry.used,
                sources,
            }
        });
        Ok(with_sources.collect())
    }

    /// Removes every file; says how many there were. Models that have one mapped keep it.
    ///
    /// # Errors
    /// [`QuantError::Io`](crate::QuantError::Io) for the first that cannot be removed.
    pub fn purge(&self) -> Result<usize> {
        self.folder.purge()
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The file of a model, where there is one that can be used.
    pub(super) fn find(&self, key: &Key) -> Option<PackedFile> {
        let path = self.folder.file(&key.name());
        if !path.exists() {
            return None;
        }
        match PackedFile::open(&path, key, self.mode) {
            Ok(file) => {
                Folder::touch(&path);
                Some(file)
            }
            Err(fault) => {
                passed_over(&path, &fault);
                None
            }
        }
    }
}

/// Tells that a file is not used.
pub(super) fn passed_over(path: &Path, fault: &Fault) {
    tracing::warn!(path = %path.display(), %fault, "a file of packed weights is passed over");
}
