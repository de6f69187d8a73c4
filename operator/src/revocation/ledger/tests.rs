use super::*;
use jiff::SignedDuration;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn hex(serial: impl ToString) -> String {
    format!("{:0>32}", serial.to_string())
}

fn certificate(serial: impl ToString, requester: &str) -> Certificate {
    Certificate {
        serial: hex(serial),
        not_after: at(3600),
        common_name: "central.plant.forwarder".into(),
        requester: requester.into(),
    }
}

#[test]
fn what_is_remembered_is_revoked_with_its_identity_and_no_other() {
    let mut ledger = Ledger::default();
    ledger.remember(&certificate(1, "a")).unwrap();
    ledger.remember(&certificate(2, "b")).unwrap();
    assert!(ledger.revoked().is_empty());
    let identity = Some(("central.plant.forwarder", "a"));
    assert_eq!(
        ledger.revoke(&[certificate(3, "a")], identity, Why::Denied, at(1)),
        Ok(true)
    );
    assert!(
        ledger.is_revoked(&hex("1"))
            && ledger.is_revoked(&hex("3"))
            && !ledger.is_revoked(&hex("2"))
    );
    assert_eq!(
        ledger.revoke(&[certificate(3, "a")], identity, Why::Denied, at(9)),
        Ok(false)
    );
    assert!(ledger.revoked().iter().all(|it| it.at == at(1)));
}

#[test]
fn a_name_needs_the_list_that_was_made_after_its_last_revocation() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.needed_list("central.plant.forwarder"), None);
    ledger
        .revoke(&[certificate(1, "a")], None, Why::Deleted, at(0))
        .unwrap();
    ledger.number += 1;
    assert_eq!(ledger.needed_list("central.plant.forwarder"), Some(1));
    assert_eq!(ledger.needed_list("central.plant.other"), None);
    ledger
        .revoke(&[certificate(2, "a")], None, Why::Deleted, at(0))
        .unwrap();
    assert_eq!(ledger.needed_list("central.plant.forwarder"), Some(2));
    assert_eq!(ledger.revoked_after(1), ["central.plant.forwarder"]);
    assert!(ledger.revoked_after(2).is_empty());
}

#[test]
fn what_expired_is_forgotten_days_later() {
    let mut ledger = Ledger::default();
    let certificate = certificate(1, "a");
    ledger
        .revoke(&[certificate], None, Why::Deleted, at(0))
        .unwrap();
    for (later, expired) in [
        (0, false),
        (3 * 24 * 3600 - 1, false),
        (3 * 24 * 3600, true),
    ] {
        let now = at(3600 + later);
        assert_eq!(ledger.has_expired(now), expired, "{later}");
        ledger.forget_expired(now);
        assert_eq!(ledger.is_empty(), expired, "{later}");
    }
}

#[test]
fn what_a_backup_brings_back_is_on_the_next_list() {
    let mut backup = Ledger {
        number: 7,
        enforced: 7,
        ..Ledger::default()
    };
    backup.remember(&certificate(1, "a")).unwrap();
    backup
        .revoke(&[of(2, "central.b", "b")], None, Why::Denied, at(0))
        .unwrap();
    let mut ledger = Ledger {
        number: 1,
        enforced: 1,
        ..Ledger::default()
    };
    ledger.remember(&of(2, "central.b", "b")).unwrap();
    ledger
        .revoke(&[of(3, "central.c", "c")], None, Why::Denied, at(0))
        .unwrap();
    assert!(ledger.merge(&backup));
    assert_eq!((ledger.number, ledger.enforced), (7, 1));
    assert_eq!(
        ledger.needed_list("central.b"),
        Some(8),
        "it has to be proven"
    );
    assert_eq!(ledger.needed_list("central.c"), Some(2), "and stays");
    assert!(ledger.knows(&hex(1)) && !ledger.is_revoked(&hex(1)));
    let merged = ledger.clone();
    assert!(!ledger.merge(&backup), "twice is once");
    assert!(!ledger.merge(&merged.clone()));
    assert_eq!(ledger, merged);
}

fn of(number: usize, name: &str, requester: &str) -> Certificate {
    Certificate {
        common_name: name.to_owned(),
        ..certificate(number, requester)
    }
}

#[test]
fn what_is_remembered_never_makes_room_and_leaves_room_for_what_is_revoked() {
    let mut ledger = Ledger::default();
    let many = |numbers: std::ops::Range<usize>, requester| -> Vec<_> {
        numbers
            .map(|number| certificate(number, requester))
            .collect()
    };
    let most = MOST / 5 * 3;
    let (last, others) = (certificate(most - 1, "a"), many(0..most - 1, "a"));
    // What was revoked before takes room from what is remembered.
    ledger.revoke(&others, None, Why::Deleted, at(0)).unwrap();
    assert_eq!(ledger.remember(&last), Ok(()));
    assert_eq!(ledger.remember(&certificate(most, "a")), Err(Full));
    assert_eq!(ledger.remember(&last), Ok(()), "it is known");
    let revoke = |ledger: &mut Ledger, numbers| {
        ledger.revoke(&many(numbers, "b"), None, Why::Deleted, at(0))
    };
    assert_eq!(revoke(&mut ledger, most..MOST), Ok(true));
    assert!(ledger.knows(&last.serial) && !ledger.is_revoked(&last.serial));
    let before = ledger.clone();
    assert_eq!(revoke(&mut ledger, MOST..MOST + 1), Err(Full));
    assert_eq!(ledger, before);
    // What is known already needs no more room.
    let identity = Some(("central.plant.forwarder", "a"));
    assert_eq!(ledger.revoke(&[], identity, Why::Denied, at(1)), Ok(true));
    assert!(ledger.is_revoked(&last.serial));
}

#[test]
fn it_fits_into_a_secret_however_long_the_names_are() {
    for (name, requester) in [
        ("n".repeat(64), "u".repeat(512)),
        ("n".repeat(64), "\"\\".repeat(256)),
        ("n".repeat(64), "\u{1}".repeat(512)),
        ("n".repeat(64), "\u{e9}".repeat(512)),
        ("central.plant.forwarder".to_owned(), "agent".to_owned()),
    ] {
        let mut ledger = Ledger {
            number: i64::MAX - 1,
            enforced: i64::MAX - 1,
            ..Ledger::default()
        };
        let last = Timestamp::MAX - SignedDuration::from_hours(24);
        let full = (0..=MOST).step_by(10).find(|number| {
            let certificates: Vec<_> = (*number..number + 10)
                .map(|number| Certificate {
                    not_after: Timestamp::MAX,
                    ..of(number, &name, &requester)
                })
                .collect();
            let revoked = ledger.revoke(&certificates, None, Why::Denied, last);
            revoked.is_err()
        });
        let text = serde_json::to_string(&ledger).unwrap();
        assert!(text.len() <= 1 << 20, "{requester}: {} bytes", text.len());
        assert!(full.is_some_and(|full| full > 250), "{requester}: {full:?}");
    }
}

#[test]
fn certificates_are_counted_by_identity() {
    let mut ledger = Ledger::default();
    ledger.remember(&of(1, "central.a", "anna")).unwrap();
    let revoked = [
        of(2, "central.a", "anna"),
        of(3, "central.b", "anna"),
        of(4, "central.a", "ben"),
    ];
    ledger.revoke(&revoked, None, Why::Deleted, at(0)).unwrap();
    assert_eq!(ledger.count_of("central.a", "anna"), 2);
    assert_eq!(ledger.count_of("central.b", "ben"), 0);
}
