use std::sync::{LazyLock, Once};

use converge_core::generate::Cancel;

static INTERRUPT: LazyLock<Cancel> = LazyLock::new(Cancel::new);

/// The flag that Ctrl-C sets. Without [`on_interrupt`] nothing sets it, and Ctrl-C ends the process
/// as the system does.
pub fn interrupt() -> Cancel {
    INTERRUPT.clone()
}

/// Lets Ctrl-C (and SIGTERM) set [`interrupt`]; the second one ends the process at once.
pub fn on_interrupt() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let flag = interrupt();
        let handler = move || {
            if flag.is_cancelled() {
                std::process::exit(130);
            }
            flag.cancel();
        };
        if let Err(error) = ctrlc::set_handler(handler) {
            eprintln!("warning: Ctrl-C ends the process without tidying up: {error}");
        }
    });
}
