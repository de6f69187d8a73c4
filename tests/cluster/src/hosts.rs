//! Names for a child process, without touching the machine's `/etc/hosts`.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Context as _, Result},
    packages,
};

/// A private copy of `/etc/hosts`, which child processes see in its place. Needs root.
#[derive(Debug, Clone)]
pub struct Hosts {
    file: PathBuf,
}

impl Hosts {
    /// Makes the copy, `hosts`, in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        packages::require_root("a private /etc/hosts")?;
        std::fs::create_dir_all(folder).file("create", folder)?;
        let folder = folder.canonicalize().file("resolve", folder)?;
        let hosts = Self {
            file: folder.join("hosts"),
        };
        hosts.set(&[])?;
        Ok(hosts)
    }

    /// Lets the names, and no others than before this copy, resolve to the addresses: at once, also for children that run.
    pub fn set(&self, names: &[(&str, IpAddr)]) -> Result<()> {
        let machine = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        // Written in place: a mount shows the file it was made from, not what is renamed over it.
        std::fs::write(&self.file, render(&machine, names)).file("write", &self.file)
    }

    /// A command for a program that sees the copy. The child's process id is the program's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(r#"mount --bind "$0" /etc/hosts && exec "$@""#)
            .arg(&self.file)
            .arg(program);
        command
    }
}

fn render(machine: &str, names: &[(&str, IpAddr)]) -> String {
    // The first match counts, so ours come first.
    let mut text = String::new();
    for (name, address) in names {
        let _ = writeln!(text, "{address} {name}");
    }
    text.push_str(machine);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_names_come_before_the_machines() {
        let text = render(
            "127.0.0.1 localhost broker\n",
            &[("broker", IpAddr::from([10, 0, 0, 2]))],
        );
        assert_eq!(text, "10.0.0.2 broker\n127.0.0.1 localhost broker\n");
    }
}
