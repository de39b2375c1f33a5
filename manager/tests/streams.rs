//! Data planes of this release, of the one before and of the one after, over real connections.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use sluice_manager::grpc::{self, Directory, Refusal};
use sluice_manager::{Fleet, PodState, Policy, Rebalance, Scaling};
use sluice_proto::fleet::CapKey;
use sluice_proto::fleet_wire as wire;
use sluice_proto::fleet_wire::fleet_client::FleetClient;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

const WAIT: Duration = Duration::from_secs(15);

fn policy() -> Policy {
    Policy {
        applications: std::collections::BTreeSet::new(),
        caps: BTreeMap::from([(CapKey::Gateway, 600.0)]),
        scaling: Scaling {
            max: 2,
            connections_per_replica: 1_000,
            ..Scaling::default()
        },
        rebalance: Rebalance::Steer,
        moves_per_second: None,
        fence_delay: Duration::from_secs(15),
        steering: true,
    }
}

/// Knows `n/g` and the token `right`.
struct Known(Fleet);

#[async_trait]
impl Directory for Known {
    async fn admit(&self, token: Option<&str>, gateway: &str, _: &str) -> Result<Fleet, Refusal> {
        match (token, gateway) {
            (Some("right"), "n/g") => Ok(self.0.clone()),
            (Some("right"), "n/elsewhere") => Err(Refusal::NotLeading),
            (Some("right"), _) => Err(Refusal::Unknown("no such gateway".to_owned())),
            (Some(_), _) => Err(Refusal::Forbidden("not yours".to_owned())),
            (None, _) => Err(Refusal::Unauthenticated("no token".to_owned())),
        }
    }
}

async fn serve(fleet: Fleet) -> FleetClient<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = grpc::service(Arc::new(Known(fleet)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            let served = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(
                async move { served.serve_connection(TokioIo::new(stream), service).await },
            );
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    FleetClient::new(endpoint.connect().await.unwrap())
}

fn report(pod: &str, sequence: u64) -> wire::Report {
    wire::Report {
        gateway: "n/g".to_owned(),
        pod: pod.to_owned(),
        instance: "one".to_owned(),
        sequence,
        ..wire::Report::default()
    }
}

async fn attend(
    client: &mut FleetClient<Channel>,
    token: Option<&str>,
    first: wire::Report,
) -> Result<(mpsc::Sender<wire::Report>, Streaming<wire::Directive>), Status> {
    let (sender, reports) = mpsc::channel(4);
    sender.send(first).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(reports));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let directives = timeout(WAIT, client.attend(request)).await.unwrap()?;
    Ok((sender, directives.into_inner()))
}

#[tokio::test]
async fn who_may_not_attend_is_told_why() {
    let (fleet, run) = Fleet::start(1, policy());
    tokio::spawn(run);
    let mut client = serve(fleet).await;
    let of = |gateway: &str| wire::Report {
        gateway: gateway.to_owned(),
        ..report("a", 1)
    };
    let cases = [
        (None, of("n/g"), Code::Unauthenticated),
        (Some("wrong"), of("n/g"), Code::PermissionDenied),
        (Some("right"), of("n/elsewhere"), Code::Unavailable),
        (Some("right"), of("n/other"), Code::NotFound),
        (Some("right"), report("", 1), Code::InvalidArgument),
    ];
    for (token, first, code) in cases {
        let refused = attend(&mut client, token, first.clone()).await.err();
        assert_eq!(
            refused.map(|status| status.code()),
            Some(code),
            "{token:?} {first:?}"
        );
    }
    // A stream is for the pod that it was opened for.
    let (sender, mut directives) = attend(&mut client, Some("right"), report("a", 1))
        .await
        .unwrap();
    sender.send(report("b", 2)).await.unwrap();
    let ended = loop {
        match timeout(WAIT, directives.message()).await.unwrap() {
            Ok(said) => assert!(said.is_some(), "it ended without a word"),
            Err(status) => break status.code(),
        }
    };
    assert_eq!(ended, Code::PermissionDenied);
}

#[tokio::test]
async fn releases_before_and_after_are_led_and_a_silent_one_is_ended() {
    let (fleet, run) = Fleet::start(7, policy());
    tokio::spawn(run);
    let mut plans = fleet.plans();
    let mut client = serve(fleet).await;
    // The release before says the least; the one after says a phase that nobody knows here.
    let (_silent, mut before) = attend(&mut client, Some("right"), report("before", 1))
        .await
        .unwrap();
    let later = wire::Report {
        phase: 77,
        release: "9.0.0".to_owned(),
        ..report("after", 1)
    };
    let (after_sender, mut after) = attend(&mut client, Some("right"), later).await.unwrap();
    for directives in [&mut before, &mut after] {
        let said = timeout(WAIT, directives.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!((said.term, said.answers), (7, 1));
        assert!(said.generation > 0 && said.valid_ms > 0);
    }
    let attends = |plan: &Arc<sluice_manager::PlanSummary>| {
        plan.pods.len() == 2
            && plan
                .pods
                .values()
                .all(|pod| pod.state == PodState::Accepting)
    };
    timeout(WAIT, plans.wait_for(attends))
        .await
        .unwrap()
        .unwrap();
    // One goes on to report; the other's stream ends.
    let reports = tokio::spawn(async move {
        for sequence in 2.. {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if after_sender.send(report("after", sequence)).await.is_err() {
                return;
            }
        }
    });
    let ended = loop {
        match timeout(WAIT, before.message()).await.unwrap() {
            Ok(said) => assert!(said.is_some(), "it ended without a word"),
            Err(status) => break status.code(),
        }
    };
    assert_eq!(ended, Code::DeadlineExceeded);
    assert!(!reports.is_finished());
    reports.abort();
}

/// Pods have heard a manager whose clock was ahead: the next one speaks in a higher term all the same.
#[tokio::test]
async fn a_manager_with_a_clock_that_is_behind_is_heard() {
    let (fleet, run) = Fleet::start(5, policy());
    tokio::spawn(run);
    let mut client = serve(fleet).await;
    let first = wire::Report {
        applied_term: 900,
        applied_generation: 3,
        ..report("a", 1)
    };
    let (_sender, mut directives) = attend(&mut client, Some("right"), first).await.unwrap();
    let said = timeout(WAIT, directives.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(said.term, 901);
}
