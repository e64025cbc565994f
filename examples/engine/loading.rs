//! How far the loading of a model is, for people.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use converge_core::Progress;
use indicatif::ProgressFinish;

use crate::cli::{Unit, progress};

/// What takes less is over before anybody has read of it.
const PATIENCE: Duration = Duration::from_millis(500);

/// A bar on stderr for a model that takes longer than a moment to load, where that is a terminal.
pub fn loading() -> Progress {
    let start = Instant::now();
    let bar = Mutex::new(None);
    Progress::new(move |done, total| {
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        if done >= total {
            // Dropped, it clears its line.
            *bar = None;
        } else if start.elapsed() >= PATIENCE {
            let new = || progress("loading", Unit::Bytes, total);
            bar.get_or_insert_with(|| new().with_finish(ProgressFinish::AndClear))
                .set_position(done);
        }
    })
}
