//! The port that data planes attend: TLS, then HTTP/2, then the manager's service. Each step is bounded in time, all of them in
//! number. Whoever asks for HTTP/1.1 is another operator, about the monitor.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use sluice_manager::grpc::{self, Directory};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::monitor;
use crate::web::{self, Handler};

/// A pod has one; more than there can be pods are somebody else's.
const CONNECTIONS_MAX: usize = 12_000;
/// Whoever has connected and not been admitted costs a handshake; a thousand at a time are all pods of a large fleet.
const HANDSHAKES_MAX: usize = 1_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A data plane that is gone without a word is noticed by a ping that it does not answer.
const PING_AFTER: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A data plane opens one, and another one when that has ended.
const STREAMS_PER_CONNECTION: u32 = 4;
/// Out of descriptors, most likely; trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves for ever, once there is a certificate.
pub async fn serve(
    listener: TcpListener,
    mut certificate: watch::Receiver<Option<Arc<ServerConfig>>>,
    directory: Arc<dyn Directory>,
    monitor: Handler,
) {
    if certificate.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let service = grpc::service(directory);
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(config) = certificate.borrow().clone() else {
                    continue;
                };
                let (service, monitor) = (service.clone(), Arc::clone(&monitor));
                let handshakes = Arc::clone(&handshakes);
                connections.spawn(async move {
                    if let Some(stream) = shaken(stream, config, &handshakes).await {
                        connection(stream, service, monitor).await;
                    }
                    drop(place);
                });
            }
            Err(failure) => {
                debug!(%failure, "a data plane's connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn shaken(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    handshakes: &Semaphore,
) -> Option<TlsStream<TcpStream>> {
    let shaken = async {
        let _one = handshakes.acquire().await.ok()?;
        stream.set_nodelay(true).ok()?;
        TlsAcceptor::from(config).accept(stream).await.ok()
    };
    timeout(HANDSHAKE_TIMEOUT, shaken).await.ok().flatten()
}

async fn connection(stream: TlsStream<TcpStream>, service: grpc::Server, monitor: Handler) {
    if stream.get_ref().1.alpn_protocol() == Some(monitor::leader::PROTOCOL) {
        return web::connection(stream, monitor::LIMITS, monitor).await;
    }
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(failure) = served.await {
        debug!(%failure, "a data plane's connection ended");
    }
}
