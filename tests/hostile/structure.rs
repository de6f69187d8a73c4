//! Requests that are no DER of a certification request, or that two parsers could read in two ways.

use crate::der::{RSA_KEY, bits, open, seq, tlv, tlv_indefinite, tlv_padded};
use crate::draft::{Draft, armoured, common_name, rdn};
use crate::{Case, own_name};

const MALFORMED: &str = "MalformedRequest";

#[rustfmt::skip] // One case, one line.
pub fn cases() -> Vec<Case> {
    let draft = |name: &str| Draft::new(&own_name(name));
    let case = |name, what, expected, edit: fn(Draft) -> Vec<u8>| Case { name, expected, what, text: armoured(&edit(draft(name))).into_bytes() };
    vec![
        case("der-trailing-outside", "a byte behind the request", MALFORMED, |draft| [draft.der(), vec![0]].concat()),
        case("der-two-requests", "a second request behind the first, in one block", MALFORMED, |draft| [draft.der(), draft.der()].concat()),
        case("der-trailing-in-request", "an element behind the signature", MALFORMED, |draft| Draft { behind_signature: tlv(5, &[]), ..draft }.der()),
        case("der-trailing-in-info", "an element behind the attributes", MALFORMED, |draft| Draft { behind_attributes: tlv(5, &[]), ..draft }.der()),
        case("der-second-subject", "a second name behind the attributes", MALFORMED, |draft| Draft { behind_attributes: draft.subject.clone(), ..draft }.der()),
        case("der-trailing-in-name", "a word behind the common name's value", MALFORMED, |draft| {
            let name = common_name(&own_name("other"));
            let subject = seq(&[&rdn(&[&seq(&[open(&name).0, &tlv(12, b"central.a.b")])])]);
            Draft { subject, ..draft }.der()
        }),
        case("der-garbage-in-name", "bytes that are no element at the end of the subject", MALFORMED, |draft| {
            let subject = seq(&[open(&draft.subject).0, &[0xff, 0xff]]);
            Draft { subject, ..draft }.der()
        }),
        case("der-empty-rdn", "an empty relative distinguished name", MALFORMED, |draft| {
            let subject = seq(&[&rdn(&[]), open(&draft.subject).0]);
            Draft { subject, ..draft }.der()
        }),
        case("der-trailing-in-key", "an element behind the key's bits", "UnsupportedKey", |draft| {
            let spki = seq(&[open(&draft.spki).0, &tlv(5, &[])]);
            Draft { spki, ..draft }.der()
        }),
        case("der-trailing-in-key-algorithm", "an element behind the curve", "UnsupportedKey", |draft| {
            let (algorithm, key) = open(open(&draft.spki).0);
            let spki = seq(&[&seq(&[algorithm, &tlv(5, &[])]), key]);
            Draft { spki, ..draft }.der()
        }),
        case("der-trailing-in-signature-algorithm", "an element behind the signature's parameters", MALFORMED, |draft| {
            let algorithm = seq(&[open(&draft.algorithm).0, &tlv(5, &[]), &tlv(5, &[])]);
            Draft { algorithm, ..draft }.der()
        }),
        case("der-long-length", "a longer length than needed, of the whole", MALFORMED, |draft| {
            let der = draft.der();
            tlv_padded(0x30, open(&der).0, 4)
        }),
        case("der-long-length-of-info", "a longer length than needed, of what is signed", MALFORMED, |draft| {
            let info = draft.info();
            draft.around(&tlv_padded(0x30, open(&info).0, 4))
        }),
        case("der-long-length-of-key", "a longer length than needed, of the key", MALFORMED, |draft| {
            let spki = tlv_padded(0x30, open(&draft.spki).0, 3);
            Draft { spki, ..draft }.der()
        }),
        case("der-long-length-of-name", "a longer length than needed, of the common name", MALFORMED, |draft| {
            let value = tlv_padded(12, own_name("x").as_bytes(), 1);
            let subject = seq(&[&rdn(&[&seq(&[crate::der::COMMON_NAME, &value])])]);
            Draft { subject, ..draft }.der()
        }),
        case("der-four-gigabytes", "a length of four gigabytes", MALFORMED, |draft| [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], open(&draft.der()).0].concat()),
        case("der-length-of-eight-octets", "a length beyond 64 bits", MALFORMED, |draft| [&[0x30, 0x89][..], &[0xff; 9], open(&draft.der()).0].concat()),
        case("der-length-reserved", "the reserved length 0xff", MALFORMED, |draft| [&[0x30, 0xff], open(&draft.der()).0].concat()),
        case("der-info-beyond-request", "a length of the inner part beyond the outer one", MALFORMED, |draft| {
            let info = draft.info();
            let content = open(&info).0;
            seq(&[&[0x30, 0x82, 0x7f, 0xff], content])
        }),
        case("der-attributes-beyond-info", "a length of the attributes beyond what is signed", MALFORMED, |draft| Draft { attributes: vec![0xa0, 0x7f], ..draft }.der()),
        case("der-attributes-short", "a length of the attributes that ends before them", MALFORMED, |draft| Draft { attributes: [&[0xa0, 0], seq(&[crate::der::UNKNOWN, &rdn(&[])]).as_slice()].concat(), ..draft }.der()),
        case("der-indefinite", "indefinite length, of the whole", MALFORMED, |draft| tlv_indefinite(0x30, open(&draft.der()).0)),
        case("der-indefinite-subject", "indefinite length, of the subject", MALFORMED, |draft| {
            let subject = tlv_indefinite(0x30, open(&draft.subject).0);
            Draft { subject, ..draft }.der()
        }),
        case("der-indefinite-bomb", "twelve thousand indefinite lengths, one in the other", MALFORMED, |_| [0x30, 0x80].repeat(12_000)),
        case("der-depth-bomb", "five thousand sequences, one in the other", MALFORMED, |_| (0..5_000).fold(Vec::new(), |inner, _| tlv(0x30, &inner))),
        case("der-depth-bomb-in-attribute", "a thousand sequences, one in the other, as the value of an attribute", "signed", |draft| {
            let bomb = (0..1_000).fold(Vec::new(), |inner, _| tlv(0x30, &inner));
            let attributes = tlv(0xa0, &seq(&[crate::der::UNKNOWN, &rdn(&[&bomb])]));
            Draft { attributes, ..draft }.der()
        }),
        case("der-no-attributes", "no attributes, where RFC 2986 wants an empty set", MALFORMED, |draft| Draft { attributes: Vec::new(), ..draft }.der()),
        case("der-attributes-primitive", "attributes that are primitive", MALFORMED, |draft| Draft { attributes: tlv(0x80, &[]), ..draft }.der()),
        case("der-attributes-as-set", "attributes with the tag of a SET", MALFORMED, |draft| Draft { attributes: tlv(0x31, &[]), ..draft }.der()),
        case("der-version-2", "version 2", MALFORMED, |draft| Draft { version: tlv(2, &[2]), ..draft }.der()),
        case("der-version-negative", "version -1", MALFORMED, |draft| Draft { version: tlv(2, &[0xff]), ..draft }.der()),
        case("der-version-padded", "version 0 in two octets", MALFORMED, |draft| Draft { version: tlv(2, &[0, 0]), ..draft }.der()),
        case("der-version-missing", "no version", MALFORMED, |draft| Draft { version: Vec::new(), ..draft }.der()),
        case("der-set-for-sequence", "a SET in place of the outer SEQUENCE", MALFORMED, |draft| tlv(0x31, open(&draft.der()).0)),
        case("der-high-tag", "a tag number in several octets", MALFORMED, |draft| Draft { version: vec![0x1f, 0x82, 0x00, 0x01, 0x00], ..draft }.der()),
        case("der-unused-bits-in-key", "a key with unused bits", "UnsupportedKey", |draft| {
            let (algorithm, key) = open(open(&draft.spki).0);
            let algorithm = seq(&[algorithm]);
            let mut point = open(key).0.to_vec();
            point[0] = 1;
            *point.last_mut().expect("a point") &= 0xfe;
            let spki = seq(&[&algorithm, &tlv(3, &point)]);
            Draft { spki, ..draft }.der()
        }),
        case("der-unused-bits-in-signature", "a signature with unused bits", "InvalidSignature", |draft| {
            let mut draft = draft;
            draft.signature = Some(tlv(3, &[&[4][..], &[0x30; 70], &[0xf0]].concat()));
            draft.der()
        }),
        case("der-signature-octets", "the signature as OCTET STRING", MALFORMED, |draft| Draft { signature: Some(tlv(4, &[0; 71])), ..draft }.der()),
        case("der-signature-empty", "an empty signature", "InvalidSignature", |draft| Draft { signature: Some(bits(&[])), ..draft }.der()),
        case("der-certificate", "a self-signed certificate", MALFORMED, |draft| {
            let certificate = rcgen::CertificateParams::default().self_signed(&draft.key);
            certificate.expect("a certificate").der().to_vec()
        }),
        case("der-key-for-request", "a public key", MALFORMED, |draft| draft.spki),
        case("der-rsa-algorithm-for-ec-key", "a point of P-256 that says it is RSA", "UnsupportedKey", |draft| {
            let key = open(open(&draft.spki).0).1;
            let spki = seq(&[RSA_KEY, key]);
            Draft { spki, ..draft }.der()
        }),
    ]
}
