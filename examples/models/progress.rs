use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::fetch::Job;
use crate::cli::bytes;

/// A bar on stderr where that is a terminal; one line otherwise.
pub(super) fn bar(job: &Job, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{what} {} ({})", job.name, bytes(job.size()));
        return ProgressBar::with_draw_target(Some(job.size()), ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::with_draw_target(Some(job.size()), ProgressDrawTarget::stderr());
    let template = "{prefix} [{bar:24}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(format!("{what} {}", job.name));
    bar
}
