use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sluice_dataplane::args::ManagerArgs;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::manager::{Manager, directive};
use super::{Plane, WAIT};

/// An authority, and a server's identity that it signed.
struct Authority {
    ca: String,
    server: Arc<ServerConfig>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&own, &issuer).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(leaf.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.serialize_pem().as_bytes()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    Authority {
        ca,
        server: Arc::new(server),
    }
}

fn write(path: &Path, text: &str) {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(partial, path).unwrap();
}

#[tokio::test]
async fn certificates_and_tokens_are_read_anew_for_each_connection() {
    let files = tempfile::tempdir().unwrap();
    let (ca, token) = (files.path().join("ca"), files.path().join("token"));
    let (old, new) = (authority(), authority());
    write(&ca, &old.ca);
    write(&token, "first\n");
    let mut manager = Manager::start_on(0, Some(Arc::clone(&old.server))).await;
    let port = manager.port;
    let plane = Plane::start_with(ManagerArgs {
        url: Some(format!("https://127.0.0.1:{port}").parse().unwrap()),
        ca: Some(ca.clone()),
        token: Some(token.clone()),
        ..ManagerArgs::default()
    })
    .await;
    let mut stream = manager.stream().await;
    assert_eq!(stream.token.as_deref(), Some("Bearer first"));
    stream.direct(directive(1, 1)).await;

    // The next one has a certificate of another authority, which nobody trusts yet.
    drop((manager, stream));
    let mut manager = Manager::start_on(port, Some(Arc::clone(&new.server))).await;
    assert!(manager.nobody_comes(Duration::from_secs(4)).await);
    assert_eq!(plane.metric("sluice_fleet_connected").await, Some(0.0));
    plane.admin("/readyz").await;
    // Both, as while an authority is being replaced; and another token.
    write(&ca, &format!("{}{}", old.ca, new.ca));
    write(&token, "second");
    let mut stream = manager.stream().await;
    assert_eq!(stream.token.as_deref(), Some("Bearer second"));
    stream.direct(directive(2, 1)).await;
    assert_eq!(plane.metric("sluice_fleet_connected").await, Some(1.0));
}

/// Passes on what comes, until it is told to keep everything to itself.
struct Link {
    address: SocketAddr,
    swallows: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    _passing: JoinSet<()>,
}

impl Link {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let swallows = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let (swallow, count) = (Arc::clone(&swallows), Arc::clone(&connections));
        let mut passing = JoinSet::new();
        passing.spawn(async move {
            let mut all = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                all.spawn(pass(near, far, Arc::clone(&swallow)));
            }
        });
        Self {
            address,
            swallows,
            connections,
            _passing: passing,
        }
    }
}

async fn pass(near: TcpStream, far: TcpStream, swallows: Arc<AtomicBool>) {
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let there = copy(&mut near_in, &mut far_out, &swallows);
    let back = copy(&mut far_in, &mut near_out, &swallows);
    // The sockets stay open on both sides until the end.
    tokio::join!(there, back);
}

async fn copy(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    swallows: &AtomicBool,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if !swallows.load(Ordering::Relaxed) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_manager_that_is_gone_without_a_word_is_noticed() {
    let mut manager = Manager::start().await;
    let link = Link::to(manager.port).await;
    let plane = Plane::start_with(ManagerArgs {
        url: Some(format!("http://{}", link.address).parse().unwrap()),
        ..ManagerArgs::default()
    })
    .await;
    let mut stream = manager.stream().await;
    stream.direct(directive(1, 1)).await;
    assert_eq!(link.connections.load(Ordering::Relaxed), 1);
    link.swallows.store(true, Ordering::Relaxed);
    let began = Instant::now();
    while link.connections.load(Ordering::Relaxed) < 2 {
        assert!(began.elapsed() < WAIT, "not noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    // Five, and a busy machine's delays.
    assert!(took < Duration::from_secs(8), "{took:?}");
    plane.admin("/readyz").await;
    plane.events(1).await;
    // Whole again: another stream, without a word from anybody.
    link.swallows.store(false, Ordering::Relaxed);
    let mut stream = manager.stream().await;
    stream.direct(directive(1, 2)).await;
}
