//! What a kubelet does for a broker: it runs what the `StatefulSet` says, with the files its volumes hold.

use crate::playground::Playground;
use crate::{Instance, SOON, blocking};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret, Volume};
use kube::Api;
use local_cluster::{Base, RabbitMq, RabbitMqOptions};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const START: Duration = Duration::from_mins(2);

type Files = Vec<(String, Vec<u8>)>;

/// The broker of an instance; it ends when this is dropped.
pub struct Broker<'a> {
    /// The instance it is the broker of.
    pub instance: Instance<'a>,
    rabbit: Arc<RabbitMq>,
}

impl<'a> Broker<'a> {
    /// Starts what the instance's `StatefulSet` describes, and lets the operator resolve the name of its Service.
    pub async fn start(instance: &Instance<'a>, base: Base) -> Self {
        let (pod, files) = wanted(instance).await;
        let container = pod.containers.first().expect("a container");
        let env = container.env.iter().flatten();
        let options = RabbitMqOptions {
            name: instance.broker_name(),
            files,
            env: env
                .filter_map(|it| Some((it.name.clone(), it.value.clone()?)))
                .collect(),
            base,
        };
        let rabbit = blocking(move || {
            let rabbit = RabbitMq::start(options)?;
            rabbit.wait_ready(START).map(|()| rabbit)
        })
        .await
        .unwrap_or_else(|error| panic!("no broker: {error}"));
        let broker = Self {
            instance: instance.clone(),
            rabbit: Arc::new(rabbit),
        };
        broker.set_resolvable(true);
        broker
    }

    /// Where it listens.
    pub fn address(&self) -> IpAddr {
        self.rabbit.address().into()
    }

    /// Whether the operator can resolve the name of its Service.
    pub fn set_resolvable(&self, resolvable: bool) {
        let address = resolvable.then(|| self.address());
        self.playground()
            .set_address(&self.instance.host(), address);
    }

    /// Ends it at once.
    pub async fn kill(&self) {
        self.with(RabbitMq::kill).await;
    }

    /// Starts it again, with the data it had and the files that the API server holds now, as a kubelet does.
    pub async fn start_again(&self) {
        let (_, files) = wanted(&self.instance).await;
        self.with(move |rabbit| {
            rabbit.update_files(&files)?;
            rabbit.start_again()?;
            rabbit.wait_ready(START)
        })
        .await;
    }

    /// Forgets its data; only while it is not running.
    pub async fn wipe(&self) {
        self.with(RabbitMq::wipe_data).await;
    }

    /// Writes the files that the API server holds now, as a kubelet does after a while.
    pub async fn refresh_files(&self) {
        let (_, files) = wanted(&self.instance).await;
        self.with(move |rabbit| rabbit.update_files(&files)).await;
    }

    /// Runs `rabbitmqctl` and returns what it prints.
    pub async fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `rabbitmqctl`, which may fail.
    ///
    /// # Errors
    /// What it said.
    pub async fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let rabbit = Arc::clone(&self.rabbit);
        blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            rabbit.rabbitmqctl(&args)
        })
        .await
        .map_err(|error| error.to_string())
    }

    /// Whether the broker has a user of this name.
    pub async fn has_user(&self, name: &str) -> bool {
        let users = self
            .ctl(&["list_users", "--quiet", "--no-table-headers"])
            .await;
        users
            .lines()
            .any(|line| line.split('\t').next() == Some(name))
    }

    /// Waits until there is a user of this name, or none.
    pub async fn user(&self, name: &str, present: bool, limit: Duration) {
        let what = format!(
            "broker user {name} is {}",
            if present { "there" } else { "gone" }
        );
        self.playground()
            .eventually(&what, limit, async || {
                let users = self
                    .ctl(&["list_users", "--quiet", "--no-table-headers"])
                    .await;
                let found = users
                    .lines()
                    .any(|line| line.split('\t').next() == Some(name));
                if found == present { Ok(()) } else { Err(users) }
            })
            .await;
    }

    fn playground(&self) -> &'a Playground {
        self.instance.playground
    }

    async fn with(
        &self,
        work: impl FnOnce(&RabbitMq) -> local_cluster::Result<()> + Send + 'static,
    ) {
        let rabbit = Arc::clone(&self.rabbit);
        blocking(move || work(&rabbit))
            .await
            .unwrap_or_else(|error| panic!("the broker: {error}"));
    }
}

/// The pod the operator asks for, and the files its volumes put into it.
async fn wanted(instance: &Instance<'_>) -> (PodSpec, Files) {
    let (name, limit) = (instance.broker_name(), SOON);
    let what = format!("StatefulSet {}/{name} and its volumes", instance.namespace);
    instance
        .playground
        .eventually(&what, limit, async || {
            let api =
                Api::<StatefulSet>::namespaced(instance.playground.admin(), &instance.namespace);
            let set = api.get(&name).await.map_err(|error| error.to_string())?;
            let pod = set
                .spec
                .and_then(|spec| spec.template.spec)
                .ok_or("no pod")?;
            let files = files(instance, &pod).await?;
            Ok((pod, files))
        })
        .await
}

async fn files(instance: &Instance<'_>, pod: &PodSpec) -> Result<Files, String> {
    let mut files = Vec::new();
    let container = pod.containers.first().ok_or("no container")?;
    for mount in container.volume_mounts.iter().flatten() {
        let volume = pod
            .volumes
            .iter()
            .flatten()
            .find(|it| it.name == mount.name);
        let Some(volume) = volume else { continue };
        for (name, content) in contents(instance, volume).await? {
            files.push((format!("{}/{name}", mount.mount_path), content));
        }
    }
    Ok(files)
}

async fn contents(instance: &Instance<'_>, volume: &Volume) -> Result<Files, String> {
    let client = instance.playground.admin();
    if let Some(name) = volume.config_map.as_ref().map(|source| &source.name) {
        let api = Api::<ConfigMap>::namespaced(client, &instance.namespace);
        let map = api.get(name).await.map_err(|error| error.to_string())?;
        let data = map.data.unwrap_or_default();
        return Ok(data
            .into_iter()
            .map(|(name, text)| (name, text.into_bytes()))
            .collect());
    }
    let secret = volume
        .secret
        .as_ref()
        .and_then(|it| it.secret_name.as_ref());
    let Some(name) = secret else {
        return Ok(Files::new());
    };
    let api = Api::<Secret>::namespaced(client, &instance.namespace);
    let secret = api.get(name).await.map_err(|error| error.to_string())?;
    let data = secret.data.unwrap_or_default();
    Ok(data
        .into_iter()
        .map(|(name, ByteString(content))| (name, content))
        .collect())
}
