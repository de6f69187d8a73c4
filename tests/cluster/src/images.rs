//! Images, built by buildah without a daemon and without a registry, kept as OCI archives in the cache.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{self, Cache, Key},
    error::{Context as _, Error, Result},
    exec, packages,
    programs::Tool,
    steps::Steps,
};

/// The image of every pod's sandbox container.
pub(crate) const PAUSE: &str = "localhost/pause:1";
/// The name service.
pub(crate) const COREDNS: &str = "localhost/coredns:1";
/// The broker, in the shape of the official image of that name.
pub const RABBITMQ: &str = "localhost/rabbitmq:4-management";

const SUITE: &str = "trixie";
/// The Python client is for images of demonstration agents, which stand on this one.
const PACKAGES: &str = "rabbitmq-server,ca-certificates,python3-pika";

/// What Debian's package does otherwise than the official image: the user's number, wrappers that
/// write below /var/log, and where the log goes.
const SHAPE: &str = r#"
set -e
groupmod --gid 999 rabbitmq
usermod --uid 999 --gid 999 --home /var/lib/rabbitmq rabbitmq
for tool in /usr/lib/rabbitmq/bin/*; do
    name=${tool##*/}
    case $name in rabbitmq-script-wrapper|rabbitmq-server-wait) continue;; esac
    ln -sf "$tool" "/usr/sbin/$name"
done
rm -rf /var/lib/rabbitmq /var/log/rabbitmq /etc/rabbitmq
install -d -o 999 -g 999 -m 0770 /var/lib/rabbitmq /var/log/rabbitmq
install -d -o 999 -g 999 -m 0755 /etc/rabbitmq /etc/rabbitmq/conf.d
printf 'log.console = true\n' > /etc/rabbitmq/conf.d/10-defaults.conf
printf '[rabbitmq_management].\n' > /etc/rabbitmq/enabled_plugins
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*.log /var/log/apt /var/cache/debconf/*-old /tmp/*
rm -rf /usr/share/man/* /usr/share/info/* /usr/share/locale/* /usr/share/lintian
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -xtype l -delete
rm -f /etc/machine-id /etc/resolv.conf /etc/hostname
"#;

const RABBITMQ_CONTAINERFILE: &str = "\
FROM scratch
COPY . /
ENV HOME=/var/lib/rabbitmq LANG=C.UTF-8 RABBITMQ_LOGS=- PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 999:999
WORKDIR /var/lib/rabbitmq
CMD [\"rabbitmq-server\"]
";

const PAUSE_CONTAINERFILE: &str =
    "FROM scratch\nCOPY init /init\nUSER 65532:65532\nENTRYPOINT [\"/init\"]\n";
const COREDNS_CONTAINERFILE: &str =
    "FROM scratch\nCOPY coredns /coredns\nUSER 65532:65532\nENTRYPOINT [\"/coredns\"]\n";

fn pause_key() -> Key {
    Key::new(
        "pause-image",
        &[Tool::Init.key().hash(), PAUSE_CONTAINERFILE],
    )
}

fn coredns_key() -> Key {
    Key::new(
        "coredns-image",
        &[Tool::Coredns.key().hash(), COREDNS_CONTAINERFILE],
    )
}

/// How many of the node's images are yet to be built.
pub(crate) fn node_images_to_build(cache: &Cache) -> usize {
    [pause_key(), coredns_key()]
        .iter()
        .filter(|key| cache.find(key).is_none())
        .count()
}

/// The images every node has, built if they are not there.
pub(crate) fn node_images(cache: &Cache, steps: &Steps) -> Result<Vec<PathBuf>> {
    let images = [
        (pause_key(), Tool::Init, PAUSE_CONTAINERFILE, PAUSE),
        (coredns_key(), Tool::Coredns, COREDNS_CONTAINERFILE, COREDNS),
    ];
    images
        .into_iter()
        .map(|(key, tool, containerfile, tag)| {
            let folder = cache.component(&key, steps, |folder| {
                let program = tool.path(cache, steps)?;
                let context = program.parent().unwrap_or(Path::new("/"));
                let file = folder.join("Containerfile");
                std::fs::write(&file, containerfile).file("write", &file)?;
                archive(cache, &file, context, tag, &folder.join("image.tar"))
            })?;
            Ok(folder.join("image.tar"))
        })
        .collect()
}

/// The root file system of [`RABBITMQ`].
pub fn rabbitmq_rootfs(cache: &Cache) -> Result<PathBuf> {
    let key = rootfs_key();
    if let Some(folder) = cache.find(&key) {
        return Ok(folder.join("rootfs"));
    }
    packages::require_root("building a root file system")?;
    packages::ensure(&[packages::ROOTFS])?;
    let folder = cache.component(&key, &Steps::of(1), |folder| {
        let rootfs = folder.join("rootfs");
        exec::run(
            Command::new("debootstrap")
                .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
                .arg(&rootfs),
        )?;
        exec::run(
            Command::new("chroot")
                .arg(&rootfs)
                .args(["sh", "-c", SHAPE])
                .env("PATH", "/usr/sbin:/usr/bin"),
        )
        .map(drop)
    })?;
    Ok(folder.join("rootfs"))
}

fn rootfs_key() -> Key {
    Key::new("rabbitmq-rootfs", &[SUITE, PACKAGES, SHAPE])
}

/// The archive of [`RABBITMQ`].
pub fn rabbitmq(cache: &Cache) -> Result<PathBuf> {
    let key = Key::new(
        "rabbitmq-image",
        &[rootfs_key().hash(), RABBITMQ_CONTAINERFILE],
    );
    if let Some(folder) = cache.find(&key) {
        return Ok(folder.join("image.tar"));
    }
    let rootfs = rabbitmq_rootfs(cache)?;
    let folder = cache.component(&key, &Steps::of(1), |folder| {
        let file = folder.join("Containerfile");
        std::fs::write(&file, RABBITMQ_CONTAINERFILE).file("write", &file)?;
        archive(cache, &file, &rootfs, RABBITMQ, &folder.join("image.tar"))
    })?;
    Ok(folder.join("image.tar"))
}

/// Builds an image `FROM scratch` or from [`RABBITMQ`]; returns its archive, named by the tag.
pub fn build(cache: &Cache, containerfile: &Path, context: &Path, tag: &str) -> Result<PathBuf> {
    let text = std::fs::read_to_string(containerfile).file("read", containerfile)?;
    if text.contains(RABBITMQ) {
        let base = rabbitmq(cache)?;
        require_base(cache, &base)?;
    }
    let folder = cache.root().join("images");
    std::fs::create_dir_all(&folder).file("create", &folder)?;
    let name: String = tag
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let path = folder.join(format!("{name}.tar"));
    let _lock = cache.lock("images-lock")?;
    let partial = folder.join(format!("{name}.partial"));
    cache::remove(&partial)?;
    archive(cache, containerfile, context, tag, &partial)?;
    std::fs::rename(&partial, &path).file("write", &path)?;
    Ok(path)
}

/// Images are names in buildah's store, which may have been emptied since.
fn require_base(cache: &Cache, archive: &Path) -> Result<()> {
    if exec::run(buildah(cache)?.args(["inspect", "--type=image", RABBITMQ])).is_ok() {
        return Ok(());
    }
    let id = exec::run(
        buildah(cache)?
            .args(["pull", "--quiet"])
            .arg(format!("oci-archive:{}", archive.display())),
    )?;
    let id = id.trim();
    exec::run(buildah(cache)?.args(["tag", id, RABBITMQ])).map(drop)
}

fn archive(
    cache: &Cache,
    containerfile: &Path,
    context: &Path,
    tag: &str,
    path: &Path,
) -> Result<()> {
    // A node takes `a:1` for `docker.io/library/a:1`: an archive with the short name would never be found.
    let (registry, _) = tag.split_once('/').unwrap_or_default();
    if registry != "localhost" && !registry.contains('.') {
        return Err(Error::Machine(format!(
            "`{tag}` is no full name of an image: begin it with `localhost/`, or with `docker.io/library/` for one \
             that manifests name without a registry"
        )));
    }
    let mut build = buildah(cache)?;
    build.args([
        "build",
        "--isolation=chroot",
        "--pull=never",
        "--format=oci",
        "--timestamp=0",
        "--tag",
        tag,
    ]);
    exec::run(build.arg("--file").arg(containerfile).arg(context))?;
    let target = format!("oci-archive:{}:{tag}", path.display());
    exec::run(buildah(cache)?.args(["push", "--disable-compression", tag, &target]))?;
    Ok(())
}

/// buildah with a store in the cache, which no other user of buildah sees.
fn buildah(cache: &Cache) -> Result<Command> {
    packages::require_root("building images")?;
    packages::ensure(&[packages::IMAGES])?;
    let store = cache.root().join("buildah");
    let mut command = Command::new("buildah");
    command
        .args(["--storage-driver=vfs", "--root"])
        .arg(store.join("root"))
        .arg("--runroot")
        .arg(store.join("run"))
        .env("BUILDAH_ISOLATION", "chroot");
    Ok(command)
}
