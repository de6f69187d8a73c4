use super::key::is_sound_rsa_exponent;
use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, PKCS_ECDSA_P384_SHA384,
};

fn validate(encoded: &str, profile: &RequestProfile) -> Result<CheckedRequest, Rejection> {
    super::validate(encoded, profile, Origin::OtherNamespace)
}

fn profile() -> RequestProfile {
    RequestProfile {
        instance: "central".parse().unwrap(),
        min_rsa_bits: 2048,
        reserved_names: vec![
            "volttron-operator".into(),
            "central.operator.account".into(),
        ],
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn request(subject: &[(DnType, DnValue)], key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), value.clone());
    }
    params.serialize_request(key).unwrap().der().to_vec()
}

fn named(name: &str, key: &KeyPair) -> Vec<u8> {
    request(
        &[(DnType::CommonName, DnValue::Utf8String(name.into()))],
        key,
    )
}

fn armoured(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
}

fn encoded(der: &[u8]) -> String {
    STANDARD.encode(armoured(der))
}

#[test]
fn a_sound_request_gives_its_name_and_key() {
    let key = key();
    let checked = validate(
        &encoded(&named("central.collector2.forwarder", &key)),
        &profile(),
    )
    .unwrap();
    assert_eq!(
        checked.common_name.to_string(),
        "central.collector2.forwarder"
    );
    assert_eq!(
        checked.key.spki,
        rcgen::PublicKeyData::subject_public_key_info(&key)
    );
    assert_eq!(checked.key.algorithm, KeyKind::P256);
}

#[test]
fn p384_and_base64_with_line_breaks_are_accepted() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut wrapped = encoded(&named("central.a.b", &key));
    wrapped.insert(40, '\n');
    assert_eq!(
        validate(&wrapped, &profile()).unwrap().key.algorithm,
        KeyKind::P384
    );
}

#[test]
fn what_is_no_request_is_refused_before_it_is_parsed() {
    let der = named("central.a.b", &key());
    let one = armoured(&der);
    let refusals = [
        ("!!!".to_owned(), "InvalidBase64"),
        (STANDARD.encode("hello"), "InvalidPEM"),
        (STANDARD.encode(&der), "InvalidPEM"),
        (STANDARD.encode(format!("{one}{one}")), "InvalidPEM"),
        (
            STANDARD.encode(one.replace("CERTIFICATE REQUEST", "CERTIFICATE")),
            "InvalidPEM",
        ),
        (STANDARD.encode(&one[..one.len() / 2]), "InvalidPEM"),
        (
            STANDARD.encode(one.replacen(
                "REQUEST-----\r\n",
                "REQUEST-----\r\nProc-Type: 4\r\n\r\n",
                1,
            )),
            "InvalidPEM",
        ),
        (STANDARD.encode(vec![b'x'; 1 << 20]), "RequestTooLarge"),
        (
            STANDARD.encode(vec![b'x'; MAX_PEM_BYTES + 1]),
            "RequestTooLarge",
        ),
        (encoded(&der[..der.len() - 3]), "MalformedRequest"),
        (
            encoded(&[der.clone(), vec![0]].concat()),
            "MalformedRequest",
        ),
        (encoded(&[]), "MalformedRequest"),
    ];
    for (input, reason) in refusals {
        let rejection = validate(&input, &profile()).unwrap_err();
        assert_eq!(
            rejection.reason(),
            reason,
            "{rejection}: {}",
            &input[..input.len().min(60)]
        );
    }
}

#[test]
fn names_that_are_not_given_away_are_refused() {
    let key = key();
    let refusals = [
        ("other.collector2.forwarder", "WrongInstance"),
        ("central2.collector2.forwarder", "WrongInstance"),
        ("central.platform.driver", "ReservedName"),
        ("central.operator.account", "ReservedName"),
        ("volttron-operator", "InvalidCommonName"),
        ("central.forwarder", "InvalidCommonName"),
        ("central.a.b/c", "InvalidCommonName"),
        ("central.a.b\0", "InvalidCommonName"),
        ("central.a.b\nc", "InvalidCommonName"),
        ("central.a.*", "InvalidCommonName"),
        ("", "InvalidCommonName"),
    ];
    for (name, reason) in refusals {
        let rejection = validate(&encoded(&named(name, &key)), &profile()).unwrap_err();
        assert_eq!(rejection.reason(), reason, "{name:?}: {rejection}");
    }
}

#[test]
fn exactly_one_common_name_of_a_plain_string_type_is_accepted() {
    let key = key();
    let utf8 = |name: &str| (DnType::CommonName, DnValue::Utf8String(name.into()));
    // A second common name is given as a custom type, since rcgen keeps one value a type.
    let second = (
        DnType::CustomDnType(vec![2, 5, 4, 3]),
        DnValue::Utf8String("central.c.d".into()),
    );
    let organization = (
        DnType::OrganizationName,
        DnValue::Utf8String("Elsewhere".into()),
    );
    assert!(
        validate(
            &encoded(&request(&[organization.clone(), utf8("central.a.b")], &key)),
            &profile()
        )
        .is_ok()
    );
    let bmp = (
        DnType::CommonName,
        DnValue::BmpString("central.a.b".try_into().unwrap()),
    );
    for (subject, expected) in [
        (vec![organization], Rejection::NoCommonName),
        (vec![], Rejection::NoCommonName),
        (
            vec![utf8("central.a.b"), second],
            Rejection::SeveralCommonNames(2),
        ),
        (vec![bmp], Rejection::CommonNameType),
    ] {
        assert_eq!(
            validate(&encoded(&request(&subject, &key)), &profile()),
            Err(expected)
        );
    }
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let (mine, theirs) = (key(), key());
    let mut der = named("central.a.b", &mine);
    let raw = |key: &KeyPair| rcgen::PublicKeyData::der_bytes(key).to_vec();
    let at = der
        .windows(65)
        .position(|window| window == raw(&mine))
        .unwrap();
    der[at..at + 65].copy_from_slice(&raw(&theirs));
    assert_eq!(
        validate(&encoded(&der), &profile()),
        Err(Rejection::BadSignature)
    );
}

#[test]
fn rsa_keys_are_bounded() {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let request = encoded(&named("central.a.b", &key));
    assert_eq!(
        validate(&request, &profile()).unwrap().key.algorithm,
        KeyKind::Rsa(2048)
    );
    let strict = RequestProfile {
        min_rsa_bits: 3072,
        ..profile()
    };
    assert_eq!(
        validate(&request, &strict).unwrap_err().reason(),
        "UnsupportedKey"
    );
    for (exponent, sound) in [
        (&[1_u8, 0, 1][..], true),
        (&[1, 0, 0, 0, 1], true),
        (&[3], false),
        (&[1, 0, 0], false),
        (&[], false),
        (&[2, 0, 0, 0, 1], false),
    ] {
        assert_eq!(is_sound_rsa_exponent(exponent), sound, "{exponent:?}");
    }
}

/// Why Ed25519 is not accepted: with the neutral element as key, a signature of zeros is one of
/// every message, by anybody.
#[test]
fn aws_lc_takes_ed25519_keys_of_small_order() {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    let neutral = [&[1][..], &[0; 31]].concat();
    let signature = [neutral.as_slice(), &[0; 32]].concat();
    let key = UnparsedPublicKey::new(&ED25519, &neutral);
    assert!(key.verify(b"anything", &signature).is_ok());
}
