use crate::pki::fixtures::{checked, client, now, openssl_verifies};
use crate::pki::{
    Authority, SerialNumber, cross_sign, issue_probe_pair, issue_server_pair, resign_at, sign,
    sign_revocation_list, to_offset_date_time,
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::time::Duration;

/// A CA, and what signed it.
struct Ca {
    params: CertificateParams,
    key: KeyPair,
    certificate: String,
}

/// Days from now.
fn days(count: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * count)
}

fn set_end(params: &mut CertificateParams, end: Timestamp) {
    params.not_after = to_offset_date_time(end);
}

impl Ca {
    fn new(
        name: &str,
        key: KeyPair,
        by: Option<&Self>,
        change: impl Fn(&mut CertificateParams),
    ) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.not_before = to_offset_date_time(days(-10));
        set_end(&mut params, days(1000));
        change(&mut params);
        let certificate = match by {
            Some(by) => {
                let issuer = Issuer::from_params(&by.params, &by.key);
                params.signed_by(&key, &issuer).unwrap()
            }
            None => params.self_signed(&key).unwrap(),
        };
        Self {
            params,
            key,
            certificate: certificate.pem(),
        }
    }

    fn root(name: &str, change: impl Fn(&mut CertificateParams)) -> Self {
        Self::new(name, KeyPair::generate().unwrap(), None, change)
    }

    fn below(&self, name: &str, change: impl Fn(&mut CertificateParams)) -> Self {
        Self::new(name, KeyPair::generate().unwrap(), Some(self), change)
    }

    fn key(&self) -> String {
        self.key.serialize_pem()
    }
}

fn copy(key: &KeyPair) -> KeyPair {
    KeyPair::from_pem(&key.serialize_pem()).unwrap()
}

fn as_it_is(_: &mut CertificateParams) {}

fn no_ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::ExplicitNoCa;
}

/// A root, a CA below it, and one below that, which signs leaves; the first two are changed.
fn three(
    root: impl Fn(&mut CertificateParams),
    middle: impl Fn(&mut CertificateParams),
) -> (Ca, String) {
    let root = Ca::root("Root", root);
    let middle = root.below("Middle", middle);
    let issuing = middle.below("Issuing", as_it_is);
    let chain = [&issuing, &middle, &root].map(|ca| ca.certificate.as_str());
    let chain = chain.concat();
    (issuing, chain)
}

#[test]
fn each_certificate_up_to_the_root_is_checked_and_named() {
    let fine: fn(&mut CertificateParams) = as_it_is;
    let no_certificates: fn(&mut CertificateParams) =
        |params| params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let no_lists: fn(&mut CertificateParams) =
        |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let expired: fn(&mut CertificateParams) = |params| set_end(params, days(-1));
    let future: fn(&mut CertificateParams) =
        |params| params.not_before = to_offset_date_time(days(1));
    let no_room: fn(&mut CertificateParams) =
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let one: fn(&mut CertificateParams) =
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    let (second, third) = (
        "certificate 2 of tls.crt (CN=Middle)",
        "certificate 3 of tls.crt (CN=Root)",
    );
    for (root, middle, fault) in [
        (fine, fine, None),
        (no_lists, no_lists, None),
        (fine, one, None),
        (expired, fine, Some((third, "Expired"))),
        (fine, expired, Some((second, "Expired"))),
        (future, fine, Some((third, "NotYetValid"))),
        (fine, future, Some((second, "NotYetValid"))),
        (no_ca, fine, Some((third, "NotACertificateAuthority"))),
        (fine, no_ca, Some((second, "NotACertificateAuthority"))),
        (
            no_certificates,
            fine,
            Some((third, "KeyUsageForbidsSigning")),
        ),
        (
            fine,
            no_certificates,
            Some((second, "KeyUsageForbidsSigning")),
        ),
        (fine, no_room, Some((second, "PathLengthExceeded"))),
        (one, fine, Some((third, "PathLengthExceeded"))),
    ] {
        let (issuing, chain) = three(root, middle);
        let loaded = Authority::load(&chain, &issuing.key(), None, now());
        let root = &chain.clone()[chain.rfind("-----BEGIN").unwrap()..];
        let leaf = issuing.below("central.a.b", |params| {
            no_ca(params);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        });
        let chain = leaf.certificate + &chain;
        let verified = openssl_verifies(&chain, root, "any");
        match (loaded, fault) {
            (Ok(_), None) => verified.unwrap(),
            (Err(error), Some((which, reason))) => {
                assert_eq!(error.reason(), reason);
                assert!(error.to_string().contains(which), "{reason}: {error}");
                assert!(verified.is_err(), "{reason}: openssl sees nothing wrong");
            }
            (loaded, fault) => panic!("{fault:?}: {loaded:?}"),
        }
    }
}

#[test]
fn nothing_that_is_signed_outlives_the_path_to_the_root() {
    let ends = days(5);
    let (issuing, chain) = three(as_it_is, |params| set_end(params, ends));
    let authority = Authority::load(&chain, &issuing.key(), None, now()).unwrap();
    assert_eq!(authority.not_after(), ends);
    assert_eq!(
        authority.first_to_end(),
        "certificate 2 of tls.crt (CN=Middle)"
    );
    let request = checked("central.a.b", &KeyPair::generate().unwrap());
    let year = client(Duration::from_hours(365 * 24));
    let leaf = sign(&authority, &request, &SerialNumber::random(), &year, now()).unwrap();
    assert_eq!(leaf.not_after, ends);
    let server = issue_server_pair(&authority, &["localhost".to_owned()], now()).unwrap();
    let block = &pem::parse_many(&server.chain).unwrap()[0];
    let (_, certificate) = x509_parser::parse_x509_certificate(block.contents()).unwrap();
    let server_ends = certificate.validity().not_after.timestamp();
    assert_eq!(server_ends, ends.as_second());
    let list = sign_revocation_list(&authority, 1, &[], now()).unwrap();
    assert_eq!(list.next_update, ends);
    assert!(resign_at(list.this_update, list.next_update) < ends);
    let late = Authority::load(&chain, &issuing.key(), None, ends).unwrap_err();
    assert_eq!(late.reason(), "Expired");
    // It can be read all the same, by whom keeps it until it may be thrown away.
    let read = Authority::read(&chain, &issuing.key(), None, ends).unwrap();
    assert!(read.check_in_force(ends).is_err() && read.check_in_force(now()).is_ok());
}

#[test]
fn of_two_certificates_of_a_root_the_one_counts_that_is_in_force_the_longest() {
    let short = Ca::root("Root", |params| set_end(params, days(-1)));
    let long = Ca::new("Root", copy(&short.key), None, as_it_is);
    let future = Ca::new("Root", copy(&short.key), None, |params| {
        params.not_before = to_offset_date_time(days(1));
        set_end(params, days(3000));
    });
    let issuing = short.below("Issuing", as_it_is);
    let key = issuing.key();
    let roots = [&short, &long, &future].map(|ca| ca.certificate.as_str());
    // What is in tls.crt behind the CA is not what is trusted, where ca.crt says that.
    for chain in [
        issuing.certificate.clone(),
        [&issuing.certificate, roots[0]].concat(),
    ] {
        let authority = Authority::load(&chain, &key, Some(&roots.concat()), now()).unwrap();
        assert_eq!(authority.not_after(), days(1000));
        assert_eq!(authority.depth(), 1);
        let expired = Authority::load(&chain, &key, Some(roots[0]), now()).unwrap_err();
        let words = "certificate 1 of ca.crt (CN=Root) expired";
        assert!(expired.to_string().contains(words), "{expired}");
    }
}

/// An intermediate CA, as two roots have signed it; and the roots.
fn under_two_roots() -> [(Authority, String); 2] {
    let key = KeyPair::generate().unwrap();
    ["Old root", "New root"].map(|name| {
        let root = Ca::root(name, as_it_is);
        let issuing = Ca::new("Issuing", copy(&key), Some(&root), as_it_is);
        let chain = format!("{}{}", issuing.certificate, root.certificate);
        let authority = Authority::load(&chain, &issuing.key(), None, now()).unwrap();
        (authority, root.certificate)
    })
}

fn blocks(chain: &str) -> Vec<Vec<u8>> {
    let blocks = pem::parse_many(chain).unwrap().into_iter();
    blocks.map(pem::Pem::into_contents).collect()
}

#[test]
fn a_ca_under_another_root_is_told_apart_by_what_comes_behind_the_leaf() {
    let [(old, old_root), (new, new_root)] = under_two_roots();
    assert!(
        !new.is_renewal_of(&old),
        "others have to come to trust the new root first"
    );
    let probe = |authority: &Authority| {
        let pair = issue_probe_pair(authority, &SerialNumber::random(), now());
        pair.unwrap().chain
    };
    let by_old = probe(&old);
    let cross = cross_sign(&old, &new, now()).unwrap().unwrap();
    let new = new.among(&[&old], &cross);
    let by_new = probe(&new);
    assert!(
        old.issued(&by_new) && new.issued(&by_old),
        "the key is the same"
    );
    assert!(old.is_needed_for(&blocks(&by_old), &new));
    assert!(!old.is_needed_for(&blocks(&by_new), &new));
    openssl_verifies(&by_old, &new_root, "sslclient").unwrap_err();
    for roots in [&old_root, &new_root, &new.bundle().to_owned()] {
        openssl_verifies(&by_new, roots, "sslclient").unwrap();
    }
    let stranger = Ca::root("Stranger", as_it_is);
    let stranger = Authority::load(&stranger.certificate, &stranger.key(), None, now()).unwrap();
    assert!(!old.is_needed_for(&blocks(&probe(&stranger)), &new));
    assert!(old.is_needed_for(&blocks(&by_old), &stranger));
    assert!(!old.is_needed_for(&Vec::<Vec<u8>>::new(), &new));
}

#[test]
fn namesakes_are_told_as_brokers_compare_names() {
    let load = |ca: &Ca| Authority::load(&ca.certificate, &ca.key(), None, now()).unwrap();
    let one = Ca::root("Plant CA", as_it_is);
    let renewed = Ca::new("Plant CA", copy(&one.key), None, as_it_is);
    let one = load(&one);
    assert!(!load(&renewed).is_namesake_of(&one), "it is the same CA");
    assert!(load(&Ca::root("Plant CA", as_it_is)).is_namesake_of(&one));
    assert!(load(&Ca::root("plant  ca", as_it_is)).is_namesake_of(&one));
    assert!(!load(&Ca::root("Plant CA 2", as_it_is)).is_namesake_of(&one));
    let [(old, _), (new, _)] = under_two_roots();
    assert!(!new.is_namesake_of(&old));
}
