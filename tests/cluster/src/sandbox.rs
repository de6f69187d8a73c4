//! Namespaces that a run's processes live in.
//!
//! The first process of a process namespace is the whole clean-up: when it
//! ends, however that comes, the kernel ends every process in the namespace,
//! and with them go the mounts, bridges, routes and tables of theirs.

use std::{
    path::PathBuf,
    process::{Child, ChildStdin, Stdio},
    sync::Mutex,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    exec, processes,
    runs::{Program, Run},
};

const PART: &str = "sandbox";

/// Which namespaces besides the one for processes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spaces {
    pub(crate) mounts: bool,
    pub(crate) network: bool,
    pub(crate) host_name: bool,
}

/// A sandbox to be made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spaces: Spaces,
    /// The static program `init`.
    pub(crate) init: PathBuf,
    /// Shell commands that prepare it from inside, as root.
    pub(crate) setup: String,
    /// Its root folder, when it is not the machine's; `init` must be in it as `/init`.
    pub(crate) root: Option<PathBuf>,
    /// Whether it ends with this process.
    pub(crate) tied: bool,
}

/// The hold on a sandbox: while it is tied, dropping this ends it.
#[derive(Debug)]
pub(crate) struct Hold {
    child: Mutex<Child>,
    stdin: Option<ChildStdin>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.stdin.take().is_some()
            && let Ok(child) = self.child.get_mut()
        {
            // The other end of the pipe is the sandbox's life: it ends now, and is not to stay a zombie.
            exec::wait_until(Duration::from_secs(5), || {
                !matches!(child.try_wait(), Ok(None))
            });
        }
    }
}

/// Makes the sandbox and returns when it can be entered.
pub(crate) fn start(run: &Run, plan: &Plan) -> Result<Hold> {
    let lock = run.guard()?;
    let mut program = Program::new("setsid").args(["unshare", "--pid", "--fork"]);
    if plan.spaces.mounts {
        program = program.args(["--mount", "--propagation", "private"]);
    }
    if plan.spaces.network {
        program = program.arg("--net");
    }
    if plan.spaces.host_name {
        program = program.arg("--uts");
    }
    let (enter, init) = match &plan.root {
        Some(root) => (format!("chroot '{}' ", root.display()), "/init".to_owned()),
        None => (String::new(), plan.init.display().to_string()),
    };
    let mode = if plan.tied { "tied" } else { "" };
    let script = format!("set -e\n{}\nexec {enter}{init} {mode}", plan.setup);
    program = program.args(["sh".to_owned(), "-c".to_owned(), script]);
    let mut command = run.command(PART, &program)?;
    if plan.tied {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(|source| Error::Spawn {
        program: "unshare".into(),
        source,
    })?;
    drop(lock);
    let stdin = child.stdin.take();
    let hold = Hold {
        child: Mutex::new(child),
        stdin,
    };
    // A child that has ended and was not waited for has no environment: it counts as gone.
    run.wait_for(PART, "its namespaces made", Duration::from_secs(20), || {
        find(run).is_some()
    })?;
    Ok(hold)
}

/// The sandbox's first process, as the machine numbers it.
fn find(run: &Run) -> Option<i32> {
    processes::find_part(run.folder(), PART)
        .into_iter()
        .map(|process| process.pid)
        .find(|pid| processes::name(*pid) == "init" && processes::inner_pid(*pid) == Some(1))
}

/// Words before a command that is to run in the sandbox.
pub(crate) fn enter(run: &Run, spaces: Spaces) -> Result<Vec<String>> {
    let pid = find(run).ok_or_else(|| Error::Ended {
        part: PART.into(),
        log: run.log(PART),
        tail: exec::tail(&run.log(PART)),
    })?;
    let mut words: Vec<String> = ["nsenter", "--target", &pid.to_string(), "--pid"]
        .map(str::to_owned)
        .to_vec();
    let optional = [
        (spaces.mounts, "--mount"),
        (spaces.network, "--net"),
        (spaces.host_name, "--uts"),
    ];
    words.extend(
        optional
            .iter()
            .filter(|(wanted, _)| *wanted)
            .map(|(_, word)| (*word).to_owned()),
    );
    Ok(words)
}

/// Joins the machine's and the sandbox's network by a pair of interfaces; the inner one is `eth0`.
pub(crate) fn connect(
    run: &Run,
    link: &str,
    outside: &str,
    inside: &str,
    routes: &[String],
) -> Result<()> {
    let _lock = run.guard()?;
    let pid = find(run).unwrap_or_default().to_string();
    let ip =
        |line: &str| exec::run(std::process::Command::new("ip").args(line.split(' '))).map(drop);
    let inner = |line: &str| {
        exec::run(
            std::process::Command::new("nsenter")
                .args(["--target", &pid, "--net", "ip"])
                .args(line.split(' ')),
        )
        .map(drop)
    };
    ip(&format!(
        "link add {link} type veth peer name eth0 netns {pid}"
    ))?;
    ip(&format!("address add {outside}/30 dev {link}"))?;
    ip(&format!("link set {link} up"))?;
    inner("link set lo up")?;
    inner(&format!("address add {inside}/30 dev eth0"))?;
    inner("link set eth0 up")?;
    inner(&format!("route add default via {outside}"))?;
    for route in routes {
        ip(&format!("route add {route} via {inside} dev {link}"))?;
    }
    Ok(())
}
