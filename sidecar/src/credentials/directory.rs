//! The credentials as files, for an agent in the same pod that does its own TLS.
//!
//! The directory is a volume in memory (`emptyDir: {medium: Memory}`): a private key never
//! reaches a disk. Each file is replaced as a whole, by a rename.

use super::Credentials;
use crate::request::key::{AgentKey, KeyError};
use rustix::fs::statfs;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tracing::{info, warn};
use zeroize::Zeroizing;

/// The private key, PKCS #8 PEM.
pub const KEY_FILE: &str = "tls.key";
/// The certificate chain, PEM.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// The CAs to trust, PEM.
pub const AUTHORITY_FILE: &str = "ca.crt";

/// The key is for the sidecar and, by the pod's `fsGroup`, for the agent beside it.
const KEY_MODE: u32 = 0o640;
const PUBLIC_MODE: u32 = 0o644;

/// `f_type` of tmpfs and ramfs, see statfs(2).
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// No key file of ours is longer.
const LONGEST_KEY: u64 = 16 * 1024;

/// A directory in memory.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

/// Why the directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The directory would keep the key on a disk.
    #[error(
        "{0} is not in memory, and a private key must not reach a disk: mount a volume \
         `emptyDir: {{medium: Memory}}` there"
    )]
    OnDisk(PathBuf),
    /// A file operation failed.
    #[error(
        "cannot {action} {path}; the volume must be writable for the sidecar's user or the pod's fsGroup"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Directory {
    /// Takes the directory if it is in memory.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let stat = statfs(path).map_err(|error| failed("look at", path, error.into()))?;
        #[allow(
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "the field's type differs from one platform to the next; the magic numbers have 32 bits"
        )]
        let kind = stat.f_type as u64 & 0xffff_ffff;
        if kind != TMPFS && kind != RAMFS {
            return Err(DirectoryError::OnDisk(path.to_owned()));
        }
        Ok(Self(path.to_owned()))
    }

    /// The key an earlier container of this pod left, or a new one. With the old key the sidecar
    /// finds its old request and certificate, and needs no new approval.
    pub fn key(&self) -> Result<AgentKey, DirectoryError> {
        let path = self.0.join(KEY_FILE);
        match read(&path) {
            Ok(pem) => match AgentKey::from_pem(&pem) {
                Ok(key) => {
                    info!(path = %path.display(), "using the key that is there");
                    return Ok(key);
                }
                Err(error) => warn!(
                    path = %path.display(),
                    error = &error as &dyn std::error::Error,
                    "the key that is there cannot be used: making a new one, which needs a new approval",
                ),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("read", &path, source)),
        }
        let key = AgentKey::generate()?;
        // A certificate of an earlier key must not stand beside the new one.
        for name in [CERTIFICATE_FILE, AUTHORITY_FILE] {
            remove(&self.0.join(name))?;
        }
        self.replace(KEY_FILE, key.to_pem().as_bytes(), KEY_MODE)?;
        Ok(key)
    }

    /// Writes certificate and CA bundle, each only where it changes.
    pub fn publish(&self, credentials: &Credentials) -> Result<(), DirectoryError> {
        let files = [
            (AUTHORITY_FILE, credentials.bundle()),
            (CERTIFICATE_FILE, credentials.certificate()),
        ];
        for (name, content) in files {
            if fs::read(self.0.join(name)).ok().as_deref() != Some(content.as_bytes()) {
                self.replace(name, content.as_bytes(), PUBLIC_MODE)?;
            }
        }
        Ok(())
    }

    fn replace(&self, name: &str, content: &[u8], mode: u32) -> Result<(), DirectoryError> {
        let temporary = self.0.join(format!(".{name}.new"));
        remove(&temporary)?;
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(content)?;
            // Set on the open file: the mode given at creation is cut by the umask.
            file.set_permissions(Permissions::from_mode(mode))
        };
        write().map_err(|source| failed("write", &temporary, source))?;
        let path = self.0.join(name);
        fs::rename(&temporary, &path).map_err(|source| failed("replace", &path, source))
    }
}

/// Reads a key file into memory that is wiped when dropped.
fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = fs::File::open(path)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
    file.take(LONGEST_KEY).read_to_end(&mut bytes)?;
    // What is no text is no key; the empty text says so further on.
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Ok(Zeroizing::new(text.to_owned()))
}

fn remove(path: &Path) -> Result<(), DirectoryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::tests::{authority, sign};

    /// A directory in memory.
    fn memory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_that_is_not_in_memory_is_refused_with_the_remedy() {
        let refused = Directory::open(Path::new("/proc")).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("emptyDir: {medium: Memory}"), "{text}");
        assert!(Directory::open(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_restarted_container_finds_its_key() {
        let place = memory();
        let directory = Directory::open(place.path()).unwrap();
        let first = directory.key().unwrap();
        let again = directory.key().unwrap();
        assert_eq!(
            first.subject_public_key_info(),
            again.subject_public_key_info()
        );
        assert_eq!(mode(&place.path().join(KEY_FILE)), 0o640);
    }

    #[test]
    fn a_key_that_cannot_be_used_is_replaced_and_its_certificate_removed() {
        let long = vec![b'x'; 100_000];
        for content in [&b""[..], b"hello", b"\xff\xfe", &long] {
            let place = memory();
            for name in [KEY_FILE, CERTIFICATE_FILE, AUTHORITY_FILE] {
                fs::write(place.path().join(name), content).unwrap();
            }
            let directory = Directory::open(place.path()).unwrap();
            let key = directory.key().unwrap();
            assert!(!place.path().join(CERTIFICATE_FILE).exists());
            let read = fs::read_to_string(place.path().join(KEY_FILE)).unwrap();
            assert_eq!(
                AgentKey::from_pem(&read).unwrap().subject_public_key_info(),
                key.subject_public_key_info()
            );
        }
    }

    #[test]
    fn published_credentials_are_whole_files_and_nothing_is_left_beside_them() {
        let place = memory();
        let directory = Directory::open(place.path()).unwrap();
        let key = directory.key().unwrap();
        let (ca, name) = (authority("central"), "central.b.c");
        for _ in 0..2 {
            let certificate = sign(&ca, name, &key);
            let parsed = name.parse().unwrap();
            let checked = Credentials::check(&certificate, &ca.pem(), &key, &parsed).unwrap();
            directory.publish(&checked).unwrap();
            let written = fs::read_to_string(place.path().join(CERTIFICATE_FILE)).unwrap();
            assert_eq!(written, certificate);
        }
        let mut names: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE]);
    }
}
