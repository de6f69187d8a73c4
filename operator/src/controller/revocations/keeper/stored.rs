//! The ledger in its Secret, which others may change too: who restores a backup adds to it.

use super::{Keeper, parameters};
use crate::controller::clock;
use crate::controller::error::{Attempt, Error};
use crate::revocation::Ledger;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};
use volttron_crds::{VolttronInstance, well_known};

/// Where the ledger is in its Secret.
const KEY: &str = "ledger.json";
/// How soon a clock that was wrong is compared again.
const DOUBT: Duration = Duration::from_hours(1);

/// The ledger as it was read or written last.
pub(super) struct Stored {
    /// The version of the Secret.
    version: String,
    data: BTreeMap<String, ByteString>,
}

impl Keeper {
    /// Forgets what has expired, once both this machine's clock and the API server's say so: what a
    /// clock that runs ahead takes for expired would be missing for good.
    pub(super) async fn forget_expired(&mut self, ledger: &mut Ledger, now: Timestamp) {
        if !ledger.has_expired(now) || Instant::now() < self.next_doubt {
            return;
        }
        match clock::certain(&self.client).await {
            Ok(now) => ledger.forget_expired(now),
            Err(uncertain) => {
                self.next_doubt = Instant::now() + DOUBT;
                warn!(instance = %self.reference, %uncertain, "certificates that seem to have expired stay on the revocation list");
            }
        }
    }

    /// Reads the ledger where it is not known, or somebody else has changed it.
    pub(super) async fn load(&mut self) -> Result<(), Error> {
        let is_loaded = self.view().loaded;
        if is_loaded && self.is_stored() {
            return Ok(());
        }
        let Some(theirs) = self.read().await? else {
            self.view().loaded = true;
            return Ok(());
        };
        let mut view = self.view();
        if !view.loaded {
            view.ledger = theirs;
            view.loaded = true;
        } else if view.ledger.merge(&theirs) {
            info!(instance = %self.reference, "the ledger of revoked certificates was restored; what it brought back is revoked again");
        }
        Ok(())
    }

    /// Whether the Secret is known to hold what was read or written last.
    fn is_stored(&self) -> bool {
        let name = revocation_secret_name(&self.reference);
        self.stored
            .as_ref()
            .is_some_and(|it| self.secrets.holds(&self.namespace, &name, &it.data))
    }

    /// Reads the ledger that is stored, if there is one.
    pub(super) async fn read(&mut self) -> Result<Option<Ledger>, Error> {
        let name = revocation_secret_name(&self.reference);
        let secret = self
            .api()
            .get_opt(&name)
            .await
            .attempt("read the ledger of revoked certificates")?;
        self.stored = secret.map(|secret| Stored {
            version: secret.resource_version().unwrap_or_default(),
            data: secret.data.unwrap_or_default(),
        });
        let text = self.stored.as_ref().and_then(|it| it.data.get(KEY));
        let ledger = text.map(|ByteString(text)| serde_json::from_slice(text));
        let unreadable = |_| Error::LedgerUnreadable(format!("{}/{name}", self.namespace));
        ledger.transpose().map_err(unreadable)
    }

    /// Writes the ledger, where it is another than the one that is stored.
    ///
    /// # Errors
    /// [`Error::Conflict`] where somebody else has written it since it was read.
    pub(super) async fn save(&mut self, ledger: &Ledger) -> Result<(), Error> {
        let name = revocation_secret_name(&self.reference);
        let text = serde_json::to_vec(ledger).map_err(|_| Error::Incomplete("the ledger"))?;
        let data: BTreeMap<_, _> = [(KEY.to_owned(), ByteString(text))].into();
        let is_same = self.stored.as_ref().is_some_and(|it| it.data == data);
        if !is_same || !self.is_stored() {
            self.write(&name, data).await?;
        }
        self.view().ledger.clone_from(ledger);
        Ok(())
    }

    async fn write(&mut self, name: &str, data: BTreeMap<String, ByteString>) -> Result<(), Error> {
        let mut secret = self.secret(name, &data);
        let api = self.api();
        let written = if let Some(stored) = &self.stored {
            secret.metadata.resource_version = Some(stored.version.clone());
            api.patch(name, &parameters(), &Patch::Apply(&secret)).await
        } else {
            let parameters = PostParams {
                field_manager: Some(well_known::CONTROLLER_FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            api.create(&parameters, &secret).await
        };
        let written = match written {
            // Deleted, or made, since it was read.
            Err(kube::Error::Api(status))
                if status.is_not_found() || status.is_already_exists() =>
            {
                Err(Error::Conflict)
            }
            other => other.attempt("write the ledger of revoked certificates"),
        }?;
        self.stored = Some(Stored {
            version: written.resource_version().unwrap_or_default(),
            data: data.clone(),
        });
        self.secrets.wrote(&self.namespace, name, &data);
        Ok(())
    }

    fn secret(&self, name: &str, data: &BTreeMap<String, ByteString>) -> Secret {
        let instance = &self.reference;
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([
                    label(well_known::MANAGED_BY_LABEL, well_known::MANAGED_BY),
                    label(well_known::INSTANCE_LABEL, &instance.name),
                    label(
                        well_known::INSTANCE_NAMESPACE_LABEL,
                        instance.namespace.as_deref().unwrap_or_default(),
                    ),
                ])),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(data.clone()),
            ..Secret::default()
        }
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Name of the Secret with the ledger of an instance, in the controller's namespace. Neither part
/// can hold a dot before the instance's name.
pub(in crate::controller) fn revocation_secret_name(
    instance: &ObjectRef<VolttronInstance>,
) -> String {
    format!(
        "crl.{}.{}",
        instance.namespace.as_deref().unwrap_or_default(),
        instance.name
    )
}
