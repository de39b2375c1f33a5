//! Handshakes with real clients, and the errors of material that cannot be served.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sluice_crds::config::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;

pub(crate) struct Issued {
    certificate: rcgen::Certificate,
    pub(crate) material: TlsMaterial,
}

pub(crate) fn issue() -> Issued {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let material = material(&issued.cert.pem(), &issued.signing_key.serialize_pem());
    Issued {
        certificate: issued.cert,
        material,
    }
}

fn material(certificate: &str, private_key: &str) -> TlsMaterial {
    TlsMaterial {
        certificate: Secret::new(certificate.as_bytes()),
        private_key: Secret::new(private_key.as_bytes()),
    }
}

pub(crate) fn trusting(
    issued: &Issued,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(issued.certificate.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

type Connected = (
    client::TlsStream<DuplexStream>,
    server::TlsStream<DuplexStream>,
);

async fn connect(
    certificates: &Certificates,
    client: &Arc<ClientConfig>,
) -> std::io::Result<Connected> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::clone(client)).connect(name, near);
    tokio::try_join!(
        connecting,
        TlsAcceptor::from(certificates.current()).accept(far)
    )
}

async fn echo(connected: &mut Connected) {
    let (client, server) = connected;
    client.write_all(b"ping").await.unwrap();
    let mut buffer = [0; 4];
    server.read_exact(&mut buffer).await.unwrap();
    server.write_all(&buffer).await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"ping");
}

#[tokio::test]
async fn replacing_serves_new_connections_and_leaves_old_ones() {
    let (old, new) = (issue(), issue());
    let certificates = Certificates::new(&old.material).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        certificates.replace(&old.material).unwrap();
        let (trusts_old, trusts_new) = (
            trusting(&old, version, &["http/1.1"]),
            trusting(&new, version, &[]),
        );
        let mut before = connect(&certificates, &trusts_old).await.unwrap();
        assert_eq!(before.0.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert!(connect(&certificates, &trusts_new).await.is_err());
        certificates.replace(&new.material).unwrap();
        let mut after = connect(&certificates, &trusts_new).await.unwrap();
        let shown = after.0.get_ref().1.peer_certificates().unwrap()[0].clone();
        assert_eq!(&shown, new.certificate.der());
        echo(&mut before).await;
        echo(&mut after).await;
        let stranger = trusting(&old, version, &[]);
        assert!(connect(&certificates, &stranger).await.is_err());
    }
}

#[tokio::test]
async fn sessions_are_resumed_without_a_store() {
    let issued = issue();
    let certificates = Certificates::new(&issued.material).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = trusting(&issued, version, &[]);
        for wanted in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let mut connected = connect(&certificates, &client).await.unwrap();
            echo(&mut connected).await;
            assert_eq!(
                connected.1.get_ref().1.handshake_kind(),
                Some(wanted),
                "{version:?}"
            );
        }
    }
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let issued = issue();
    let certificates = Certificates::new(&issued.material).unwrap();
    let both = trusting(&issued, &rustls::version::TLS13, &["http/1.1", "h2"]);
    let connected = connect(&certificates, &both).await.unwrap();
    assert_eq!(connected.0.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let other = trusting(&issued, &rustls::version::TLS13, &["spdy/3"]);
    assert!(connect(&certificates, &other).await.is_err());
}

#[test]
fn unusable_material_is_told_and_changes_nothing() {
    let (a, b) = (rcgen::generate_simple_self_signed(vec![]).unwrap(), issue());
    let (certificate, key) = (a.cert.pem(), a.signing_key.serialize_pem());
    let other_key = std::str::from_utf8(b.material.private_key.expose()).unwrap();
    let certificates = Certificates::new(&b.material).unwrap();
    let before = certificates.current();
    let broken_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (certificate, key, wanted) in [
        (
            certificate.as_str(),
            other_key,
            "the private key does not belong to the certificate",
        ),
        (
            "",
            key.as_str(),
            "certificate: no PEM section \"CERTIFICATE\"",
        ),
        (
            key.as_str(),
            key.as_str(),
            "certificate: no PEM section \"CERTIFICATE\"",
        ),
        (
            certificate.as_str(),
            "",
            "private key: no PEM section with a key",
        ),
        (
            certificate.as_str(),
            certificate.as_str(),
            "private key: no PEM section with a key",
        ),
        (
            "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n",
            key.as_str(),
            "certificate: not PEM",
        ),
        (
            &certificate.repeat(17),
            key.as_str(),
            "certificate: chain of more than 16",
        ),
    ] {
        let error = certificates
            .replace(&material(certificate, key))
            .unwrap_err();
        assert_eq!(error.to_string(), wanted);
    }
    let error = certificates
        .replace(&material(&certificate, broken_key))
        .unwrap_err();
    assert!(matches!(error, TlsError::PrivateKey(_)), "{error}");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = certificates.replace(&material(broken, &key)).unwrap_err();
    assert!(matches!(error, TlsError::Certificate(_)), "{error}");
    assert!(Arc::ptr_eq(&before, &certificates.current()));
}
