use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Entry, HubError, catalogue, find};

/// The environment variable that names the cache directory.
pub const CACHE_VARIABLE: &str = "CONVERGE_MODELS";

/// The environment variable that names the folder of packed weights.
pub const PACKED_VARIABLE: &str = "CONVERGE_PACKED";

/// A model that lies on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The GGUF file (the first one of a split set), or the folder of files.
    pub path: PathBuf,
    /// What the catalogue knows of it; `None` for a path of the user's own.
    pub entry: Option<&'static Entry>,
}

/// The directory that holds the models: `CONVERGE_MODELS`, else `converge/models` in
/// `XDG_CACHE_HOME`, else in `.cache` of the home directory. It need not exist.
///
/// An empty variable counts as unset, and so does a relative `XDG_CACHE_HOME`, as the XDG base
/// directory specification has it.
///
/// # Errors
/// [`HubError::NoCacheDir`] where nothing names a directory.
pub fn cache_dir() -> Result<PathBuf, HubError> {
    dir_from(CACHE_VARIABLE, "models", environment, std::env::home_dir())
}

/// The folder for packed weights ([`PackedStore`](converge_quant::PackedStore)), found as
/// [`cache_dir`] is: `CONVERGE_PACKED`, else `converge/packed` beside the models.
///
/// # Errors
/// [`HubError::NoCacheDir`] where nothing names a directory.
pub fn packed_dir() -> Result<PathBuf, HubError> {
    dir_from(PACKED_VARIABLE, "packed", environment, std::env::home_dir())
}

fn environment(variable: &str) -> Option<OsString> {
    std::env::var_os(variable)
}

pub(super) fn dir_from(
    named_by: &'static str,
    folder: &str,
    variable: impl Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
) -> Result<PathBuf, HubError> {
    let set = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = set(named_by) {
        return Ok(dir);
    }
    set("XDG_CACHE_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| {
            home.filter(|dir| !dir.as_os_str().is_empty())
                .map(|dir| dir.join(".cache"))
        })
        .map(|dir| dir.join("converge").join(folder))
        .ok_or(HubError::NoCacheDir { variable: named_by })
}

/// Finds a model by its name in the catalogue or by a path.
///
/// Of a known model every file must be in the cache with its exact size; the checksum is not
/// computed here, see [`verify`](super::verify). Whatever is no known name is taken for a path.
///
/// # Errors
/// [`HubError::NotFetched`] with the command that fetches it, [`HubError::WrongSize`],
/// [`HubError::UnknownModel`] for what is neither a name nor looks like a path,
/// [`HubError::NoSuchFile`], [`HubError::NoCacheDir`], [`HubError::Io`].
pub fn resolve(name_or_path: &str) -> Result<Resolved, HubError> {
    match find(name_or_path) {
        Some(entry) => resolve_entry(&cache_dir()?, entry),
        None => resolve_path(name_or_path),
    }
}

/// [`resolve`] with a cache directory of the caller's.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_in(cache: &Path, name_or_path: &str) -> Result<Resolved, HubError> {
    match find(name_or_path) {
        Some(entry) => resolve_entry(cache, entry),
        None => resolve_path(name_or_path),
    }
}

fn resolve_entry(cache: &Path, entry: &'static Entry) -> Result<Resolved, HubError> {
    for file in entry.files {
        let path = cache.join(file.path);
        let found = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(not_fetched(entry, path)),
            Err(error) if is_missing(&error) => return Err(not_fetched(entry, path)),
            Err(source) => return Err(HubError::Io { path, source }),
        };
        if found != file.size {
            let (expected, command) = (file.size, entry.fetch_command());
            return Err(HubError::WrongSize {
                path,
                expected,
                found,
                command,
            });
        }
    }
    Ok(Resolved {
        path: cache.join(entry.path),
        entry: Some(entry),
    })
}

fn not_fetched(entry: &'static Entry, path: PathBuf) -> HubError {
    HubError::NotFetched {
        name: entry.name,
        path,
        command: entry.fetch_command(),
    }
}

fn resolve_path(given: &str) -> Result<Resolved, HubError> {
    let path = PathBuf::from(given);
    match fs::metadata(&path) {
        Ok(_) => {
            let entry = path.file_name().and_then(|name| {
                // A catalogue file in another place is still that file, if its size agrees.
                catalogue().iter().find(|entry| {
                    entry.files.iter().any(|file| {
                        Path::new(file.path) == Path::new(name)
                            && fs::metadata(&path).is_ok_and(|found| found.len() == file.size)
                    })
                })
            });
            Ok(Resolved { path, entry })
        }
        Err(error) if is_missing(&error) => {
            let known = catalogue().iter().map(|entry| entry.name).collect();
            let looks_like_path = path.components().count() > 1
                || path.is_absolute()
                || path
                    .extension()
                    .is_some_and(|extension| extension == "gguf");
            Err(if looks_like_path {
                HubError::NoSuchFile { path, known }
            } else {
                HubError::UnknownModel {
                    name: given.to_owned(),
                    known,
                }
            })
        }
        Err(source) => Err(HubError::Io { path, source }),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
