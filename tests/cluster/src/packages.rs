//! Programs that come from Debian's packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use crate::{
    cache,
    error::{Context as _, Error, Result},
    exec,
};

/// A file that shows that a package is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    file: &'static str,
    package: &'static str,
}

const fn need(file: &'static str, package: &'static str) -> Need {
    Need { file, package }
}

/// What every tier builds and starts with.
pub const BASE: &[Need] = &[need("setsid", "util-linux"), need("cc", "gcc")];
/// What namespaces with a network take.
pub const NETWORK: &[Need] = &[need("ip", "iproute2")];
/// What runs pods.
pub const NODE: &[Need] = &[
    need("containerd", "containerd"),
    need("runc", "runc"),
    need("/usr/lib/cni/bridge", "containernetworking-plugins"),
    need("iptables", "iptables"),
    need("nft", "nftables"),
    need("mount", "mount"),
];
/// What builds images.
pub const IMAGES: &[Need] = &[need("buildah", "buildah"), need("cc", "gcc")];
/// What builds root file systems.
pub const ROOTFS: &[Need] = &[need("debootstrap", "debootstrap")];
/// What looks at certificates and web APIs from outside.
pub const CLIENTS: &[Need] = &[need("curl", "curl"), need("openssl", "openssl")];
/// The machine's own RabbitMQ.
pub const BROKER: &[Need] = &[need(
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "rabbitmq-server",
)];

const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\n# Made by local-cluster while it installs packages: they are to start no services.\nexit 101\n";
const LISTS: &str = "/var/lib/apt/lists";

/// Installs what is missing, or says in a sentence what to install.
pub fn ensure(needs: &[&[Need]]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !exec::is_root() {
        return Err(Error::Machine(format!(
            "the packages {list} are missing: install them with `sudo apt-get install {list}`, or run this as root"
        )));
    }
    if find("apt-get").is_none() {
        return Err(Error::Machine(format!(
            "{list} (Debian's names) are missing and there is no apt-get: install them with this system's package manager"
        )));
    }
    eprintln!("installing Debian packages: {list}");
    install(&missing)
}

/// An error that says what needs root, unless this process has it.
pub fn require_root(what: &str) -> Result<()> {
    if exec::is_root() {
        return Ok(());
    }
    Err(Error::Machine(format!(
        "{what} needs root, since it makes namespaces and mounts: run this as root, or with sudo"
    )))
}

fn missing(needs: &[&[Need]]) -> Vec<&'static str> {
    let mut packages: Vec<&'static str> = needs
        .iter()
        .flat_map(|list| list.iter())
        .filter(|need| find(need.file).is_none())
        .map(|need| need.package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// A program on the search path or in the folders for administrators, or a file by its path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin"]);
    // Joining an absolute path gives that path.
    folders
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

fn install(packages: &[&str]) -> Result<()> {
    let policy = Policy::deny_services()?;
    if lists_are_old() {
        exec::run(&mut apt(&["update"]))?;
    }
    let arguments = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    if exec::run(&mut apt(&arguments)).is_err() {
        // The lists may name versions that are gone.
        exec::run(&mut apt(&["update"]))?;
        exec::run(&mut apt(&arguments))?;
    }
    drop(policy);
    Ok(())
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn lists_are_old() -> bool {
    let Ok(entries) = std::fs::read_dir(LISTS) else {
        return true;
    };
    let newest = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("Release"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    newest.is_none_or(|time| {
        SystemTime::now()
            .duration_since(time)
            .is_ok_and(|age| age > Duration::from_hours(24))
    })
}

/// Keeps packages from starting services while they are installed.
#[derive(Debug)]
struct Policy {
    is_ours: bool,
}

impl Policy {
    fn deny_services() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = Path::new(POLICY);
        // One of ours may have been left by an installation that was cut off.
        let is_ours = std::fs::read_to_string(path).map_or(true, |text| text == POLICY_TEXT);
        if is_ours {
            std::fs::write(path, POLICY_TEXT).file("write", path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
                .file("write", path)?;
        }
        Ok(Self { is_ours })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.is_ours {
            // If it stays, the next installation takes it for its own.
            let _ = cache::remove(Path::new(POLICY));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_named_and_once() {
        let needs = [
            need("sh", "dash"),
            need("no-such-program", "nothing"),
            need("/no/such/file", "nothing"),
        ];
        assert_eq!(missing(&[&needs, BASE_PRESENT]), ["nothing"]);
    }

    const BASE_PRESENT: &[Need] = &[need("cat", "coreutils")];
}
