//! What runs: one folder for each cluster and broker, recorded before anything is started.
//!
//! The folder holds the record, all data and the logs. Whoever wants to know
//! what there is, or to take something down, needs nothing but these folders.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::{Context as _, Error, Result},
    exec, processes,
};

/// How long a component may take to become ready.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often in a row nothing is found before it counts as gone.
pub(crate) const ABSENCES: u32 = 2;

/// A run: a folder, and its processes.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    folder: PathBuf,
}

/// What is needed to take a run down, whoever started it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The process whose end is the run's end; none for a run that was left in the background.
    pub(crate) owner: Option<Owner>,
    /// Number of the run among those of its kind: its addresses and interface follow from it.
    pub(crate) slot: u16,
    /// The host's end of its pair of network interfaces.
    pub(crate) link: Option<String>,
    /// Its folder in each hierarchy below `/sys/fs/cgroup`.
    pub(crate) cgroup: Option<String>,
}

/// A process, told apart from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pid: u32,
    start: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            start: processes::start_time(pid).unwrap_or_default(),
        }
    }

    fn lives(self) -> bool {
        processes::start_time(self.pid) == Some(self.start)
    }
}

/// A program to be started as a part of a run.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Words before the program, such as those that enter a namespace.
    pub(crate) prefix: Vec<String>,
}

impl Program {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn prefix(mut self, prefix: Vec<String>) -> Self {
        self.prefix = prefix;
        self
    }
}

/// The folder of all runs: on disk, with a path short enough for sockets, this user's alone.
pub(crate) fn root() -> Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let user = rustix::process::geteuid().as_raw();
    let path = std::env::var_os("VOLTTRON_RUNS").map_or_else(
        || PathBuf::from(format!("/var/tmp/local-cluster-{user}")),
        PathBuf::from,
    );
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).file("create", &path)?;
        }
        _ => {}
    }
    // Another user may have been quicker in a folder that all may write to.
    let metadata = std::fs::symlink_metadata(&path).file("read", &path)?;
    if !metadata.is_dir() || metadata.uid() != user {
        return Err(Error::Machine(format!(
            "{} is not this user's folder: set VOLTTRON_RUNS to one that is",
            path.display()
        )));
    }
    Ok(path)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .file("open", path)?;
    file.lock().file("lock", path)?;
    Ok(file)
}

/// The names of all runs that have a folder.
pub(crate) fn names() -> Result<Vec<String>> {
    let root = root()?;
    let mut names: Vec<String> = std::fs::read_dir(&root)
        .file("read", &root)?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// The runs that nobody will take down.
pub(crate) fn orphans() -> Result<Vec<Run>> {
    let root = root()?;
    // A run that is just being created has no record yet.
    let _lock = lock(&root.join("lock"))?;
    let runs = names()?.into_iter().map(|name| Run {
        folder: root.join(name),
    });
    Ok(runs.filter(Run::is_orphan).collect())
}

impl Run {
    /// Makes the folder and the record; `fill` gets a slot that no other run with its kind of link has.
    pub(crate) fn create(name: &str, fill: impl Fn(u16) -> Record) -> Result<Self> {
        let root = root()?;
        let _lock = lock(&root.join("lock"))?;
        let run = Self {
            folder: root.join(name),
        };
        if run.folder.exists() {
            return Err(Error::Exists(name.to_owned()));
        }
        let taken: Vec<Record> = names()?
            .iter()
            .filter_map(|name| {
                Self {
                    folder: root.join(name),
                }
                .record()
                .ok()
            })
            .collect();
        let is_free = |record: &Record| match &record.link {
            Some(link) => {
                !taken.iter().any(|other| other.link.as_ref() == Some(link))
                    && !Path::new("/sys/class/net").join(link).exists()
            }
            None => !taken
                .iter()
                .any(|other| other.link.is_none() && other.slot == record.slot),
        };
        let record = (0..=u16::from(u8::MAX))
            .map(fill)
            .find(is_free)
            .ok_or_else(|| {
                Error::Machine("256 runs exist already: take some down with `cluster down`".into())
            })?;
        std::fs::create_dir_all(run.logs()).file("create", run.logs())?;
        run.save("record.json", &record)?;
        Ok(run)
    }

    /// The run of that name, if its folder exists.
    pub(crate) fn open(name: &str) -> Result<Option<Self>> {
        let folder = root()?.join(name);
        Ok(folder.is_dir().then_some(Self { folder }))
    }

    pub(crate) fn name(&self) -> String {
        self.folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.join(relative)
    }

    pub(crate) fn record(&self) -> Result<Record> {
        self.load("record.json")
    }

    pub(crate) fn save(&self, file: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path(file);
        let text = serde_json::to_string_pretty(value).map_err(|source| Error::Record {
            path: path.clone(),
            source,
        })?;
        let partial = self.path(format!("{file}.partial"));
        exec::write_private(&partial, text)?;
        std::fs::rename(&partial, &path).file("write", path)
    }

    pub(crate) fn load<T: DeserializeOwned>(&self, file: &str) -> Result<T> {
        let path = self.path(file);
        let text = std::fs::read_to_string(&path).file("read", &path)?;
        serde_json::from_str(&text).map_err(|source| Error::Record { path, source })
    }

    /// Whether the process it belongs to is gone, or all of its own processes are, so that nobody will take it down.
    fn is_orphan(&self) -> bool {
        match self.record() {
            Ok(Record {
                owner: Some(owner), ..
            }) => !owner.lives(),
            Ok(Record { owner: None, .. }) => processes::find(&self.folder).is_empty(),
            // Cut off between the folder and the record, nothing was started. A record that another version wrote is left alone.
            Err(_) => !self.path("record.json").exists(),
        }
    }

    /// Lets the run outlive this process.
    pub(crate) fn detach(&self) -> Result<()> {
        let _lock = self.guard()?;
        let record = Record {
            owner: None,
            ..self.record()?
        };
        self.save("record.json", &record)
    }

    fn logs(&self) -> PathBuf {
        self.path("log")
    }

    pub(crate) fn log(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    /// Holds off taking down while something is started; fails once that has begun.
    pub(crate) fn guard(&self) -> Result<File> {
        let stopping = || Error::Stopping(self.name());
        if !self.folder.is_dir() {
            return Err(stopping());
        }
        let file = lock(&self.path("lock")).map_err(|_| stopping())?;
        if self.path("stopping").exists() {
            return Err(stopping());
        }
        Ok(file)
    }

    /// Closes the run for new processes.
    pub(crate) fn close(&self) -> Result<()> {
        let _lock = lock(&self.path("lock"))?;
        let path = self.path("stopping");
        File::create(&path).file("write", path)?;
        Ok(())
    }

    /// A command whose process, and all that it starts, belong to the run as `part`.
    pub(crate) fn command(&self, part: &str, program: &Program) -> Result<Command> {
        let words: Vec<&str> = program.prefix.iter().map(String::as_str).collect();
        let mut command = match words.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program.path);
                command
            }
            None => Command::new(&program.path),
        };
        let path = self.log(part);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .file("open", &path)?;
        let copy = log.try_clone().file("open", &path)?;
        command
            .args(&program.args)
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .env(processes::RUN, &self.folder)
            .env(processes::PART, part)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy);
        Ok(command)
    }

    /// Starts a program that no terminal and no parent can end.
    pub(crate) fn launch(&self, part: &str, mut program: Program) -> Result<()> {
        let _lock = self.guard()?;
        program
            .prefix
            .extend(["setsid".to_owned(), "--fork".to_owned()]);
        let mut command = self.command(part, &program)?;
        let status = command.status().map_err(|source| Error::Spawn {
            program: part.to_owned(),
            source,
        })?;
        if status.success() {
            Ok(())
        } else {
            Err(self.ended(part))
        }
    }

    pub(crate) fn is_running(&self, part: &str) -> bool {
        !processes::find_part(&self.folder, part).is_empty()
    }

    /// Sends a signal to all processes of a part and waits until they are gone; SIGKILL if that takes long.
    pub(crate) fn end(&self, part: &str, signal: rustix::process::Signal) -> Result<()> {
        let send = |signal| {
            for process in processes::find_part(&self.folder, part) {
                processes::signal(&process, &self.folder, signal);
            }
        };
        for signal in [signal, rustix::process::Signal::KILL] {
            send(signal);
            let mut missed = 0;
            if exec::wait_until(Duration::from_secs(10), || {
                missed = if self.is_running(part) { 0 } else { missed + 1 };
                missed == ABSENCES
            }) {
                return Ok(());
            }
        }
        Err(Error::Leftover(format!(
            "{part} of {} does not end even by SIGKILL",
            self.name()
        )))
    }

    /// Waits until a part does what it should, or ends, or the time is over.
    pub(crate) fn wait(&self, part: &str, wanted: &str, check: impl FnMut() -> bool) -> Result<()> {
        self.wait_for(part, wanted, PATIENCE, check)
    }

    /// [`Run::wait`] with a limit of its own.
    pub(crate) fn wait_for(
        &self,
        part: &str,
        wanted: &str,
        limit: Duration,
        mut check: impl FnMut() -> bool,
    ) -> Result<()> {
        let mut missed = 0;
        let mut is_ready = false;
        exec::wait_until(limit, || {
            is_ready = check();
            // A process can be overlooked in the moment it replaces its program.
            missed = if is_ready || self.is_running(part) {
                0
            } else {
                missed + 1
            };
            is_ready || missed == ABSENCES
        });
        if is_ready {
            Ok(())
        } else if !self.path("record.json").exists() || self.path("stopping").exists() {
            Err(Error::Stopping(self.name()))
        } else if missed == ABSENCES {
            Err(self.ended(part))
        } else {
            let log = self.log(part);
            let tail = exec::tail(&log);
            Err(Error::NotReady {
                part: part.into(),
                wanted: wanted.into(),
                seconds: limit.as_secs(),
                log,
                tail,
            })
        }
    }

    fn ended(&self, part: &str) -> Error {
        let log = self.log(part);
        Error::Ended {
            part: part.to_owned(),
            tail: exec::tail(&log),
            log,
        }
    }
}
