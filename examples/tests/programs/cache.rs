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
