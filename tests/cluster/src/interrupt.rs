//! Ctrl-C takes a cluster down before the process ends.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes the cluster `name` down on SIGINT, SIGTERM or SIGHUP, and ends the process. It says `what` it does, and that the command
/// `again` can be used where it fails. A start under way fails at its next step, since the run is closed.
pub fn take_down_when_interrupted(name: String, what: String, again: String) {
    std::thread::spawn(move || -> std::io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            tokio::select! {
                result = tokio::signal::ctrl_c() => result,
                _ = terminate.recv() => Ok(()),
                _ = hangup.recv() => Ok(()),
            }
        })?;
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("{what}");
        if let Err(error) = crate::take_down(&name) {
            eprintln!("{error}; `{again}` tries again");
        }
        std::process::exit(130);
    });
}

/// Whether the process is about to end for that reason.
#[must_use]
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
