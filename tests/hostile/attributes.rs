//! What a request may ask for besides its name: nothing of it is granted, and nothing of it does harm.

#[allow(clippy::wildcard_imports, reason = "they are all object identifiers")]
use crate::der::*;
use crate::draft::{Draft, armoured, attribute, common_name, rdn};
use crate::{Case, own_name};

#[rustfmt::skip] // One case, one line.
pub fn cases() -> Vec<Case> {
    let case = |name, what, attributes: &[&[u8]]| {
        let draft = Draft { attributes: tlv(0xa0, &attributes.concat()), ..Draft::new(&own_name(name)) };
        Case { name, expected: "signed", what, text: armoured(&draft.der()).into_bytes() }
    };
    let requested = |extensions: &[&[u8]]| seq(&[EXTENSION_REQUEST, &set(&[&seq(extensions)])]);
    let extension = |kind: &[u8], critical: bool, value: &[u8]| {
        let critical = if critical { tlv(1, &[0xff]) } else { Vec::new() };
        seq(&[kind, &critical, &tlv(4, value)])
    };
    let san = |names: &[u8]| requested(&[&extension(SUBJECT_ALT_NAME, false, &seq(&[names]))]);
    let authority = extension(BASIC_CONSTRAINTS, true, &seq(&[&tlv(1, &[0xff])]));
    let directory = seq(&[&rdn(&[&common_name("volttron-operator")])]);
    let principal = [b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x14\x02\x03", tlv(0xa0, &tlv(12, b"volttron-operator")).as_slice()].concat();
    vec![
        case("ask-san-dns", "subjectAltName: DNS names, one with a wildcard", &[&san(&[tlv(0x82, b"central-rabbitmq"), tlv(0x82, b"*")].concat())]),
        case("ask-san-ip", "subjectAltName: addresses, one of an odd length", &[&san(&[tlv(0x87, &[127, 0, 0, 1]), tlv(0x87, &[1, 2, 3])].concat())]),
        case("ask-san-uri", "subjectAltName: URIs", &[&san(&tlv(0x86, b"spiffe://cluster.local/ns/volttron-system/sa/volttron-operator"))]),
        case("ask-san-email", "subjectAltName: a mail address with NUL", &[&san(&tlv(0x81, b"root@central\0.example"))]),
        case("ask-san-directory", "subjectAltName: a directory name", &[&san(&tlv(0xa4, &directory))]),
        case("ask-san-other-name", "subjectAltName: a user principal name", &[&san(&tlv(0xa0, &principal))]),
        case("ask-san-registered-id", "subjectAltName: a registered identifier", &[&san(&tlv(0x88, &UNKNOWN[2..]))]),
        case("ask-san-x400", "subjectAltName: an X.400 address", &[&san(&tlv(0xa3, &seq(&[])))]),
        case("ask-san-edi", "subjectAltName: an EDI party", &[&san(&tlv(0xa5, &tlv(0xa1, &tlv(12, b"x"))))]),
        case("ask-san-unknown-kind", "subjectAltName: a kind that does not exist", &[&san(&tlv(0x9e, b"x"))]),
        case("ask-san-empty", "subjectAltName: empty", &[&san(&[])]),
        case("ask-san-twice", "subjectAltName twice", &[&requested(&[&extension(SUBJECT_ALT_NAME, true, &seq(&[&tlv(0x82, b"a")])), &extension(SUBJECT_ALT_NAME, true, &seq(&[&tlv(0x82, b"b")]))])]),
        case("ask-ca", "basicConstraints CA:TRUE, critical", &[&requested(&[&authority])]),
        case("ask-ca-path-length", "basicConstraints with a huge path length", &[&requested(&[&extension(BASIC_CONSTRAINTS, true, &seq(&[&tlv(1, &[0xff]), &uint(&[0xff; 40])]))])]),
        case("ask-ca-ber", "basicConstraints with a BOOLEAN of BER", &[&requested(&[&extension(BASIC_CONSTRAINTS, true, &seq(&[&tlv(1, &[0x01])]))])]),
        case("ask-key-usage", "keyUsage keyCertSign and cRLSign", &[&requested(&[&extension(KEY_USAGE, true, &tlv(3, &[1, 0x06]))])]),
        case("ask-server-auth", "extKeyUsage serverAuth and anyExtendedKeyUsage", &[&requested(&[&extension(EXTENDED_KEY_USAGE, true, &seq(&[b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01", b"\x06\x04\x55\x1d\x25\x00"]))])]),
        case("ask-identifiers", "key identifiers of its own choice", &[&requested(&[&extension(SUBJECT_KEY_IDENTIFIER, false, &tlv(4, b"mine")), &extension(AUTHORITY_KEY_IDENTIFIER, false, &seq(&[&tlv(0x80, b"other")]))])]),
        case("ask-name-constraints", "nameConstraints", &[&requested(&[&extension(NAME_CONSTRAINTS, true, &seq(&[&tlv(0xa0, &seq(&[&tlv(0x82, b"")]))]))])]),
        case("ask-crl", "a CRL of its own", &[&requested(&[&extension(CRL_DISTRIBUTION_POINTS, false, &seq(&[&seq(&[&tlv(0xa0, &tlv(0xa0, &tlv(0x86, b"http://evil.example/crl")))])]))])]),
        case("ask-policies", "certificate policies", &[&requested(&[&extension(CERTIFICATE_POLICIES, false, &seq(&[&seq(&[b"\x06\x04\x55\x1d\x20\x00"])]))])]),
        case("ask-unknown-critical", "an unknown critical extension", &[&requested(&[&extension(UNKNOWN, true, &[5, 0])])]),
        case("ask-extension-garbage", "an extension whose value is no DER", &[&requested(&[&extension(SUBJECT_ALT_NAME, true, &[0xff; 200])])]),
        case("ask-extension-empty", "an extension request without extensions", &[&requested(&[])]),
        case("ask-no-extensions", "an extension request without a value", &[&seq(&[EXTENSION_REQUEST, &set(&[])])]),
        case("ask-extensions-are-text", "an extension request that is a string", &[&seq(&[EXTENSION_REQUEST, &set(&[&tlv(12, b"CA:TRUE")])])]),
        case("ask-two-values", "an extension request of two values", &[&seq(&[EXTENSION_REQUEST, &set(&[&seq(&[]), &seq(&[&authority])])])]),
        case("ask-two-requests", "two extension requests", &[&requested(&[]), &requested(&[&authority])]),
        case("ask-challenge-password", "a challenge password", &[&attribute(CHALLENGE_PASSWORD, &set(&[&tlv(19, b"let me in")]))]),
        case("ask-challenge-password-odd", "a challenge password that is a number, twice", &[&attribute(CHALLENGE_PASSWORD, &set(&[&tlv(2, &[1])])), &attribute(CHALLENGE_PASSWORD, &set(&[&tlv(2, &[2])]))]),
        case("ask-unknown", "an unknown attribute", &[&attribute(UNKNOWN, &set(&[&tlv(4, b"?")]))]),
        case("ask-many", "a thousand attributes", &[&attribute(UNKNOWN, &set(&[&tlv(5, &[])])).repeat(1_000)]),
        case("ask-large", "an attribute of twenty thousand bytes", &[&attribute(UNKNOWN, &set(&[&tlv(4, &[7; 20_000])]))]),
        case("ask-many-values", "an attribute of five thousand values", &[&attribute(UNKNOWN, &set(&[&tlv(5, &[]).repeat(5_000)]))]),
    ]
}
