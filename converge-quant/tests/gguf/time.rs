//! The time that a thread takes.

use std::time::Duration;

/// What this thread has spent so far. Where the system says it, time on the processor, so that a
/// busy machine does not count.
pub(crate) fn spent() -> Duration {
    on_processor().unwrap_or_else(since_start)
}

fn on_processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn since_start() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}
