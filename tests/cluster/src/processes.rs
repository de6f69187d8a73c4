//! Finding and ending the processes of a run.
//!
//! Every process is started with two environment variables, the run's folder
//! and the part it plays, and is found by them. Unlike a list of process ids
//! this cannot be stale: it needs no write between starting a process and
//! recording it, and never names somebody else's process that got the same id.

use std::{path::Path, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal};

/// Names the run's folder in the environment of its processes.
pub(crate) const RUN: &str = "LOCAL_CLUSTER_RUN";
/// Names the part a process plays.
pub(crate) const PART: &str = "LOCAL_CLUSTER_PART";

/// How often a process without an environment is looked at, a millisecond apart.
const LOOKS: usize = 20;

/// As the kernel shortens it.
const SHIM: &str = "containerd-shim";

/// A process of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) part: String,
}

/// All processes of the run in `folder`.
pub(crate) fn find(folder: &Path) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            Some(Process {
                pid,
                part: part_of(pid, folder)?,
            })
        })
        .collect()
}

/// The processes that play one part of the run.
///
/// containerd's shims hold the containers and are to outlive it, so they are not counted as it.
pub(crate) fn find_part(folder: &Path, part: &str) -> Vec<Process> {
    find(folder)
        .into_iter()
        .filter(|process| process.part == part && name(process.pid) != SHIM)
        .collect()
}

/// Sends a signal, if the process still is the one that was found.
pub(crate) fn signal(process: &Process, folder: &Path, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return;
    };
    // The descriptor pins the process: what is read after it was opened is about the one that gets the signal.
    let Ok(descriptor) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if part_of(process.pid, folder).is_some() {
        // It may have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&descriptor, signal);
    }
}

fn part_of(pid: i32, folder: &Path) -> Option<String> {
    for _ in 0..LOOKS {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        if !environment.is_empty() {
            return part_in(&environment, folder);
        }
        if !may_be_starting(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Whether an empty environment may be that of a process which is just replacing its program, when it has none for a moment.
fn may_be_starting(stat: &str) -> bool {
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let mut fields = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace();
    let is_dead = matches!(fields.next(), Some("Z" | "X") | None);
    let flags: u64 = fields
        .nth(5)
        .and_then(|field| field.parse().ok())
        .unwrap_or_default();
    !is_dead && flags & KERNEL_THREAD == 0
}

fn part_in(environment: &[u8], folder: &Path) -> Option<String> {
    let mut run = None;
    let mut part = None;
    for entry in environment.split(|byte| *byte == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else {
            continue;
        };
        match entry.split_once('=') {
            Some((RUN, value)) => run = Some(value),
            Some((PART, value)) => part = Some(value),
            _ => {}
        }
    }
    (Path::new(run?) == folder).then(|| part.unwrap_or_default().to_owned())
}

/// When a process was started, in clock ticks since the machine was: with its id, who it is.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    start_time_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn start_time_in(stat: &str) -> Option<u64> {
    // The command's name, in parentheses, may hold spaces and parentheses itself.
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// The process's id inside its innermost namespace.
pub(crate) fn inner_pid(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// The name the process has now.
pub(crate) fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_run_is_not_ours() {
        let environment = b"A=b\0LOCAL_CLUSTER_RUN=/runs/one\0LOCAL_CLUSTER_PART=etcd\0";
        assert_eq!(
            part_in(environment, Path::new("/runs/one")),
            Some("etcd".to_owned())
        );
        assert_eq!(part_in(environment, Path::new("/runs/on")), None);
        assert_eq!(part_in(b"A=b\0", Path::new("/runs/one")), None);
    }

    #[test]
    fn kernel_threads_and_the_dead_are_not_waited_for() {
        assert!(may_be_starting("12 (sh) R 1 12 12 0 -1 4194560 1"));
        assert!(!may_be_starting("12 (sh) Z 1 12 12 0 -1 4194560 1"));
        assert!(!may_be_starting("2 (kthreadd) S 0 0 0 0 -1 2129984 0"));
    }

    #[test]
    fn the_start_time_is_read_behind_a_strange_name() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 0";
        assert_eq!(start_time_in(stat), Some(4711));
        assert!(start_time(std::process::id()).is_some());
    }
}
