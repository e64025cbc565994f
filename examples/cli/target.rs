//! Where a program writes its file.

use std::path::Path;

use anyhow::ensure;

/// Refuses a path where no file can be written, and one that is taken unless `force` is given.
///
/// # Errors
/// A folder, a path into a folder that is not there, a file that is.
pub fn check_target(to: &Path, force: bool) -> anyhow::Result<()> {
    ensure!(
        !to.is_dir(),
        "{} is a folder: give the path of the file to write",
        to.display()
    );
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    ensure!(
        folder.is_dir(),
        "there is no folder {}: make it, or give another path",
        folder.display()
    );
    ensure!(
        force || !to.exists(),
        "{} is there already: give another path, or --force to replace it",
        to.display()
    );
    Ok(())
}
