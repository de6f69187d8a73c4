//! What can go wrong, told so that a person knows what to do next.

use std::path::PathBuf;

/// A fault while building, starting or stopping something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine lacks something; the text says what, and what to do.
    #[error("{0}")]
    Machine(String),
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb: `read`, `write`, `lock`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {program}")]
    Spawn {
        /// The program's name.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` failed ({status}):\n{output}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// A component ended although it should run.
    #[error("{part} ended by itself; the end of {}:\n{tail}", log.display())]
    Ended {
        /// The component.
        part: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// A component runs, but did not become ready in time.
    #[error("{part} was not ready after {seconds} s ({wanted}); the end of {}:\n{tail}", log.display())]
    NotReady {
        /// The component.
        part: String,
        /// What was waited for.
        wanted: String,
        /// How long, in seconds.
        seconds: u64,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// Another process takes this run down.
    #[error("{0} is being taken down")]
    Stopping(String),
    /// No cluster or broker of that name runs.
    #[error("no cluster named {0}; `cluster list` shows those that run")]
    NoSuchRun(String),
    /// The name is taken.
    #[error("{0} exists already; take it down with `cluster down --name {0}`")]
    Exists(String),
    /// The tier has no such part.
    #[error("{part} runs only on the node tier; start the cluster with Tier::Node")]
    WrongTier {
        /// The part or ability that was asked for.
        part: String,
    },
    /// A certificate could not be made or read.
    #[error("cannot make a certificate for {subject}")]
    Certificate {
        /// Whom it is for.
        subject: String,
        /// The library's reason.
        source: rcgen::Error,
    },
    /// A record is not what this version writes.
    #[error("cannot understand {}; remove its folder if nothing of it runs", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Something stayed although it was removed.
    #[error("{0}")]
    Leftover(String),
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names the file in an error of the standard library.
pub(crate) trait Context<T> {
    /// Adds what was done to which file.
    fn file(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn file(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::File {
            action,
            path: path.into(),
            source,
        })
    }
}
