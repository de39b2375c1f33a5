//! What the nodes' proxies do with each state of an endpoint, and with its zone, to new connections and to those that are open. Steering is built
//! on it: a pod that gets no new clients keeps those it has. `docs/manager.md` has the table.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::cluster::{BUSYBOX, Cluster, Namespace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(90);
/// Enough that each of two pods has some, but for one time in 30,000.
const CONNECTIONS: usize = 16;
/// Each node of the cluster is a zone of its own.
const ZONES: [&str; 2] = ["node1", "node2"];
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

const PODS: [&str; 2] = ["one", "two"];

/// Conditions of an endpoint; `None`: it is not in the slice.
type Conditions = Option<(bool, bool, bool)>;

const READY: Conditions = Some((true, true, false));
/// As the operator writes a live pod that is to get no new clients.
const FENCED: Conditions = Some((false, true, true));
const GONE: Conditions = Some((false, false, false));

/// Each state of the first and of the second pod, and which of them new connections reach.
const TABLE: &[(&str, [Conditions; 2], &[&str])] = &[
    ("both ready", [READY, READY], &["one", "two"]),
    ("one fenced", [FENCED, READY], &["two"]),
    ("both ready again", [READY, READY], &["one", "two"]),
    ("one removed", [None, READY], &["two"]),
    ("both ready once more", [READY, READY], &["one", "two"]),
    ("all fenced", [FENCED, FENCED], &["one", "two"]),
    ("none serves", [GONE, GONE], &[]),
];

#[tokio::test]
async fn no_state_of_an_endpoint_cuts_what_is_open() -> Result<()> {
    let namespace = Cluster::shared().await?.namespace("endpoints").await?;
    let result = scenario(&namespace).await;
    namespace.explain(result)
}

async fn scenario(namespace: &Namespace) -> Result<()> {
    let addresses = start_pods(namespace).await?;
    namespace.apply(SERVICE).await?;
    let path = "--output=jsonpath={.spec.ports[0].nodePort}";
    let port = namespace.kubectl(&["get", "service", "echo", path]).await?;
    let port = port.parse()?;
    table(namespace, &addresses, port).await?;
    zones(namespace, &addresses, port).await
}

/// Endpoints that say for which zone they are: each node prefers those of its own, and takes others when none there takes new connections.
async fn zones(namespace: &Namespace, addresses: &[String], port: u16) -> Result<()> {
    let cluster = namespace.cluster();
    for (pod, zone) in PODS.iter().zip(ZONES) {
        // From this the operator knows it, without being allowed to see nodes.
        let path = r"--output=jsonpath={.metadata.labels.topology\.kubernetes\.io/zone}";
        let label = namespace.kubectl(&["get", "pod", pod, path]).await?;
        ensure!(label == zone, "{pod} is in zone {label:?}");
    }
    for (states, at_first, at_second) in [
        ([READY, READY], "one", "two"),
        ([FENCED, READY], "two", "two"),
        ([READY, FENCED], "one", "one"),
    ] {
        let slice = slice(addresses, states, Some(ZONES));
        namespace.apply(&slice).await?;
        for (node, expected) in [(1, at_first), (2, at_second)] {
            let entry = SocketAddr::from((cluster.node_address(node)?, port));
            let expected = BTreeSet::from([expected.to_owned()]);
            let as_expected = async || Ok(reached(entry).await == expected);
            let what = format!("{states:?}, from node{node}");
            cluster.wait_for(&what, SOON, as_expected).await?;
        }
    }
    Ok(())
}

async fn table(namespace: &Namespace, addresses: &[String], port: u16) -> Result<()> {
    let cluster = namespace.cluster();
    let entry = SocketAddr::from((cluster.node_address(1)?, port));
    // Whom new connections reach before a row: that is where those have to stay that are opened then.
    let mut before = BTreeSet::new();
    for (name, states, expected) in TABLE {
        let open = if before.is_empty() {
            Vec::new()
        } else {
            connect_all(entry).await?
        };
        namespace.apply(&slice(addresses, *states, None)).await?;
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        let as_expected = async || Ok(reached(entry).await == expected);
        cluster.wait_for(name, SOON, as_expected).await?;
        let mut answered = BTreeSet::new();
        for connection in open {
            let said = ask(connection).await;
            answered.insert(said.with_context(|| format!("{name}: an open connection was cut"))?);
        }
        ensure!(
            answered == before,
            "{name}: {answered:?} answered of {before:?}"
        );
        before = expected;
    }
    Ok(())
}

/// Two servers of their own names; returns their addresses.
async fn start_pods(namespace: &Namespace) -> Result<Vec<String>> {
    let mut addresses = Vec::new();
    for (node, pod) in (1..).zip(PODS) {
        let manifest = format!(
            r"
apiVersion: v1
kind: Pod
metadata: {{name: {pod}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: node{node}}}
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: {BUSYBOX}
      imagePullPolicy: Never
      command: [/bin/sh, -c, 'mkdir /tmp/www; echo {pod} > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www']
"
        );
        namespace.apply(&manifest).await?;
    }
    for pod in PODS {
        let words = [
            "wait",
            "--for=condition=Ready",
            &format!("pod/{pod}"),
            "--timeout=90s",
        ];
        namespace.kubectl(&words).await?;
        let path = "--output=jsonpath={.status.podIP}";
        addresses.push(namespace.kubectl(&["get", "pod", pod, path]).await?);
    }
    Ok(addresses)
}

/// Without a selector: its endpoints are whoever's who writes the slice.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: NodePort
  ports: [{name: http, port: 80, targetPort: 8080}]
";

/// `zones`: for which each endpoint is.
fn slice(addresses: &[String], states: [Conditions; 2], zones: Option<[&str; 2]>) -> String {
    let hint = |number: usize| match zones {
        Some(zones) => format!("\n    hints: {{forZones: [{{name: {}}}]}}", zones[number]),
        None => String::new(),
    };
    let endpoints: String = addresses
        .iter()
        .zip(states)
        .enumerate()
        .filter_map(|(number, (address, state))| Some((number, address, state?)))
        .map(|(number, address, (ready, serving, terminating))| {
            format!(
                "\n  - addresses: [{address}]\n    conditions: {{ready: {ready}, serving: {serving}, terminating: {terminating}}}{}",
                hint(number)
            )
        })
        .collect();
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo-1
  labels:
    kubernetes.io/service-name: echo
    endpointslice.kubernetes.io/managed-by: sluice-test
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints:{endpoints}
"
    )
}

async fn connect_all(entry: SocketAddr) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(TcpStream::connect(entry).await?);
    }
    Ok(open)
}

/// The pods that answer new connections; empty when they are refused.
async fn reached(entry: SocketAddr) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    // Refused connections are what the last row is about.
    for connection in connect_all(entry).await.unwrap_or_default() {
        match ask(connection).await {
            Ok(pod) => reached.insert(pod),
            Err(error) => reached.insert(format!("{error:#}")),
        };
    }
    reached
}

async fn ask(mut connection: TcpStream) -> Result<String> {
    let answer = async {
        connection.write_all(REQUEST).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await??;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    Ok(body.trim().to_owned())
}
