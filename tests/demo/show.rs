//! What the demo prints.

use crate::clock;
use anyhow::Context as _;
use std::process::Stdio;
use std::time::{Duration, Instant};
use volttron_tests::node::{Node, eventually};

/// The demo's output: steps, commands and what came of them.
#[derive(Debug)]
pub struct Show {
    began: Instant,
    /// Before commands and their output.
    margin: &'static str,
}

impl Show {
    /// Starts the clock.
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            margin: "        ",
        }
    }

    /// What happens next, and when.
    pub fn say(&self, what: &str) {
        println!("\n[{:>3} s] {what}", self.began.elapsed().as_secs());
    }

    /// The command that does it.
    pub fn command(&self, line: &str) {
        let margin = self.margin;
        let line = line.replace('\n', &format!("\n{margin}  "));
        println!("{margin}$ {line}");
    }

    /// Something to see.
    pub fn result(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("{}{line}", self.margin);
        }
    }

    /// Shows a command, runs it and shows what it printed.
    pub fn run(&self, node: &Node, line: &str) -> anyhow::Result<String> {
        self.command(line);
        let output = clock::during(|| node.run(line))?;
        self.result(&output);
        Ok(output)
    }

    /// Shows a command, runs it until its output is as it should be, and shows that.
    pub fn until(
        &self,
        node: &Node,
        line: &str,
        what: &str,
        check: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        const LIMIT: Duration = Duration::from_mins(1);
        self.command(line);
        let look = || match node.run(line) {
            Ok(output) if check(&output) => Ok(output),
            Ok(output) => Err(output),
            Err(failed) => Err(failed.to_string()),
        };
        let output = clock::during(|| eventually(what, LIMIT, look))?;
        self.result(&output);
        Ok(output)
    }

    /// Shows a command and leaves it running.
    pub fn spawn(&self, node: &Node, line: &str) -> anyhow::Result<std::process::Child> {
        self.command(&format!("{line} &"));
        // Without the shell in between, ending the child ends the command.
        node.shell(&format!("exec {line}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))
    }

    /// The end.
    pub fn done(&self) {
        println!(
            "\nAll of it took {} s. `KEEP=1 make demo` leaves the cluster running, to look around.",
            self.began.elapsed().as_secs()
        );
    }

    /// The end of a demo whose cluster stays.
    pub fn kept(&self, node: &Node) {
        let seconds = self.began.elapsed().as_secs();
        let kubeconfig = node.kubeconfig().display().to_string();
        println!(
            "\nThe cluster is still there, after {seconds} s. To look around:\n
  export KUBECONFIG={kubeconfig} PATH=\"{}:$PATH\"
  kubectl get vinst,vcr -A
  kubectl describe vcr -n {agents}
  kubectl logs -n volttron-system -l app.kubernetes.io/name=volttron-operator --prefix --tail=-1
  kubectl annotate vcr -n {agents} --all --overwrite volttron.org/decision=approved
  make cluster-down",
            node.tools(),
            agents = crate::play::AGENTS,
        );
    }
}

/// What went wrong.
pub fn failed(what: &str) {
    eprintln!("\nFAILED: {what}");
}

/// How things stood then.
pub fn trouble(text: &str) {
    eprintln!("\nHow things stand:\n{text}");
}
