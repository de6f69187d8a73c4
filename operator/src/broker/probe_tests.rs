use super::probe::{ClientPair, PROTOCOL_HEADER, Probe, RefusedBy, probe};
use crate::pki::{self, Authority, ProbePair, RevocationReason, Revoked, SerialNumber};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs,
};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const START: &[u8] = b"\x01\x00\x00\x00\x00\x01\xfa\x00\x0a\x00\x0a\x00\x09";

fn authority(instance: &str) -> Authority {
    let (settings, now) = (
        volttron_crds::GeneratedAuthority::default(),
        Timestamp::now(),
    );
    let pair = pki::generate(&instance.parse().unwrap(), &settings, 1, now).unwrap();
    Authority::load(&pair.certificate, &pair.key, None, now).unwrap()
}

fn client(authority: &Authority, serial: &SerialNumber) -> ProbePair {
    pki::issue_probe_pair(authority, serial, Timestamp::now()).unwrap()
}

fn certificates(text: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

/// A server that answers a client of `authority` as a broker does. Returns its address and its
/// certificate (DER).
async fn broker(
    authority: &Authority,
    revoked: &[SerialNumber],
    version: &'static SupportedProtocolVersion,
    answer: &'static [u8],
) -> (String, Vec<u8>) {
    let now = Timestamp::now();
    let entries: Vec<_> = revoked
        .iter()
        .map(|serial| Revoked {
            serial: serial.clone(),
            at: now,
            reason: RevocationReason::PrivilegeWithdrawn,
        })
        .collect();
    let list = pki::sign_revocation_list(authority, 1, &entries, now).unwrap();
    let pair = pki::issue_server_pair(authority, &["localhost".to_owned()], now).unwrap();
    let chain = certificates(&pair.chain);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(authority.bundle()));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .with_crls([CertificateRevocationListDer::from_pem_slice(list.pem.as_bytes()).unwrap()])
        .build()
        .unwrap();
    let own = chain[0].to_vec();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            chain,
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let mut header = [0; 8];
            let _ = tls.read_exact(&mut header).await;
            assert_eq!(header, PROTOCOL_HEADER);
            let _ = tls.write_all(answer).await;
            let _ = tls.shutdown().await;
        }
    });
    (address, own)
}

async fn ask(address: &str, roots: &str, pair: &ProbePair) -> Probe {
    let client = ClientPair {
        chain: &pair.chain,
        key: &pair.key,
    };
    probe(address, "localhost", roots, Some(client)).await
}

#[tokio::test]
async fn a_certificate_is_accepted_when_the_broker_goes_on_to_amqp() {
    let authority = self::authority("central");
    let pair = client(&authority, &SerialNumber::random());
    for version in [&TLS12, &TLS13] {
        let (address, own) = broker(&authority, &[], version, START).await;
        let found = ask(&address, authority.bundle(), &pair).await;
        let Probe::Accepted { server_chain } = found else {
            panic!("{version:?}: {found}");
        };
        assert_eq!(server_chain.first(), Some(&own), "{version:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_by_its_alert() {
    let authority = self::authority("central");
    let elsewhere = self::authority("elsewhere");
    let (good, bad) = (SerialNumber::random(), SerialNumber::random());
    let long_ago = Timestamp::now() - SignedDuration::from_hours(3);
    let stale = pki::generate(
        &"central".parse().unwrap(),
        &volttron_crds::GeneratedAuthority::default(),
        1,
        long_ago - SignedDuration::from_hours(1),
    )
    .unwrap();
    let stale = Authority::load(&stale.certificate, &stale.key, None, long_ago).unwrap();
    let expired = pki::issue_probe_pair(&stale, &good, long_ago).unwrap();
    for version in [&TLS12, &TLS13] {
        let (address, _) = broker(&authority, std::slice::from_ref(&bad), version, START).await;
        let roots = authority.bundle();
        let revoked = ask(&address, roots, &client(&authority, &bad)).await;
        assert_eq!(revoked, Probe::Refused(RefusedBy::Revoked), "{version:?}");
        let unknown = ask(&address, roots, &client(&elsewhere, &good)).await;
        assert_eq!(unknown, Probe::Refused(RefusedBy::UnknownCa), "{version:?}");

        let (address, _) = broker(&stale, &[], version, START).await;
        let old = ask(&address, stale.bundle(), &expired).await;
        assert_eq!(old, Probe::Refused(RefusedBy::Expired), "{version:?}");
    }
    let (address, _) = broker(&authority, &[], &TLS13, START).await;
    let none = probe(&address, "localhost", authority.bundle(), None).await;
    let required = RefusedBy::Other(AlertDescription::CertificateRequired);
    assert_eq!(none, Probe::Refused(required));
}

#[tokio::test]
async fn a_broker_that_others_vouch_for_is_mistrusted() {
    let (authority, elsewhere) = (authority("central"), authority("elsewhere"));
    let pair = client(&authority, &SerialNumber::random());
    let (address, _) = broker(&authority, &[], &TLS13, START).await;
    let found = ask(&address, elsewhere.bundle(), &pair).await;
    assert!(matches!(found, Probe::Mistrusted(_)), "{found}");
    let client = ClientPair {
        chain: &pair.chain,
        key: &pair.key,
    };
    let found = probe(&address, "elsewhere", authority.bundle(), Some(client)).await;
    assert!(matches!(found, Probe::Mistrusted(_)), "{found}");
}

/// An alert can be lost on the way: silence is neither yes nor no.
#[tokio::test]
async fn what_says_nothing_is_unreachable() {
    let authority = self::authority("central");
    let pair = client(&authority, &SerialNumber::random());
    let roots = authority.bundle();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let closes = tokio::spawn(async move { drop(listener.accept().await) });
    let found = ask(&address, roots, &pair).await;
    assert!(matches!(found, Probe::Unreachable(_)), "{found}");
    closes.await.unwrap();
    let found = ask(&address, roots, &pair).await;
    assert!(matches!(found, Probe::Unreachable(_)), "{found}");

    for answer in [b"", &b"AMQP\x00\x01\x00\x00\x00\x00\x00"[..]] {
        let (address, _) = broker(&authority, &[], &TLS13, answer).await;
        let found = ask(&address, roots, &pair).await;
        assert!(
            matches!(found, Probe::Unreachable(_)),
            "{answer:?}: {found}"
        );
    }
    let found = ask("no-port", "not PEM", &pair).await;
    assert!(matches!(found, Probe::Unreachable(_)), "{found}");
}
