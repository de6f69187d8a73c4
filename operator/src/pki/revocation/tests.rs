use super::*;
use crate::pki::fixtures::{authority, generation, now, openssl, pair};
use crate::pki::{issue_probe_pair, to_timestamp};
use volttron_crds::GeneratedAuthority;

fn revoked(serial: &SerialNumber, reason: RevocationReason) -> Revoked {
    Revoked {
        serial: serial.clone(),
        at: now(),
        reason,
    }
}

#[test]
fn a_list_names_what_was_revoked_and_why() {
    let authority = generation(1);
    let serials = [(); 3].map(|()| SerialNumber::random());
    let entries = [
        revoked(&serials[0], RevocationReason::PrivilegeWithdrawn),
        revoked(&serials[1], RevocationReason::CessationOfOperation),
        revoked(&serials[2], RevocationReason::Superseded),
    ];
    let list = sign_revocation_list(&authority, 7, &entries, now()).unwrap();
    let files = [
        ("list.pem", list.pem.as_str()),
        ("ca.pem", authority.bundle()),
    ];
    let (read, says) = openssl(&files, "crl -in list.pem -noout -text -CAfile ca.pem");
    assert!(read && says.contains("verify OK"), "{says}");
    for words in [
        "Version 2",
        "Issuer: CN = central root CA",
        "X509v3 Authority Key Identifier",
        "Privilege Withdrawn",
        "Cessation Of Operation",
        "Superseded",
    ] {
        assert!(says.contains(words), "no {words} in {says}");
    }
    let number = says
        .split("X509v3 CRL Number:")
        .nth(1)
        .unwrap()
        .trim_start();
    assert!(number.starts_with('7'), "{says}");
    for serial in &serials {
        assert!(says.contains(&serial.to_string().to_uppercase()), "{says}");
    }
}

#[test]
fn a_list_bears_an_operator_that_is_away_for_weeks_and_is_signed_anew_daily() {
    let authority = generation(1);
    let list = sign_revocation_list(&authority, 1, &[], now()).unwrap();
    let block = pem::parse(&list.pem).unwrap();
    assert_eq!(block.tag(), "X509 CRL");
    let (_, parsed) = CertificateRevocationList::from_der(block.contents()).unwrap();
    assert_eq!(to_timestamp(parsed.last_update()), list.this_update);
    assert_eq!(
        parsed.next_update().map(to_timestamp),
        Some(list.next_update)
    );
    assert!(parsed.iter_revoked_certificates().next().is_none());
    let days = list.next_update.duration_since(now()).as_hours() / 24;
    assert_eq!(days, 30);
    assert!(list.this_update < now(), "clocks that run behind accept it");
    let again = resign_at(list.this_update, list.next_update);
    assert_eq!(again.duration_since(list.this_update), RENEWAL);

    let short = self::authority(&pair(&GeneratedAuthority {
        duration: "2h".into(),
        ..GeneratedAuthority::default()
    }));
    let list = sign_revocation_list(&short, 1, &[], now()).unwrap();
    assert_eq!(list.next_update, short.not_after());
    assert!(resign_at(list.this_update, list.next_update) < list.next_update);
}

#[test]
fn openssl_refuses_what_is_on_the_list_and_nothing_else() {
    let authority = generation(1);
    let (good, bad) = (SerialNumber::random(), SerialNumber::random());
    let entries = [revoked(&bad, RevocationReason::PrivilegeWithdrawn)];
    let list = sign_revocation_list(&authority, 1, &entries, now()).unwrap();
    for (serial, accepted) in [(good, true), (bad, false)] {
        let probe = issue_probe_pair(&authority, &serial, now()).unwrap();
        let files = [
            ("list.pem", list.pem.as_str()),
            ("ca.pem", authority.bundle()),
            ("leaf.pem", &probe.chain),
        ];
        let at = now().as_second();
        let (verified, says) = openssl(
            &files,
            &format!("verify -attime {at} -crl_check -CRLfile list.pem -CAfile ca.pem leaf.pem"),
        );
        assert_eq!(verified, accepted, "{says}");
        assert!(accepted || says.contains("certificate revoked"), "{says}");
    }
}
