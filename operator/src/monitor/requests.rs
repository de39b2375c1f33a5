//! Requests are where data planes keep them: any of them knows all, so one is asked, at its admin port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode, request};
use http_body_util::Full;
use sluice_manager::monitor::api::{Answer, Refusal};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::gateway::build::ADMIN_PORT;
use crate::object::DATA_PLANE;
use crate::shelf::Key;
use crate::web;
use crate::world::World;

/// Pods that are tried, one after the other.
const PODS_TRIED: usize = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Many are replayed for up to five seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A body of 1 MiB whose every byte is escaped.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) async fn ask(
    world: &World,
    gateway: &Key,
    head: &request::Parts,
    path: &str,
) -> Result<Answer, Refusal> {
    for address in addresses(world, gateway).into_iter().take(PODS_TRIED) {
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let Ok(Ok(stream)) = connected else {
            debug!(%address, "a data plane was not reached");
            continue;
        };
        let Some(request) = request(address, head, path) else {
            let problem = "this is no path of requests";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, problem));
        };
        // It may have been carried out: it is not said again to another one.
        let asked = web::ask(stream, request, ANSWER_BYTES_MAX);
        return match timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(unavailable(&failure.to_string())),
            Err(_) => Err(unavailable("there is no answer in time")),
        };
    }
    Err(unavailable("none is there that can be reached"))
}

fn unavailable(why: &str) -> Refusal {
    let problem = format!("the data planes do not answer: {why}");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, &problem)
}

fn request(address: SocketAddr, head: &request::Parts, path: &str) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(&head.method)
        .uri(path)
        .header(HOST, address.to_string());
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, kind);
    }
    request.body(Full::new(Bytes::new())).ok()
}

/// Of the data planes that run, those that are ready first.
fn addresses(world: &World, gateway: &Key) -> Vec<SocketAddr> {
    let mut pods = world.pods_of(gateway, DATA_PLANE);
    pods.retain(|pod| !pod.ended);
    pods.sort_by_key(|pod| (!pod.ready, pod.terminating));
    let first = |ips: &[IpAddr]| ips.first().copied();
    let addresses = pods.iter().filter_map(|pod| first(&pod.ips));
    addresses
        .map(|ip| SocketAddr::new(ip, ADMIN_PORT))
        .collect()
}
