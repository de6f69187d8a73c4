//! Ctrl-C takes the cluster down before the process ends.

/// Takes the cluster `name` down on SIGINT, SIGTERM or SIGHUP, and ends the process.
pub fn take_down(name: String) {
    let again = format!("make cluster-down NAME={name}");
    let what = "\ninterrupted: taking everything down".to_owned();
    local_cluster::take_down_when_interrupted(name, what, again);
}

/// A fault that follows from the cluster being taken away is not worth a message: waits for the end.
pub fn park_if_interrupted() {
    // Commands get the signal as well, and may end before it was recorded.
    std::thread::sleep(std::time::Duration::from_millis(200));
    while local_cluster::is_interrupted() {
        std::thread::park();
    }
}
