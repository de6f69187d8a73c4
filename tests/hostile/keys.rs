//! Keys and signatures that are not to be certified, and those that are.

use crate::der::{
    EC_KEY, ECDSA_SHA256, ED25519, P256, P384, RSA_KEY, RSA_SHA256, X25519, bits, open, seq, tlv,
    tlv_padded, uint,
};
use crate::draft::{Draft, armoured};
use crate::{Case, own_name};
use sha2::{Digest as _, Sha256};
use volttron_tests::openssl;

const KEY: &str = "UnsupportedKey";
const SIGNATURE: &str = "UnsupportedSignature";
const FORGED: &str = "InvalidSignature";

#[rustfmt::skip] // One case, one line.
pub fn cases() -> Vec<Case> {
    // By openssl: what makes the key, and how it is signed.
    let made = |name, expected, what, key: &str, sign: &str| {
        Case { name, expected, what, text: by_openssl(&own_name(name), key, sign).into_bytes() }
    };
    let rsa = |bits: u32| format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{bits}");
    let rsa_e = |e: &str| format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:{e}");
    let ec = |curve: &str| format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve}");
    let draft = |name: &str| Draft::new(&own_name(name));
    let case = |name, expected, what, edit: &dyn Fn(Draft) -> Vec<u8>| Case { name, expected, what, text: armoured(&edit(draft(name))).into_bytes() };
    // An RSA key of these numbers. Who has no private key cannot sign, so that the signature is of no interest.
    let rsa_key = |name, what, modulus: &[u8], exponent: &[u8]| case(name, KEY, what, &|draft| with_rsa(draft, &uint(modulus), &uint(exponent)).der());
    let modulus = |last: u8| [&[0xc5; 255][..], &[last]].concat();
    // A key on a curve, from its point.
    let point = |name, what, curve: &[u8], point: &[u8]| case(name, KEY, what, &|draft| Draft { spki: seq(&[&seq(&[EC_KEY, curve]), &bits(point)]), ..draft }.der());
    let parameters = |name, what, parameters: &[u8]| case(name, KEY, what, &|draft| {
        let key = open(open(&draft.spki).0).1.to_vec();
        Draft { spki: seq(&[&seq(&[EC_KEY, parameters]), &key]), ..draft }.der()
    });
    // The sound point in another form; the signature holds.
    let pressed = |name, what, form: fn(&[u8]) -> Vec<u8>| case(name, KEY, what, &|draft| {
        let point = draft.key.public_key_raw().to_vec();
        Draft { spki: seq(&[&seq(&[EC_KEY, P256]), &bits(&form(&point))]), ..draft }.der()
    });
    let signed_as = |name, expected, what, algorithm: &[u8]| case(name, expected, what, &|draft| Draft { algorithm: algorithm.to_vec(), ..draft }.der());
    let signature = |name, expected, what, edit: fn(&[u8]) -> Vec<u8>| case(name, expected, what, &|draft| {
        let der = draft.der();
        let (_, behind_info) = open(open(&der).0);
        let (_, signature) = open(behind_info);
        let signature = bits(&edit(&open(signature).0[1..]));
        // The same info, so that the signature stays the one that was made for it.
        let info = &open(&der).0[..open(&der).0.len() - behind_info.len()];
        seq(&[info, &draft.algorithm, &signature])
    });
    vec![
        // What is certified.
        made("key-rsa-2048", "signed", "RSA of 2048 bits", &rsa(2048), "-sha256"),
        made("key-rsa-3072-sha384", "signed", "RSA of 3072 bits, with SHA-384", &rsa(3072), "-sha384"),
        made("key-rsa-4096-sha512", "signed", "RSA of 4096 bits, with SHA-512", &rsa(4096), "-sha512"),
        made("key-rsa-8192", "signed", "RSA of 8192 bits", &rsa(8192), "-sha256"),
        made("key-rsa-2049", "signed", "RSA of 2049 bits", &rsa(2049), "-sha256"),
        made("key-rsa-e-33-bits", "signed", "RSA with an exponent of 33 bits", &rsa_e("0x1000000f1"), "-sha256"),
        made("key-p256", "signed", "ECDSA on P-256", &ec("P-256"), "-sha256"),
        made("key-p256-sha512", "signed", "P-256 with SHA-512", &ec("P-256"), "-sha512"),
        made("key-p384-sha384", "signed", "P-384 with SHA-384", &ec("P-384"), "-sha384"),
        made("key-p384-sha256", "signed", "P-384 with SHA-256, as openssl does", &ec("P-384"), "-sha256"),
        // RSA.
        made("key-rsa-1024", KEY, "RSA of 1024 bits", &rsa(1024), "-sha256"),
        made("key-rsa-2047", KEY, "RSA of 2047 bits", &rsa(2047), "-sha256"),
        made("key-rsa-e-3", KEY, "RSA with exponent 3", &rsa_e("3"), "-sha256"),
        made("key-rsa-e-17", KEY, "RSA with exponent 17", &rsa_e("17"), "-sha256"),
        made("key-rsa-e-41-bits", KEY, "RSA with an exponent of 41 bits", &rsa_e("0x1000000000f"), "-sha256"),
        made("key-rsa-pss", KEY, "a key for RSASSA-PSS alone", "genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", "-sha256"),
        case("key-rsa-e-1", KEY, "RSA with exponent 1, where anybody can sign", &exponent_one),
        case("key-rsa-oaep", KEY, "a key for RSAES-OAEP", &|draft| {
            let key = rsa_public_key(&uint(&modulus(0x0f)), &uint(&[1, 0, 1]));
            let algorithm = seq(&[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07", &seq(&[])]);
            Draft { spki: seq(&[&algorithm, &bits(&key)]), ..draft }.der()
        }),
        rsa_key("key-rsa-e-0", "RSA with exponent 0", &modulus(0x0f), &[0]),
        rsa_key("key-rsa-e-65536", "RSA with an even exponent", &modulus(0x0f), &[1, 0, 0]),
        rsa_key("key-rsa-e-modulus", "RSA with an exponent as long as the modulus", &modulus(0x0f), &modulus(0x01)),
        rsa_key("key-rsa-even", "an even modulus", &modulus(0x10), &[1, 0, 1]),
        rsa_key("key-rsa-factor-3", "a modulus that 3 divides", &[0x33; 256], &[1, 0, 1]),
        rsa_key("key-rsa-0", "modulus 0", &[0], &[1, 0, 1]),
        rsa_key("key-rsa-16384", "RSA of 16384 bits", &[&[0xc5; 2047][..], &[0x0f]].concat(), &[1, 0, 1]),
        rsa_key("key-rsa-100000", "RSA of a hundred thousand bits", &[&[0xc5; 12_499][..], &[0x0f]].concat(), &[1, 0, 1]),
        case("key-rsa-negative", KEY, "a negative modulus", &|draft| with_rsa(draft, &tlv(2, &modulus(0x0f)), &uint(&[1, 0, 1])).der()),
        case("key-rsa-padded", KEY, "a modulus with zeros in front", &|draft| with_rsa(draft, &tlv(2, &[&[0, 0], modulus(0x0f).as_slice()].concat()), &uint(&[1, 0, 1])).der()),
        case("key-rsa-long-length", KEY, "a longer length than needed, of the modulus", &|draft| {
            let number = [&[0], modulus(0x0f).as_slice()].concat();
            with_rsa(draft, &tlv_padded(2, &number, 4), &uint(&[1, 0, 1])).der()
        }),
        case("key-rsa-third-number", KEY, "a third number in the key", &|draft| with_rsa(draft, &uint(&modulus(0x0f)), &[uint(&[1, 0, 1]), uint(&[7])].concat()).der()),
        case("key-rsa-trailing", KEY, "bytes behind the numbers of the key", &|draft| {
            let key = [rsa_public_key(&uint(&modulus(0x0f)), &uint(&[1, 0, 1])), vec![0]].concat();
            Draft { spki: seq(&[RSA_KEY, &bits(&key)]), ..draft }.der()
        }),
        case("key-rsa-no-null", KEY, "RSA without parameters, where NULL is wanted", &|draft| {
            let key = rsa_public_key(&uint(&modulus(0x0f)), &uint(&[1, 0, 1]));
            Draft { spki: seq(&[&seq(&[open(RSA_KEY).0.split_at(11).0]), &bits(&key)]), ..draft }.der()
        }),
        case("key-rsa-empty", KEY, "RSA without numbers", &|draft| Draft { spki: seq(&[RSA_KEY, &bits(&[])]), ..draft }.der()),
        // ECDSA.
        made("key-p224", KEY, "P-224", &ec("P-224"), "-sha256"),
        made("key-p521", KEY, "P-521", &ec("P-521"), "-sha512"),
        made("key-secp256k1", KEY, "secp256k1", &ec("secp256k1"), "-sha256"),
        made("key-brainpool", KEY, "brainpoolP256r1", &ec("brainpoolP256r1"), "-sha256"),
        made("key-sect283", KEY, "a binary curve", &ec("sect283r1"), "-sha256"),
        made("key-explicit", KEY, "P-256 by explicit parameters", &format!("{} -pkeyopt ec_param_enc:explicit", ec("P-256")), "-sha256"),
        pressed("key-compressed", "a compressed point", |point| [&[2 + (point[64] & 1)], &point[1..33]].concat()),
        pressed("key-hybrid", "a hybrid point", |point| [&[6 + (point[64] & 1)], &point[1..]].concat()),
        point("key-infinity", "the point at infinity", P256, &[0]),
        point("key-off-curve", "a point that is not on P-256", P256, &[&[4][..], &[7; 64]].concat()),
        point("key-off-curve-p384", "a point that is not on P-384", P384, &[&[4][..], &[7; 96]].concat()),
        point("key-zero-point", "the point (0, 0)", P256, &[&[4][..], &[0; 64]].concat()),
        point("key-beyond-field", "coordinates beyond the field", P256, &[&[4][..], &[0xff; 64]].concat()),
        point("key-short-point", "a point that is too short", P256, &[&[4][..], &[7; 62]].concat()),
        point("key-empty-point", "no point", P256, &[]),
        point("key-p384-named-p256", "a point of P-384's length on P-256", P256, &[&[4][..], &[7; 96]].concat()),
        parameters("key-no-curve", "no curve", &[]),
        parameters("key-null-curve", "NULL in place of the curve (implicit CA)", &[5, 0]),
        parameters("key-unknown-curve", "a curve nobody knows", b"\x06\x03\x2a\x03\x04"),
        parameters("key-other-curve", "a point of P-256 on P-384", P384),
        // Others.
        made("key-ed25519", KEY, "Ed25519", "genpkey -algorithm ED25519", ""),
        made("key-ed448", KEY, "Ed448", "genpkey -algorithm ED448", ""),
        made("key-dsa", KEY, "DSA", "dsaparam -genkey -noout 1024", "-sha256"),
        case("key-x25519", KEY, "X25519, which cannot sign", &|draft| Draft { spki: seq(&[X25519, &bits(&[9; 32])]), ..draft }.der()),
        case("key-ed25519-small-order", KEY, "Ed25519 of small order, where anybody can sign", &|draft| {
            let identity = [&[1][..], &[0; 31]].concat();
            let forged = [identity.as_slice(), &[0; 32]].concat();
            Draft { spki: seq(&[ED25519, &bits(&identity)]), algorithm: ED25519.to_vec(), signature: Some(bits(&forged)), ..draft }.der()
        }),
        case("key-unknown", KEY, "a kind of key nobody knows", &|draft| Draft { spki: seq(&[&seq(&[b"\x06\x03\x2a\x03\x04"]), &bits(&[1])]), ..draft }.der()),
        // Signatures.
        made("signature-md5", SIGNATURE, "RSA with MD5", &rsa(2048), "-md5"),
        made("signature-sha1", SIGNATURE, "RSA with SHA-1", &rsa(2048), "-sha1"),
        made("signature-sha224", SIGNATURE, "RSA with SHA-224", &rsa(2048), "-sha224"),
        made("signature-sha3", SIGNATURE, "RSA with SHA3-256", &rsa(2048), "-sha3-256"),
        made("signature-pss", SIGNATURE, "RSASSA-PSS by an RSA key", &rsa(2048), "-sha256 -sigopt rsa_padding_mode:pss"),
        made("signature-ecdsa-sha1", SIGNATURE, "ECDSA with SHA-1", &ec("P-256"), "-sha1"),
        made("signature-ecdsa-sha224", SIGNATURE, "ECDSA with SHA-224", &ec("P-256"), "-sha224"),
        signed_as("signature-null", SIGNATURE, "ECDSA with NULL parameters", &seq(&[open(ECDSA_SHA256).0, &[5, 0]])),
        signed_as("signature-parameters", SIGNATURE, "ECDSA with a curve as parameters", &seq(&[open(ECDSA_SHA256).0, P256])),
        signed_as("signature-other-key", SIGNATURE, "RSA's algorithm for a key on P-256", RSA_SHA256),
        signed_as("signature-other-hash", FORGED, "SHA-512 named, SHA-256 used", &seq(&[b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04"])),
        signed_as("signature-unknown", SIGNATURE, "an algorithm nobody knows", &seq(&[b"\x06\x03\x2a\x03\x04"])),
        signed_as("signature-algorithm-empty", "MalformedRequest", "no algorithm", &seq(&[])),
        signature("signature-flipped", FORGED, "one bit changed", |signature| {
            let mut signature = signature.to_vec();
            *signature.last_mut().expect("a signature") ^= 1;
            signature
        }),
        signature("signature-zeros", FORGED, "r and s are 0", |_| seq(&[&uint(&[0]), &uint(&[0])])),
        signature("signature-order", FORGED, "r and s are the order of the group", |_| seq(&[&uint(&ORDER), &uint(&ORDER)])),
        signature("signature-negated", "signed", "n - s in place of s, which holds as well", |signature| {
            let (r, s) = open(open(signature).0);
            let negated = subtract(&ORDER, open(s).0);
            seq(&[&tlv(2, r), &uint(&negated)])
        }),
        signature("signature-trailing", FORGED, "a byte behind r and s", |signature| [signature, &[0]].concat()),
        signature("signature-third", FORGED, "a third number behind r and s", |signature| seq(&[open(signature).0, &uint(&[1])])),
        signature("signature-long-length", FORGED, "r and s with a longer length than needed", |signature| tlv_padded(0x30, open(signature).0, 2)),
        signature("signature-raw", FORGED, "r and s without DER", |_| vec![7; 64]),
        case("signature-of-another", FORGED, "the signature of another key", &|draft| {
            let other = Draft::new("x");
            Draft { key: other.key, ..draft }.der()
        }),
        case("signature-of-another-name", FORGED, "another name than was signed", &|draft| {
            let info = draft.info();
            let der = draft.der();
            let mut stolen = der.clone();
            let at = info.windows(7).position(|window| window == b"hostile").expect("the name") + der.len() - open(&der).0.len();
            stolen[at..at + 7].copy_from_slice(b"HOSTILE");
            stolen
        }),
    ]
}

/// The order of P-256's group (NIST SP 800-186, section 3.2.1.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// `minuend - subtrahend`; the subtrahend may have a zero in front, or be shorter.
fn subtract(minuend: &[u8; 32], subtrahend: &[u8]) -> [u8; 32] {
    let mut difference = *minuend;
    let mut borrow = false;
    for (index, byte) in difference.iter_mut().rev().enumerate() {
        let other = subtrahend.iter().rev().nth(index).copied().unwrap_or(0);
        let (rest, first) = byte.overflowing_sub(other);
        let (rest, second) = rest.overflowing_sub(u8::from(borrow));
        (*byte, borrow) = (rest, first || second);
    }
    difference
}

fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    seq(&[modulus, exponent])
}

fn with_rsa(draft: Draft, modulus: &[u8], exponent: &[u8]) -> Draft {
    Draft {
        spki: seq(&[RSA_KEY, &bits(&rsa_public_key(modulus, exponent))]),
        algorithm: RSA_SHA256.to_vec(),
        signature: Some(bits(&[1; 256])),
        ..draft
    }
}

/// With exponent 1 a signature is the padded hash itself (RFC 8017, section 9.2): no private key is needed.
fn exponent_one(draft: Draft) -> Vec<u8> {
    let modulus = [&[0xc5; 255][..], &[0x0f]].concat();
    let mut draft = with_rsa(draft, &uint(&modulus), &uint(&[1]));
    let hash = Sha256::digest(draft.info());
    let digest_info = [
        b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        hash.as_slice(),
    ]
    .concat();
    let padding = vec![0xff; 256 - 3 - digest_info.len()];
    let padded = [&[0, 1][..], &padding, &[0], &digest_info].concat();
    draft.signature = Some(bits(&padded));
    draft.der()
}

fn by_openssl(common_name: &str, key: &str, sign: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let run = |args: Vec<String>| {
        let args: Vec<&str> = args
            .iter()
            .map(String::as_str)
            .filter(|it| !it.is_empty())
            .collect();
        openssl(folder.path(), &args);
    };
    // `dsaparam` wants its number of bits last.
    let mut make = words(key);
    make.splice(1..1, words("-out key.pem"));
    run(make);
    run(words(&format!(
        "req -new -key key.pem -out csr.pem -subj /CN={common_name} {sign}"
    )));
    std::fs::read_to_string(folder.path().join("csr.pem")).expect("openssl has written it")
}
