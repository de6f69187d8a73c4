//! What a person would look at when something went wrong, in one text.

use super::Node;
use std::fmt::Write as _;

/// Lines of each log that are shown.
const TAIL: &str = "--tail=25";

impl Node {
    /// Describes what is in these namespaces: pods, requests, instances, Events and logs.
    #[must_use]
    pub fn trouble(&self, namespaces: &[&str]) -> String {
        let mut text = String::new();
        for namespace in namespaces {
            let within = ["--namespace", namespace];
            let mut show = |arguments: &[&str]| {
                let arguments = [arguments, &within].concat();
                let said = self
                    .kubectl(&arguments)
                    .unwrap_or_else(|failed| failed.said);
                // Describing nothing says nothing.
                if !said.trim().is_empty() {
                    let _ = writeln!(text, "$ kubectl {}\n{said}", arguments.join(" "));
                }
            };
            show(&["get", "pods,statefulsets,pvc,vinst,vcr", "--output=wide"]);
            show(&["describe", "vinst,vcr,pods"]);
            show(&["get", "events", "--sort-by=.lastTimestamp"]);
            for pod in self.pods(namespace) {
                show(&["logs", &pod, "--all-containers", "--prefix", TAIL]);
            }
        }
        text
    }

    fn pods(&self, namespace: &str) -> Vec<String> {
        let names = self.kubectl(&[
            "get",
            "pods",
            "--namespace",
            namespace,
            "--output=jsonpath={.items[*].metadata.name}",
        ]);
        let names = names.unwrap_or_default();
        names.split_whitespace().map(str::to_owned).collect()
    }
}
