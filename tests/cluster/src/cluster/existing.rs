//! A cluster that is there already.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// A cluster that somebody else runs.
#[derive(Debug, Clone)]
pub struct Existing {
    /// How to reach it.
    pub kubeconfig: PathBuf,
}

impl Existing {
    /// The cluster of `KUBECONFIG`, only when `CLUSTER=existing` asks for it.
    pub fn from_environment() -> Result<Option<Self>> {
        let is_asked = std::env::var_os("CLUSTER").is_some_and(|value| value == "existing");
        if !is_asked {
            return Ok(None);
        }
        let kubeconfig = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()).ok_or_else(|| {
            Error::Machine("CLUSTER=existing needs KUBECONFIG: set it to the kubeconfig of the cluster to use".into())
        })?;
        Ok(Some(Self {
            kubeconfig: kubeconfig.into(),
        }))
    }
}
