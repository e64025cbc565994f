//! Where threads run: on cores of their own, or only where nobody else wants to.

use std::io;

/// The cores that this process may use, by number.
///
/// # Errors
/// What the system says; [`io::ErrorKind::Unsupported`] where it cannot be asked.
#[cfg(target_os = "linux")]
pub(crate) fn allowed() -> io::Result<Vec<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect())
}

/// Keeps the calling thread on one core.
///
/// # Errors
/// As [`allowed`].
#[cfg(target_os = "linux")]
pub(crate) fn pin(core: usize) -> io::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// From now on the calling thread runs when no other wants to; it stays as it is where that cannot
/// be had.
#[cfg(target_os = "linux")]
pub(crate) fn stand_back() {
    // Linux keeps the niceness of each thread, and takes no process for the calling thread.
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn allowed() -> io::Result<Vec<usize>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_core: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn stand_back() {}
