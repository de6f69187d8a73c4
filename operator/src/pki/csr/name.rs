//! Which names are given away.

use super::structure::SubjectAttribute;
use super::{Origin, Rejection, RequestProfile};
use const_oid::db::rfc4519::COMMON_NAME;
use der::{Tag, Tagged};
use std::str::FromStr;
use volttron_crds::{CommonName, InvalidName};

/// Words that begin identities of VOLTTRON's own agents and services, in lower case: those of
/// `known_identities` (VOLTTRON 6 to 9) and the router's. A remote that calls itself so could ask
/// for the name of a core agent: `central.platform.driver` is the platform driver of `central`.
const RESERVED_LOCAL_INSTANCES: &[&str] = &[
    "amq",
    "auth",
    "config",
    "control",
    "external_rpc",
    "keydiscovery",
    "master",
    "master_web",
    "platform",
    "platform_web",
    "proxy",
    "pubsub",
    "router",
    "zmq",
];

/// VOLTTRON's own identities that begin with a word which is a sound instance name.
const RESERVED_IDENTITIES: &[(&str, &str)] = &[("volttron", "central")];

/// Words that make queue names of another identity: `<user>.pubsub.<id>` and `<user>.zmq.<id>` are
/// queues of `<user>`, so no user's name may look like one.
const QUEUE_WORDS: &[&str] = &["pubsub", "zmq"];

/// The one common name of a subject. Other attributes are not looked at: VOLTTRON itself asks with
/// country, organisation and more.
pub(super) fn common_name(subject: &[SubjectAttribute<'_>]) -> Result<CommonName, Rejection> {
    let mut names = subject.iter().filter(|it| it.kind == COMMON_NAME);
    let name = names.next().ok_or(Rejection::NoCommonName)?.value;
    match names.count() {
        0 => {}
        more => return Err(Rejection::SeveralCommonNames(more + 1)),
    }
    if !matches!(name.tag(), Tag::Utf8String | Tag::PrintableString) {
        return Err(Rejection::CommonNameType);
    }
    let text = std::str::from_utf8(name.value()).map_err(|_| Rejection::CommonNameType)?;
    let length = text.chars().count();
    if length > 64 {
        return Err(InvalidName::TooLong(length).into());
    }
    Ok(CommonName::from_str(text)?)
}

/// Whether `profile` gives `common_name` to a request of this `origin`. Words are compared without
/// regard to case: the broker tells them apart, people do not.
pub(super) fn admit(
    common_name: &CommonName,
    profile: &RequestProfile,
    origin: Origin,
) -> Result<(), Rejection> {
    let full = common_name.to_string();
    let (local, identity) = (common_name.local_instance(), common_name.identity());
    let is = |word: &str| local.as_str().eq_ignore_ascii_case(word);
    if profile.reserved_names.contains(&full) {
        return Err(Rejection::Reserved(
            full,
            "it is an account of the operator",
        ));
    }
    if *common_name.instance() != profile.instance {
        return Err(Rejection::OtherInstance {
            common_name: full,
            instance: profile.instance.to_string(),
        });
    }
    if RESERVED_LOCAL_INSTANCES.iter().any(|word| is(word)) {
        return Err(Rejection::Reserved(
            full,
            "its second word begins the names of VOLTTRON's own agents, so the remote's instance \
             name must be another",
        ));
    }
    let is_known =
        |(first, rest): &(&str, &str)| is(first) && identity.as_str().eq_ignore_ascii_case(rest);
    if RESERVED_IDENTITIES.iter().any(is_known) {
        return Err(Rejection::Reserved(
            full,
            "it is the name of one of VOLTTRON's own agents, so the remote's instance name must be \
             another",
        ));
    }
    let mut words = identity.as_str().split('.');
    if words.any(|word| QUEUE_WORDS.iter().any(|it| word.eq_ignore_ascii_case(it))) {
        return Err(Rejection::Reserved(
            full,
            "`pubsub` and `zmq` are words of VOLTTRON's queue names, so the identity must not hold \
             them between dots",
        ));
    }
    if origin == Origin::OtherNamespace && is(profile.instance.as_str()) {
        return Err(Rejection::HomeNamespaceOnly(full));
    }
    Ok(())
}
