//! A file read at positions, through `&self`, without a shared cursor.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{QuantError, Result};

/// Bytes read at a time where they are only looked at.
const PIECE: u64 = 1 << 20;

/// An open regular file, its length and its time at opening.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: File,
    len: u64,
    modified: SystemTime,
}

impl Source {
    /// Opens a regular file; anything else (a directory, a pipe that would block) is refused.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io_error = |source| QuantError::Io {
            path: path.to_owned(),
            source,
        };
        // Looked at before it is opened: to open a pipe waits for its writer.
        let before = std::fs::metadata(path).map_err(io_error)?;
        if !before.is_file() {
            return Err(QuantError::NotAFile {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            len: metadata.len(),
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// When it was last changed, when it was opened; long ago where the system does not know.
    pub(crate) fn modified(&self) -> SystemTime {
        self.modified
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Hands the first `bytes` bytes to `each`, a megabyte at a time; `false` where it stopped them.
    pub(crate) fn pieces(&self, bytes: u64, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool> {
        let mut buffer = vec![0; PIECE.min(bytes) as usize];
        let mut at = 0;
        while at < bytes {
            let piece = buffer.len().min((bytes - at) as usize);
            let piece = &mut buffer[..piece];
            self.read_exact_at(piece, at)?;
            if !each(piece) {
                return Ok(false);
            }
            at += piece.len() as u64;
        }
        Ok(true)
    }

    /// Fills `buf` from `offset` on.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&self.file, buf, offset).map_err(|source| QuantError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buf.is_empty() {
        match file.seek_read(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buf = &mut buf[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
