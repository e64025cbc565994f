//! The rules of the house, checked: who may depend on whom, how long a file may be, what never
//! appears in a library.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

const LIBRARIES: [&str; 4] = [
    "converge-quant",
    "converge-core",
    "converge-spec",
    "converge-agent",
];
const LONGEST: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn sources(below: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            out.push(path);
        }
    }
}

fn cargo_tree(package: &str, features: &[&str]) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .current_dir(root())
        .args([
            "tree", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}",
        ])
        .args(features)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn dependencies_point_downwards() {
    for (package, forbidden) in [
        (
            "converge-quant",
            &["converge-core", "converge-agent", "converge-spec"][..],
        ),
        ("converge-core", &["converge-agent", "converge-spec"]),
        ("converge-spec", &["converge-agent"]),
        ("converge-agent", &["converge-spec"]),
    ] {
        let tree = cargo_tree(package, &["--all-features"]);
        for name in forbidden {
            assert!(!tree.contains(*name), "{package} depends on {name}");
        }
    }
}

#[test]
fn no_library_can_reach_the_network() {
    let network = [
        "reqwest",
        "hyper",
        "ureq",
        "curl",
        "curl-sys",
        "tokio",
        "mio",
        "socket2",
        "hf-hub",
        "native-tls",
        "openssl",
        "rustls",
        "h2",
        "isahc",
        "attohttpc",
        "async-std",
        "smol",
    ];
    for package in LIBRARIES {
        let tree = cargo_tree(package, &[]);
        for name in network {
            assert!(!tree.contains(name), "{package} depends on {name}");
        }
        let mut files = Vec::new();
        sources(&root().join(package).join("src"), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(
                !text.contains("std::net"),
                "{} names std::net",
                file.display()
            );
        }
    }
}

#[test]
fn files_are_short_enough_to_read() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 50, "found only {} source files", files.len());
    for file in files {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines", file.display());
    }
}

#[test]
fn stable_rust_and_no_unsafe_where_none_belongs() {
    let gate = concat!("#![fea", "ture(");
    let mut files = Vec::new();
    sources(&root(), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains(gate),
            "{} needs a nightly compiler",
            file.display()
        );
    }
    for package in ["converge-core", "converge-spec", "converge-agent"] {
        let text = std::fs::read_to_string(root().join(package).join("src/lib.rs")).unwrap();
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{package} allows unsafe code"
        );
    }
}

/// A crate outside of the workspace builds against each library, with its default features and
/// with none.
#[test]
fn a_consumer_builds_against_each_library() {
    let dir = tempfile::tempdir().unwrap();
    for package in LIBRARIES {
        for defaults in [true, false] {
            let consumer = dir.path().join(format!("{package}-{defaults}"));
            std::fs::create_dir_all(consumer.join("src")).unwrap();
            let path = root().join(package);
            std::fs::write(
                consumer.join("Cargo.toml"),
                format!(
                    "[package]\nname = \"consumer\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
                     [dependencies.{package}]\npath = {path:?}\ndefault-features = {defaults}\n\n[workspace]\n"
                ),
            )
            .unwrap();
            let name = package.replace('-', "_");
            std::fs::write(
                consumer.join("src/lib.rs"),
                format!("pub use {name} as library;\n"),
            )
            .unwrap();
            // The versions that the workspace is tested with.
            std::fs::copy(root().join("Cargo.lock"), consumer.join("Cargo.lock")).unwrap();
            let out = Command::new(env!("CARGO"))
                .current_dir(&consumer)
                .env("CARGO_TARGET_DIR", root().join("target/consumer"))
                .args(["check", "--quiet"])
                .output()
                .unwrap();
            assert!(
                out.status.success(),
                "{package} with default features {defaults}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
    }
}
