use super::*;
use crate::pki;
use volttron_crds::GeneratedAuthority;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn pair(number: i64, origin: Origin) -> CaPair {
    let settings = GeneratedAuthority::default();
    let made = pki::generate(&"central".parse().unwrap(), &settings, number, now()).unwrap();
    CaPair {
        certificate: made.certificate,
        key: made.key,
        roots: None,
        origin,
    }
}

/// What the API server holds after `generations` was written over what it held.
fn stored(generations: &Generations) -> BTreeMap<String, ByteString> {
    let data = generations.write().into_iter();
    data.filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

fn assert_survives(generations: &Generations) {
    let read = Generations::read(&stored(generations), 77);
    assert!(read.is_ok_and(|read| read == *generations));
}

#[test]
fn each_step_is_read_as_it_was_written_and_leaves_no_key_behind() {
    let first = Generations::only(1, pair(1, Origin::Generated), Some("yes"));
    assert_survives(&first);
    let own = pair(2, Origin::Secret("own".to_owned()));
    let introduced = first
        .clone()
        .introduce(own.clone(), "cross".to_owned(), Some("again"));
    assert_survives(&introduced);
    assert_eq!(introduced.number, 1);
    let settling = introduced.clone().settle(now());
    assert_survives(&settling);
    let activated = settling.activate();
    assert_survives(&activated);
    assert_eq!(activated.number, 2);
    assert!(activated.signing == own && activated.previous.as_ref() == Some(&first.signing));
    assert_eq!(activated.settling_since, None, "others are given time anew");
    let retired = activated.retire();
    assert_survives(&retired);
    let keys: Vec<_> = stored(&retired).into_keys().collect();
    let left = [
        "generation",
        "origin",
        "rotation-request",
        "tls.crt",
        "tls.key",
    ];
    assert_eq!(keys, left, "no key of the old CA is kept");
    let cleared = retired.write().values().filter(|it| it.is_none()).count();
    assert_eq!(cleared + left.len(), retired.write().len());

    let withdrawn = introduced.withdraw();
    assert_eq!(
        stored(&withdrawn).get("tls.crt"),
        stored(&first).get("tls.crt")
    );
    assert!(withdrawn.next.is_none() && withdrawn.number == 1);
}

#[test]
fn a_secret_of_an_earlier_release_is_a_generated_ca() {
    let old = pair(1, Origin::Generated);
    let bytes = |text: &str| ByteString(text.into());
    let mut data = BTreeMap::from([
        ("tls.crt".to_owned(), bytes(&old.certificate)),
        ("tls.key".to_owned(), bytes(&old.key)),
    ]);
    let read = Generations::read(&data, 3);
    assert!(read.is_ok_and(|read| read == Generations::only(3, old, None)));
    data.remove("tls.key");
    assert_eq!(Generations::read(&data, 1).err(), Some(Lacks("tls.key")));
}

#[test]
fn who_is_trusted_and_who_signs_follows_the_steps() {
    let one = Generations::only(1, pair(1, Origin::Generated), None);
    let two = pair(2, Origin::Generated);
    let certificates = |generations: &Generations| {
        let authorities = generations.load(now()).unwrap();
        let behind = authorities.signing.intermediates().matches("BEGIN").count();
        let trusted = authorities.bundle().matches("BEGIN").count();
        (authorities.signing.sha256().to_owned(), trusted, behind)
    };
    let (first, trusted, behind) = certificates(&one);
    assert_eq!((trusted, behind), (1, 0));
    let cross = pki::cross_sign(
        &one.signing.load(now()).unwrap(),
        &two.load(now()).unwrap(),
        now(),
    );
    let introduced = one.introduce(two, cross.unwrap().unwrap(), None);
    assert_eq!(certificates(&introduced), (first.clone(), 2, 0));
    let activated = introduced.activate();
    let (second, trusted, behind) = certificates(&activated);
    assert_eq!((trusted, behind), (2, 1), "the cross certificate is served");
    assert_ne!(first, second);
    assert_eq!(certificates(&activated.retire()), (second, 1, 0));
}

#[test]
fn a_ca_that_has_expired_is_trusted_until_it_is_retired() {
    let young = GeneratedAuthority {
        duration: "900h".to_owned(),
        ..GeneratedAuthority::default()
    };
    let made = pki::generate(&"central".parse().unwrap(), &young, 1, now()).unwrap();
    let old = CaPair {
        certificate: made.certificate,
        key: made.key,
        ..pair(1, Origin::Generated)
    };
    let activated = Generations::only(1, old, None)
        .introduce(pair(2, Origin::Generated), String::new(), None)
        .activate();
    let later = now() + jiff::SignedDuration::from_hours(901);
    let authorities = activated.load(later).unwrap();
    assert!(authorities.previous.is_none());
    let trusted = |generations: &Generations| {
        let authorities = generations.load(later).unwrap();
        authorities.bundle().matches("BEGIN").count()
    };
    assert_eq!(trusted(&activated), 2, "the clock may be wrong");
    assert_eq!(trusted(&activated.retire()), 1);
}
