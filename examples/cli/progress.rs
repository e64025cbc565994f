use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a progress bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Tokens.
    Tokens,
    /// Weights of a model.
    Weights,
}

/// A bar on stderr where that is a terminal; nothing otherwise.
pub fn progress(what: impl Into<String>, unit: Unit, total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = match unit {
        Unit::Bytes => {
            "{prefix} [{bar:24}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {msg}"
        }
        Unit::Tokens => "{prefix} [{bar:24}] {pos}/{len} tokens {per_sec} {eta} {msg}",
        Unit::Weights => "{prefix} [{bar:24}] {percent}% {eta} {msg}",
    };
    // A template that does not parse leaves the default style.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.into());
    bar
}
