//! What is built once and kept: binaries, root file systems, images.
//!
//! Every component has one folder per state of what pins it. It is built in a
//! temporary folder beside it and renamed, so that a folder which exists is
//! whole; a lock makes a second builder wait and then use the first one's work.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use sha2::{Digest as _, Sha256};

use crate::{
    error::{Context as _, Error, Result},
    steps::Steps,
};

/// The folder that holds what was built.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// The name of a component and a hash of everything that decides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    name: String,
    hash: String,
}

impl Key {
    /// A key from the component's name and all that pins its content.
    #[must_use]
    pub fn new(name: &str, pins: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for pin in pins {
            // The length keeps ["ab", "c"] apart from ["a", "bc"].
            digest.update((pin.len() as u64).to_be_bytes());
            digest.update(pin);
        }
        let hash = hex::encode(&digest.finalize()[..8]);
        Self {
            name: name.to_owned(),
            hash,
        }
    }

    /// The component's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hash, in hexadecimal digits.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

impl Cache {
    /// `$VOLTTRON_CACHE`, else `$XDG_CACHE_HOME/volttron-operator`, else `~/.cache/volttron-operator`.
    pub fn open() -> Result<Self> {
        let folder = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = folder("VOLTTRON_CACHE")
            .or_else(|| folder("XDG_CACHE_HOME").map(|path| path.join("volttron-operator")))
            .or_else(|| folder("HOME").map(|path| path.join(".cache/volttron-operator")))
            .ok_or_else(|| {
                Error::Machine(
                    "neither VOLTTRON_CACHE nor HOME is set: set VOLTTRON_CACHE to a folder".into(),
                )
            })?;
        Self::at(&root)
    }

    /// A cache in the given folder.
    pub fn at(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root).file("create", root)?;
        let root = root.canonicalize().file("resolve", root)?;
        Ok(Self { root })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The component's folder, when it has been built.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<PathBuf> {
        let path = self.root.join(&key.name).join(&key.hash);
        path.is_dir().then_some(path)
    }

    /// The component's folder; built by `build` into the folder it is given if it is not there yet.
    pub fn component(
        &self,
        key: &Key,
        steps: &Steps,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if let Some(path) = self.find(key) {
            return Ok(path);
        }
        let _lock = self.lock(&key.name)?;
        if let Some(path) = self.find(key) {
            steps.skip();
            return Ok(path);
        }
        let folder = self.root.join(&key.name);
        let partial = folder.join("partial");
        // An interrupted build may have left one; the lock says that nobody uses it.
        remove(&partial)?;
        std::fs::create_dir_all(&partial).file("create", &partial)?;
        let began = Instant::now();
        steps.begin(&key.name);
        build(&partial)?;
        let path = folder.join(&key.hash);
        std::fs::rename(&partial, &path).file("rename", &partial)?;
        steps.end(began.elapsed());
        Ok(path)
    }

    /// Holds the lock `name` until the file is dropped.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let folder = self.root.join(name);
        std::fs::create_dir_all(&folder).file("create", &folder)?;
        let path = folder.join("lock");
        let file = File::create(&path).file("create", &path)?;
        file.lock().file("lock", &path)?;
        Ok(file)
    }
}

/// Removes a file or folder that may not be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() && !path.is_symlink() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).file("remove", path)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_changes_with_every_pin() {
        let key = Key::new("etcd", &["go.mod", "flags"]);
        assert_eq!(key, Key::new("etcd", &["go.mod", "flags"]));
        assert_ne!(key, Key::new("etcd", &["go.mod", "other flags"]));
        assert_ne!(key, Key::new("etcd", &["go.modflags", ""]));
    }

    #[test]
    fn a_component_is_built_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let key = Key::new("thing", &["1"]);
        let built = cache
            .component(&key, &Steps::silent(), |partial| {
                std::fs::write(partial.join("x"), "1").file("write", partial)
            })
            .unwrap();
        assert!(built.join("x").is_file());
        let again = cache
            .component(&key, &Steps::silent(), |_| panic!("built twice"))
            .unwrap();
        assert_eq!(built, again);
    }

    #[test]
    fn a_build_that_failed_leaves_no_component() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let key = Key::new("thing", &["1"]);
        let fault = cache.component(&key, &Steps::silent(), |partial| {
            std::fs::write(partial.join("half"), "1").file("write", partial)?;
            Err(Error::Machine("no compiler".into()))
        });
        assert!(fault.is_err());
        assert!(cache.find(&key).is_none());
        let built = cache.component(&key, &Steps::silent(), |_| Ok(())).unwrap();
        assert!(
            !built.join("half").exists(),
            "the next build starts from nothing"
        );
    }
}
