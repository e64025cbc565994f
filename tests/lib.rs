//! What the tests of the whole workspace share: models that come by themselves, and the folder of
//! the conformance data.

pub mod bfcl;
mod templates;

use std::path::{Path, PathBuf};

pub use templates::{TemplateFile, chat_templates};

/// The file of a model of the catalogue, fetched into the cache if it is not there yet.
///
/// # Panics
/// If it can be neither found nor fetched, with what to do about it.
#[must_use]
pub fn model(name: &str) -> PathBuf {
    match converge_examples::models::ensure(name) {
        Ok(path) => path,
        Err(error) => panic!("{error:#}"),
    }
}

/// The conformance data of that kind (`tokenizer`, `chat`, `logits`): in the folder that
/// `CONVERGE_CONFORMANCE` names, else in `data/conformance` of this package.
#[must_use]
pub fn conformance(kind: &str) -> PathBuf {
    let root = match std::env::var_os("CONVERGE_CONFORMANCE").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("data/conformance"),
    };
    root.join(kind)
}
