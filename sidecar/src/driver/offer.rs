//! What a connection could be opened with, put together from the request and the instance.

use crate::connection::Target;
use crate::connection::address::Address;
use crate::credentials::Credentials;
use crate::request::key::AgentKey;
use crate::state::Offer;
use std::sync::Arc;
use volttron_crds::{CommonName, VolttronCertRequest, VolttronInstance};

/// The offer as last made, and what it was made of.
#[derive(Default)]
pub struct Offered {
    material: Option<Material>,
    made: Option<Result<Arc<Target>, String>>,
}

/// The texts a connection is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Material {
    certificate: String,
    bundle: String,
    address: String,
}

impl Offered {
    /// Makes the offer again where any of what it is made of has changed.
    pub fn update(
        &mut self,
        request: Option<&VolttronCertRequest>,
        instance: Option<&VolttronInstance>,
        key: &AgentKey,
        common_name: &CommonName,
    ) {
        let material = request.and_then(|request| Material::of(request, instance));
        if material == self.material && self.material.is_some() {
            return;
        }
        let complete = material
            .as_ref()
            .filter(|material| material.missing().is_none());
        self.made = complete.map(|material| material.target(key, common_name));
        self.material = material;
    }

    /// Takes the offer back until the next update, because of this.
    pub fn withdraw(&mut self, why: String) {
        self.material = None;
        self.made = Some(Err(why));
    }

    /// The connection that is offered.
    #[must_use]
    pub fn target(&self) -> Option<&Arc<Target>> {
        self.made.as_ref()?.as_ref().ok()
    }

    /// The offer as the decision sees it.
    #[must_use]
    pub fn as_offer(&self) -> Offer<'_> {
        match (&self.made, &self.material) {
            (Some(Ok(target)), _) => Offer::Valid(target.credentials.not_after()),
            (Some(Err(why)), _) => Offer::Invalid(why),
            (None, Some(material)) => material.missing().map_or(Offer::None, Offer::Incomplete),
            (None, None) => Offer::None,
        }
    }
}

impl Material {
    fn of(request: &VolttronCertRequest, instance: Option<&VolttronInstance>) -> Option<Self> {
        let certificate = request.status.as_ref()?.certificate.clone()?;
        let status = instance.and_then(|instance| instance.status.as_ref());
        let bundle = status.and_then(|status| Some(status.ca.as_ref()?.bundle.clone()));
        let address = status.and_then(|status| status.amqp_address.clone());
        Some(Self {
            certificate,
            bundle: bundle.unwrap_or_default(),
            address: address.unwrap_or_default(),
        })
    }

    fn missing(&self) -> Option<&'static str> {
        if self.bundle.is_empty() {
            Some("the instance's CA (status.ca)")
        } else if self.address.is_empty() {
            Some("the instance's address (status.amqpAddress)")
        } else {
            None
        }
    }

    fn target(&self, key: &AgentKey, name: &CommonName) -> Result<Arc<Target>, String> {
        let address = self.address.parse::<Address>();
        let credentials = Credentials::check(&self.certificate, &self.bundle, key, name);
        Ok(Arc::new(Target {
            address: address.map_err(|error| error.to_string())?,
            credentials: credentials.map_err(|error| error.to_string())?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::tests::{Authority, authority, sign};
    use volttron_crds::{
        AuthorityStatus, VolttronCertRequestSpec, VolttronCertRequestStatus, VolttronInstanceSpec,
        VolttronInstanceStatus,
    };

    const NAME: &str = "central.building-7.forwarder";

    fn request(certificate: String) -> VolttronCertRequest {
        let mut request = VolttronCertRequest::new("r", VolttronCertRequestSpec::default());
        request.status = Some(VolttronCertRequestStatus {
            certificate: Some(certificate),
            ..VolttronCertRequestStatus::default()
        });
        request
    }

    fn instance(ca: Option<&Authority>, address: Option<&str>) -> VolttronInstance {
        let mut instance = VolttronInstance::new("central", VolttronInstanceSpec::default());
        instance.status = Some(VolttronInstanceStatus {
            amqp_address: address.map(str::to_owned),
            ca: ca.map(|ca| AuthorityStatus {
                bundle: ca.pem(),
                ..AuthorityStatus::default()
            }),
            ..VolttronInstanceStatus::default()
        });
        instance
    }

    #[test]
    fn an_offer_says_what_is_missing_and_is_made_once_it_is_complete() {
        let (ca, key) = (authority("central"), AgentKey::generate().unwrap());
        let (name, request) = (NAME.parse().unwrap(), request(sign(&ca, NAME, &key)));
        let mut offered = Offered::default();
        let cases = [
            (None, "status.ca"),
            (Some(instance(None, None)), "status.ca"),
            (Some(instance(Some(&ca), None)), "status.amqpAddress"),
        ];
        for (instance, words) in cases {
            offered.update(Some(&request), instance.as_ref(), &key, &name);
            let Offer::Incomplete(what) = offered.as_offer() else {
                panic!("{:?}", offered.as_offer());
            };
            assert!(what.contains(words), "{what}");
        }
        let whole = instance(Some(&ca), Some("amqps://b:5671/volttron"));
        offered.update(Some(&request), Some(&whole), &key, &name);
        assert!(matches!(offered.as_offer(), Offer::Valid(_)));
        let first = Arc::clone(offered.target().unwrap());
        offered.update(Some(&request), Some(&whole), &key, &name);
        assert!(
            Arc::ptr_eq(&first, offered.target().unwrap()),
            "the same offer was made twice"
        );
        let moved = instance(Some(&ca), Some("amqps://c:5671/volttron"));
        offered.update(Some(&request), Some(&moved), &key, &name);
        assert_eq!(offered.target().unwrap().address.host(), "c");
    }

    #[test]
    fn what_cannot_be_used_is_not_offered() {
        let (ca, key) = (authority("central"), AgentKey::generate().unwrap());
        let name = NAME.parse().unwrap();
        let whole = instance(Some(&ca), Some("amqp://b:5672/volttron"));
        let mut offered = Offered::default();
        offered.update(
            Some(&request(sign(&ca, NAME, &key))),
            Some(&whole),
            &key,
            &name,
        );
        assert!(matches!(offered.as_offer(), Offer::Invalid(why) if why.contains("amqps://")));
        offered.update(None, Some(&whole), &key, &name);
        assert!(matches!(offered.as_offer(), Offer::None));
    }
}
