//! The upstream's sockets: HTTP/1.1 for its clients, on one thread.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::control;
use super::incoming::{Reply, Request};
use super::parameters::Parameters;
use super::record::Copy;
use super::settings::FaultKind;
use super::state::{State, Step};
use crate::load::clock::now_ns;

/// How often a listener looks whether the upstream is to be down.
const DOWN_CHECK: Duration = Duration::from_millis(5);

/// What all connections share.
#[derive(Clone)]
pub struct Shared {
    pub state: Rc<RefCell<State>>,
    /// Changes when all connections are to be closed.
    closing: watch::Sender<u64>,
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

impl Shared {
    #[must_use]
    pub fn new(state: State) -> Self {
        Self {
            state: Rc::new(RefCell::new(state)),
            closing: watch::Sender::new(0),
        }
    }

    /// Serves clients, and is down when the settings say so. Runs within a `LocalSet`.
    pub async fn serve(self, listener: TcpListener) -> Result<Infallible> {
        let address = listener.local_addr()?;
        let mut listener = Some(listener);
        loop {
            let down = self.state.borrow().settings.is_down(now_ns());
            if down && listener.take().is_some() {
                self.closing.send_modify(|times| *times += 1);
            }
            if down {
                sleep(DOWN_CHECK).await;
                continue;
            }
            let open = match listener.take() {
                Some(listener) => listener,
                None => bind(address)?,
            };
            tokio::select! {
                accepted = open.accept() => {
                    if let Ok((stream, _)) = accepted {
                        self.state.borrow_mut().stats.connections += 1;
                        spawn_local(self.clone().connection(stream, false));
                    }
                }
                () = sleep(DOWN_CHECK) => {}
            }
            listener = Some(open);
        }
    }

    /// Serves the control endpoint alone; never down.
    pub async fn serve_control(self, listener: TcpListener) -> Result<Infallible> {
        loop {
            let (stream, _) = listener.accept().await?;
            spawn_local(self.clone().connection(stream, true));
        }
    }

    async fn connection(self, stream: TcpStream, control: bool) {
        let _ = stream.set_nodelay(true);
        let mut closing = self.closing.subscribe();
        closing.mark_unchanged();
        let service = service_fn(|request| self.answer(request, control));
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), service);
        let ended = tokio::select! {
            ended = serving => ended,
            _ = closing.changed(), if !control => return,
        };
        if ended.is_err_and(|error| error.is_parse()) {
            self.state.borrow_mut().stats.unreadable += 1;
        }
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        control: bool,
    ) -> Result<hyper::Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = head.uri.path().to_owned();
        if control || path.starts_with("/_") {
            let query = head.uri.query().unwrap_or_default();
            return respond(control::answer(&self.state, &path, query, &body));
        }
        if path == "/ping" {
            return self.ping().await;
        }
        let header = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        self.state.borrow_mut().keep(|| {
            let headers = head.headers.iter().map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.as_str().to_owned(), value)
            });
            let target = head
                .uri
                .path_and_query()
                .map_or("", |target| target.as_str());
            Copy::new(head.method.as_str(), target, headers.collect(), &body)
        });
        let request = Request {
            method: head.method.as_str().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            content_type: header("content-type"),
            path,
            body,
        };
        let step = self.state.borrow_mut().arrive(now_ns(), &request);
        match step {
            Step::Answer(reply) => respond(reply),
            Step::Close => Err(Closed.into()),
            Step::Hang => std::future::pending().await,
            Step::Serve { done_ns, job } => {
                let state = Rc::clone(&self.state);
                // A task of its own, so that it is carried out even when the client goes away meanwhile.
                let job = spawn_local(async move {
                    let wait_ns = done_ns.saturating_sub(now_ns());
                    if wait_ns > 0 {
                        sleep(Duration::from_nanos(wait_ns)).await;
                    }
                    state.borrow_mut().finish(now_ns(), job)
                });
                respond(job.await?.ok_or(Closed)?)
            }
        }
    }

    async fn ping(&self) -> Result<hyper::Response<Full<Bytes>>> {
        let sick = self.state.borrow().sick(now_ns());
        match sick {
            Some(FaultKind::Reply { status, body, .. }) => respond(Reply::json(status, body)),
            Some(FaultKind::BlackHole) => std::future::pending().await,
            Some(FaultKind::CloseBefore | FaultKind::CloseAfter | FaultKind::Down) => {
                Err(Closed.into())
            }
            Some(FaultKind::Html | FaultKind::Delay { .. }) | None => {
                respond(Reply::result(200, "Success"))
            }
        }
    }
}

/// What a call that is no data gets: a server configuration, or an echo.
#[must_use]
pub fn call(request: &Request, parameters: &Parameters) -> Reply {
    match request.path.as_str() {
        "/o/sdk" if parameters.get("method") == Some("sc") => Reply::json(
            200,
            json!({ "v": 1, "t": 1, "c": { "tracking": true } }).to_string(),
        ),
        path if path.starts_with("/o/feedback/") || path.starts_with("/o/surveys/") => Reply {
            content_type: "text/html; charset=utf-8",
            ..Reply::json(200, "<html><body>widget</body></html>")
        },
        path if path.starts_with("/o") || path.starts_with("/i/") => {
            let parameters: serde_json::Map<_, _> = parameters
                .names()
                .filter_map(|name| Some((name.to_owned(), json!(parameters.get(name)?))))
                .collect();
            let echo = json!({
                "method": request.method, "path": path, "query": request.query, "parameters": parameters,
            });
            Reply::json(200, echo.to_string())
        }
        _ => Reply::result(400, "Invalid path"),
    }
}

fn respond(reply: Reply) -> Result<hyper::Response<Full<Bytes>>> {
    let mut response = hyper::Response::builder()
        .status(reply.status)
        .header("Content-Type", reply.content_type)
        .header("Access-Control-Allow-Origin", "*");
    if let Some(seconds) = reply.retry_after_s {
        response = response.header("Retry-After", seconds);
    }
    Ok(response.body(Full::new(reply.body.into()))?)
}

/// Binds so that a restarted upstream gets its port back at once.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(address)
        .with_context(|| format!("cannot listen on {address}"))?;
    Ok(socket.listen(4096)?)
}
