//! The program `cache`, and `generate --keep`.

use super::*;

#[test]
fn what_was_read_is_kept_for_later_runs_until_it_is_purged() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let folder = dir.path().join("kept").display().to_string();
    let text = "The mill keeps a book of every warp that was ever beamed there. ".repeat(12);
    let ask = || {
        let args = [
            "-m",
            &model,
            "--keep",
            &folder,
            "--max-tokens",
            "8",
            "--json",
            &text,
        ];
        object(&good("generate", &args))
    };
    let (first, again) = (ask(), ask());
    assert_eq!(first["text"], again["text"]);
    let count = |run: &Value, what: &str| run[what].as_u64().unwrap();
    assert_eq!(count(&first, "reused"), 0);
    assert!(
        count(&again, "reused") > 100 && count(&again, "prefilled") < 5,
        "{again}"
    );

    let list = || object(&good("cache", &["list", &folder, "--json"]));
    let entries = list()["entries"].as_array().unwrap().clone();
    assert_eq!(entries.len(), 1);
    let file = entries[0]["path"].as_str().unwrap();
    assert_eq!(entries[0]["bytes"], fs::metadata(file).unwrap().len());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file), mode(&folder)), (0o600, 0o700));
    }
    assert!(good("cache", &["list", &folder]).contains("1 files"));

    // A file that is damaged costs its reading, not the answer.
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    let anew = ask();
    assert_eq!((&anew["text"], count(&anew, "reused")), (&first["text"], 0));

    assert_eq!(
        object(&good("cache", &["purge", &folder, "--json"]))["removed"],
        1
    );
    assert_eq!(list()["entries"], json!([]));
    refused("cache", &["list", "/nowhere/at/all"], &["--keep"]);
}

#[test]
fn packed_weights_are_kept_until_they_are_purged() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let folder = dir.path().join("packed");
    let with = |name: &str, args: &[&str]| {
        let mut command = program(name);
        command.args(args).env("CONVERGE_PACKED", &folder);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    let ask = |how: &[&str]| {
        let args = ["-m", &model, "--max-tokens", "8", "--json", "Hello"];
        let answer = object(&with("generate", &[&args, how].concat()));
        answer["tokens"].clone()
    };
    let list = || object(&with("cache", &["packed", "list", "--json"]));
    let plain = ask(&[]);
    assert_eq!(list(), json!({"bytes": 0, "entries": []}));
    assert!(!folder.exists());

    // The first one packs and writes, the others take what is there.
    assert_eq!(ask(&["--packed", "read"]), plain);
    let entries = list()["entries"].as_array().unwrap().clone();
    assert_eq!(entries.len(), 1);
    let file = entries[0]["path"].as_str().unwrap();
    let written = fs::metadata(file).unwrap();
    assert_eq!(entries[0]["bytes"], written.len());
    let source = &entries[0]["sources"][0];
    assert_eq!(source["sha256"], models_sha256());
    assert!(source["path"].as_str().unwrap().ends_with(".gguf"));
    for how in ["read", "map"] {
        assert_eq!(ask(&["--packed", how, "--pin"]), plain);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        assert_eq!(fs::metadata(file).unwrap().ino(), written.ino());
        let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file), mode(folder.to_str().unwrap())), (0o600, 0o700));
    }
    let text = with("cache", &["packed", "list"]);
    for words in ["1 files", "SHA-256", ".tiles"] {
        assert!(text.contains(words), "{words} not in {text}");
    }

    // A damaged one costs the packing, not the answer.
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, &bytes).unwrap();
    assert_eq!(ask(&["--packed", "map"]), plain);
    assert!(fs::read(file).unwrap() != bytes);

    let purged = object(&with("cache", &["packed", "purge", "--json"]));
    assert_eq!(purged, json!({"removed": 1, "bytes": written.len()}));
    assert_eq!(list()["entries"], json!([]));
    assert!(good("generate", &["--help"]).contains("Hazard"));
}

/// What the catalogue says of the smallest model.
fn models_sha256() -> &'static str {
    let entry = converge_core::hub::find(models::SMALLEST).unwrap();
    entry.files[0].sha256
}
