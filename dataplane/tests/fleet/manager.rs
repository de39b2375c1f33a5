//! A manager that says what a test wants, on a real socket.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sluice_proto::fleet::{Directive, Report, Version};
use sluice_proto::fleet_wire as wire;
use sluice_proto::fleet_wire::fleet_server::{Fleet, FleetServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use super::WAIT;

/// Streams that wait for the test.
const STREAMS_MAX: usize = 16;

pub(crate) struct Manager {
    pub(crate) port: u16,
    attended: mpsc::Receiver<Attended>,
    /// Its connections end with it, as those of a killed process.
    _serving: JoinSet<()>,
}

/// A stream of a data plane.
pub(crate) struct Attended {
    pub(crate) token: Option<String>,
    reports: Streaming<wire::Report>,
    directives: mpsc::Sender<Result<wire::Directive, Status>>,
}

#[derive(Clone)]
struct Script(mpsc::Sender<Attended>);

type Directives = Pin<Box<dyn Stream<Item = Result<wire::Directive, Status>> + Send>>;

#[tonic::async_trait]
impl Fleet for Script {
    type AttendStream = Directives;

    async fn attend(
        &self,
        request: Request<Streaming<wire::Report>>,
    ) -> Result<Response<Directives>, Status> {
        let token = request.metadata().get("authorization");
        let token = token.map(|token| token.to_str().unwrap().to_owned());
        let (directives, said) = mpsc::channel(16);
        let attended = Attended {
            token,
            reports: request.into_inner(),
            directives,
        };
        self.0
            .send(attended)
            .await
            .map_err(|_| Status::unavailable("not leading"))?;
        let said = futures_util::stream::unfold(said, |mut said| async {
            said.recv().await.map(|next| (next, said))
        });
        Ok(Response::new(Box::pin(said)))
    }
}

impl Manager {
    pub(crate) async fn start() -> Self {
        Self::start_on(0, None).await
    }

    /// On a port of its own choice with 0.
    pub(crate) async fn start_on(port: u16, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = loop {
            // The one before may have to let go of it first.
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let port = listener.local_addr().unwrap().port();
        let (sender, attended) = mpsc::channel(STREAMS_MAX);
        let service = FleetServer::new(Script(sender));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (service, tls) = (service.clone(), tls.clone());
                connections.spawn(serve(tcp, tls, service));
            }
        });
        Self {
            port,
            attended,
            _serving: serving,
        }
    }

    pub(crate) async fn stream(&mut self) -> Attended {
        let next = timeout(WAIT, self.attended.recv()).await;
        next.expect("nobody attends").expect("it serves")
    }

    pub(crate) async fn nobody_comes(&mut self, within: Duration) -> bool {
        timeout(within, self.attended.recv()).await.is_err()
    }
}

async fn serve(
    tcp: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    service: FleetServer<Script>,
) {
    let service = service_fn(move |request| service.clone().call(request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    // How a connection ends is what its data plane sees.
    match tls {
        None => drop(builder.serve_connection(TokioIo::new(tcp), service).await),
        Some(tls) => {
            if let Ok(stream) = TlsAcceptor::from(tls).accept(tcp).await {
                drop(
                    builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            }
        }
    }
}

impl Attended {
    pub(crate) async fn report(&mut self) -> Report {
        let next = timeout(WAIT, self.reports.message()).await;
        let report = next.expect("no report").unwrap().expect("the stream ended");
        Report::try_from(report).unwrap()
    }

    /// The first report of which this is true.
    pub(crate) async fn report_where(
        &mut self,
        what: &str,
        fits: impl Fn(&Report) -> bool,
    ) -> Report {
        let mut last = None;
        let all = async {
            loop {
                let report = self.report().await;
                if fits(&report) {
                    return report;
                }
                last = Some(report);
            }
        };
        let found = timeout(WAIT, all).await;
        found.unwrap_or_else(|_| panic!("not {what}: {last:#?}"))
    }

    pub(crate) async fn say(&self, directive: Directive) {
        self.directives.send(Ok(directive.into())).await.unwrap();
    }

    /// Says it in answer to the next report, and returns the one that says that it is in force.
    pub(crate) async fn direct(&mut self, directive: Directive) -> Report {
        let version = directive.version;
        let answers = self.report().await.sequence;
        let directive = Directive {
            answers,
            ..directive
        };
        self.say(directive).await;
        self.report_where("in force", |report| report.applied == version)
            .await
    }
}

pub(crate) fn directive(term: u64, generation: u64) -> Directive {
    Directive {
        version: Version { term, generation },
        ..Directive::default()
    }
}
