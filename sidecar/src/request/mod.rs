//! The request for a certificate: which object it is, and whether one that was found is ours.

pub mod file;
pub mod key;
pub mod watch;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use key::{AgentKey, KeyError};
use kube::api::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;
use volttron_crds::{
    CommonName, InstanceReference, VolttronCertRequest, VolttronCertRequestSpec, well_known,
};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

/// What the sidecar asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The agent's name on the remote instance.
    pub common_name: CommonName,
    /// The remote instance, as the request refers to it.
    pub instance: InstanceReference,
    /// How long the certificate should live; the instance's default where `None`.
    pub duration: Option<String>,
    /// The pod that waits.
    pub pod: Pod,
    /// The key the certificate is for.
    pub key: Arc<AgentKey>,
}

/// The pod the sidecar runs in.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `metadata.name`
    pub name: String,
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.uid`
    pub uid: String,
}

/// A request of our name that asks for something else.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// `spec.request` is not a PEM signing request in base64.
    #[error("its spec.request is no certificate signing request")]
    Unreadable,
    /// Another key asks.
    #[error("it was filed with another key")]
    Key,
    /// Another name is asked for.
    #[error("it asks for {0:?}")]
    Subject(String),
    /// Another instance is asked.
    #[error("it asks another instance")]
    Instance,
}

impl Wanted {
    /// Name of the request: the same whenever the same key asks the same instance for the same
    /// common name, so that filing it again finds the first one.
    #[must_use]
    pub fn name(&self) -> String {
        let mut asked = Vec::new();
        for part in [
            self.common_name.to_string().as_bytes(),
            self.instance_namespace().as_bytes(),
            self.instance.name.as_bytes(),
            self.key.subject_public_key_info(),
        ] {
            asked.extend_from_slice(part);
            asked.push(0);
        }
        let hash = hex::encode(digest(&SHA256, &asked));
        let identity = object_name(self.common_name.identity().as_str());
        format!("{identity}-{}", &hash[..10])
    }

    /// The object to create on behalf of `requester`.
    pub fn object(&self, requester: &str) -> Result<VolttronCertRequest, KeyError> {
        let signing_request = self.key.signing_request(&self.common_name)?;
        let spec = VolttronCertRequestSpec {
            instance_ref: self.instance.clone(),
            request: STANDARD.encode(signing_request),
            duration: self.duration.clone(),
            requester: requester.to_owned(),
        };
        let metadata = ObjectMeta {
            name: Some(self.name()),
            namespace: Some(self.pod.namespace.clone()),
            annotations: Some(BTreeMap::from([
                (well_known::POD_NAME.to_owned(), self.pod.name.clone()),
                (well_known::POD_UID.to_owned(), self.pod.uid.clone()),
            ])),
            ..ObjectMeta::default()
        };
        Ok(VolttronCertRequest {
            metadata,
            spec,
            status: None,
        })
    }

    /// Whether `found`, an object of our name, asks for the same. The signing requests themselves
    /// differ in each ECDSA signature, so what is compared is what they ask for.
    pub fn check(&self, found: &VolttronCertRequest) -> Result<(), Mismatch> {
        let (subject, key) = asked(&found.spec.request).ok_or(Mismatch::Unreadable)?;
        if key != self.key.subject_public_key_info() {
            return Err(Mismatch::Key);
        }
        if subject != format!("CN={}", self.common_name) {
            return Err(Mismatch::Subject(subject));
        }
        if found.spec.instance_ref.name != self.instance.name
            || found.instance_namespace() != self.instance_namespace()
        {
            return Err(Mismatch::Instance);
        }
        Ok(())
    }

    fn instance_namespace(&self) -> &str {
        let named = self.instance.namespace.as_deref();
        named.unwrap_or(&self.pod.namespace)
    }
}

/// Subject and public key of a signing request as it stands in `spec.request`.
fn asked(request: &str) -> Option<(String, Vec<u8>)> {
    let pem = STANDARD.decode(request).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let info = request.certification_request_info;
    Some((info.subject.to_string(), info.subject_pki.raw.to_vec()))
}

/// An identity as the beginning of an object's name. At most 47 characters, so that with hash and
/// `-tls` the name still fits into a label value.
fn object_name(identity: &str) -> String {
    let letter = |c: char| match c {
        'A'..='Z' => c.to_ascii_lowercase(),
        'a'..='z' | '0'..='9' => c,
        _ => '-',
    };
    let name: String = identity.chars().map(letter).take(47).collect();
    match name.trim_matches('-') {
        "" => "agent".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// `central.building-7.forwarder`, asked of `volttron/central` with a new key.
    pub fn wanted() -> Wanted {
        Wanted {
            common_name: "central.building-7.forwarder".parse().unwrap(),
            instance: InstanceReference {
                name: "central".to_owned(),
                namespace: Some("volttron".to_owned()),
            },
            duration: None,
            pod: Pod {
                name: "forwarder-0".to_owned(),
                namespace: "building-7".to_owned(),
                uid: "6f9d".to_owned(),
            },
            key: Arc::new(AgentKey::generate().unwrap()),
        }
    }

    #[test]
    fn the_same_question_has_the_same_name() {
        let wanted = wanted();
        assert_eq!(wanted.name(), wanted.clone().name());
        assert!(wanted.name().starts_with("forwarder-"), "{}", wanted.name());
    }

    #[test]
    fn another_key_name_or_instance_has_another_name() {
        let first = wanted();
        let mut others = [first.clone(), first.clone(), first.clone()];
        others[0].key = Arc::new(AgentKey::generate().unwrap());
        others[1].common_name = "central.building-8.forwarder".parse().unwrap();
        others[2].instance.namespace = None;
        for other in others {
            assert_ne!(other.name(), first.name(), "{other:?}");
        }
    }

    #[test]
    fn any_identity_makes_a_valid_object_name() {
        let longest = "x".repeat(60);
        let cases = [
            ("forwarderagent-5.1_1", "forwarderagent-5-1-1"),
            ("Platform.Driver", "platform-driver"),
            ("_-_", "agent"),
            ("-a-", "a"),
            (longest.as_str(), &longest[..47]),
        ];
        for (identity, name) in cases {
            assert_eq!(object_name(identity), name, "{identity:?}");
        }
    }

    #[test]
    fn a_request_carries_the_pod_that_waits_for_it() {
        let object = wanted().object("system:serviceaccount:b:a").unwrap();
        let annotations = object.metadata.annotations.unwrap();
        assert_eq!(annotations[well_known::POD_NAME], "forwarder-0");
        assert_eq!(annotations[well_known::POD_UID], "6f9d");
        assert_eq!(object.spec.requester, "system:serviceaccount:b:a");
    }

    #[test]
    fn our_own_request_is_recognised_however_often_it_is_signed() {
        let wanted = wanted();
        let (first, second) = (wanted.object("u").unwrap(), wanted.object("u").unwrap());
        assert_ne!(first.spec.request, second.spec.request, "ECDSA is random");
        assert_eq!(wanted.check(&first), Ok(()));
        assert_eq!(wanted.check(&second), Ok(()));
    }

    #[test]
    fn a_foreign_request_is_told_apart() {
        let ours = wanted();
        let mut other = ours.clone();
        other.key = Arc::new(AgentKey::generate().unwrap());
        assert_eq!(ours.check(&other.object("u").unwrap()), Err(Mismatch::Key));
        let mut other = ours.clone();
        other.common_name = "central.building-7.driver".parse().unwrap();
        assert_eq!(
            ours.check(&other.object("u").unwrap()),
            Err(Mismatch::Subject("CN=central.building-7.driver".to_owned()))
        );
        let mut other = ours.clone();
        other.instance.name = "west".to_owned();
        assert_eq!(
            ours.check(&other.object("u").unwrap()),
            Err(Mismatch::Instance)
        );
        let mut broken = ours.object("u").unwrap();
        broken.spec.request = "aGVsbG8=".to_owned();
        assert_eq!(ours.check(&broken), Err(Mismatch::Unreadable));
    }
}
