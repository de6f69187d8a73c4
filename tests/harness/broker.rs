//! What a kubelet does for a broker: it runs what the `StatefulSet` says, with the files its volumes hold.

use crate::playground::Playground;
use crate::volumes::{Files, Follower, Mounted, mounted};
use crate::{Instance, SOON, blocking};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PodSpec, Secret};
use kube::Api;
use local_cluster::{Base, RabbitMq, RabbitMqOptions};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const START: Duration = Duration::from_mins(2);

/// A pod, and its volumes with their files.
type Wanted = (PodSpec, Vec<(Mounted, Files)>);

/// The broker of an instance; it ends when this is dropped.
pub struct Broker<'a> {
    /// The instance it is the broker of.
    pub instance: Instance<'a>,
    files: Follower,
    rabbit: Arc<RabbitMq>,
}

impl<'a> Broker<'a> {
    /// Starts what the instance's `StatefulSet` describes, and lets the operator resolve the name of its Service.
    pub async fn start(instance: &Instance<'a>, base: Base) -> Self {
        let (pod, volumes) = wanted(instance).await;
        let files = volumes.iter().flat_map(|(volume, files)| {
            let path = |name: &str| format!("{}/{name}", volume.path);
            files
                .iter()
                .map(move |(name, content)| (path(name), content.clone()))
        });
        let container = pod.containers.first().expect("a container");
        let env = container.env.iter().flatten();
        let options = RabbitMqOptions {
            name: instance.broker_name(),
            files: files.collect(),
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
        let rabbit = Arc::new(rabbit);
        let volumes = volumes.into_iter().map(|(volume, _)| volume).collect();
        let client = instance.playground.admin();
        let broker = Self {
            instance: instance.clone(),
            files: Follower::start(&client, &instance.namespace, volumes, &rabbit),
            rabbit,
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
        self.refresh_files().await;
        self.with(|rabbit| {
            rabbit.start_again()?;
            rabbit.wait_ready(START)
        })
        .await;
    }

    /// Forgets its data; only while it is not running.
    pub async fn wipe(&self) {
        self.with(RabbitMq::wipe_data).await;
    }

    /// Writes the files that the API server holds now, at once and even while they are held.
    pub async fn refresh_files(&self) {
        let _disk = self.files.disk.lock().await;
        let (_, volumes) = wanted(&self.instance).await;
        self.with(move |rabbit| {
            let mut volumes = volumes.iter();
            volumes.try_for_each(|(volume, files)| rabbit.set_volume(&volume.path, files))
        })
        .await;
    }

    /// Its files follow the API server at once. A kubelet takes up to a minute and a half: this one is slow until it is told
    /// otherwise.
    pub fn hold_files(&self, hold: bool) {
        self.files.hold(hold);
    }

    /// The certificate that the operator has issued for it (DER).
    pub async fn tls_certificate(&self) -> Vec<u8> {
        let name = format!("{}-tls", self.instance.broker_name());
        let api = Api::<Secret>::namespaced(self.playground().admin(), &self.instance.namespace);
        let data = api.get(&name).await.ok().and_then(|secret| secret.data);
        let pem = data
            .expect("a Secret")
            .remove("tls.crt")
            .expect("tls.crt")
            .0;
        let block = pem::parse(pem).expect("a certificate");
        block.into_contents()
    }

    /// Puts files of the test's own into the folder of a volume; to be used while its files are held.
    pub async fn set_files(&self, folder: &str, files: Vec<(String, Vec<u8>)>) {
        let _disk = self.files.disk.lock().await;
        let folder = folder.to_owned();
        self.with(move |rabbit| rabbit.set_volume(&folder, &files))
            .await;
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
async fn wanted(instance: &Instance<'_>) -> Wanted {
    let (name, limit) = (instance.broker_name(), SOON);
    let what = format!("StatefulSet {}/{name} and its volumes", instance.namespace);
    let client = instance.playground.admin();
    instance
        .playground
        .eventually(&what, limit, async || {
            let api = Api::<StatefulSet>::namespaced(client.clone(), &instance.namespace);
            let set = api.get(&name).await.map_err(|error| error.to_string())?;
            let pod = set
                .spec
                .and_then(|spec| spec.template.spec)
                .ok_or("no pod")?;
            let mut volumes = Vec::new();
            for volume in mounted(&pod) {
                let files = volume.files(client.clone(), &instance.namespace).await?;
                volumes.push((volume, files));
            }
            Ok((pod, volumes))
        })
        .await
}
