//! `write`: a whole text file, in one step or not at all.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, OpenOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Effect, FnTool, Folder, PathProblem, Source, Tool, ToolError, ToolOutput};

/// Arguments of [`write()`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteArgs {
    /// Path of the file.
    pub path: String,
    /// The text of the whole file.
    pub text: String,
    /// Whether a file that exists may be replaced.
    #[serde(default)]
    pub replace: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteResult {
    /// Path below the folder.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Lines of the file.
    pub lines: usize,
}

/// Writes a text file: first under another name beside it, then renamed, so that the file is
/// either as before or whole. Missing directories are made. A symbolic link of that name is
/// replaced, never written through.
///
/// This function needs no approval; the tool does.
///
/// # Errors
/// A path that cannot be used or leads out of the folder, a text beyond
/// [`FolderLimits::file_bytes`], a file that exists and must not be replaced, the system's own.
///
/// [`FolderLimits::file_bytes`]: super::FolderLimits::file_bytes
pub fn write(folder: &Folder, args: &WriteArgs) -> Result<WriteResult, ToolError> {
    let path = Folder::normalize(&args.path)?;
    let (bytes, limit) = (args.text.len() as u64, folder.limits().file_bytes);
    if bytes > limit {
        return Err(ToolError::TooLarge { path, bytes, limit });
    }
    let failed = |source| folder.explain(&path, source);
    let (parent, name) = match path.rsplit_once('/') {
        Some((parent, name)) => {
            let opened = match folder.dir().open_dir(parent) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    folder.dir().create_dir_all(parent).map_err(failed)?;
                    folder.dir().open_dir(parent)
                }
                opened => opened,
            };
            (Some(opened.map_err(failed)?), name)
        }
        None => (None, path.as_str()),
    };
    let dir = parent.as_ref().unwrap_or(folder.dir());
    if name.is_empty() {
        return Err(ToolError::Path {
            path,
            problem: PathProblem::Empty,
        });
    }
    match dir.symlink_metadata(name) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(ToolError::Path {
                path,
                problem: PathProblem::Directory,
            });
        }
        Ok(_) if !args.replace => return Err(ToolError::Exists { path }),
        _ => {}
    }
    let temporary = fill_temporary(dir, args.text.as_bytes()).map_err(failed)?;
    let placed = if args.replace {
        dir.rename(&temporary, dir, name)
    } else {
        // A link fails if the name was taken meanwhile.
        let linked = dir.hard_link(&temporary, dir, name);
        linked.and_then(|()| dir.remove_file(&temporary))
    };
    if let Err(source) = placed {
        // The first error counts.
        let _ = dir.remove_file(&temporary);
        return Err(match source.kind() {
            std::io::ErrorKind::AlreadyExists => ToolError::Exists { path },
            _ => failed(source),
        });
    }
    let lines = args.text.lines().count();
    Ok(WriteResult { path, bytes, lines })
}

/// A new file in `dir` with these bytes, on the disk; its name.
fn fill_temporary(dir: &Dir, bytes: &[u8]) -> std::io::Result<String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".converge-{}-{number}.part", std::process::id());
        match dir.open_with(&name, &options) {
            Ok(mut file) => {
                let written = file.write_all(bytes).and_then(|()| file.sync_all());
                if let Err(error) = written {
                    let _ = dir.remove_file(&name);
                    return Err(error);
                }
                return Ok(name);
            }
            // Left over from a process that was killed; the numbers go on.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// [`write()`] as a tool named `write`. It changes things, so [`Toolbox::call`] wants a permit.
///
/// [`Toolbox::call`]: super::Toolbox::call
pub fn tool(folder: Folder) -> impl Tool {
    let description = "Writes a text file. Needs the user's approval.";
    FnTool::new(
        "write",
        description,
        Effect::Mutating,
        move |args: WriteArgs, context| {
            context.check()?;
            let result = write(&folder, &args)?;
            let text = format!("wrote {} ({} lines)", result.path, result.lines);
            let mut output = ToolOutput::new(&result, text)?;
            if result.lines > 0 {
                output.sources.push(Source {
                    path: result.path,
                    first: 1,
                    last: result.lines,
                });
            }
            Ok(output)
        },
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::policy::{AskWith, Decision, review};
    use crate::tool::{ToolContext, Toolbox};

    fn args(path: &str, text: &str, replace: bool) -> WriteArgs {
        WriteArgs {
            path: path.to_owned(),
            text: text.to_owned(),
            replace,
        }
    }

    fn names(path: &std::path::Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_whole_and_replaced_only_on_demand() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(temp.path()).unwrap();
        let result = write(&folder, &args("new/deep/a.md", "one\ntwo\n", false)).unwrap();
        assert_eq!(
            (result.path.as_str(), result.bytes, result.lines),
            ("new/deep/a.md", 8, 2)
        );
        let again = write(&folder, &args("new/deep/a.md", "three", false)).unwrap_err();
        assert!(matches!(again, ToolError::Exists { .. }));
        let file = temp.path().join("new/deep/a.md");
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        write(&folder, &args("new/deep/a.md", "three", true)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "three");
        assert_eq!(names(&temp.path().join("new/deep")), ["a.md"]);
    }

    #[test]
    fn nothing_is_written_outside_or_over_a_directory() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("in/sub")).unwrap();
        let folder = Folder::open(temp.path().join("in")).unwrap();
        for path in [
            "../out.txt",
            "/out.txt",
            "sub/../../out.txt",
            "",
            ".",
            "sub",
            "a\0",
        ] {
            let error = write(&folder, &args(path, "x", true)).unwrap_err();
            assert!(matches!(error, ToolError::Path { .. }), "{path:?}: {error}");
        }
        let limits = crate::tool::FolderLimits {
            file_bytes: 3,
            ..Default::default()
        };
        let small = folder.with_limits(limits);
        let error = write(&small, &args("long.txt", "1234", true)).unwrap_err();
        assert!(matches!(
            error,
            ToolError::TooLarge {
                bytes: 4,
                limit: 3,
                ..
            }
        ));
        assert_eq!(names(temp.path()), ["in"]);
        assert_eq!(names(&temp.path().join("in")), ["sub"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_and_not_written_through() {
        use std::os::unix::fs::symlink;
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("in")).unwrap();
        fs::write(temp.path().join("secret.txt"), "secret").unwrap();
        symlink("../secret.txt", temp.path().join("in/link.txt")).unwrap();
        symlink("..", temp.path().join("in/up")).unwrap();
        let folder = Folder::open(temp.path().join("in")).unwrap();
        write(&folder, &args("link.txt", "mine", true)).unwrap();
        let error = write(&folder, &args("up/new.txt", "x", true)).unwrap_err();
        assert!(
            matches!(
                error,
                ToolError::Path {
                    problem: PathProblem::Escapes,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(
            fs::read_to_string(temp.path().join("secret.txt")).unwrap(),
            "secret"
        );
        assert_eq!(
            fs::read_to_string(temp.path().join("in/link.txt")).unwrap(),
            "mine"
        );
        assert_eq!(names(temp.path()), ["in", "secret.txt"]);
    }

    #[test]
    fn the_tool_writes_only_what_was_approved() {
        let temp = tempfile::tempdir().unwrap();
        let mut tools = Toolbox::new();
        tools.add(tool(Folder::open(temp.path()).unwrap())).unwrap();
        let args = json!({"path": "a.txt", "text": "hello\n"});
        let refused = tools
            .call("write", &args, &ToolContext::default())
            .unwrap_err();
        assert!(matches!(refused, ToolError::NotApproved { .. }));
        assert_eq!(names(temp.path()), [""; 0]);
        let yes = AskWith(|_: &crate::policy::ApprovalRequest<'_>| Decision::Approve);
        let permit = review(&yes, tools.get("write").unwrap(), &args).unwrap();
        let context = ToolContext {
            cancel: None,
            permit: Some(&permit),
        };
        let output = tools.call("write", &args, &context).unwrap();
        assert_eq!(output.text, "wrote a.txt (1 lines)");
        let other = json!({"path": "b.txt", "text": "hello\n"});
        assert!(tools.call("write", &other, &context).is_err());
        assert_eq!(names(temp.path()), ["a.txt"]);
    }
}
