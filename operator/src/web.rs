//! Small HTTP of the operator: servers whose connections are bounded in number, bytes and time; and questions to others.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// Out of descriptors, most likely; trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bounds the request head; hyper's minimum is 8 KiB. A token of Kubernetes has 1 to 4 KiB.
const REQUEST_BYTES_MAX: usize = 32 * 1024;
/// Of a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// What is under way may take so long when a connection's time is over.
const ENDING_TIMEOUT: Duration = Duration::from_secs(10);

/// Of an answer that was asked for; what is about the connection is not among them.
const PASSED_BACK: [HeaderName; 5] = [
    ALLOW,
    CACHE_CONTROL,
    CONTENT_TYPE,
    WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
];

pub type Answer = Response<Full<Bytes>>;
pub type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Of one server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At a time; more wait in the backlog.
    pub connections: usize,
    /// After it a connection ends with the request that is under way.
    pub lifetime: Duration,
    /// Whether there may be another request on a connection.
    pub keep_alive: bool,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, limits: Limits, handler: Handler) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    connection(stream, limits, handler).await;
                    drop(place);
                });
            }
            Err(failure) => {
                debug!(%failure, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection to its end.
pub async fn connection<S>(stream: S, limits: Limits, handler: Handler)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(REQUEST_BYTES_MAX)
        .keep_alive(limits.keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Ok(ended),
        () = sleep(limits.lifetime) => {
            served.as_mut().graceful_shutdown();
            timeout(ENDING_TIMEOUT, served).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => debug!(%failure, "bad connection"),
        Err(_) => debug!("a connection took too long"),
    }
}

/// One question, one answer, on a connection of its own.
pub async fn ask<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> anyhow::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    // Ends with this question, also when nobody waits for the answer any more.
    let mut driven = JoinSet::new();
    driven.spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, bytes_max).collect().await;
    let body = body.map_err(|failure| anyhow!("the answer was not read: {failure}"))?;
    let mut answer = Response::new(body.to_bytes());
    *answer.status_mut() = head.status;
    for name in PASSED_BACK {
        if let Some(value) = head.headers.get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    Ok(answer)
}
