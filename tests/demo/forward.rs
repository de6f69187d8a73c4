//! A port of the cluster on this machine.

use crate::show::Show;
use anyhow::Context as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout};
use volttron_tests::node::Node;

/// `kubectl port-forward`, until it is dropped.
#[derive(Debug)]
pub struct Forward {
    child: Child,
    port: u16,
    /// Held open: kubectl ends when it cannot write a line for each connection.
    stdout: BufReader<ChildStdout>,
}

impl Forward {
    /// Forwards a free port of this machine to a Service.
    pub fn start(show: &Show, node: &Node, namespace: &str, to: &str) -> anyhow::Result<Self> {
        let line = format!("kubectl port-forward -n {namespace} {to}");
        let mut child = show.spawn(node, &line)?;
        let stdout = child.stdout.take().context("no output")?;
        let mut forward = Self {
            child,
            port: 0,
            stdout: BufReader::new(stdout),
        };
        let mut first = String::new();
        forward.stdout.read_line(&mut first)?;
        show.result(&first);
        // "Forwarding from 127.0.0.1:40123 -> 15671"
        let port = first.split([':', ' ']).find_map(|word| word.parse().ok());
        forward.port = port.with_context(|| format!("kubectl said {first:?}, and no port"))?;
        Ok(forward)
    }

    /// The port on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
