//! Sees every certificate and serial number that a request ever has, in its status and in its Secret.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;
use volttron_crds::VolttronCertRequest;
use volttron_tests::Space;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What was seen of one request.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Chains, by the serial numbers in their first certificates.
    pub certificates: BTreeMap<String, BTreeSet<String>>,
    /// Serial numbers in status.
    pub serials: BTreeSet<String>,
}

type Sights = Arc<Mutex<BTreeMap<String, Sight>>>;

/// Watches the requests of one namespace.
pub struct Witness {
    sights: Sights,
    tasks: [JoinHandle<()>; 2],
}

impl Witness {
    pub fn watch(space: &Space<'_>) -> Self {
        let sights = Sights::default();
        let (of_requests, of_secrets) = (Arc::clone(&sights), Arc::clone(&sights));
        let requests = watcher(space.api(), Config::default())
            .default_backoff()
            .applied_objects()
            .for_each(move |request| {
                if let Ok(request) = request {
                    note_request(&of_requests, &request);
                }
                std::future::ready(())
            });
        let secrets = watcher(space.secrets(), Config::default())
            .default_backoff()
            .applied_objects()
            .for_each(move |secret| {
                if let Ok(secret) = secret {
                    note_secret(&of_secrets, &secret);
                }
                std::future::ready(())
            });
        Self {
            sights,
            tasks: [tokio::spawn(requests), tokio::spawn(secrets)],
        }
    }

    /// What was seen of the request `name`.
    pub fn saw(&self, name: &str) -> Sight {
        let sights = self.sights.lock().unwrap_or_else(PoisonError::into_inner);
        sights.get(name).cloned().unwrap_or_default()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The serial number in the first certificate of a chain (PEM).
pub fn serial_of(chain: &str) -> String {
    let block = pem::parse(chain).unwrap();
    let (_, certificate) = X509Certificate::from_der(block.contents()).unwrap();
    hex::encode(certificate.raw_serial())
}

/// `tls.crt` of a Secret.
pub fn chain_in(secret: &Secret) -> Option<String> {
    let value = secret.data.as_ref()?.get("tls.crt")?;
    Some(String::from_utf8_lossy(&value.0).into_owned())
}

fn note_request(sights: &Sights, request: &VolttronCertRequest) {
    let Some(status) = &request.status else {
        return;
    };
    let mut sights = sights.lock().unwrap_or_else(PoisonError::into_inner);
    let sight = sights.entry(request.name_any()).or_default();
    sight.serials.extend(status.serial_number.clone());
    sight.note(status.certificate.clone());
}

fn note_secret(sights: &Sights, secret: &Secret) {
    let name = secret.name_any();
    let Some(name) = name.strip_suffix("-tls") else {
        return;
    };
    let mut sights = sights.lock().unwrap_or_else(PoisonError::into_inner);
    sights
        .entry(name.to_owned())
        .or_default()
        .note(chain_in(secret));
}

impl Sight {
    fn note(&mut self, chain: Option<String>) {
        if let Some(chain) = chain {
            let serial = serial_of(&chain);
            self.certificates.entry(serial).or_default().insert(chain);
        }
    }
}
