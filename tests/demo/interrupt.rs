//! Ctrl-C takes the cluster down before the process ends.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes the cluster `name` down on SIGINT, SIGTERM or SIGHUP, and ends the process.
pub fn take_down(name: String) {
    std::thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
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
        eprintln!("\ninterrupted: taking everything down");
        if let Err(error) = local_cluster::take_down(&name) {
            eprintln!("{error}; `make cluster-down NAME={name}` tries again");
        }
        std::process::exit(130);
    });
}

/// A fault that follows from the cluster being taken away is not worth a message: waits for the end.
pub fn park_if_interrupted() {
    // Commands get the signal as well, and may end before it was recorded.
    std::thread::sleep(std::time::Duration::from_millis(200));
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
