use std::{
    ops::Deref,
    sync::{
        LazyLock, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use converge_core::generate::Cancel;

static FLAG: LazyLock<Mutex<Cancel>> = LazyLock::new(Mutex::default);
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

fn flag() -> MutexGuard<'static, Cancel> {
    FLAG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The flag that Ctrl-C sets, for work that looks at it until the process ends.
pub fn interrupt() -> Cancel {
    WATCHERS.fetch_add(1, Ordering::Relaxed);
    flag().clone()
}

/// The flag that Ctrl-C sets, for work that looks at it as long as this lives.
pub struct Watch(Cancel);

impl Watch {
    /// From now on Ctrl-C sets the flag instead of ending the process.
    pub fn new() -> Self {
        Self(interrupt())
    }

    /// A flag of its own, not set: from now on Ctrl-C sets this one. For work that may be stopped
    /// again and again.
    pub fn fresh() -> Self {
        *flag() = Cancel::new();
        Self::new()
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Watch {
    type Target = Cancel;

    fn deref(&self) -> &Cancel {
        &self.0
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets Ctrl-C (and SIGTERM) set the flag where somebody watches it. Where nobody does, and the
/// second time, it ends the process with exit code 130.
pub fn on_interrupt() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler = || {
            let flag = flag();
            if WATCHERS.load(Ordering::Relaxed) == 0 || flag.is_cancelled() {
                std::process::exit(130);
            }
            flag.cancel();
        };
        if let Err(error) = ctrlc::set_handler(handler) {
            eprintln!("warning: Ctrl-C ends the process without tidying up: {error}");
        }
    });
}
