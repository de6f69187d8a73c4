//! The operator, killed at each of its writes.

mod broker;
mod identity;

use crate::shared::disturbed;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use volttron_crds::{Phase, VolttronCertRequest};
use volttron_tests::{Agent, Broker, Login, Moment, Playground, SOON, SYSTEM, Space, Writes, run};
use x509_parser::prelude::{FromDer as _, X509Certificate};

#[test]
fn a_request_survives_a_kill_at_each_write_with_one_certificate() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("kill-agents").await;
        playground.proxy().count(&[
            format!(
                "/apis/volttron.org/v1alpha1/namespaces/{}/",
                space.namespace
            ),
            format!("/api/v1/namespaces/{}/", space.namespace),
        ]);
        let seen = Seen::watch(&space);
        let killed = at_each_write(
            &playground,
            playground.proxy(),
            async |_| (),
            async |name| live(&space, broker, name).await,
            async || (),
            async |_| (),
        )
        .await;
        for name in killed.keys() {
            seen.check(name);
        }
        let killed: Vec<_> = killed.into_values().collect();
        for kind in [
            "POST /api/v1/namespaces",
            "DELETE /api/v1/namespaces",
            "/status",
            "PATCH /apis/volttron.org",
        ] {
            assert!(
                killed.iter().any(|write| write.contains(kind)),
                "no {kind} among {killed:#?}"
            );
        }
    });
}

#[test]
fn an_instance_survives_a_kill_at_each_write_with_one_ca() {
    run(async {
        let playground = disturbed().await;
        let namespace = playground.namespace("kill-instances").await;
        playground.proxy().count(&[
            format!("/apis/volttron.org/v1alpha1/namespaces/{namespace}/"),
            format!("/apis/apps/v1/namespaces/{namespace}/"),
            format!("/api/v1/namespaces/{namespace}/"),
            format!("/api/v1/namespaces/{SYSTEM}/secrets"),
        ]);
        let secrets = Secrets::watch(&playground, &namespace);
        let create = async |name: &str| {
            let instance = playground.instance(&namespace, name, json!({})).await;
            instance
                .condition("CertificateAuthorityReady", "True", None, SOON)
                .await;
            instance
                .condition("BrokerReady", "False", Some("Unreachable"), SOON)
                .await;
        };
        let delete = async |name: &str| {
            let instance = playground.known_instance(&namespace, name);
            instance.delete().await;
            playground
                .eventually("the instance is gone", SOON, async || {
                    match instance.api().get_opt(name).await {
                        Ok(None) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                })
                .await;
        };
        let check = async |name: &str| {
            let made = playground
                .objects_of(&namespace, &format!("{name}-rabbitmq"))
                .await;
            assert_eq!(made, ["configmap", "service", "statefulset"], "{name}");
            secrets.check(&namespace, name);
            delete(name).await;
        };
        let created = at_each_write(
            &playground,
            playground.proxy(),
            async |_| (),
            create,
            async || (),
            check,
        )
        .await;
        for kind in [
            "volttron-system/secrets",
            "-tls",
            "-definitions",
            "configmaps",
            "services",
            "statefulsets",
            "/status",
        ] {
            assert!(
                created.values().any(|write| write.contains(kind)),
                "no {kind} among {created:#?}"
            );
        }

        playground.proxy().count(&[
            format!("/apis/volttron.org/v1alpha1/namespaces/{namespace}/"),
            format!("/api/v1/namespaces/{SYSTEM}/secrets"),
        ]);
        let deleted = at_each_write(
            &playground,
            playground.proxy(),
            create,
            delete,
            async || (),
            async |_| (),
        )
        .await;
        assert!(
            deleted.values().any(|write| write.starts_with("DELETE")),
            "{deleted:#?}"
        );
        let own = Api::<Secret>::namespaced(playground.admin(), SYSTEM);
        let own = own.list(&ListParams::default()).await.unwrap();
        let left: Vec<_> = own
            .iter()
            .map(ResourceExt::name_any)
            .filter(|name| name.contains(&namespace))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    });
}

/// Lets `life` run again and again, each time between `before` and `after`, with the operator killed before and after its first write,
/// its second, and so on, until a life ends without it. `dead` sees what it left. Returns the `writes` by the names of the lives they were in.
async fn at_each_write(
    playground: &Playground,
    writes: &Writes,
    before: impl AsyncFn(&str),
    life: impl AsyncFn(&str),
    dead: impl AsyncFn(),
    after: impl AsyncFn(&str),
) -> BTreeMap<String, String> {
    let operator = playground.operator();
    let mut killed = BTreeMap::new();
    for number in 1.. {
        for moment in [Moment::Before, Moment::After] {
            let name = format!("k{}-{moment:?}-{number}", killed.len()).to_lowercase();
            before(&name).await;
            let mut fired = writes.kill_at(number, moment, operator.killer());
            let mut life = std::pin::pin!(life(&name));
            let mut write = tokio::select! {
                () = &mut life => None,
                write = &mut fired => write.ok(),
            };
            let lived = write.is_none();
            writes.spare();
            if lived {
                // The last write may have ended the life before it ended the operator.
                write = fired.await.ok();
            }
            let is_last = write.is_none();
            if let Some(write) = &write {
                println!("{number}, {moment:?}: {write}");
                dead().await;
                operator.start_again();
                if !lived {
                    life.await;
                }
            }
            after(&name).await;
            killed.insert(
                name.clone(),
                write.unwrap_or_else(|| "none was left".to_owned()),
            );
            if is_last {
                return killed;
            }
        }
    }
    killed
}

/// All of a request's life, however long each step takes.
async fn live(space: &Space<'_>, broker: &Broker<'_>, name: &str) {
    let agent = Agent::new(&format!("central.kill.{name}"));
    space.file(name, &broker.instance, &agent.csr).await;
    let pending = space.phase(name, Phase::Pending).await;
    space.approve(name).await;
    let issued = space.issued(name).await;
    let serial = issued
        .request
        .status
        .as_ref()
        .unwrap()
        .serial_number
        .clone();
    assert_eq!(
        serial,
        pending.status.unwrap().serial_number,
        "{name}: the serial number that was set aside"
    );
    assert_eq!(
        serial,
        Some(serial_of(&issued.chain)),
        "{name}: the serial number in the Secret"
    );
    assert_eq!(
        issued.request.status.as_ref().unwrap().certificate.as_ref(),
        Some(&issued.chain),
        "{name}"
    );
    broker
        .connect(Login::certificate(&agent, &issued))
        .await
        .unwrap();
    space.deny(name, "enough").await;
    space.phase(name, Phase::Denied).await;
    broker.user(&agent.common_name, false, SOON).await;
    space
        .playground
        .eventually(
            "the Secret of a denied request is gone",
            SOON,
            async || match space.secret(name).await {
                None => Ok(()),
                Some(_) => Err("it is there".to_owned()),
            },
        )
        .await;
    space.delete(name).await;
    space.gone(name).await;
}

fn serial_of(chain: &str) -> String {
    let der = pem::parse(chain).unwrap();
    let (_, certificate) = X509Certificate::from_der(der.contents()).unwrap();
    hex::encode(certificate.raw_serial())
}

type Values = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

/// Every certificate and serial number that was ever to be seen, by request.
pub struct Seen {
    values: Values,
    tasks: [JoinHandle<()>; 2],
}

impl Seen {
    pub fn watch(space: &Space<'_>) -> Self {
        let values = Values::default();
        let (of_requests, of_secrets) = (Arc::clone(&values), Arc::clone(&values));
        let requests = watcher(space.api(), Config::default())
            .applied_objects()
            .for_each(move |request| {
                if let Ok(VolttronCertRequest {
                    metadata,
                    status: Some(status),
                    ..
                }) = request
                {
                    let name = metadata.name.unwrap_or_default();
                    note(
                        &of_requests,
                        format!("serial of {name}"),
                        status.serial_number,
                    );
                    note(
                        &of_requests,
                        format!("certificate of {name}"),
                        status.certificate,
                    );
                }
                std::future::ready(())
            });
        let secrets = watcher(space.secrets(), Config::default())
            .applied_objects()
            .for_each(move |secret| {
                if let Ok(secret) = secret {
                    let name = secret.name_any().trim_end_matches("-tls").to_owned();
                    note(
                        &of_secrets,
                        format!("certificate of {name}"),
                        value(&secret, "tls.crt"),
                    );
                }
                std::future::ready(())
            });
        Self {
            values,
            tasks: [tokio::spawn(requests), tokio::spawn(secrets)],
        }
    }

    /// The serial numbers of the certificates that were seen.
    fn serials(&self, name: &str) -> BTreeSet<String> {
        let values = self.values.lock().unwrap();
        let chains = values.get(&format!("certificate of {name}"));
        let chains = chains.into_iter().flatten();
        chains.map(|chain| serial_of(chain)).collect()
    }

    pub fn check(&self, name: &str) {
        let values = self.values.lock().unwrap();
        for kind in ["serial", "certificate"] {
            let seen = values.get(&format!("{kind} of {name}")).map(BTreeSet::len);
            assert_eq!(seen, Some(1), "how many times a {kind} of {name} was made");
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Every CA, password and broker certificate that was ever to be seen.
struct Secrets {
    values: Values,
    task: JoinHandle<()>,
}

impl Secrets {
    fn watch(playground: &Playground, namespace: &str) -> Self {
        let values = Values::default();
        let noted = Arc::clone(&values);
        let namespace = namespace.to_owned();
        let secrets = Api::<Secret>::all(playground.admin());
        let task = watcher(secrets, Config::default())
            .applied_objects()
            .for_each(move |secret| {
                if let Ok(secret) = secret
                    && [SYSTEM, namespace.as_str()]
                        .contains(&secret.namespace().unwrap_or_default().as_str())
                {
                    for key in ["tls.crt", "password"] {
                        note(&noted, secret.name_any(), value(&secret, key));
                    }
                }
                std::future::ready(())
            });
        Self {
            values,
            task: tokio::spawn(task),
        }
    }

    fn check(&self, namespace: &str, name: &str) {
        let values = self.values.lock().unwrap();
        for secret in [
            format!("ca.{namespace}.{name}"),
            format!("broker.{namespace}.{name}"),
            format!("{name}-rabbitmq-tls"),
        ] {
            let seen = values.get(&secret).map(BTreeSet::len);
            assert_eq!(seen, Some(1), "how many contents Secret {secret} had");
        }
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(values: &Values, key: String, value: Option<String>) {
    if let Some(value) = value {
        values.lock().unwrap().entry(key).or_default().insert(value);
    }
}

fn value(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    Some(String::from_utf8_lossy(&value.0).into_owned())
}
