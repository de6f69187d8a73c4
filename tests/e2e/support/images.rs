//! The images that `make images` built.

use local_cluster::{Cache, images};
use std::path::{Path, PathBuf};

/// An image that was not built.
#[derive(Debug, thiserror::Error)]
#[error("{0} is missing: build the images with `make images`")]
pub struct Missing(PathBuf);

/// Archives of the operator, the sidecar, the example agent, and RabbitMQ.
///
/// # Errors
/// [`Missing`], or a fault of the machine while RabbitMQ's image is made.
pub fn archives() -> anyhow::Result<Vec<PathBuf>> {
    let folder = target().join("images");
    let mut archives = Vec::new();
    for name in ["operator", "sidecar", "example-agent"] {
        let path = folder.join(format!("volttron-{name}.tar"));
        if !path.is_file() {
            return Err(Missing(path).into());
        }
        archives.push(path);
    }
    archives.push(images::rabbitmq(&Cache::open()?)?);
    Ok(archives)
}

fn target() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = tests.parent().unwrap_or(tests);
    // A relative one is relative to where cargo was started, which is the workspace for all who set it.
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace.join(folder),
        None => workspace.join("target"),
    }
}
