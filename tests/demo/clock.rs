//! Seconds that go by while something runs.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Does some work while the seconds go by.
pub fn during<T>(work: impl FnOnce() -> T) -> T {
    let clock = Clock::start();
    let result = work();
    drop(clock);
    result
}

/// Shows the seconds until it is dropped. Nothing is shown where nobody looks on.
#[derive(Debug)]
struct Clock {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    /// Starts at zero.
    fn start() -> Self {
        if !stderr().is_terminal() {
            return Self {
                stop: None,
                thread: None,
            };
        }
        let (stop, stopped) = channel();
        let began = Instant::now();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                eprint!("\r        … {} s", began.elapsed().as_secs());
                let _ = stderr().flush();
            }
            // Carriage return, and erase the line (ECMA-48).
            eprint!("\r\x1b[K");
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
