//! Observes, asks [`next`] what follows, and does that.

mod offer;

use crate::connection::Target;
use crate::credentials::directory::Directory;
use crate::report::{Metrics, Standing};
use crate::request::file::Filer;
use crate::request::key::AgentKey;
use crate::request::watch::{Presence, Seen, object};
use crate::request::{Pod, Wanted};
use crate::settings::Settings;
use crate::state::{Link, Next, Observed, Order, RequestFor, RequestSeen, State, next};
use jiff::Timestamp;
use kube::{Api, Client};
use offer::Offered;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::field::display;
use tracing::{error, info, warn};
use volttron_crds::{CommonName, InstanceName, VolttronCertRequest, VolttronInstance};

/// Everything is looked at this often, even where nothing was observed.
const TICK: Duration = Duration::from_secs(30);

/// Brings the agent from its key to its connection, and keeps it there.
pub struct Driver {
    settings: Settings,
    home: InstanceName,
    client: Client,
    key: Arc<AgentKey>,
    directory: Option<Directory>,
    instance: watch::Receiver<Seen<VolttronInstance>>,
    asked: Option<Asked>,
    filer: Filer,
    offered: Offered,
    target: watch::Sender<Option<Arc<Target>>>,
    link: watch::Receiver<Link>,
    standing: watch::Sender<Standing>,
    metrics: Metrics,
}

/// The ends of the channels between the driver and its surroundings.
pub struct Channels {
    /// What to connect to.
    pub target: watch::Sender<Option<Arc<Target>>>,
    /// How the connection is.
    pub link: watch::Receiver<Link>,
    /// Where the sidecar stands.
    pub standing: watch::Sender<Standing>,
    /// The metrics.
    pub metrics: Metrics,
}

/// The request, and what is seen of it.
struct Asked {
    wanted: Wanted,
    name: String,
    request: watch::Receiver<Seen<VolttronCertRequest>>,
}

impl Driver {
    /// Starts watching the instance.
    #[must_use]
    pub fn new(
        settings: Settings,
        home: InstanceName,
        client: Client,
        key: AgentKey,
        directory: Option<Directory>,
        channels: Channels,
    ) -> Self {
        let instances = Api::namespaced(client.clone(), settings.remote_namespace());
        let instance = object(instances, &settings.remote.name);
        let filer = Filer::new(client.clone(), settings.requester.clone());
        Self {
            settings,
            home,
            client,
            key: Arc::new(key),
            directory,
            instance,
            asked: None,
            filer,
            offered: Offered::default(),
            target: channels.target,
            link: channels.link,
            standing: channels.standing,
            metrics: channels.metrics,
        }
    }

    /// Goes on until it is dropped; that closes the connection.
    pub async fn run(mut self) {
        loop {
            let next = self.decide(Timestamp::now());
            self.say(&next);
            let tried = self.obey(&next).await;
            // What came of it is said at once.
            if !tried {
                self.wait(&next).await;
            }
        }
    }

    /// Takes what was observed, and decides.
    fn decide(&mut self, now: Timestamp) -> Next {
        let instance = self.instance.borrow_and_update().clone();
        let link = self.link.borrow_and_update().clone();
        let impossible = match &instance.object {
            Some(Presence::Present(instance)) => self.ask(instance).err(),
            _ => None,
        };
        let seen = self
            .asked
            .as_mut()
            .map(|asked| asked.request.borrow_and_update().clone());
        let seen = seen.unwrap_or_default();
        if let Some(asked) = &self.asked {
            let (request, instance) = (seen.present(), instance.present());
            let common_name = &asked.wanted.common_name;
            self.offered
                .update(request, instance, &self.key, common_name);
        }
        let request_for = match (impossible, &self.asked) {
            (Some(why), _) => RequestFor::Impossible(why),
            (None, Some(asked)) => RequestFor::Known {
                name: &asked.name,
                namespace: &self.settings.pod_namespace,
            },
            (None, None) => RequestFor::Unknown(self.waiting_for(&instance)),
        };
        let observed = Observed {
            request_for,
            request: self.request(&seen),
            offer: self.offered.as_offer(),
            held: self
                .target
                .borrow()
                .as_ref()
                .map(|held| held.credentials.not_after()),
            link: &link,
        };
        next(&observed, now)
    }

    /// Settles what to ask for, once the instance says what it is called.
    fn ask(&mut self, instance: &VolttronInstance) -> Result<(), String> {
        let identity = self.settings.identity.clone();
        let common_name = instance
            .instance_name()
            .and_then(|name| CommonName::new(name, self.home.clone(), identity))
            .map_err(|error| error.to_string())?;
        let asked = self.asked.as_ref().map(|asked| &asked.wanted.common_name);
        if asked == Some(&common_name) {
            return Ok(());
        }
        let wanted = Wanted {
            common_name,
            instance: self.settings.instance_reference(),
            duration: self.settings.duration.clone(),
            pod: Pod {
                name: self.settings.pod_name.clone(),
                namespace: self.settings.pod_namespace.clone(),
                uid: self.settings.pod_uid.clone(),
            },
            key: Arc::clone(&self.key),
        };
        let name = wanted.name();
        let requests = Api::namespaced(self.client.clone(), &wanted.pod.namespace);
        self.leave();
        self.offered = Offered::default();
        self.asked = Some(Asked {
            request: object(requests, &name),
            wanted,
            name,
        });
        Ok(())
    }

    fn waiting_for(&self, instance: &Seen<VolttronInstance>) -> String {
        let (namespace, name) = (self.settings.remote_namespace(), &self.settings.remote.name);
        match (&instance.object, &instance.trouble) {
            (None, Some(trouble)) => {
                format!("cannot read VolttronInstance {namespace}/{name}: {trouble}")
            }
            (None, None) => format!("reading VolttronInstance {namespace}/{name}"),
            _ => format!("waiting for VolttronInstance {namespace}/{name}, which does not exist"),
        }
    }

    fn request<'a>(&'a self, seen: &'a Seen<VolttronCertRequest>) -> RequestSeen<'a> {
        match (&seen.object, &self.asked) {
            (Some(Presence::Present(request)), Some(asked)) => match asked.wanted.check(request) {
                Err(mismatch) => RequestSeen::Foreign(mismatch.to_string()),
                Ok(()) if request.metadata.deletion_timestamp.is_some() => RequestSeen::Deleted,
                Ok(()) => RequestSeen::Present(request.status.as_ref()),
            },
            (Some(Presence::Absent), _) => RequestSeen::Absent(self.filer.trouble()),
            _ => RequestSeen::Unknown(seen.trouble.as_deref()),
        }
    }

    /// Says where the sidecar stands: one log line for each change.
    fn say(&self, next: &Next) {
        let standing = Standing {
            state: next.state,
            reason: next.reason.clone(),
        };
        if *self.standing.borrow() == standing {
            return;
        }
        let namespace = &self.settings.pod_namespace;
        let asked = self.asked.as_ref();
        let name = asked.map(|asked| display(&asked.name));
        let common_name = asked.map(|asked| display(&asked.wanted.common_name));
        let (state, reason) = (next.state, &next.reason);
        match state {
            State::Denied | State::Failed | State::Expired => {
                error!(%state, %namespace, name, common_name, "{reason}");
            }
            _ if next.trouble => warn!(%state, %namespace, name, common_name, "{reason}"),
            _ => info!(%state, %namespace, name, common_name, "{reason}"),
        }
        self.metrics.state(state);
        self.standing.send_replace(standing);
    }

    /// Does what was decided. Says whether it tried to file the request.
    async fn obey(&mut self, next: &Next) -> bool {
        let mut tried = false;
        match next.order {
            Order::Stay => {}
            Order::Leave => self.leave(),
            Order::Connect => self.connect(),
            Order::File => {
                self.leave();
                if let Some(asked) = &self.asked {
                    tried = self.filer.file(&asked.wanted).await;
                }
            }
        }
        let held = self.target.borrow().clone();
        let not_after = held.map(|held| held.credentials.not_after());
        self.metrics.expiry(not_after);
        tried
    }

    fn leave(&self) {
        self.target
            .send_if_modified(|target| target.take().is_some());
    }

    /// Publishes what is offered: to the files first, so that they are there before the agent.
    fn connect(&mut self) {
        let Some(offered) = self.offered.target() else {
            return;
        };
        let held = self.target.borrow().clone();
        if held.is_some_and(|held| Arc::ptr_eq(&held, offered)) {
            return;
        }
        let written = self
            .directory
            .as_ref()
            .map(|files| files.publish(&offered.credentials));
        if let Some(Err(error)) = written {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            warn!(cause = cause.unwrap_or_default(), "{error}");
            // Tried again with the next look at things.
            self.offered.withdraw(error.to_string());
            return;
        }
        info!(
            broker = %offered.address,
            not_after = %offered.credentials.not_after(),
            "using the certificate that was issued"
        );
        self.target.send_replace(Some(Arc::clone(offered)));
    }

    /// Waits until there is something to decide.
    async fn wait(&mut self, next: &Next) {
        let mut pause = TICK;
        if next.order == Order::File {
            pause = self.filer.pause();
        }
        if let Some(until) = next.until {
            let left = until.duration_since(Timestamp::now());
            pause = pause.min(left.try_into().unwrap_or_default());
        }
        let request = async {
            match &mut self.asked {
                Some(asked) => changed(&mut asked.request).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed(&mut self.instance) => {}
            () = request => {}
            () = changed(&mut self.link) => {}
            () = sleep(pause) => {}
        }
    }
}

/// Waits for news; for ever where there can be none any more.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
