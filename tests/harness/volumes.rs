//! What a kubelet does for the volumes of a pod: their files follow the Secrets and `ConfigMaps` they come from.

use crate::blocking;
use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use local_cluster::RabbitMq;
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// A volume in the pod's container.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    /// Its folder.
    pub(crate) path: String,
    source: Source,
}

/// Where its files come from, by name.
#[derive(Clone, Debug)]
enum Source {
    ConfigMap(String),
    Secret(String),
}

/// The volumes of the pod's container that hold files of the API server.
pub(crate) fn mounted(pod: &PodSpec) -> Vec<Mounted> {
    let mounts = pod.containers.iter().flat_map(|it| it.volume_mounts.iter());
    let volume = |name: &str| pod.volumes.iter().flatten().find(|it| it.name == name);
    mounts
        .flatten()
        .filter_map(|mount| {
            let volume = volume(&mount.name)?;
            let secret = volume.secret.as_ref().and_then(|it| it.secret_name.clone());
            let map = volume.config_map.as_ref().map(|it| it.name.clone());
            let source = secret.map(Source::Secret).or(map.map(Source::ConfigMap))?;
            let path = mount.mount_path.clone();
            Some(Mounted { path, source })
        })
        .collect()
}

impl Mounted {
    /// What the API server holds now.
    pub(crate) async fn files(&self, client: Client, namespace: &str) -> Result<Files, String> {
        match &self.source {
            Source::ConfigMap(name) => {
                let object = Api::namespaced(client, namespace).get(name).await;
                object.map(files_of_map)
            }
            Source::Secret(name) => {
                let object = Api::namespaced(client, namespace).get(name).await;
                object.map(files_of_secret)
            }
        }
        .map_err(|error| error.to_string())
    }

    /// What the API server holds, whenever it changes. An object that is gone leaves its files, as with a kubelet.
    fn follow(&self, client: Client, namespace: &str) -> BoxStream<'static, Files> {
        match &self.source {
            Source::ConfigMap(name) => watch_object(Api::namespaced(client, namespace), name)
                .default_backoff()
                .filter_map(async |found| found.ok().flatten().map(files_of_map))
                .boxed(),
            Source::Secret(name) => watch_object(Api::namespaced(client, namespace), name)
                .default_backoff()
                .filter_map(async |found| found.ok().flatten().map(files_of_secret))
                .boxed(),
        }
    }
}

/// Follows the API server until it is dropped.
pub(crate) struct Follower {
    hold: watch::Sender<bool>,
    /// Whoever writes to the volumes holds it.
    pub(crate) disk: Arc<Mutex<()>>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    pub(crate) fn start(
        client: &Client,
        namespace: &str,
        mounts: Vec<Mounted>,
        rabbit: &Arc<RabbitMq>,
    ) -> Self {
        let (hold, receiver) = watch::channel(false);
        let disk = Arc::new(Mutex::new(()));
        let changes = mounts.iter().enumerate().map(|(index, mount)| {
            let changes = mount.follow(client.clone(), namespace);
            changes.map(move |files| (index, files)).boxed()
        });
        let changes = select_all(changes);
        let task = tokio::spawn(follow(
            mounts,
            changes,
            receiver,
            Arc::clone(&disk),
            Arc::downgrade(rabbit),
        ));
        Self { hold, disk, task }
    }

    /// Holds changes back, or lets them through.
    pub(crate) fn hold(&self, hold: bool) {
        self.hold.send_replace(hold);
    }
}

async fn follow(
    mounts: Vec<Mounted>,
    mut changes: impl futures::Stream<Item = (usize, Files)> + Unpin,
    mut hold: watch::Receiver<bool>,
    disk: Arc<Mutex<()>>,
    rabbit: Weak<RabbitMq>,
) {
    let mut due: Vec<Option<Files>> = vec![None; mounts.len()];
    loop {
        tokio::select! {
            Some((index, files)) = changes.next() => due[index] = Some(files),
            alive = hold.changed() => if alive.is_err() { return },
        }
        if *hold.borrow() {
            continue;
        }
        for (mount, files) in mounts.iter().zip(&mut due) {
            let Some(files) = files.take() else { continue };
            let Some(rabbit) = rabbit.upgrade() else {
                return;
            };
            let path = mount.path.clone();
            let _disk = disk.lock().await;
            let written = blocking(move || rabbit.set_volume(&path, &files)).await;
            if let Err(error) = written {
                eprintln!("the files in {}: {error}", mount.path);
            }
        }
    }
}

fn files_of_map(map: ConfigMap) -> Files {
    let data = map.data.unwrap_or_default().into_iter();
    data.map(|(name, text)| (name, text.into_bytes())).collect()
}

fn files_of_secret(secret: Secret) -> Files {
    let data = secret.data.unwrap_or_default().into_iter();
    data.map(|(name, ByteString(content))| (name, content))
        .collect()
}
