//! The object that the API server keeps.

use super::outbox::Told;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::events::EventType;
use std::borrow::Cow;

/// The controller in `reportingController`.
const CONTROLLER: &str = "volttron-operator";
/// The most bytes of an object's name: a DNS subdomain (RFC 1123), as the API server demands.
const NAME: usize = 253;
/// The most bytes of a UID; it is 36 for all that the API server makes.
const UID: usize = 128;
/// The bytes of `.` and the stamp in an Event's name.
const SUFFIX: usize = 17;

/// What an Event is about.
#[derive(Debug, Hash)]
pub(super) struct Subject {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    pub(super) namespace: Box<str>,
    name: Box<str>,
    uid: Box<str>,
}

impl Subject {
    /// An object of the API server.
    pub(super) fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let meta = object.meta();
        Self {
            api_version: K::api_version(&()),
            kind: K::kind(&()),
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
        }
    }

    /// An object that somebody has named. None where no object can have that name.
    pub(super) fn named(reference: ObjectReference) -> Option<Self> {
        let name = reference.name.filter(|name| is_subdomain(name))?;
        let uid = reference.uid.filter(|uid| uid.len() <= UID);
        Some(Self {
            api_version: reference.api_version?.into(),
            kind: reference.kind?.into(),
            namespace: reference.namespace?.into(),
            name: name.into(),
            uid: uid.unwrap_or_default().into(),
        })
    }

    /// The memory it takes beside its own size.
    pub(super) fn bytes(&self) -> usize {
        self.namespace.len() + self.name.len() + self.uid.len()
    }

    /// The name of an Event about it: the object's, as far as there is room, and a stamp.
    pub(super) fn event_name(&self, stamp: u64) -> String {
        let end = self.name.floor_char_boundary(NAME - SUFFIX);
        let prefix = self.name[..end].trim_end_matches(['-', '.']);
        format!("{prefix}.{stamp:016x}")
    }

    fn reference(&self) -> ObjectReference {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        ObjectReference {
            api_version: some(&self.api_version),
            kind: some(&self.kind),
            namespace: some(&self.namespace),
            name: some(&self.name),
            uid: some(&self.uid),
            ..ObjectReference::default()
        }
    }
}

/// The Event that tells it, from the replica in pod `reporter`.
pub(super) fn event(told: &Told, reporter: &str) -> Event {
    let kind = match told.type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(told.subject.event_name(told.stamp.unwrap_or_default())),
            namespace: Some(told.subject.namespace.to_string()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(told.at)),
        type_: Some(kind.to_owned()),
        reason: Some(told.reason.to_string()),
        action: Some(told.action.to_string()),
        note: Some(told.note.to_string()),
        regarding: Some(told.subject.reference()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(reporter.to_owned()),
        ..Event::default()
    }
}

/// Whether `name` is a DNS subdomain as the API server defines it, with dots in it or not.
fn is_subdomain(name: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
    };
    name.len() <= NAME && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some("plant".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }
    }

    #[test]
    fn the_name_of_an_event_is_one_whatever_the_object_is_called() {
        let name_of = |name: &str| Subject::named(pod(name, "")).unwrap().event_name(0xabc);
        assert_eq!(name_of("forwarder-0"), "forwarder-0.0000000000000abc");
        for name in [
            "a".repeat(236),
            "a".repeat(237),
            "a".repeat(253),
            format!("{}-.a", "a".repeat(235)).replace("-.", "--"),
            format!("{}.{}", "a".repeat(235), "b".repeat(17)),
            format!("{}{}b", "a".repeat(200), "-".repeat(52)),
        ] {
            let named = name_of(&name);
            assert!(is_subdomain(&named), "{named}");
            assert!(named.len() >= 200 + SUFFIX, "{named}");
        }
    }

    #[test]
    fn what_somebody_names_has_to_be_a_name() {
        let long = "a".repeat(254);
        for name in [
            "", ".", "a..b", "a.-b", "A", "a b", "ä", "-a", "a-", "a.", &long,
        ] {
            assert!(Subject::named(pod(name, "6f9d")).is_none(), "{name:?}");
        }
        let subject = Subject::named(pod("forwarder-0.a-1", "6f9d")).unwrap();
        assert_eq!(subject.reference(), pod("forwarder-0.a-1", "6f9d"));
        let subject = Subject::named(pod("forwarder-0", &"6".repeat(100_000))).unwrap();
        assert_eq!(subject.reference().uid, None);
    }
}
