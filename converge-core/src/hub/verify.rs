use std::{fmt::Write as _, fs, io::Read as _, path::Path};

use sha2::{Digest as _, Sha256};

use super::{Entry, HubError};

/// The SHA-256 of a file in lower-case hexadecimal. `progress` gets the bytes read so far and the
/// bytes that the file had when it was opened.
///
/// # Errors
/// [`HubError::Io`].
pub fn sha256(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<String, HubError> {
    let io = |source| HubError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = fs::File::open(path).map_err(io)?;
    let total = file.metadata().map_err(io)?.len();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0u64;
    loop {
        let n = file.read(&mut buffer).map_err(io)?;
        let Some(chunk) = buffer.get(..n).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        hasher.update(chunk);
        done += chunk.len() as u64;
        progress(done, total);
    }
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing into a `String` cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

/// Holds every file of a known model against its size and SHA-256. `progress` gets the bytes read
/// so far and the bytes of all files together.
///
/// # Errors
/// [`HubError::WrongSize`], [`HubError::WrongChecksum`], [`HubError::NotFetched`] for a missing
/// file, [`HubError::Io`].
pub fn verify(
    cache: &Path,
    entry: &'static Entry,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), HubError> {
    super::resolve_in(cache, entry.name)?;
    let total = entry.size();
    let mut before = 0;
    for file in entry.files {
        let path = cache.join(file.path);
        let found = sha256(&path, &mut |done, _| progress(before + done, total))?;
        if found != file.sha256 {
            let (expected, command) = (file.sha256, entry.fetch_command());
            return Err(HubError::WrongChecksum {
                path,
                expected,
                found,
                command,
            });
        }
        before += file.size;
    }
    Ok(())
}
