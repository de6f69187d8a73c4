//! Hostile requests through the real API server: each is refused for its reason, or issued as the profile says, and nobody else
//! notices. `tests/hostile` makes them and says what is odd about each; a unit test of the operator tries all.

use crate::shared::{central, playground};
use futures::{StreamExt as _, stream};
use std::path::Path;
use volttron_crds::Phase;
use volttron_tests::{Agent, Issued, SOON, Space, encode, openssl, run};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Of those that are refused, every so manyth is filed.
const EVERY: usize = 4;

struct Case {
    name: String,
    expected: String,
    text: Vec<u8>,
}

#[test]
fn hostile_requests_are_refused_or_get_the_profile_and_disturb_nobody() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("hostile").await;
        let operator = playground().await.operator();
        let before = operator.pid();
        let cases = cases();
        let (cases, space) = (&cases, &space);
        stream::iter(cases)
            .for_each_concurrent(8, async |case| {
                let request = encode(&case.text);
                let filed = space
                    .try_file(&case.name, &broker.instance, &request, None)
                    .await;
                filed.unwrap_or_else(|error| panic!("{}: {error}", case.name));
                // That somebody approves it changes nothing.
                space.approve(&case.name).await;
            })
            .await;
        // Whoever comes behind them is served.
        let good = Agent::new("central.hostile.good");
        space.file("good", &broker.instance, &good.csr).await;
        space.approve("good").await;
        space.issued("good").await;

        let wrong: Vec<_> = stream::iter(cases)
            .map(|case| outcome(space, case))
            .buffer_unordered(8)
            .filter_map(async |fault| fault.err())
            .collect()
            .await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(operator.pid(), before, "the operator was started again");
    });
}

async fn outcome(space: &Space<'_>, case: &Case) -> Result<(), String> {
    let (name, decided) = (&case.name, |phase| {
        matches!(phase, Some(Phase::Failed | Phase::Issued))
    });
    let request = space
        .until(name, "is failed or issued", SOON * 4, |request| {
            decided(request.phase())
        })
        .await;
    if request.phase() == Some(Phase::Issued) {
        if case.expected != "signed" {
            return Err(format!("{name} was signed"));
        }
        return compare(&space.issued(name).await, case);
    }
    let status = request.status.unwrap_or_default();
    let failed = status.conditions.iter().find(|it| it.type_ == "Failed");
    let reason = failed.map(|it| it.reason.as_str()).unwrap_or_default();
    if status.certificate.is_some() || space.secret(name).await.is_some() {
        return Err(format!(
            "{name} was refused ({reason}) and has a certificate"
        ));
    }
    match failed {
        Some(failed) if failed.reason == case.expected && !failed.message.is_empty() => Ok(()),
        other => Err(format!("{name}: {other:?} and not {}", case.expected)),
    }
}

/// What openssl says of the certificate is the profile and nothing else.
fn compare(issued: &Issued, case: &Case) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tls.crt"), &issued.chain).unwrap();
    std::fs::write(folder.path().join("ca.crt"), &issued.ca).unwrap();
    let purpose = [
        "verify",
        "-x509_strict",
        "-purpose",
        "sslclient",
        "-CAfile",
        "ca.crt",
        "tls.crt",
    ];
    openssl(folder.path(), &purpose);
    let text = openssl(
        folder.path(),
        &[
            "x509", "-in", "tls.crt", "-noout", "-text", "-nameopt", "RFC2253",
        ],
    );
    let common_name = issued
        .request
        .status
        .as_ref()
        .and_then(|it| it.common_name.clone())
        .unwrap_or_default();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let extensions: Vec<_> = lines
        .iter()
        .filter(|it| it.starts_with("X509v3") && !it.contains("extensions"))
        .collect();
    let holds = [
        lines.contains(&"Version: 3 (0x2)"),
        lines.contains(&format!("Subject: CN={common_name}").as_str()),
        lines.contains(&"CA:FALSE"),
        lines.contains(&"TLS Web Client Authentication"),
        lines.contains(&"Digital Signature")
            || lines.contains(&"Digital Signature, Key Encipherment"),
        extensions.len() == PROFILE.len()
            && PROFILE
                .iter()
                .all(|it| extensions.iter().any(|line| line.starts_with(it))),
        // An unknown extension would be shown by its number.
        !lines
            .iter()
            .any(|it| it.starts_with("1.") || it.starts_with("2.")),
        is_of(&public_key(&issued.chain), &case.text),
    ];
    if holds.contains(&false) {
        return Err(format!("{}: {holds:?}: {text}", case.name));
    }
    Ok(())
}

/// What openssl calls the extensions.
const PROFILE: [&str; 5] = [
    "X509v3 Basic Constraints: critical",
    "X509v3 Key Usage: critical",
    "X509v3 Extended Key Usage:",
    "X509v3 Subject Key Identifier:",
    "X509v3 Authority Key Identifier:",
];

fn public_key(certificate: &str) -> Vec<u8> {
    let der = pem::parse(certificate).unwrap().into_contents();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    certificate.public_key().raw.to_vec()
}

/// Whether the certificate's key stands in the request as it is. What stands around it no ordinary parser may like.
fn is_of(key: &[u8], request: &[u8]) -> bool {
    let der = pem::parse(request).unwrap().into_contents();
    der.windows(key.len()).any(|it| it == key)
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile/corpus");
    let expected = std::fs::read_to_string(folder.join("expected.tsv")).unwrap();
    let cases = expected.lines().enumerate().filter_map(|(index, line)| {
        let mut words = line.split('\t');
        let (name, expected) = (words.next()?, words.next()?);
        // The API server itself refuses an empty request.
        let taken = (expected == "signed" || index % EVERY == 0) && name != "pem-nothing";
        taken.then(|| Case {
            name: name.to_owned(),
            expected: expected.to_owned(),
            text: std::fs::read(folder.join(format!("{name}.csr"))).unwrap(),
        })
    });
    cases.collect()
}
