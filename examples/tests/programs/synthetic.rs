//! The program `synthetic`.

use super::*;

#[test]
fn a_random_model_of_any_shape_runs() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let small = ["--width", "256", "--inner", "512", "--layers", "3"];
    let heads = ["--heads", "4", "--kv-heads", "2", "--like", &model];
    let write = |to: &str, more: &[&str]| {
        let args = [&[to][..], &small, &heads, more, &["--json"]].concat();
        object(&good("synthetic", &args))
    };
    let (first, again) = (path("first.gguf"), path("again.gguf"));
    let found = write(&first, &[]);
    assert_eq!(found["tensors"], 3 + 3 * 9);
    // Embeddings, the head, and in each layer attention and three matrices of 256 × 512.
    let layer = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512 + 2 * 256;
    assert_eq!(found["weights"], 2 * 49_152 * 256 + 256 + 3 * layer);
    assert_eq!(found["bytes"], fs::metadata(&first).unwrap().len());
    write(&again, &[]);
    assert!(fs::read(&first).unwrap() == fs::read(&again).unwrap());

    let told = object(&good("inspect", &[&first, "--json", "--ctx", "100"]));
    assert_eq!(told["unsupported"], Value::Null);
    assert_eq!(
        told["memory"]["kv_f16"]["kv_bytes"],
        3 * 2 * 64 * 2 * 100 * 2
    );
    let types = told["types"].as_array().unwrap();
    let types: Vec<_> = types
        .iter()
        .map(|of| of["type"].as_str().unwrap())
        .collect();
    for expected in ["Q4_K", "Q6_K", "F32"] {
        assert!(types.contains(&expected), "{types:?}");
    }
    let say = [
        "--raw",
        "Hello",
        "--ctx",
        "64",
        "--max-tokens",
        "8",
        "--json",
    ];
    let said = object(&good("generate", &[&["-m", &first][..], &say].concat()));
    assert!(said["decoded"].as_u64().unwrap() > 0, "{said}");

    // Tied, with another type, over the first.
    let tied = ["--shape", "qwen2.5-0.5b", "--recipe", "Q8_0", "--force"];
    assert_eq!(write(&first, &tied)["tensors"], 2 + 3 * 9);
    let refusals: [(&[&str], &str); 5] = [
        (&[], "--force"),
        (&["--width", "100"], "multiple of 32"),
        (&["--heads", "5"], "--heads"),
        (&["--kv-heads", "3"], "--kv-heads"),
        (&["--layers", "0"], "--layers"),
    ];
    for (more, words) in refusals {
        let to = if more.is_empty() {
            &first
        } else {
            &path("none.gguf")
        };
        refused(
            "synthetic",
            &[&[to.as_str(), "--like", &model], more].concat(),
            &[words],
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
