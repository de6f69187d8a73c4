//! What has to be true when everything is calm again, and what of it is not.

use super::lives::{End, Expected};
use super::witness::{Witness, chain_in, serial_of};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use volttron_crds::{Phase, VolttronCertRequest, well_known};
use volttron_tests::{Broker, SYSTEM, Space};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

type Faults = Vec<String>;

/// Everything that a soak is about.
pub struct World<'a> {
    pub spaces: &'a [Space<'a>],
    pub witnesses: &'a [Witness],
    pub broker: &'a Broker<'a>,
    /// What belongs to the instance alone, by [`World::belongings`] when it had no request yet.
    pub belongings: BTreeSet<String>,
}

impl World<'_> {
    /// What is wrong; empty when all is well.
    ///
    /// # Errors
    /// Somebody does not answer.
    pub async fn faults(&self, all: &[Expected]) -> Result<Faults, String> {
        let mut faults = Faults::new();
        let mut certificates = Certificates::default();
        for (number, space) in self.spaces.iter().enumerate() {
            let here = all.iter().filter(|it| it.space == number);
            let here: BTreeMap<_, _> = here.map(|it| (it.name.as_str(), it)).collect();
            let requests: Vec<VolttronCertRequest> = list(space.api()).await?;
            let secrets: Vec<Secret> = list(space.secrets()).await?;
            let found: BTreeMap<_, _> = requests.iter().map(|it| (it.name_any(), it)).collect();
            let secrets: BTreeMap<_, _> = secrets.iter().map(|it| (it.name_any(), it)).collect();
            for name in found
                .keys()
                .filter(|name| !here.contains_key(name.as_str()))
            {
                faults.push(format!("nobody knows request {name}"));
            }
            let of_issued = |name: &str| {
                let known = name.strip_suffix("-tls").and_then(|name| here.get(name));
                known.is_some_and(|it| matches!(it.end, End::Issued(_)))
            };
            for name in secrets.keys().filter(|name| !of_issued(name)) {
                faults.push(format!("Secret {name} should not be"));
            }
            for expected in here.values() {
                let sight = self.witnesses[number].saw(&expected.name);
                let secret = secrets.get(&format!("{}-tls", expected.name));
                let request = found.get(&expected.name).copied();
                let mut wrong = wrong_with(expected, request, secret.copied());
                let count = sight.certificates.len();
                // One that was set aside and never used is no harm.
                let most = *expected.certificates.end().max(&1);
                if !expected.certificates.contains(&count) || sight.serials.len() > most {
                    wrong.push(format!(
                        "there were {count} certificates, and serial numbers {:?}",
                        sight.serials
                    ));
                }
                if sight.certificates.values().any(|chains| chains.len() != 1) {
                    wrong.push("two certificates with one serial number".to_owned());
                }
                let current = request.and_then(current_serial);
                let ended = sight
                    .certificates
                    .into_keys()
                    .filter(|it| Some(it) != current.as_ref());
                for serial in ended {
                    let owner = expected.name.clone();
                    certificates.owners.insert(serial.clone(), owner);
                    if expected.revoked {
                        certificates.revoked.insert(serial);
                    }
                }
                // Where an approved request ends, the serial number that was set aside for it is
                // revoked, since a certificate may be on its way.
                let unused = sight.serials.into_iter();
                certificates
                    .set_aside
                    .extend(unused.filter(|it| Some(it) != current.as_ref()));
                certificates.current.extend(current);
                faults.extend(
                    wrong
                        .into_iter()
                        .map(|it| format!("{}: {it}", expected.name)),
                );
            }
        }
        if self.belongings().await? != self.belongings {
            faults.push(format!(
                "the instance has {:?}, and had {:?}",
                self.belongings().await?,
                self.belongings
            ));
        }
        faults.extend(self.wrong_on_lists(&certificates).await?);
        // Asking the broker takes seconds.
        if faults.is_empty() {
            faults.extend(self.wrong_on_broker(all).await?);
        }
        Ok(faults)
    }

    /// The Secrets and `ConfigMaps` of the operator that belong to the instance, and all in the agents' namespaces that do not
    /// belong to a request.
    pub async fn belongings(&self) -> Result<BTreeSet<String>, String> {
        let instance = &self.broker.instance;
        let client = instance.playground.admin();
        let mut found = BTreeSet::new();
        let agents = self.spaces.iter().map(|space| space.namespace.as_str());
        for namespace in agents.chain([instance.namespace.as_str(), SYSTEM]) {
            let secrets: Vec<Secret> = list(Api::namespaced(client.clone(), namespace)).await?;
            let maps: Vec<ConfigMap> = list(Api::namespaced(client.clone(), namespace)).await?;
            let secrets = secrets
                .iter()
                .filter(|it| belongs(*it, &instance.namespace));
            let secrets = secrets.filter(|it| {
                it.owner_references()
                    .iter()
                    .all(|it| it.kind != "VolttronCertRequest")
            });
            found.extend(secrets.map(|it| format!("Secret {namespace}/{}", it.name_any())));
            let maps = maps.iter().filter(|it| belongs(*it, &instance.namespace));
            found.extend(maps.map(|it| format!("ConfigMap {namespace}/{}", it.name_any())));
        }
        Ok(found)
    }

    /// The lists hold what is revoked, and a canary.
    async fn wrong_on_lists(&self, certificates: &Certificates) -> Result<Faults, String> {
        let instance = &self.broker.instance;
        let api = Api::<ConfigMap>::namespaced(instance.playground.admin(), &instance.namespace);
        let map = api.get(&format!("{}-crl", instance.broker_name())).await;
        let map = map.map_err(|error| error.to_string())?;
        let mut faults = Faults::new();
        for (file, text) in map.data.unwrap_or_default() {
            let listed = revoked_in(&text)?;
            for missing in certificates.revoked.difference(&listed) {
                let owner = certificates.owners.get(missing);
                faults.push(format!("{missing} of {owner:?} is not on list {file}"));
            }
            for good in certificates.current.intersection(&listed) {
                faults.push(format!("{good} is in use, and on list {file}"));
            }
            let others = listed.difference(&certificates.revoked);
            let others: Vec<_> = others
                .filter(|serial| !certificates.set_aside.contains(*serial))
                .map(|serial| (serial, certificates.owners.get(serial)))
                .collect();
            if others.len() != 1 {
                faults.push(format!(
                    "list {file} has beside what is revoked: {others:?}"
                ));
            }
        }
        Ok(faults)
    }

    /// The broker has those users that have access, with their rights, and the operator's.
    async fn wrong_on_broker(&self, all: &[Expected]) -> Result<Faults, String> {
        let text = self
            .broker
            .try_ctl(&["export_definitions", "-", "--silent"])
            .await?;
        let found: Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let access = all.iter().filter(|it| matches!(it.end, End::Issued(_)));
        let access: BTreeSet<_> = access.map(|it| it.common_name.clone()).collect();
        let operator = "volttron-operator".to_owned();
        let mut wanted: BTreeMap<_, _> = access
            .iter()
            .map(|it| (it.clone(), Account::of(it)))
            .collect();
        let everything = || ".*".to_owned();
        wanted.insert(
            operator,
            Account {
                permissions: vec![[everything(), everything(), everything()]],
                topics: Vec::new(),
            },
        );
        let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
        for user in rows(&found, "users") {
            accounts.insert(text_of(user, "name"), Account::default());
        }
        for row in rows(&found, "permissions") {
            let account = accounts.entry(text_of(row, "user")).or_default();
            account
                .permissions
                .push(["configure", "write", "read"].map(|key| text_of(row, key)));
        }
        for row in rows(&found, "topic_permissions") {
            let account = accounts.entry(text_of(row, "user")).or_default();
            account
                .topics
                .push(["exchange", "write", "read"].map(|key| text_of(row, key)));
        }
        let names: BTreeSet<_> = wanted.keys().chain(accounts.keys()).collect();
        let differing = names
            .into_iter()
            .filter(|name| wanted.get(*name) != accounts.get(*name));
        Ok(differing
            .map(|name| {
                format!(
                    "broker user {name}: {:?}, and should be {:?}",
                    accounts.get(name),
                    wanted.get(name)
                )
            })
            .collect())
    }
}

#[derive(Default)]
struct Certificates {
    current: BTreeSet<String>,
    revoked: BTreeSet<String>,
    /// Serial numbers that requests had which have another one now, or none.
    set_aside: BTreeSet<String>,
    /// Whose they are.
    owners: BTreeMap<String, String>,
}

/// What a broker's user may do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    permissions: Vec<[String; 3]>,
    topics: Vec<[String; 3]>,
}

impl Account {
    /// An agent's, as `docs/broker.md` tells them.
    fn of(common_name: &str) -> Self {
        let quoted = common_name.replace('.', r"\.").replace('-', r"\-");
        let home = common_name
            .split('.')
            .nth(1)
            .unwrap_or_default()
            .replace('-', r"\-");
        let own = format!(r"{quoted}(\.pubsub\..+)?|amq\.gen-.+");
        Self {
            permissions: vec![[
                format!("^({own})$"),
                format!("^({own}|volttron)$"),
                format!("^({own}|volttron)$"),
            ]],
            topics: vec![[
                "volttron".to_owned(),
                format!(r"^(__pubsub__\.(central|{home})\..+|(?!__pubsub__\.)[^.]+\..+)$"),
                format!(r"^({quoted}|__pubsub__\.(central|\*)\..+)$"),
            ]],
        }
    }
}

/// What is wrong with one request and its Secret.
fn wrong_with(
    expected: &Expected,
    request: Option<&VolttronCertRequest>,
    secret: Option<&Secret>,
) -> Faults {
    let Some(request) = request else {
        return match expected.end {
            End::Gone => Faults::new(),
            _ => vec!["the request is not there".to_owned()],
        };
    };
    let status = request.status.clone().unwrap_or_default();
    let decision = status.decision.clone();
    let (phase, how) = match expected.end {
        End::Gone => return vec![format!("the request is there: {status:#?}")],
        End::Issued(how) => (Phase::Issued, how),
        End::Denied(how) => (Phase::Denied, how),
    };
    let mut faults = Faults::new();
    if request.phase() != Some(phase)
        || decision.as_ref().map(|it| (it.how, it.by.as_deref())) != Some((how, Some("alice")))
    {
        faults.push(format!("is to be {phase:?} and {how:?}: {status:#?}"));
    }
    let chain = secret.and_then(chain_in);
    if chain != status.certificate {
        faults.push("the certificates in Secret and status differ".to_owned());
    }
    let serial = chain.as_deref().map(serial_of);
    match phase {
        Phase::Issued if serial.is_none() || serial != status.serial_number => {
            faults.push(format!(
                "its certificate is {serial:?}, and its serial number {:?}",
                status.serial_number
            ));
        }
        Phase::Denied if status.certificate.is_some() => {
            faults.push("it has a certificate".to_owned());
        }
        _ => {}
    }
    faults
}

fn current_serial(request: &VolttronCertRequest) -> Option<String> {
    let status = request.status.as_ref()?;
    status.certificate.as_deref().map(serial_of)
}

/// Whether the operator has made it for an instance in this namespace.
fn belongs(object: &impl ResourceExt, namespace: &str) -> bool {
    object
        .labels()
        .get(well_known::INSTANCE_NAMESPACE_LABEL)
        .map(String::as_str)
        == Some(namespace)
}

/// The serial numbers on the lists in `text` (PEM).
fn revoked_in(text: &str) -> Result<BTreeSet<String>, String> {
    let mut serials = BTreeSet::new();
    for block in pem::parse_many(text).map_err(|error| error.to_string())? {
        let list = CertificateRevocationList::from_der(block.contents());
        let (_, list) = list.map_err(|error| error.to_string())?;
        serials.extend(
            list.iter_revoked_certificates()
                .map(|it| hex::encode(it.raw_serial())),
        );
    }
    Ok(serials)
}

fn rows<'a>(definitions: &'a Value, kind: &str) -> &'a [Value] {
    definitions[kind]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn text_of(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().to_owned()
}

async fn list<K: Resource + Clone + DeserializeOwned + Debug>(
    api: Api<K>,
) -> Result<Vec<K>, String> {
    let listed = api.list(&ListParams::default()).await;
    listed
        .map(|list| list.items)
        .map_err(|error| error.to_string())
}
