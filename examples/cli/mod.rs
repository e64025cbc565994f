//! How every example begins and ends: Ctrl-C, exit codes, errors in one line.

mod interrupt;
mod progress;
mod sampling;
mod target;
mod text;
mod threads;

use std::{error::Error, fmt, io, process::ExitCode};

pub use interrupt::{Watch, interrupt, on_interrupt};
pub use progress::{Unit, progress};
pub use sampling::SamplingArgs;
pub use target::check_target;
pub use text::{bytes, one_line, unescape};
pub use threads::run_on;

/// Ctrl-C or a request to terminate ended the work. [`run`] answers it with exit code 130.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl Error for Interrupted {}

/// What the libraries warn of goes to stderr, a line each.
fn show_warnings() {
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_ansi(false)
        .with_target(false)
        .without_time();
    // Whoever has set up their own sees them there.
    let _ = lines.try_init();
}

/// Runs an example to its exit code: 0, 1 after an error told in one line on stderr, 130 after
/// Ctrl-C, and 0 when the reader of its output went away (`… | head`). Usage errors end with 2
/// before this, in the argument parser.
pub fn run(main: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    on_interrupt();
    show_warnings();
    let Err(error) = main() else {
        return ExitCode::SUCCESS;
    };
    let closed_pipe = |cause: &(dyn Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.is::<Interrupted>() {
        ExitCode::from(130)
    } else if error.chain().any(closed_pipe) {
        ExitCode::SUCCESS
    } else {
        eprintln!("error: {}", one_line(&error));
        ExitCode::FAILURE
    }
}
