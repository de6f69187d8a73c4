//! Taking a run down, whatever state it is in.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    cache,
    error::{Error, Result},
    exec, processes,
    runs::{self, ABSENCES, Run},
};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Takes down every run whose owner is gone; returns their names.
pub fn sweep() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for run in runs::orphans()? {
        take_down(&run)?;
        swept.push(run.name());
    }
    Ok(swept)
}

/// Ends all processes of the run and removes all that they leave. Can be called again, and at the same time.
pub(crate) fn take_down(run: &Run) -> Result<()> {
    if !run.folder().is_dir() {
        return Ok(());
    }
    run.close()?;
    let record = run.record().ok();
    end_processes(run)?;
    if let Some(record) = record {
        if let Some(link) = record.link {
            remove_link(&link)?;
        }
        if let Some(cgroup) = record.cgroup {
            remove_cgroups(&cgroup)?;
        }
    }
    unmount_below(run.folder())?;
    // Two that take down at once remove each other's entries: only what is left counts.
    if exec::wait_until(Duration::from_secs(10), || {
        cache::remove(run.folder()).is_ok() && !run.folder().exists()
    }) {
        Ok(())
    } else {
        cache::remove(run.folder())
    }
}

/// With the first process of a namespace all others in it end: containers, shims, and the namespaces of the run.
fn end_processes(run: &Run) -> Result<()> {
    let mut missed = 0;
    let is_over = exec::wait_until(Duration::from_secs(30), || {
        let found = processes::find(run.folder());
        for process in &found {
            processes::signal(process, run.folder(), Signal::KILL);
        }
        missed = if found.is_empty() { missed + 1 } else { 0 };
        missed == ABSENCES
    });
    if is_over {
        return Ok(());
    }
    let left: Vec<String> = processes::find(run.folder())
        .into_iter()
        .map(|process| format!("{} ({})", process.pid, process.part))
        .collect();
    Err(Error::Leftover(format!(
        "processes of {} do not end: {}",
        run.name(),
        left.join(", ")
    )))
}

/// The kernel removes the pair with the namespace of its other end, a moment after the last process there.
fn remove_link(link: &str) -> Result<()> {
    let exists = || Path::new("/sys/class/net").join(link).exists();
    let is_gone = exec::wait_until(Duration::from_secs(5), || {
        // Fails when the kernel was quicker.
        !exists()
            || exec::run(Command::new("ip").args(["link", "delete", link])).is_ok() && !exists()
    });
    if is_gone {
        Ok(())
    } else {
        Err(Error::Leftover(format!(
            "the interface {link} does not go away"
        )))
    }
}

/// Containers' groups outlive their processes, in every hierarchy.
fn remove_cgroups(name: &str) -> Result<()> {
    let mut roots = vec![PathBuf::from(CGROUPS).join(name)];
    if let Ok(hierarchies) = std::fs::read_dir(CGROUPS) {
        roots.extend(
            hierarchies
                .flatten()
                .map(|hierarchy| hierarchy.path().join(name)),
        );
    }
    for root in roots {
        if !exec::wait_until(Duration::from_secs(10), || {
            remove_group(&root);
            !root.exists()
        }) {
            return Err(Error::Leftover(format!(
                "the control group {} does not go away",
                root.display()
            )));
        }
    }
    Ok(())
}

/// A group is removed as a folder; the files in it are the kernel's.
fn remove_group(group: &Path) {
    if let Ok(entries) = std::fs::read_dir(group) {
        for entry in entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            remove_group(&entry.path());
        }
    }
    // Fails while a process is about to end; the caller tries again.
    let _ = std::fs::remove_dir(group);
}

fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts_below(&mounts(), folder) {
        exec::run(Command::new("umount").arg("--lazy").arg(&mount))?;
    }
    match mounts_below(&mounts(), folder).first() {
        Some(mount) => Err(Error::Leftover(format!(
            "{} stays mounted",
            mount.display()
        ))),
        None => Ok(()),
    }
}

/// Mount points in or below a folder, the last made first.
fn mounts_below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let mut mounts: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(folder))
        .collect();
    mounts.reverse();
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_inside_are_found_the_innermost_first() {
        let mountinfo = "\
            22 1 0:20 / /proc rw - proc proc rw\n\
            30 1 0:21 / /var/tmp/runs/one/kubelet rw - tmpfs tmpfs rw\n\
            31 30 0:22 / /var/tmp/runs/one/kubelet/a\\040b rw - tmpfs tmpfs rw\n\
            32 1 0:23 / /var/tmp/runs/one-more rw - tmpfs tmpfs rw\n";
        let found = mounts_below(mountinfo, Path::new("/var/tmp/runs/one"));
        assert_eq!(
            found,
            [
                PathBuf::from("/var/tmp/runs/one/kubelet/a b"),
                PathBuf::from("/var/tmp/runs/one/kubelet")
            ]
        );
    }
}
