//! The programs of Kubernetes, built from their Go modules.
//!
//! The `go.mod` files beside this crate pin every version; nothing else does.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{Cache, Key},
    error::{Context as _, Error, Result},
    exec, packages,
    steps::Steps,
};

const KUBERNETES: Module = Module {
    go_mod: include_str!("../kubernetes/go.mod"),
    go_sum: include_str!("../kubernetes/go.sum"),
};
const TOOLS: Module = Module {
    go_mod: include_str!("../tools/go.mod"),
    go_sum: include_str!("../tools/go.sum"),
};
const LINTER: Module = Module {
    go_mod: include_str!("../linter/go.mod"),
    go_sum: include_str!("../linter/go.sum"),
};
const INIT: &str = include_str!("../sandbox/init.c");

#[derive(Debug, Clone, Copy)]
struct Module {
    go_mod: &'static str,
    go_sum: &'static str,
}

impl Module {
    /// The version the module pins of another, such as `v1.36.3`.
    fn version_of(self, path: &str) -> &'static str {
        self.go_mod
            .lines()
            .filter_map(|line| {
                let line = line.trim().trim_start_matches("require ");
                line.strip_prefix(path)?.strip_prefix(' ')
            })
            .find_map(|rest| rest.split_whitespace().next())
            .unwrap_or("v0.0.0")
    }
}

/// A program that is built from Go, or `init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the program of that name")]
pub enum Tool {
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    KubeProxy,
    Kubelet,
    Kubectl,
    Helm,
    Coredns,
    /// Looks for what is wrong with certificates and CRLs.
    Zlint,
    /// The first process of a sandbox.
    Init,
}

/// What a control plane without nodes takes.
pub(crate) const API: &[Tool] = &[
    Tool::Init,
    Tool::KubeApiserver,
    Tool::Etcd,
    Tool::KubeControllerManager,
    Tool::Kubectl,
    Tool::Helm,
];
/// What a node takes besides.
pub(crate) const NODE: &[Tool] = &[
    Tool::Kubelet,
    Tool::KubeProxy,
    Tool::KubeScheduler,
    Tool::Coredns,
];

impl Tool {
    /// The program's file name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::KubeProxy => "kube-proxy",
            Self::Kubelet => "kubelet",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Coredns => "coredns",
            Self::Zlint => "zlint",
            Self::Init => "init",
        }
    }

    fn package(self) -> String {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3".into(),
            Self::Helm => "helm.sh/helm/v4/cmd/helm".into(),
            Self::Coredns => "github.com/coredns/coredns".into(),
            Self::Zlint => "github.com/zmap/zlint/v3/cmd/zlint".into(),
            _ => format!("k8s.io/kubernetes/cmd/{}", self.name()),
        }
    }

    fn module(self) -> Module {
        match self {
            Self::Helm | Self::Coredns => TOOLS,
            Self::Zlint => LINTER,
            _ => KUBERNETES,
        }
    }

    /// Without them Helm and the checks of version skew see v0.0.0.
    fn linker_flags(self) -> String {
        match self {
            Self::Helm => {
                let version = TOOLS.version_of("helm.sh/helm/v4");
                format!("-s -w -X helm.sh/helm/v4/internal/version.version={version}")
            }
            Self::Etcd | Self::Coredns | Self::Zlint | Self::Init => "-s -w".into(),
            _ => {
                let version = KUBERNETES.version_of("k8s.io/kubernetes");
                let mut numbers = version.trim_start_matches('v').split('.');
                let major = numbers.next().unwrap_or_default();
                let minor = numbers.next().unwrap_or_default();
                let set = "-X k8s.io/component-base/version.git";
                format!("-s -w {set}Version={version} {set}Major={major} {set}Minor={minor}")
            }
        }
    }

    pub(crate) fn key(self) -> Key {
        if self == Self::Init {
            return Key::new("init", &[INIT]);
        }
        let module = self.module();
        Key::new(
            self.name(),
            &[
                module.go_mod,
                module.go_sum,
                &self.package(),
                &self.linker_flags(),
            ],
        )
    }

    /// Where the person has set an assets folder, as the tests of other operators take it, what is there is used.
    fn asset(self) -> Option<PathBuf> {
        if !matches!(self, Self::Etcd | Self::KubeApiserver) {
            return None;
        }
        let folder = std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty())?;
        let path = Path::new(&folder).join(self.name());
        path.is_file().then_some(path)
    }

    /// Whether it is there without a build.
    pub(crate) fn is_built(self, cache: &Cache) -> bool {
        self.asset().is_some() || cache.find(&self.key()).is_some()
    }

    /// The program's path; built first if it must be.
    pub fn path(self, cache: &Cache, steps: &Steps) -> Result<PathBuf> {
        if let Some(path) = self.asset() {
            return Ok(path);
        }
        let folder = cache.component(&self.key(), steps, |folder| self.build(folder))?;
        Ok(folder.join(self.name()))
    }

    fn build(self, folder: &Path) -> Result<()> {
        if self == Self::Init {
            return build_init(folder);
        }
        if packages::find("go").is_none() {
            return Err(Error::Machine(
                "Go is missing, which builds Kubernetes: install Go 1.26 or newer and put `go` on the PATH".into(),
            ));
        }
        let module = self.module();
        let source = folder.join("source");
        std::fs::create_dir_all(&source).file("create", &source)?;
        std::fs::write(source.join("go.mod"), module.go_mod).file("write", &source)?;
        std::fs::write(source.join("go.sum"), module.go_sum).file("write", &source)?;
        exec::run(
            Command::new("go")
                .args(["build", "-trimpath", "-ldflags", &self.linker_flags(), "-o"])
                .arg(folder.join(self.name()))
                .arg(self.package())
                .current_dir(&source)
                .env("CGO_ENABLED", "0"),
        )?;
        std::fs::remove_dir_all(&source).file("remove", &source)
    }
}

fn build_init(folder: &Path) -> Result<()> {
    packages::ensure(&[packages::BASE])?;
    let source = folder.join("init.c");
    std::fs::write(&source, INIT).file("write", &source)?;
    exec::run(
        Command::new("cc")
            .args(["-Os", "-static", "-s", "-o"])
            .arg(folder.join("init"))
            .arg(&source),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_go_mod() {
        assert!(Tool::Kubelet.linker_flags().contains("gitVersion=v1."));
        assert!(!Tool::Kubelet.linker_flags().contains("v0.0.0"));
        assert!(!Tool::Helm.linker_flags().contains("v0.0.0"));
    }

    #[test]
    fn every_tool_has_its_own_key() {
        let all = [API, NODE, &[Tool::Zlint]].concat();
        for (index, tool) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert_ne!(tool.key(), other.key());
            }
        }
    }
}
