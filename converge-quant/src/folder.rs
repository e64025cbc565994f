//! Files that appear whole or not at all, and folders of them that stay below a size.
//!
//! ```text
//!   model.tiles.1234-0.partial   written, on the disk ── renamed ──→ model.tiles
//! ```
//!
//! A new file is written beside its place under another name and moved there when it is complete,
//! so that at its own name there is either what was there before or the whole new file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{QuantError, Result};

/// How the names of files end that are not whole yet.
const PARTIAL: &str = "partial";

/// A file under another name until it is complete; dropped before that, it is gone.
#[derive(Debug)]
pub struct NewFile {
    to: PathBuf,
    partial: PathBuf,
    file: File,
    done: bool,
}

impl NewFile {
    /// Begins a file that will be at `to`, in the place of what is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(to: &Path) -> io::Result<Self> {
        Self::with(to, OpenOptions::new().write(true).create_new(true))
    }

    /// The same for a file that only its owner can read.
    ///
    /// It is locked until it is complete: a [`Folder`] knows by that which ones were left by
    /// processes that are gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn private(to: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let new = Self::with(to, &options)?;
        // Where files cannot be locked none is taken for left behind, either.
        let _ = new.file.try_lock();
        Ok(new)
    }

    fn with(to: &Path, options: &OpenOptions) -> io::Result<Self> {
        let name = to.file_name().ok_or(ErrorKind::InvalidInput)?;
        let mut count = 0u32;
        loop {
            let mut name = name.to_owned();
            name.push(format!(".{}-{count}.{PARTIAL}", std::process::id()));
            let partial = to.with_file_name(name);
            match options.open(&partial) {
                Ok(file) => {
                    return Ok(Self {
                        to: to.to_owned(),
                        partial,
                        file,
                        done: false,
                    });
                }
                // Left by a process of the same number that was killed, or one of this process.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && count < 1000 => {
                    count += 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is to be written to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is until it is complete.
    #[must_use]
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Puts the file in its place, when it is on the disk.
    ///
    /// # Errors
    /// What the system says; then what was there before still is.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.to)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.done {
            // Nobody is left to tell.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// A folder of files that can be made again, for its owner alone: those that end in its ending
/// count, and take at most so many bytes.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    ending: &'static str,
    limit: u64,
}

/// A file of a [`Folder`].
#[derive(Clone, Debug)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was written or last used.
    pub used: SystemTime,
}

impl Folder {
    /// The folder at `path`, which need not be there: of files whose names end in `.ending`, and
    /// that may take `limit` bytes together.
    #[must_use]
    pub fn new(path: &Path, ending: &'static str, limit: u64) -> Self {
        Self {
            path: path.to_owned(),
            ending,
            limit,
        }
    }

    /// Makes it where it is not there, for its owner alone.
    ///
    /// # Errors
    /// [`QuantError::Io`].
    pub fn make(&self) -> Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let made = builder.create(&self.path);
        made.map_err(|source| io_error(&self.path, source))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The most bytes that its files may take together.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The file of a name, which need not be there.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.{}", self.ending))
    }

    /// What is there, the most recently used first; nothing where there is no folder.
    ///
    /// # Errors
    /// [`QuantError::Io`].
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for path in self.paths(self.ending)? {
            // Another process may have removed it.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            entries.push(Entry {
                path,
                bytes: metadata.len(),
                used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        entries.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.path.cmp(&b.path)));
        Ok(entries)
    }

    /// Removes every file; says how many there were.
    ///
    /// # Errors
    /// [`QuantError::Io`] for the first that cannot be removed.
    pub fn purge(&self) -> Result<usize> {
        self.sweep()?;
        let entries = self.entries()?;
        entries.iter().try_for_each(|entry| remove(&entry.path))?;
        Ok(entries.len())
    }

    /// Removes the least recently used files, until the others take no more than they may, and
    /// what processes that are gone have left unfinished.
    ///
    /// # Errors
    /// [`QuantError::Io`] for the first that cannot be removed.
    pub fn trim(&self) -> Result<()> {
        self.sweep()?;
        let mut total = 0u64;
        for entry in self.entries()? {
            total = total.saturating_add(entry.bytes);
            if total > self.limit {
                remove(&entry.path)?;
            }
        }
        Ok(())
    }

    /// Remembers that a file was used just now.
    pub fn touch(path: &Path) {
        // Only the order in which files go depends on it.
        let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Removes what was begun and will never be finished.
    fn sweep(&self) -> Result<()> {
        for path in self.paths(PARTIAL)? {
            // Whoever writes it holds its lock, and a process that ends lets go of it.
            let left = match File::open(&path) {
                Ok(file) => match file.try_lock() {
                    Ok(()) => true,
                    Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
                },
                Err(_) => false,
            };
            if left {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn paths(&self, ending: &str) -> Result<Vec<PathBuf>> {
        let io = |source| io_error(&self.path, source);
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|found| found == ending) {
                paths.push(path);
            }
        }
        Ok(paths)
    }
}

/// Removes a file; one that another process has removed is none to complain about.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| io_error(path, source)),
    }
}

fn io_error(path: &Path, source: io::Error) -> QuantError {
    QuantError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().into_owned()
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    fn put(folder: &Folder, name: &str, bytes: usize) {
        let new = NewFile::private(&folder.file(name)).unwrap();
        new.file().write_all(&vec![1; bytes]).unwrap();
        new.finish().unwrap();
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a.x");
        for make in [NewFile::create, NewFile::private] {
            let new = make(&to).unwrap();
            new.file().write_all(b"new").unwrap();
            assert!(!to.exists() && new.partial().exists());
            drop(new);
            assert_eq!(names(dir.path()), [""; 0]);
        }
        fs::write(&to, "old").unwrap();
        // Two at once: each has a name of its own, the last one stays.
        let (one, two) = (
            NewFile::private(&to).unwrap(),
            NewFile::private(&to).unwrap(),
        );
        one.file().write_all(b"one").unwrap();
        two.file().write_all(b"two").unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"old");
        two.finish().unwrap();
        one.finish().unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"one");
        assert_eq!(names(dir.path()), ["a.x"]);
        assert!(NewFile::create(Path::new("/")).is_err());
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(&dir.path().join("in/it"), "x", 25);
        assert!(folder.entries().unwrap().is_empty());
        assert_eq!(folder.purge().unwrap(), 0);
        folder.make().unwrap();
        folder.make().unwrap();
        let hour = Duration::from_secs(3600);
        for (name, age) in [("old", 3), ("older", 4), ("new", 2)] {
            put(&folder, name, 10);
            let file = File::open(folder.file(name)).unwrap();
            file.set_modified(SystemTime::now() - age * hour).unwrap();
        }
        fs::write(folder.path().join("foreign"), [0; 99]).unwrap();
        Folder::touch(&folder.file("older"));
        folder.trim().unwrap();
        assert_eq!(names(folder.path()), ["foreign", "new.x", "older.x"]);
        let entries = folder.entries().unwrap();
        assert_eq!(entries[0].path, folder.file("older"));
        assert_eq!(entries[1].bytes, 10);
        assert_eq!(folder.purge().unwrap(), 2);
        assert_eq!(names(folder.path()), ["foreign"]);
    }

    #[test]
    fn what_nobody_will_finish_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), "x", 100);
        fs::write(dir.path().join("a.x.4000000-0.partial"), "left").unwrap();
        let new = NewFile::private(&folder.file("b")).unwrap();
        folder.trim().unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        new.finish().unwrap();
        assert_eq!(names(dir.path()), ["b.x"]);
    }

    #[cfg(unix)]
    #[test]
    fn it_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(&dir.path().join("kept"), "x", 100);
        folder.make().unwrap();
        put(&folder, "a", 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.file("a")), 0o600);
    }
}
