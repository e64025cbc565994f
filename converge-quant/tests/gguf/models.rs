//! The real models that tests run on.

use std::path::PathBuf;

/// File names of the GGUF models.
pub(crate) const MODELS: [&str; 4] = [
    "smollm2-135m-instruct-q4_1.gguf",
    "gemma-3-270m-q4_k_m.gguf",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
];

/// Where a model is; fails with the words to fetch it where it is not.
pub(crate) fn path(file: &str) -> PathBuf {
    let cache = std::env::var_os("CONVERGE_MODELS").map_or_else(
        || {
            let home = std::env::var_os("HOME").expect("HOME is set");
            PathBuf::from(home).join(".cache/converge/models")
        },
        PathBuf::from,
    );
    let path = cache.join(file);
    assert!(
        path.is_file(),
        "{} is missing: `cargo run --release --example fetch -- --all` puts the models there",
        path.display()
    );
    path
}
