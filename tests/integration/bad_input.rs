//! Requests that must never be signed, and some that look odd and may be.

use crate::shared::{central, playground};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use volttron_crds::Phase;
use volttron_tests::{Agent, encode, openssl, run};

/// A bad request: what is wrong with it, what stands in `spec.request`, and the reason and words by which it is refused.
type Case = (&'static str, String, &'static str, &'static str);

#[test]
fn what_is_wrong_with_a_request_is_said_and_nothing_is_signed() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("bad").await;
        let (cases, users) = (cases(), broker.ctl(&["list_users", "--quiet"]).await);
        let good = Agent::new("central.bad.good");
        for (name, request, _, _) in &cases {
            space
                .try_file(name, &broker.instance, request, None)
                .await
                .unwrap();
            // That somebody approves it changes nothing.
            space.approve(name).await;
        }
        space.file("good", &broker.instance, &good.csr).await;
        space.approve("good").await;
        space.issued("good").await;

        let mut wrong = Vec::new();
        for (name, _, reason, words) in &cases {
            let request = space.phase(name, Phase::Failed).await;
            let status = request.status.unwrap();
            let failed = status
                .conditions
                .iter()
                .find(|it| it.type_ == "Failed")
                .unwrap();
            let says = (failed.reason.as_str(), failed.message.contains(words));
            if says != (*reason, true) {
                wrong.push(format!("{name}: {}: {}", failed.reason, failed.message));
            }
            if status.certificate.is_some() || space.secret(name).await.is_some() {
                wrong.push(format!("{name}: a certificate was signed"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let now = broker.ctl(&["list_users", "--quiet"]).await;
        let others: Vec<_> = now
            .lines()
            .filter(|line| line.contains(".bad.") || line.contains("elsewhere"))
            .collect();
        assert_eq!(
            others,
            ["central.bad.good\t[volttron-agent]"],
            "before: {users}"
        );
        assert!(now.contains("volttron-operator\t[administrator]"), "{now}");
        for name in ["platform", "elsewhere", "central.platform"] {
            assert!(!now.lines().any(|line| line.starts_with(name)), "{now}");
        }
    });
}

#[test]
fn an_oversized_request_is_refused_when_it_is_applied() {
    run(async {
        let space = playground().await.space("oversized").await;
        let request = encode(vec![b'A'; 1 << 20]);
        let refused = space
            .try_file("large", &central().await.instance, &request, None)
            .await;
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("spec.request") && message.contains("49152"),
            "{message}"
        );
    });
}

#[test]
fn what_a_request_asks_for_besides_its_name_is_not_granted() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("greedy").await;
        let folder = tempfile::tempdir().unwrap();
        let greedy = new_key(
            &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "/O=Evil/CN=central.greedy.agent",
            &[
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=keyCertSign",
                "-addext",
                "subjectAltName=DNS:central-rabbitmq,DNS:localhost",
                "-addext",
                "extendedKeyUsage=serverAuth,clientAuth",
            ],
        );
        let requested = request_text(&greedy);
        assert!(
            requested.contains("CA:TRUE") && requested.contains("DNS:localhost"),
            "{requested}"
        );
        space.file("greedy", &broker.instance, &greedy).await;
        space.approve("greedy").await;
        let issued = space.issued("greedy").await;
        std::fs::write(folder.path().join("tls.crt"), &issued.chain).unwrap();
        let text = openssl(
            folder.path(),
            &["x509", "-in", "tls.crt", "-noout", "-text"],
        );
        for word in [
            "CA:TRUE",
            "Certificate Sign",
            "Alternative Name",
            "TLS Web Server",
            "Evil",
        ] {
            assert!(!text.contains(word), "{word} was granted: {text}");
        }
        assert!(
            text.contains("CA:FALSE") && text.contains("CN = central.greedy.agent"),
            "{text}"
        );
    });
}

#[test]
fn odd_but_sound_requests_are_signed() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("odd").await;
        let p384 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
        let wrapped = encode(new_key(
            &["rsa:3072"],
            "/CN=central.odd.wrapped",
            &["-sha512"],
        ));
        let wrapped: Vec<_> = wrapped
            .as_bytes()
            .chunks(76)
            .map(String::from_utf8_lossy)
            .collect();
        let cases = [
            (
                "p384-sha256",
                encode(new_key(&p384, "/CN=central.odd.p384", &["-sha256"])),
            ),
            (
                "explanation",
                encode(format!(
                    "Our request:\n{}",
                    Agent::new("central.odd.text").csr
                )),
            ),
            (
                "crlf",
                encode(Agent::new("central.odd.crlf").csr.replace('\n', "\r\n")),
            ),
            ("wrapped-base64", wrapped.join("\n")),
        ];
        for (name, request) in &cases {
            space
                .try_file(name, &broker.instance, request, None)
                .await
                .unwrap();
            space.approve(name).await;
        }
        for (name, _) in &cases {
            space.issued(name).await;
        }
    });
}

#[rustfmt::skip] // One case, one line.
fn cases() -> Vec<Case> {
    let good = Agent::new("central.bad.agent");
    let named = |name: &str| encode(Agent::new(name).csr);
    let subject = |subject: &str| encode(new_key(&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], subject, &[]));
    let key = |kind: &[&str]| encode(new_key(kind, "/CN=central.bad.key", &[]));
    let der = pem::parse(&good.csr).unwrap().into_contents();
    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    let block = |der: &[u8]| encode(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der)));
    let trailing = [der.as_slice(), b"more"].concat();
    let headers = good.csr.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1);
    let (base64, pem, malformed, common_name) = ("InvalidBase64", "InvalidPEM", "MalformedRequest", "InvalidCommonName");
    vec![
        ("not-base64", "-----BEGIN CERTIFICATE REQUEST-----".to_owned(), base64, "base64 -w0"),
        ("not-pem", encode("please let me in"), pem, "no PEM block"),
        ("der", encode(&der), pem, "DER"),
        ("binary", encode([0xff, 0xfe, 0x00]), pem, "not text"),
        ("certificate", encode(good.self_signed()), pem, "another kind"),
        ("private-key", encode(&good.key), pem, "another kind"),
        ("headers", encode(headers), pem, "headers"),
        ("two-blocks", encode(format!("{}{}", good.csr, good.csr)), pem, "more than one"),
        ("cut-pem", encode(&good.csr[..good.csr.len() / 2]), pem, "cut short"),
        ("cut-der", block(&der[..der.len() / 2]), malformed, "cut short"),
        ("trailing-bytes", block(&trailing), malformed, "after its end"),
        ("empty-block", block(&[]), malformed, "not valid DER"),
        ("oversized", encode(vec![b'A'; 36_501]), "RequestTooLarge", "36500"),
        ("forged-signature", block(&forged), "InvalidSignature", "not made by the key in it"),
        ("no-common-name", subject("/O=Building 7"), common_name, "no common name"),
        ("two-common-names", subject("/CN=central.bad.a/CN=central.bad.b"), common_name, "2 common names"),
        ("long-name", named(&format!("central.bad.{}", "x".repeat(60))), common_name, "64"),
        ("two-words", named("central.bad"), common_name, "<instance>.<local instance>.<identity>"),
        ("slash", named("central.bad.a/b"), common_name, "identity"),
        ("nul", named("central.bad.a\0b"), common_name, "identity"),
        ("newline", named("central.bad.a\nb"), common_name, "identity"),
        ("wildcard", named("central.bad.*"), common_name, "identity"),
        ("comma", named("central.bad.a,central.bad.b"), common_name, "identity"),
        ("homoglyph", named("\u{441}entral.bad.agent"), common_name, "instance name"),
        ("management-user", named("volttron-operator"), common_name, "volttron-operator"),
        ("other-instance", named("elsewhere.bad.agent"), "WrongInstance", "must begin with \"central\""),
        ("reserved-word", named("central.platform.driver"), "ReservedName", "VOLTTRON's own agents"),
        ("rsa-1024", key(&["rsa:1024"]), "UnsupportedKey", "RSA with 1024 bits"),
        ("p521", key(&["ec", "-pkeyopt", "ec_paramgen_curve:P-521"]), "UnsupportedKey", "P-256 or P-384"),
        ("secp256k1", key(&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]), "UnsupportedKey", "P-256 or P-384"),
        ("ed25519", key(&["ed25519"]), "UnsupportedKey", "accepted are RSA"),
        ("sha1", encode(new_key(&["rsa:2048"], "/CN=central.bad.sha1", &["-sha1"])), "UnsupportedSignature", "SHA-256"),
        ("unknown-extension", unknown_extension(), "WrongInstance", "must begin with"),
    ]
}

/// An extension nobody knows is no fault: the name is looked at.
fn unknown_extension() -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "elsewhere.bad.extension");
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
    encode(params.serialize_request(&key).unwrap().pem().unwrap())
}

/// A signing request by openssl, with a new key.
fn new_key(kind: &[&str], subject: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec![
        "req", "-new", "-nodes", "-keyout", "key.pem", "-out", "csr.pem", "-subj", subject,
        "-newkey",
    ];
    args.extend(kind);
    args.extend(more);
    openssl(folder.path(), &args);
    std::fs::read_to_string(folder.path().join("csr.pem")).unwrap()
}

fn request_text(csr: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("csr.pem"), csr).unwrap();
    openssl(folder.path(), &["req", "-in", "csr.pem", "-noout", "-text"])
}
