//! Real RabbitMQ brokers without containers.
//!
//! Each broker lives in namespaces of its own, with its own root folder, so
//! that it reads the very files that an operator would mount into its pod, at
//! the same paths, and listens on the same ports, beside any number of others.

use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;

use crate::{
    cache::{self, Cache},
    cluster::{check_name, unique_name},
    error::{Context as _, Error, Result},
    exec, images, packages,
    programs::Tool,
    runs::{Owner, Program, Record, Run},
    sandbox::{self, Hold, Plan, Spaces},
    steps::Steps,
    teardown,
};

const PART: &str = "rabbitmq";
const DATA: &str = "var/lib/rabbitmq";
const PATH: &str = "/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The name of a file that is not in its place yet.
const PARTIAL: &str = "..partial";
/// The link that a kubelet swaps.
const DATA_LINK: &str = "..data";
const SPACES: Spaces = Spaces {
    mounts: true,
    network: true,
    host_name: true,
};
/// What programs read of the base's `/etc`.
const ETC: [&str; 8] = [
    "alternatives",
    "passwd",
    "group",
    "nsswitch.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
];

/// Which RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Base {
    /// The one Debian installs on this machine (3.10.8 on Debian 12).
    #[default]
    Machine,
    /// The one of the image [`images::RABBITMQ`] (4.0.5).
    Image,
}

/// A broker to be started.
#[derive(Debug, Clone, Default)]
pub struct RabbitMqOptions {
    /// Its host name; the node is `rabbit@<name>`.
    pub name: String,
    /// Its files, by their absolute paths, such as `/etc/rabbitmq/rabbitmq.conf`; readable by the broker, not by others.
    pub files: Vec<(String, Vec<u8>)>,
    /// Its environment, beside `HOME`, `PATH` and `RABBITMQ_LOGS=-`.
    pub env: Vec<(String, String)>,
    /// Which RabbitMQ.
    pub base: Base,
}

/// A running broker; it ends when this is dropped or this process ends. Needs root.
#[derive(Debug)]
pub struct RabbitMq {
    run: Run,
    options: RabbitMqOptions,
    address: Ipv4Addr,
    user: User,
    /// Where in the log the present start begins.
    log_start: AtomicU64,
    _hold: Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

impl RabbitMq {
    /// Starts a broker; it accepts connections after [`RabbitMq::wait_ready`].
    pub fn start(options: RabbitMqOptions) -> Result<Self> {
        check_name(&options.name)?;
        packages::require_root("a broker of its own")?;
        teardown::sweep()?;
        let cache = Cache::open()?;
        packages::ensure(&[packages::BASE, packages::NETWORK])?;
        let base = match options.base {
            Base::Machine => {
                packages::ensure(&[packages::BROKER])?;
                PathBuf::from("/")
            }
            Base::Image => images::rabbitmq_rootfs(&cache)?,
        };
        let init = Tool::Init.path(&cache, &Steps::silent())?;
        let run = Run::create(&unique_name("broker"), |slot| Record {
            owner: Some(Owner::this()),
            slot,
            link: Some(format!("vlt-b{slot}")),
            cgroup: None,
        })?;
        Self::bring_up(run.clone(), options, &base, init).inspect_err(|_| {
            // The fault is what a person wants to read; what stays is found by the next sweep.
            let _ = teardown::take_down(&run);
        })
    }

    fn bring_up(run: Run, options: RabbitMqOptions, base: &Path, init: PathBuf) -> Result<Self> {
        let record = run.record()?;
        let (outside, address) = addresses(record.slot);
        let root = run.path("root");
        let user = make_root(&root, base, &init, &options.name, address)?;
        let setup = setup(base, &root, &options.name);
        let hold = sandbox::start(
            &run,
            &Plan {
                spaces: SPACES,
                init,
                setup,
                root: Some(root),
                tied: true,
            },
        )?;
        let link = record.link.unwrap_or_default();
        sandbox::connect(&run, &link, &outside.to_string(), &address.to_string(), &[])?;
        let broker = Self {
            run,
            options,
            address,
            user,
            log_start: AtomicU64::new(0),
            _hold: hold,
        };
        broker.update_files(&broker.options.files)?;
        broker.start_again()?;
        Ok(broker)
    }

    /// Where it listens, on whatever ports its configuration names; reachable from this machine.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.run.log(PART)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.run.is_running(PART)
    }

    /// Waits until it has started with all its plugins; an error shows the end of its log.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let start = usize::try_from(self.log_start.load(Ordering::Relaxed)).unwrap_or_default();
        self.run
            .wait_for(PART, "to say that its start is complete", limit, || {
                let log = std::fs::read(self.log()).unwrap_or_default();
                let text = String::from_utf8_lossy(log.get(start..).unwrap_or_default());
                text.contains("Server startup complete")
                    || text.contains("Starting broker... completed")
            })
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&self) -> Result<()> {
        self.run.end(PART, Signal::KILL)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&self) -> Result<()> {
        self.run.end(PART, Signal::TERM)
    }

    /// Starts it again after [`RabbitMq::kill`] or [`RabbitMq::stop`], with its address, data and files.
    pub fn start_again(&self) -> Result<()> {
        let length = std::fs::metadata(self.log()).map_or(0, |metadata| metadata.len());
        self.log_start.store(length, Ordering::Relaxed);
        self.run.launch(PART, self.program("rabbitmq-server")?)
    }

    /// Forgets all data; only while it is stopped.
    pub fn wipe_data(&self) -> Result<()> {
        if self.is_running() {
            return Err(Error::Machine(
                "a running broker's data cannot be wiped: stop it first".into(),
            ));
        }
        let data = self.run.path("root").join(DATA);
        for entry in std::fs::read_dir(&data).file("read", &data)?.flatten() {
            cache::remove(&entry.path())?;
        }
        Ok(())
    }

    /// Adds and replaces files, by their absolute paths as the broker sees them.
    pub fn update_files(&self, files: &[(String, Vec<u8>)]) -> Result<()> {
        let root = self.run.path("root");
        for (path, content) in files {
            let target = place(&root, path)?;
            let folder = target.parent().unwrap_or(&root);
            std::fs::create_dir_all(folder).file("create", folder)?;
            // Renamed into place: nobody reads half a file.
            let partial = folder.join(PARTIAL);
            self.write(&partial, content)?;
            std::fs::rename(&partial, &target).file("write", &target)?;
        }
        Ok(())
    }

    /// Gives a folder these files and no others, all at once, as a kubelet does with a volume: `..data` is a link to a folder with
    /// the files, and what is seen are links through it.
    pub fn set_volume(&self, path: &str, files: &[(String, Vec<u8>)]) -> Result<()> {
        let root = self.run.path("root");
        let folder = place(&root, path)?;
        std::fs::create_dir_all(&folder).file("create", &folder)?;
        let data = folder.join(DATA_LINK);
        let before = std::fs::read_link(&data).ok();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let version = format!("..{}", now.unwrap_or_default().as_nanos());
        let next = folder.join(&version);
        std::fs::create_dir(&next).file("create", &next)?;
        for (name, content) in files {
            self.write(&next.join(name), content)?;
        }
        link(Path::new(&version), &data)?;
        for (name, _) in files {
            let target = Path::new(DATA_LINK).join(name);
            let seen = folder.join(name);
            if std::fs::read_link(&seen).ok().as_ref() != Some(&target) {
                link(&target, &seen)?;
            }
        }
        for entry in std::fs::read_dir(&folder).file("read", &folder)?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let wanted = name.starts_with("..") || files.iter().any(|(file, _)| *file == name);
            if !wanted {
                cache::remove(&entry.path())?;
            }
        }
        before.map_or(Ok(()), |before| cache::remove(&folder.join(before)))
    }

    /// Writes a file that the broker can read, and others cannot.
    fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        std::fs::write(path, content).file("write", path)?;
        std::os::unix::fs::chown(path, Some(0), Some(self.user.gid))
            .file("change the owner of", path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640))
            .file("change the mode of", path)
    }

    /// Runs `rabbitmqctl` on it and returns what it prints.
    pub fn rabbitmqctl(&self, args: &[&str]) -> Result<String> {
        let program = self.program("rabbitmqctl")?.args(args.iter().copied());
        let mut command = self.run.command("rabbitmqctl", &program)?;
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        exec::run(&mut command)
    }

    fn program(&self, name: &str) -> Result<Program> {
        let mut prefix = sandbox::enter(&self.run, SPACES)?;
        prefix.extend(["--root".to_owned(), "--wd".to_owned()]);
        let User { uid, gid } = self.user;
        let mut program = Program::new("setpriv").prefix(prefix).args([
            format!("--reuid={uid}"),
            format!("--regid={gid}"),
            "--clear-groups".to_owned(),
            name.to_owned(),
        ]);
        let defaults = [
            ("HOME", "/var/lib/rabbitmq"),
            ("PATH", PATH),
            ("LANG", "C.UTF-8"),
            ("RABBITMQ_LOGS", "-"),
        ];
        program.env = defaults
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        program.env.extend(self.options.env.iter().cloned());
        Ok(program)
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if let Err(error) = teardown::take_down(&self.run) {
            eprintln!("{}: {error}", self.run.name());
        }
    }
}

/// Makes a symbolic link, in place of what is there.
fn link(target: &Path, at: &Path) -> Result<()> {
    let partial = at.with_file_name(PARTIAL);
    std::os::unix::fs::symlink(target, &partial).file("create", &partial)?;
    std::fs::rename(&partial, at).file("write", at)
}

/// The machine's and the broker's end of the link.
fn addresses(slot: u16) -> (Ipv4Addr, Ipv4Addr) {
    let [high, low] = (slot * 4).to_be_bytes();
    (
        Ipv4Addr::new(10, 231, high, low + 1),
        Ipv4Addr::new(10, 231, high, low + 2),
    )
}

/// A path inside the root folder; refused when it would lead out of it.
fn place(root: &Path, path: &str) -> Result<PathBuf> {
    let relative = path
        .strip_prefix('/')
        .filter(|rest| !rest.split('/').any(|part| matches!(part, "" | "." | "..")));
    relative.map(|relative| root.join(relative)).ok_or_else(|| {
        Error::Machine(format!(
            "`{path}` is no file's path in a container: begin it with `/`"
        ))
    })
}

/// Lays out the root folder: the base's programs come by a mount, the rest is the broker's own.
fn make_root(root: &Path, base: &Path, init: &Path, name: &str, address: Ipv4Addr) -> Result<User> {
    for folder in [
        "usr",
        "etc/rabbitmq",
        "proc",
        "dev",
        "tmp",
        "run",
        DATA,
        "var/log/rabbitmq",
        "var/tmp",
    ] {
        let path = root.join(folder);
        std::fs::create_dir_all(&path).file("create", path)?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        let path = root.join(link);
        std::os::unix::fs::symlink(format!("usr/{link}"), &path).file("create", path)?;
    }
    std::fs::copy(init, root.join("init")).file("copy", init)?;
    for entry in ETC.map(|entry| base.join("etc").join(entry)) {
        if entry.exists() {
            exec::run(
                Command::new("cp")
                    .arg("--archive")
                    .arg(&entry)
                    .arg(root.join("etc")),
            )?;
        }
    }
    let hosts = root.join("etc/hosts");
    std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} {name}\n"))
        .file("write", &hosts)?;
    let accounts = root.join("etc/passwd");
    let text = std::fs::read_to_string(&accounts).file("read", &accounts)?;
    let user = account(&text).ok_or_else(|| {
        Error::Machine("the user `rabbitmq` is missing in /etc/passwd: install the package rabbitmq-server anew".into())
    })?;
    for folder in [DATA, "var/log/rabbitmq", "etc/rabbitmq"] {
        let path = root.join(folder);
        std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))
            .file("change the owner of", path)?;
    }
    let everyone = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(root.join("tmp"), everyone)
        .file("change the mode of", root.join("tmp"))?;
    Ok(user)
}

fn account(passwd: &str) -> Option<User> {
    let line = passwd
        .lines()
        .find_map(|line| line.strip_prefix("rabbitmq:"))?;
    let mut fields = line.split(':').skip(1);
    Some(User {
        uid: fields.next()?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    })
}

fn setup(base: &Path, root: &Path, name: &str) -> String {
    format!(
        "mount --bind '{usr}' '{root}/usr'
         mount -o remount,ro,bind '{root}/usr'
         mount --rbind /dev '{root}/dev'
         mount -t proc proc '{root}/proc'
         hostname '{name}'",
        usr = base.join("usr").display(),
        root = root.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_overlap() {
        assert_eq!(
            addresses(0),
            (Ipv4Addr::new(10, 231, 0, 1), Ipv4Addr::new(10, 231, 0, 2))
        );
        assert_eq!(
            addresses(65),
            (Ipv4Addr::new(10, 231, 1, 5), Ipv4Addr::new(10, 231, 1, 6))
        );
    }

    #[test]
    fn a_file_cannot_leave_the_root() {
        let root = Path::new("/run/root");
        assert_eq!(
            place(root, "/etc/rabbitmq/a").unwrap(),
            Path::new("/run/root/etc/rabbitmq/a")
        );
        for path in ["etc/a", "/../etc/passwd", "/etc/../../a", "/", "//etc/a"] {
            assert!(place(root, path).is_err(), "{path} was accepted");
        }
    }

    #[test]
    fn the_account_is_read_from_passwd() {
        let passwd =
            "root:x:0:0::/:/bin/sh\nrabbitmq:x:103:106::/var/lib/rabbitmq:/usr/sbin/nologin\n";
        assert_eq!(account(passwd), Some(User { uid: 103, gid: 106 }));
    }
}
