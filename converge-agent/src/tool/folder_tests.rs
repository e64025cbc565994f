use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::tool::list::{self, ListArgs, list};
use crate::tool::read::{self, ReadArgs, read};
use crate::tool::{Source, Tool};

/// A folder `in` beside a file that must stay out of reach.
fn sandbox() -> (tempfile::TempDir, Folder) {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("secret.txt"), "secret\n").unwrap();
    fs::create_dir_all(temp.path().join("in/sub")).unwrap();
    fs::write(
        temp.path().join("in/a.md"),
        "# Title of a\n\nfirst\nsecond\n",
    )
    .unwrap();
    fs::write(temp.path().join("in/sub/b.txt"), "\r\n---\r\nb says\r\n").unwrap();
    let folder = Folder::open(temp.path().join("in")).unwrap();
    (temp, folder)
}

fn args(path: &str, first: Option<usize>, last: Option<usize>) -> ReadArgs {
    ReadArgs {
        path: path.to_owned(),
        first,
        last,
    }
}

fn problem(result: Result<TextFile, ToolError>) -> PathProblem {
    match result {
        Err(ToolError::Path { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let (temp, folder) = sandbox();
    let absolute = temp.path().join("secret.txt").display().to_string();
    for (path, expected) in [
        ("../secret.txt", PathProblem::Parent),
        ("sub/../../secret.txt", PathProblem::Parent),
        ("sub\\..\\..\\secret.txt", PathProblem::Parent),
        (absolute.as_str(), PathProblem::Absolute),
        ("C:\\secret.txt", PathProblem::Absolute),
        ("", PathProblem::Empty),
        ("./", PathProblem::Empty),
        ("a\0.md", PathProblem::Control),
        ("a\n.md", PathProblem::Control),
        (&"x/".repeat(1000), PathProblem::TooLong),
        ("sub", PathProblem::Directory),
    ] {
        assert_eq!(problem(folder.read_text(path)), expected, "{path:?}");
    }
    assert_eq!(folder.read_text("./sub//b.txt").unwrap().path, "sub/b.txt");
}

#[cfg(unix)]
#[test]
fn links_are_followed_inside_the_folder_only() {
    use std::os::unix::fs::symlink;
    let (temp, folder) = sandbox();
    let inside = temp.path().join("in");
    symlink("../secret.txt", inside.join("out.txt")).unwrap();
    symlink(temp.path().join("secret.txt"), inside.join("absolute.txt")).unwrap();
    symlink("..", inside.join("up")).unwrap();
    symlink(".", inside.join("loop")).unwrap();
    symlink("a.md", inside.join("same.md")).unwrap();
    symlink("chain.txt", inside.join("sub/chain.txt")).unwrap();
    for path in [
        "out.txt",
        "absolute.txt",
        "up/secret.txt",
        "loop/up/secret.txt",
    ] {
        assert_eq!(
            problem(folder.read_text(path)),
            PathProblem::Escapes,
            "{path}"
        );
    }
    assert!(folder.read_text("same.md").unwrap().text.contains("first"));
    assert!(matches!(
        folder.read_text("sub/chain.txt"),
        Err(ToolError::Io { .. })
    ));
    let walk = folder.walk(&ToolContext::default()).unwrap();
    let paths: Vec<&str> = walk.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["a.md", "sub/b.txt"]);
    assert_eq!((walk.skipped, walk.truncated), (6, false));
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let (temp, folder) = sandbox();
    let socket = temp.path().join("in/socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(problem(folder.read_text("socket")), PathProblem::Special);
}

#[test]
fn a_missing_file_names_similar_ones() {
    let (temp, folder) = sandbox();
    fs::write(temp.path().join("in/sub/Acme-contract.md"), "x").unwrap();
    for path in [
        "acme_contract.txt",
        "sub/Acme-contracts.md",
        "ACME-CONTRACT",
        "a.md/x",
    ] {
        match folder.read_text(path).unwrap_err() {
            ToolError::NotFound { similar, .. } if path != "a.md/x" => {
                assert_eq!(similar, ["sub/Acme-contract.md"]);
            }
            ToolError::NotFound { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let message = folder
        .read_text("nothing/like/it.md")
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("list the folder to see what there is"),
        "{message}"
    );
}

#[test]
fn a_walk_is_bounded_in_files_entries_and_depth() {
    let temp = tempfile::tempdir().unwrap();
    let deep = temp.path().join("d/".repeat(60));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("deep.txt"), "x").unwrap();
    for i in 0..30 {
        fs::write(temp.path().join(format!("f{i:02}.txt")), "x").unwrap();
    }
    fs::write(temp.path().join(".hidden"), "x").unwrap();
    let folder = Folder::open(temp.path()).unwrap();
    let context = ToolContext::default();
    let walk = folder.walk(&context).unwrap();
    assert_eq!((walk.files.len(), walk.truncated), (30, true));
    let limits = FolderLimits {
        files: 7,
        ..FolderLimits::default()
    };
    let walk = folder.clone().with_limits(limits).walk(&context).unwrap();
    assert_eq!((walk.files.len(), walk.truncated), (7, true));
    let limits = FolderLimits {
        entries: 5,
        ..FolderLimits::default()
    };
    assert!(folder.with_limits(limits).walk(&context).unwrap().truncated);
}

#[test]
fn text_is_told_from_binary_and_decoded() {
    let (temp, folder) = sandbox();
    let write = |data: &[u8]| fs::write(temp.path().join("in/x"), data).unwrap();
    for (data, text, encoding) in [
        (&b"\xEF\xBB\xBFa\xC3\xA4"[..], "aä", Encoding::Utf8),
        (
            b"1.200,50 \x80 f\xFCr",
            "1.200,50 € für",
            Encoding::Windows1252,
        ),
        (b"\xFF\xFEa\0\xE4\0", "aä", Encoding::Utf16),
        (b"\xFE\xFF\0a\xD8\0", "a\u{FFFD}", Encoding::Utf16),
        (b"", "", Encoding::Utf8),
    ] {
        write(data);
        let file = folder.read_text("x").unwrap();
        assert_eq!((file.text.as_str(), file.encoding), (text, encoding));
    }
    for data in [&b"\x7FELF\0\0\0"[..], b"a\x01\x02\x03\x04b", &[0; 100]] {
        write(data);
        assert!(matches!(
            folder.read_text("x"),
            Err(ToolError::Binary { .. })
        ));
    }
}

#[test]
fn a_huge_file_is_cut_at_a_character_and_says_so() {
    let (temp, folder) = sandbox();
    fs::write(temp.path().join("in/x"), "ä".repeat(100)).unwrap();
    let folder = folder.with_limits(FolderLimits {
        file_bytes: 33,
        ..FolderLimits::default()
    });
    let file = folder.read_text("x").unwrap();
    assert_eq!(
        (file.text.chars().count(), file.truncated, file.bytes),
        (16, true, 200)
    );
    assert!(matches!(
        folder.read_whole("x"),
        Err(ToolError::TooLarge {
            bytes: 200,
            limit: 33,
            ..
        })
    ));
}

#[test]
fn read_gives_numbered_lines_and_checks_the_range() {
    let (_temp, folder) = sandbox();
    let all = read(&folder, &args("a.md", None, None)).unwrap();
    assert_eq!(all.text(), "1: # Title of a\n2: \n3: first\n4: second\n");
    let part = read(&folder, &args("a.md", Some(3), Some(900))).unwrap();
    assert_eq!(
        part.lines
            .iter()
            .map(|line| line.number)
            .collect::<Vec<_>>(),
        [3, 4]
    );
    for (first, last) in [(0, 2), (5, 6), (3, 2)] {
        let error = read(&folder, &args("a.md", Some(first), Some(last))).unwrap_err();
        assert!(
            matches!(error, ToolError::LineRange { lines: 4, .. }),
            "{error}"
        );
    }
}

#[test]
fn read_is_bounded_and_says_where_to_go_on() {
    let (temp, folder) = sandbox();
    let long = format!("{}\n{}", "x".repeat(5000), "line\n".repeat(10_000));
    fs::write(temp.path().join("in/long.txt"), long).unwrap();
    let output =
        read::tool(folder.clone()).call(&json!({"path": "long.txt"}), &ToolContext::default());
    let output = output.unwrap();
    assert!(output.truncated && output.text.len() < 20_000);
    let result: read::ReadResult = serde_json::from_value(output.value).unwrap();
    assert!(result.lines[0].cut && result.lines[0].text.len() == 2000);
    let next = result.next.unwrap();
    let last = next - 1;
    assert_eq!(
        output.sources,
        [Source {
            path: "long.txt".to_owned(),
            first: 1,
            last
        }]
    );
    let more = read(&folder, &args("long.txt", Some(next), None)).unwrap();
    assert_eq!(more.lines[0].number, next);
}

#[test]
fn list_shows_lines_and_titles() {
    let (temp, folder) = sandbox();
    fs::write(temp.path().join("in/z.bin"), [0; 10]).unwrap();
    fs::write(temp.path().join("in/t.csv"), "date,amount\n2025-01-02,3\n").unwrap();
    let output = list::tool(folder.clone())
        .call(&json!({}), &ToolContext::default())
        .unwrap();
    assert_eq!(
        output.text,
        "a.md (4 lines): Title of a\nsub/b.txt (3 lines): b says\n\
         t.csv (table of 1 rows): date, amount\nz.bin (10 bytes, not text)\n"
    );
    let context = ToolContext::default();
    let below = |path: &str| {
        list(
            &folder,
            &ListArgs {
                path: Some(path.to_owned()),
            },
            &context,
        )
    };
    assert_eq!(below("sub/").unwrap().files.len(), 1);
    assert!(matches!(below("su"), Err(ToolError::NotFound { .. })));
    assert!(matches!(below("../"), Err(ToolError::Path { .. })));
    assert_eq!(
        below("").unwrap().text(40),
        "a.md (4 lines): Title of a\n[and 3 more files]\n"
    );
}

proptest! {
    #[test]
    fn no_path_panics_or_reads_the_file_outside(path in r"(\.|\.\.|/|\\|sub|in|secret\.txt|[a-z\PC]){0,12}") {
        let (_temp, folder) = sandbox();
        if let Ok(file) = folder.read_text(&path) {
            prop_assert!(!file.text.contains("secret"));
            prop_assert!(file.path == "a.md" || file.path == "sub/b.txt");
        }
    }

    #[test]
    fn any_bytes_decode_or_are_binary(data in proptest::collection::vec(any::<u8>(), 0..200), cut: bool) {
        if let Some((text, _)) = decode(&data, cut) {
            prop_assert!(text.len() <= data.len() * 3);
        }
    }

    #[test]
    fn any_range_is_read_or_refused(first in 0_usize..8, last in 0_usize..8) {
        let (_temp, folder) = sandbox();
        match read(&folder, &args("a.md", Some(first), Some(last))) {
            Ok(result) => {
                let numbers: Vec<usize> = result.lines.iter().map(|line| line.number).collect();
                prop_assert_eq!(numbers, (first..=last.min(4)).collect::<Vec<_>>());
            }
            Err(error) => {
                prop_assert!(first == 0 || first > 4 || last < first, "{}", error);
            }
        }
    }
}

#[test]
fn a_folder_that_does_not_exist_is_an_error_with_its_path() {
    let error = Folder::open(Path::new("no/such/folder")).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
}
