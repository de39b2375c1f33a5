//! Streams of data planes over gRPC: who may speak is the directory's to say, what is decided is the fleet's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::{Stream, StreamExt};
use sluice_proto::fleet::{Malformed, Report};
use sluice_proto::fleet_wire as wire;
use sluice_proto::fleet_wire::fleet_server::{Fleet as Service, FleetServer};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::fleet::{Attendance, Fleet};
use crate::limits::{MESSAGE_BYTES_MAX, STREAM_SILENCE, STREAMS_MAX};

/// Who may speak for which pod.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// `token`: of `authorization: Bearer`. The fleet of the gateway, if this pod of it may attend.
    async fn admit(&self, token: Option<&str>, gateway: &str, pod: &str) -> Result<Fleet, Refusal>;
}

/// Why a data plane is not heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another operator does, or none yet: ask again.
    #[error("this operator does not lead")]
    NotLeading,
    #[error("{0}")]
    Unauthenticated(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Unknown(String),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let words = refusal.to_string();
        match refusal {
            Refusal::NotLeading => Self::unavailable(words),
            Refusal::Unauthenticated(_) => Self::unauthenticated(words),
            Refusal::Forbidden(_) => Self::permission_denied(words),
            Refusal::Unknown(_) => Self::not_found(words),
        }
    }
}

/// What an HTTP/2 server is given.
pub type Server = FleetServer<Streams>;

pub fn service(directory: Arc<dyn Directory>) -> Server {
    let streams = Streams {
        directory,
        open: Arc::default(),
    };
    FleetServer::new(streams)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// All streams of this process.
pub struct Streams {
    directory: Arc<dyn Directory>,
    open: Arc<AtomicUsize>,
}

/// A stream that counts.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Streams {
    fn open(&self) -> Result<Open, Status> {
        let open = Open(Arc::clone(&self.open));
        if open.0.fetch_add(1, Ordering::Relaxed) >= STREAMS_MAX {
            return Err(Status::resource_exhausted("too many data planes attend"));
        }
        Ok(open)
    }
}

#[async_trait]
impl Service for Streams {
    type AttendStream = Pin<Box<dyn Stream<Item = Result<wire::Directive, Status>> + Send>>;

    async fn attend(
        &self,
        request: Request<Streaming<wire::Report>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let open = self.open()?;
        let token = bearer(&request).map(str::to_owned);
        let mut reports = request.into_inner();
        let first = next(&mut reports).await?;
        let fleet = self
            .directory
            .admit(token.as_deref(), &first.gateway, &first.pod)
            .await?;
        let ended = || Status::from(Refusal::NotLeading);
        let attendance = fleet.attend(first.pod.clone()).await.map_err(|_| ended())?;
        let directives = attendance.directives.clone();
        attendance
            .report(first.clone())
            .await
            .map_err(|_| ended())?;
        let (failed, failures) = watch::channel(None);
        let reading = tokio::spawn(async move {
            let why = read(&mut reports, &first, &attendance).await;
            attendance.leave().await;
            debug!(pod = %first.pod, %why, "stream ended");
            failed.send_replace(Some(why));
            drop(open);
        });
        Ok(Response::new(down(directives, failures, reading.into())))
    }
}

fn bearer<T>(request: &Request<T>) -> Option<&str> {
    let value = request.metadata().get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

async fn next(reports: &mut Streaming<wire::Report>) -> Result<Report, Status> {
    let next = timeout(STREAM_SILENCE, reports.message()).await;
    let next = next.map_err(|_| Status::deadline_exceeded("no report came"))?;
    let report = next?.ok_or_else(|| Status::cancelled("the data plane ended the stream"))?;
    Report::try_from(report).map_err(|wrong: Malformed| Status::invalid_argument(wrong.to_string()))
}

/// Until there is nothing more to read, and why.
async fn read(
    reports: &mut Streaming<wire::Report>,
    first: &Report,
    attendance: &Attendance,
) -> Status {
    loop {
        let report = match next(reports).await {
            Ok(report) => report,
            Err(status) => return status,
        };
        // It was admitted as this one.
        if (&report.gateway, &report.pod) != (&first.gateway, &first.pod) {
            return Status::permission_denied("a stream is for one pod");
        }
        if attendance.report(report).await.is_err() {
            return Refusal::NotLeading.into();
        }
    }
}

/// Ends its task with itself.
struct Reading(tokio::task::JoinHandle<()>);

impl From<tokio::task::JoinHandle<()>> for Reading {
    fn from(task: tokio::task::JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Down = Pin<Box<dyn Stream<Item = Result<wire::Directive, Status>> + Send>>;

/// The latest directive each time: one that was overtaken before it was sent is not missed.
fn down(
    directives: watch::Receiver<Option<Arc<sluice_proto::fleet::Directive>>>,
    failures: watch::Receiver<Option<Status>>,
    reading: Reading,
) -> Down {
    let state = (directives, failures, reading, false);
    let stream = futures_util::stream::unfold(
        state,
        |(mut directives, mut failures, reading, over)| async move {
            if over {
                return None;
            }
            let (item, over) = tokio::select! {
                changed = directives.changed() => match changed {
                    Ok(()) => (directives.borrow_and_update().clone().map(|d| Ok(d.as_ref().clone().into())), false),
                    // The fleet has ended, or another stream of the pod has taken its place.
                    Err(_) => (Some(Err(Refusal::NotLeading.into())), true),
                },
                _ = failures.changed() => {
                    let why = failures.borrow_and_update().clone();
                    (Some(Err(why.unwrap_or_else(|| Status::cancelled("the stream ended")))), true)
                }
            };
            Some((item, (directives, failures, reading, over)))
        },
    );
    Box::pin(stream.filter_map(|item| async move { item }))
}
