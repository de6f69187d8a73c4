//! `kubectl` on a node, as the administrator or somebody else.

use super::images;
use local_cluster::{Cache, Cluster, Existing, Options, Steps, Tool, packages};
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A command that failed, with all it said.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` failed: {said}")]
pub struct Failed {
    /// The command line.
    pub command: String,
    /// What it printed on both outputs.
    pub said: String,
}

/// A cluster that runs pods.
#[derive(Debug)]
pub struct Node {
    place: Place,
    tools: String,
}

#[derive(Debug)]
enum Place {
    /// One node, on this machine.
    Here(Box<Cluster>),
    /// Somebody's, who asked for it to be used.
    Elsewhere(Existing),
}

impl Node {
    /// Starts one that ends with this value or the process, unless it is to stay.
    ///
    /// # Errors
    /// A fault of the machine, or a cluster of that name.
    pub fn start(name: &str, stays: bool) -> anyhow::Result<Self> {
        packages::ensure(&[packages::CLIENTS])?;
        let options = Options {
            name: Some(name.to_owned()),
            ..Options::node()
        };
        let cluster = if stays {
            Cluster::start_detached(&options)?
        } else {
            Cluster::start(&options)?
        };
        Ok(Self {
            place: Place::Here(Box::new(cluster)),
            tools: tools()?,
        })
    }

    /// The cluster of `KUBECONFIG`, where `CLUSTER=existing` asks for it.
    ///
    /// # Errors
    /// `CLUSTER=existing` without `KUBECONFIG`.
    pub fn existing() -> anyhow::Result<Option<Self>> {
        let Some(existing) = Existing::from_environment()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            place: Place::Elsewhere(existing),
            tools: tools()?,
        }))
    }

    /// Whether somebody else runs this cluster.
    #[must_use]
    pub fn is_existing(&self) -> bool {
        matches!(self.place, Place::Elsewhere(_))
    }

    /// Gives the node the images.
    ///
    /// # Errors
    /// An image that is missing, or that containerd refuses.
    pub fn load_images(&self) -> anyhow::Result<()> {
        let cluster = self.cluster()?;
        for archive in images::archives()? {
            cluster.load_image(&archive)?;
        }
        Ok(())
    }

    /// The folders of this cluster's `kubectl` and `helm`, as they stand in a search path.
    #[must_use]
    pub fn tools(&self) -> &str {
        &self.tools
    }

    /// The cluster on this machine behind it.
    ///
    /// # Errors
    /// Where it is somebody else's.
    pub fn cluster(&self) -> anyhow::Result<&Cluster> {
        match &self.place {
            Place::Here(cluster) => Ok(cluster),
            Place::Elsewhere(_) => anyhow::bail!("this cannot be done to an existing cluster"),
        }
    }

    /// How to reach it, as the administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        match &self.place {
            Place::Here(cluster) => cluster.kubeconfig(),
            Place::Elsewhere(existing) => &existing.kubeconfig,
        }
    }

    /// Takes the cluster down; one of somebody else's stays as it is.
    ///
    /// # Errors
    /// What would not go away.
    pub fn down(self) -> anyhow::Result<()> {
        match self.place {
            Place::Here(cluster) => Ok(cluster.down()?),
            Place::Elsewhere(_) => Ok(()),
        }
    }

    /// A shell with this cluster's `kubectl` and `helm` on its search path, in the project's folder.
    #[must_use]
    pub fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        let inherited = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-euo", "pipefail", "-c", line])
            .env("PATH", format!("{}:{inherited}", self.tools))
            .env("KUBECONFIG", self.kubeconfig())
            .current_dir(project());
        command
    }

    /// Runs a line of shell to its end and returns its standard output.
    ///
    /// # Errors
    /// [`Failed`] with what it said.
    pub fn run(&self, line: &str) -> Result<String, Failed> {
        finish(line.to_owned(), self.shell(line).output())
    }

    /// Runs `kubectl` and returns its standard output.
    ///
    /// # Errors
    /// [`Failed`] with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, Failed> {
        self.kubectl_by(self.kubeconfig(), arguments)
    }

    /// Runs `kubectl` with another kubeconfig.
    ///
    /// # Errors
    /// [`Failed`] with what it said.
    pub fn kubectl_by(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<String, Failed> {
        let mut command = self.kubectl_program();
        command
            .env("KUBECONFIG", kubeconfig)
            .args(arguments)
            .current_dir(project());
        let line = format!("kubectl {}", arguments.join(" "));
        finish(line, command.stdin(Stdio::null()).output())
    }

    /// Runs `kubectl` with something on its standard input.
    ///
    /// # Errors
    /// [`Failed`] with what it said.
    pub fn kubectl_with(&self, input: &str, arguments: &[&str]) -> Result<String, Failed> {
        let line = format!("kubectl {}", arguments.join(" "));
        let mut command = self.kubectl_program();
        command
            .env("KUBECONFIG", self.kubeconfig())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = command.spawn().and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        });
        finish(line, output)
    }

    fn kubectl_program(&self) -> Command {
        // The first folder of the tools is kubectl's.
        let folder = self.tools.split(':').next().unwrap_or_default();
        Command::new(Path::new(folder).join("kubectl"))
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// [`Failed`], also where the answer is no JSON.
    pub fn object(&self, namespace: &str, kind: &str, name: &str) -> Result<Value, Failed> {
        self.json(&["get", kind, name, "--namespace", namespace])
    }

    /// What `kubectl` answers, as JSON.
    ///
    /// # Errors
    /// [`Failed`], also where the answer is no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, Failed> {
        let text = self.kubectl(&[arguments, &["--output=json"]].concat())?;
        serde_json::from_str(&text).map_err(|error| Failed {
            command: format!("kubectl {}", arguments.join(" ")),
            said: format!("no JSON: {error}"),
        })
    }
}

fn finish(command: String, output: std::io::Result<Output>) -> Result<String, Failed> {
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            let said = error.to_string();
            return Err(Failed { command, said });
        }
    };
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let said = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    Err(Failed {
        command,
        said: said.trim().to_owned(),
    })
}

/// The project's folder.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folders of `kubectl` and `helm`.
fn tools() -> anyhow::Result<String> {
    let cache = Cache::open()?;
    let mut folders = Vec::new();
    for tool in [Tool::Kubectl, Tool::Helm] {
        let program = tool.path(&cache, &Steps::silent())?;
        folders.extend(program.parent().map(|folder| folder.display().to_string()));
    }
    Ok(folders.join(":"))
}
