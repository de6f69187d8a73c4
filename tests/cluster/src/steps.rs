//! Telling a person what is built, how far it is and how long it took.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// A count of the builds that are to be done.
#[derive(Debug)]
pub struct Steps {
    total: usize,
    done: AtomicUsize,
}

impl Steps {
    /// So many builds are ahead.
    #[must_use]
    pub fn of(total: usize) -> Self {
        if total > 0 {
            eprintln!(
                "building {total} missing part(s), once (a whole node: about ten minutes on two cores)"
            );
        }
        Self {
            total,
            done: AtomicUsize::new(0),
        }
    }

    /// Nothing is printed.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            total: 0,
            done: AtomicUsize::new(0),
        }
    }

    pub(crate) fn begin(&self, name: &str) {
        let step = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.total > 0 {
            eprint!("[{step}/{}] building {name} … ", self.total);
        }
    }

    pub(crate) fn end(&self, took: Duration) {
        if self.total > 0 {
            eprintln!("{:.0} s", took.as_secs_f64());
        }
    }

    /// Somebody else built it meanwhile.
    pub(crate) fn skip(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}
