//! The operator as a plain process.

use crate::children::{self, TIED};
use crate::{SOON, eventually};
use local_cluster::Hosts;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// What `/readyz` says of a replica that does not lead.
const STANDBY: &str = "standing by";
/// Lines of the log that a failure shows.
const TAIL: usize = 40;

/// `volttron-operator controller` with its log; killed when dropped.
pub struct Operator {
    program: PathBuf,
    launch: Launch,
    listen: SocketAddr,
    log: PathBuf,
    child: Arc<Mutex<Option<Child>>>,
}

/// What an operator is started with.
pub(crate) struct Launch {
    /// Where its log goes.
    pub(crate) folder: PathBuf,
    /// What tells it from other replicas.
    pub(crate) name: String,
    pub(crate) hosts: Hosts,
    /// Whose rights it has.
    pub(crate) kubeconfig: PathBuf,
    pub(crate) lease_seconds: Option<u16>,
    pub(crate) superseded_grace: Option<u16>,
}

/// An answer of the operator's HTTP server.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The header `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl Operator {
    /// Starts it.
    pub(crate) fn start(launch: Launch) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let listen = listener.local_addr().expect("an address");
        drop(listener);
        let operator = Self {
            program: binary("volttron-operator", "OPERATOR_BIN"),
            listen,
            log: launch.folder.join(format!("{}.log", launch.name)),
            launch,
            child: Arc::default(),
        };
        operator.start_again();
        operator
    }

    /// Starts it again after [`Self::kill`] or [`Self::terminate`].
    pub fn start_again(&self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("the log can be opened");
        let errors = log.try_clone().expect("the log can be opened");
        let mut command = self.launch.hosts.command("setpriv");
        command
            .args(TIED)
            .arg(&self.program)
            .args(["controller", "--listen", &self.listen.to_string()])
            .env("KUBECONFIG", &self.launch.kubeconfig)
            .env("POD_NAMESPACE", crate::SYSTEM)
            .env("POD_NAME", format!("volttron-{}", self.launch.name))
            // The brokers' files follow at once.
            .env("VOLTTRON_TRUST_SETTLE_SECONDS", "2")
            // Soon enough to be waited for.
            .env("VOLTTRON_SUPERSEDED_GRACE_SECONDS", "3")
            .env("RUST_LOG", "info,volttron_operator=debug")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        if let Some(seconds) = self.launch.lease_seconds {
            command.env("VOLTTRON_LEASE_DURATION_SECONDS", seconds.to_string());
        }
        if let Some(seconds) = self.launch.superseded_grace {
            command.env("VOLTTRON_SUPERSEDED_GRACE_SECONDS", seconds.to_string());
        }
        let child = children::spawn(command).expect("the operator can be started");
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&self) {
        end(&self.child);
    }

    /// Something that ends it at once, for whoever is to do that.
    pub fn killer(&self) -> Arc<dyn Fn() + Send + Sync> {
        let child = Arc::clone(&self.child);
        Arc::new(move || end(&child))
    }

    /// Something that stops it where it stands (SIGSTOP), until [`Self::resume`].
    pub fn pauser(&self) -> Arc<dyn Fn() + Send + Sync> {
        let child = Arc::clone(&self.child);
        Arc::new(move || signal(&child, Signal::STOP))
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Asks it to end (SIGTERM) and returns how it did.
    pub async fn terminate(&self, limit: Duration) -> ExitStatus {
        let child = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let child = Mutex::new(Some(child.expect("the operator runs")));
        signal(&child, Signal::TERM);
        let status = eventually("the operator ends after SIGTERM", limit, async || {
            let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
            let child = child.as_mut().expect("it was just there");
            child
                .try_wait()
                .expect("a child can be waited for")
                .ok_or_else(|| "it still runs".to_owned())
        });
        status.await
    }

    /// Its process id; none where it has ended.
    pub fn pid(&self) -> Option<u32> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let child = child.as_mut()?;
        match child.try_wait() {
            Ok(None) => Some(child.id()),
            _ => None,
        }
    }

    /// Asks its HTTP server.
    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        // Making a client takes milliseconds, which a benchmark would see.
        static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
            let client = reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(5));
            client.build().expect("an HTTP client")
        });
        let url = format!("http://{}{path}", self.listen);
        let answer = CLIENT
            .get(url)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let kind = answer.headers().get("content-type");
        Ok(Answer {
            status: answer.status().as_u16(),
            content_type: kind
                .and_then(|kind| kind.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            body: answer.text().await.map_err(|error| error.to_string())?,
        })
    }

    /// Waits until it leads and `/readyz` is 200.
    pub async fn wait_ready(&self) {
        self.wait("leads and is ready", |text| !text.contains(STANDBY))
            .await;
    }

    /// Waits until it stands by.
    pub async fn wait_standing_by(&self) {
        self.wait("stands by", |text| text.contains(STANDBY)).await;
    }

    async fn wait(&self, what: &str, as_wanted: impl Fn(&str) -> bool) {
        let what = format!("the operator {what} (log: {})", self.log.display());
        eventually(&what, SOON, async || match self.get("/readyz").await {
            Ok(answer) if answer.status == 200 && as_wanted(&answer.body) => Ok(()),
            Ok(answer) => Err(format!("{}: {}", answer.status, answer.body)),
            Err(error) => Err(format!("{error}\n{}", self.log_tail())),
        })
        .await;
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}

fn end(child: &Mutex<Option<Child>>) {
    let child = child.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut child) = child {
        // It fails where it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn signal(child: &Mutex<Option<Child>>, signal: Signal) {
    let child = child.lock().unwrap_or_else(PoisonError::into_inner);
    let id = child.as_ref().expect("the operator runs").id();
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    kill_process(id.expect("a process id"), signal).expect("the operator runs");
}

/// A program of this workspace, built before: beside the test's own target, or where `variable` says.
pub(crate) fn binary(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "{variable} is {}, and there is no such file",
            path.display()
        );
        return path;
    }
    // target/<profile>/deps/<test>
    let test = std::env::current_exe().expect("the test has a path");
    let folder = test
        .parent()
        .and_then(Path::parent)
        .expect("a target folder");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p {name}` first, or set {variable}",
        path.display()
    );
    path
}

/// The sidecar's program, built before.
pub fn sidecar_program() -> PathBuf {
    binary("volttron-sidecar", "SIDECAR_BIN")
}
