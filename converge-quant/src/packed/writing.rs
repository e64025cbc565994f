//! Files of packed weights are written in the background.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    Packed,
    file::{Header, Slot},
    key::Key,
};
use crate::{
    Gguf, QuantError, cores,
    folder::{Folder, NewFile},
    gguf::Source,
};

/// A file of packed weights that is being written, by a thread of the lowest priority.
///
/// Dropped before it is complete, the thread ends within some megabytes and leaves nothing behind.
/// Where a process ends without that, an unfinished file is left under a name that no one reads; the
/// next one that writes to the folder removes it.
#[derive(Debug)]
pub struct PackedWriting {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why nothing was written.
#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Quant(#[from] QuantError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{bytes} bytes are more than the {limit} that the folder may take")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the model's file has changed since it was opened")]
    Changed,
}

impl PackedWriting {
    /// Begins to write what was loaded of `gguf` while it was as `key` says.
    pub(super) fn begin(
        folder: Folder,
        key: Key,
        gguf: &Gguf,
        matrices: Vec<(Slot, Packed)>,
    ) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sources: Vec<PathBuf> = gguf.paths().map(ToOwned::to_owned).collect();
        let write = move || {
            cores::stand_back();
            let mut go_on = || !stopped.load(Ordering::Relaxed);
            if let Err(error) = write(&folder, &key, &sources, &matrices, &mut go_on) {
                let folder = folder.path().display();
                tracing::warn!(%folder, %error, "packed weights are not kept");
            }
        };
        let thread = thread::Builder::new().name("converge-packed".to_owned());
        match thread.spawn(write) {
            Ok(thread) => Some(Self {
                stop,
                thread: Mutex::new(Some(thread)),
            }),
            Err(error) => {
                tracing::warn!(%error, "packed weights are not kept");
                None
            }
        }
    }

    /// Returns when the file is complete, or could not be written.
    pub fn wait(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It has nothing to say: what fails is a warning.
            let _ = thread.join();
        }
    }
}

impl Drop for PackedWriting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wait();
    }
}

fn write(
    folder: &Folder,
    key: &Key,
    sources: &[PathBuf],
    matrices: &[(Slot, Packed)],
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), Failed> {
    let unhashed = vec![[0; 32]; sources.len()];
    let bytes = Header::new(key.clone(), unhashed, matrices).file_bytes();
    let limit = folder.limit();
    if bytes > limit {
        return Err(Failed::TooLarge { bytes, limit });
    }
    folder.make()?;
    folder.trim()?;
    let mut digests = Vec::with_capacity(sources.len());
    for path in sources {
        let Some(digest) = digest(path, go_on)? else {
            return Ok(());
        };
        digests.push(digest);
    }
    let new = NewFile::private(&folder.file(&key.name()))?;
    let header = Header::new(key.clone(), digests, matrices);
    if !header.write(matrices, new.file(), go_on)? {
        return Ok(());
    }
    // What was read while it changed may be of neither version.
    let mut parts = key.parts.iter().zip(sources);
    if !parts.all(|(part, path)| part.holds(path)) {
        return Err(Failed::Changed);
    }
    new.finish()?;
    folder.trim()?;
    Ok(())
}

/// The SHA-256 of a file; `None` where it was stopped.
fn digest(path: &Path, go_on: &mut dyn FnMut() -> bool) -> Result<Option<[u8; 32]>, Failed> {
    let source = Source::open(path)?;
    let mut hash = Sha256::new();
    let all = source.pieces(source.len(), &mut |piece| {
        hash.update(piece);
        go_on()
    })?;
    Ok(all.then(|| hash.finalize().into()))
}
