//! Child processes that end when this process does, however it ends.

use std::io;
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex, mpsc};

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a command that runs its program through `setpriv --pdeathsig`.
///
/// The kernel ends such a child when the *thread* that started it ends, so one thread, which stays, starts all.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static JOBS: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, started) = mpsc::channel();
    let jobs = JOBS.lock().expect("the lock is not poisoned").clone();
    jobs.send((command, answer)).map_err(io::Error::other)?;
    started.recv().map_err(io::Error::other)?
}

/// The arguments of `setpriv` before the program's own.
pub(crate) const TIED: [&str; 2] = ["--pdeathsig", "KILL"];
