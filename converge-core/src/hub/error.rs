use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a model is not there, or is not what it should be. Each message says what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a known name nor something that looks like a path.
    #[error(
        "no model is called `{name}`; known are {}; or give the path of a .gguf file",
        known.join(", ")
    )]
    UnknownModel {
        /// The name as given.
        name: String,
        /// Every name that the catalogue knows.
        known: Vec<&'static str>,
    },
    /// A known model of which a file is not in the cache.
    #[error("{name} is not on this machine: {path} is missing; fetch it with `{command}`")]
    NotFetched {
        /// The model's name.
        name: &'static str,
        /// The missing file.
        path: PathBuf,
        /// The command that fetches the model.
        command: String,
    },
    /// A path that leads nowhere.
    #[error("there is no file {path}; give the path of a .gguf file, or one of {}", known.join(", "))]
    NoSuchFile {
        /// The path as given.
        path: PathBuf,
        /// Every name that the catalogue knows.
        known: Vec<&'static str>,
    },
    /// A file of the wrong length: a download cut short, or another file of that name.
    #[error(
        "{path} has {found} bytes instead of {expected}: it is damaged or was cut short; \
         delete it and fetch it again with `{command}`"
    )]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// Bytes that the catalogue expects.
        expected: u64,
        /// Bytes that it has.
        found: u64,
        /// The command that fetches the model.
        command: String,
    },
    /// A file with the right length and the wrong content.
    #[error(
        "{path} has the SHA-256 {found} instead of {expected}: it is damaged; \
         delete it and fetch its model again with `{command}`"
    )]
    WrongChecksum {
        /// The file.
        path: PathBuf,
        /// SHA-256 that the catalogue expects.
        expected: &'static str,
        /// SHA-256 that it has.
        found: String,
        /// The command that fetches the model.
        command: String,
    },
    /// Neither a home nor a cache directory is known.
    #[error(
        "no cache directory: neither {variable}, XDG_CACHE_HOME nor a home directory is set; \
         set {variable} to the folder that holds the models"
    )]
    NoCacheDir {
        /// The variable that names the cache directory.
        variable: &'static str,
    },
    /// The operating system refused to read the file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
