//! Running the programs.

use std::{
    env,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use converge_examples::models;
use serde_json::Value;

/// A program that `cargo test` has built beside this one.
pub(crate) fn program(name: &str) -> Command {
    let mut dir: PathBuf = env::current_exe().unwrap();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let file = dir
        .join("examples")
        .join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(
        file.exists(),
        "{} is missing: build it with `cargo build --release --examples`",
        file.display()
    );
    Command::new(file)
}

pub(crate) fn run(name: &str, args: &[&str]) -> Output {
    let command = &mut program(name);
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn good(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// One line on stderr that holds these words, nothing on stdout, exit code 1.
pub(crate) fn refused(name: &str, args: &[&str], words: &[&str]) {
    let output = run(name, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {stderr}");
    assert_eq!(output.stdout, b"", "{name} {args:?}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(
            stderr.contains(word),
            "{name} {args:?}: {word:?} not in {stderr}"
        );
    }
}

/// The smallest model, fetched before a program would have to.
pub(crate) fn model() -> String {
    models::ensure(models::SMALLEST)
        .unwrap()
        .display()
        .to_string()
}

pub(crate) fn object(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}
