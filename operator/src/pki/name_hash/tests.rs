use super::{NameHashError, list_file_name, name_hash};
use proptest::prelude::*;
use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString, UniversalString};
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
use std::io::Write as _;
use std::process::{Command, Stdio};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate (PEM) of this subject.
fn certificate(words: &[(DnType, DnValue)]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in words {
        params.distinguished_name.push(kind.clone(), value.clone());
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn ours(certificate: &str) -> Result<String, NameHashError> {
    let block = pem::parse(certificate).unwrap();
    let (_, certificate) = X509Certificate::from_der(block.contents()).unwrap();
    name_hash(certificate.subject().as_raw()).map(list_file_name)
}

fn openssl(args: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The name of the file, from OpenSSL's hash.
fn openssls(certificate: &str) -> String {
    let hash = openssl(&["x509", "-noout", "-subject_hash"], certificate);
    format!("{}.r0", hash.trim())
}

fn utf8(kind: DnType, text: &str) -> (DnType, DnValue) {
    (kind, DnValue::Utf8String(text.to_owned()))
}

fn printable(kind: DnType, text: &str) -> (DnType, DnValue) {
    (
        kind,
        DnValue::PrintableString(PrintableString::try_from(text).unwrap()),
    )
}

fn ia5(kind: DnType, text: &str) -> (DnType, DnValue) {
    (kind, DnValue::Ia5String(Ia5String::try_from(text).unwrap()))
}

fn domain_component() -> DnType {
    DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25])
}

#[test]
fn names_hash_as_openssl_hashes_them() {
    let teletex = DnValue::TeletexString(TeletexString::try_from("Zurich CA").unwrap());
    let long = "Long ".repeat(60);
    let names: Vec<Vec<(DnType, DnValue)>> = vec![
        vec![utf8(DnType::CommonName, "central root CA")],
        vec![printable(DnType::CommonName, "  Central   Root  CA ")],
        vec![utf8(
            DnType::CommonName,
            "  Central \t Root\r\n\u{b}\u{c} CA ",
        )],
        vec![utf8(DnType::CommonName, "Zürich ÄÖ ΣΑΣ İ \u{212a} CA 🙂")],
        vec![utf8(DnType::CommonName, "\u{a0}Central\u{2003}CA\u{85}")],
        vec![utf8(DnType::CommonName, "")],
        vec![utf8(DnType::CommonName, &long)],
        vec![(DnType::CommonName, teletex)],
        vec![
            printable(DnType::CountryName, "CH"),
            utf8(DnType::StateOrProvinceName, "Zug"),
            printable(DnType::LocalityName, "Baar"),
            utf8(DnType::OrganizationName, "ACME  Inc"),
            utf8(DnType::OrganizationalUnitName, "Plants"),
            utf8(DnType::CommonName, "ACME root CA"),
        ],
        // As Microsoft's CAs call themselves.
        vec![
            ia5(domain_component(), "Com"),
            ia5(
                DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]),
                "CA@Example.org",
            ),
            utf8(DnType::CommonName, "example-DC1-CA"),
        ],
        vec![printable(DnType::CustomDnType(vec![2, 5, 4, 5]), "AB 12")],
        vec![],
    ];
    for name in names {
        let certificate = certificate(&name);
        assert_eq!(ours(&certificate), Ok(openssls(&certificate)), "{name:?}");
    }
}

#[test]
fn a_list_has_the_hash_of_its_issuer() {
    let key = openssl(
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ],
        "",
    );
    let folder = std::env::temp_dir().join(format!("name-hash-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(path("key"), key).unwrap();
    std::fs::write(path("index"), "").unwrap();
    let settings = format!(
        "[ca]\ndefault_ca=d\n[d]\ndatabase={}\ndefault_md=sha256\n",
        path("index")
    );
    std::fs::write(path("settings"), settings).unwrap();
    let subject = [
        "req",
        "-x509",
        "-new",
        "-subj",
        "/C=CH/O=Plant  One/CN=Root CA",
    ];
    let certificate = openssl(&[&subject[..], &["-key", &path("key")]].concat(), "");
    std::fs::write(path("certificate"), &certificate).unwrap();
    let list = openssl(
        &[
            "ca",
            "-gencrl",
            "-crldays",
            "1",
            "-config",
            &path("settings"),
            "-keyfile",
            &path("key"),
            "-cert",
            &path("certificate"),
        ],
        "",
    );
    let hash = openssl(&["crl", "-noout", "-hash"], &list);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(ours(&certificate), Ok(format!("{}.r0", hash.trim())));
}

/// What Erlang 25 and 27 make of them, and where RabbitMQ found the lists of such CAs.
#[test]
fn attributes_that_erlang_does_not_know_hash_as_they_are_encoded() {
    let street = DnType::CustomDnType(vec![2, 5, 4, 9]);
    let private = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99_999, 1]);
    for (name, file) in [
        (utf8(street.clone(), "Abc Def"), "854bf328.r0"),
        (printable(street, "Abc Def"), "3687c219.r0"),
        (utf8(private, "Abc Def"), "e8b35198.r0"),
    ] {
        assert_eq!(ours(&certificate(&[name])), Ok(file.to_owned()));
    }
}

/// RabbitMQ ended the handshake of every certificate of such CAs.
#[test]
fn names_that_erlang_does_not_read_are_refused() {
    let name = DnType::CommonName;
    let bmp = DnValue::BmpString(BmpString::try_from("Root").unwrap());
    let universal = DnValue::UniversalString(UniversalString::try_from("Root").unwrap());
    for (refused, found) in [
        ((name.clone(), bmp), "BmpString"),
        ((name.clone(), universal), "UniversalString"),
        (ia5(name, "Root"), "Ia5String"),
        (utf8(DnType::CountryName, "CH"), "Utf8String"),
        (utf8(domain_component(), "com"), "Utf8String"),
    ] {
        match ours(&certificate(&[refused])) {
            Err(error @ NameHashError::StringType { .. }) => {
                assert!(error.to_string().contains(found), "{error}");
            }
            other => panic!("{found}: {other:?}"),
        }
    }
    assert_eq!(name_hash(b""), Err(NameHashError::Malformed));
    assert_eq!(name_hash(&[0x30, 0, 0]), Err(NameHashError::Malformed));
}

#[test]
fn a_name_of_several_attributes_in_one_is_refused() {
    let args =
        "req -x509 -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout /dev/null -subj";
    let args: Vec<&str> = args.split(' ').chain(["/O=ACME+CN=Root"]).collect();
    let certificate = openssl(&args, "");
    assert_eq!(ours(&certificate), Err(NameHashError::MultiValued));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_text_hashes_as_openssl_hashes_it(text in "[ \t\n\u{b}a-zA-Z0-9.äÖß\u{a0}]{0,40}") {
        let certificate = certificate(&[utf8(DnType::OrganizationName, &text)]);
        prop_assert_eq!(ours(&certificate), Ok(openssls(&certificate)));
    }

    #[test]
    fn any_octets_are_hashed_or_refused(octets in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = name_hash(&octets);
    }
}
