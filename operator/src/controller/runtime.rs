//! What the reconcile of an instance hands to the reconciles of its requests.

use crate::broker::UserKeeperHandle;
use crate::pki::{
    self, Authority, CheckedRequest, RequestProfile, SerialNumber, SignedCertificate,
};
use kube::runtime::reflector::ObjectRef;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use volttron_crds::{ApprovalSpec, CertificateSpec, RequestsSpec, VolttronInstance};

/// The certificate authorities of an instance: one, and another one while it is being replaced.
#[derive(Clone, Debug)]
pub(super) struct Authorities {
    /// The one that signs. Its bundle holds the roots of all.
    pub(super) signing: Arc<Authority>,
    /// One that is trusted and does not sign yet.
    pub(super) next: Option<Arc<Authority>>,
    /// One that is trusted and does not sign any more.
    pub(super) previous: Option<Arc<Authority>>,
}

impl Authorities {
    /// All of them, the one that signs first.
    pub(super) fn all(&self) -> Vec<Arc<Authority>> {
        let others = self.next.iter().chain(&self.previous);
        [&self.signing].into_iter().chain(others).cloned().collect()
    }

    /// The certificates to trust (PEM).
    pub(super) fn bundle(&self) -> &str {
        self.signing.bundle()
    }
}

/// An instance as its requests see it.
#[derive(Clone, Debug)]
pub(super) struct InstanceRuntime {
    /// What a signing request must meet.
    pub(super) profile: RequestProfile,
    /// What is signed.
    pub(super) certificates: CertificateSpec,
    /// Which requests are approved without an administrator.
    pub(super) approval: ApprovalSpec,
    /// Who may file requests, and how many may wait.
    pub(super) requests: RequestsSpec,
    /// The authority that signs, with the whole trust bundle; or why nothing is signed.
    pub(super) authority: Result<Arc<Authority>, String>,
    /// All authorities that are trusted; they are there also while nothing may be signed.
    pub(super) authorities: Option<Authorities>,
    /// The broker's users.
    pub(super) users: Option<UserKeeperHandle>,
    /// Why the broker cannot take users at the moment.
    pub(super) broker_fault: Option<String>,
}

impl InstanceRuntime {
    /// Recognises a certificate of this request, whichever of the trusted authorities signed it.
    pub(super) fn adopt(
        &self,
        checked: &CheckedRequest,
        serial: &SerialNumber,
        chain: &str,
    ) -> Option<SignedCertificate> {
        self.authorities
            .iter()
            .flat_map(Authorities::all)
            .find_map(|authority| pki::adopt(&authority, checked, serial, chain))
    }

    /// Whether requests that waited can go on, or have to look again.
    pub(super) fn differs_from(&self, other: &Self) -> bool {
        fn signs(runtime: &InstanceRuntime) -> Option<&str> {
            Some(runtime.authority.as_ref().ok()?.sha256())
        }
        fn bundle(runtime: &InstanceRuntime) -> Option<&str> {
            Some(runtime.authorities.as_ref()?.bundle())
        }
        signs(self) != signs(other)
            || bundle(self) != bundle(other)
            || self.broker_fault != other.broker_fault
            || self.certificates != other.certificates
            || self.approval != other.approval
            || self.requests != other.requests
    }
}

/// The runtimes of all instances.
#[derive(Debug, Default)]
pub(super) struct Runtimes(RwLock<HashMap<ObjectRef<VolttronInstance>, Arc<InstanceRuntime>>>);

impl Runtimes {
    /// The runtime of an instance; `None` before its first reconcile.
    pub(super) fn of(
        &self,
        instance: &ObjectRef<VolttronInstance>,
    ) -> Option<Arc<InstanceRuntime>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(instance)
            .cloned()
    }

    /// Publishes a runtime. Returns whether its requests have to look again.
    pub(super) fn publish(
        &self,
        instance: ObjectRef<VolttronInstance>,
        runtime: InstanceRuntime,
    ) -> bool {
        let mut runtimes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = runtimes.insert(instance, Arc::new(runtime.clone()));
        before.is_none_or(|before| runtime.differs_from(&before))
    }

    /// Forgets an instance that is gone.
    pub(super) fn remove(&self, instance: &ObjectRef<VolttronInstance>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(instance);
    }
}
