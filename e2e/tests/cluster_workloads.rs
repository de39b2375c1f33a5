//! The cluster does what a cluster does: pods on all nodes, Services, DNS, volumes, exec, logs, forwarding, eviction.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::cluster::{BUSYBOX, Cluster, Namespace, SHARED_NODES};
use sluice_e2e::http;
use sluice_e2e::sluice::Scratch;

const SOON: Duration = Duration::from_secs(90);

/// A server of its pod's name, one per node.
fn echo(replicas: usize) -> String {
    let script = "mkdir /tmp/www && echo $NAME on $NODE > /tmp/www/index.html && echo serving \
                  && exec httpd -f -p 8080 -h /tmp/www";
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          labelSelector: {{matchLabels: {{app: echo}}}}
      containers:
        - name: echo
          image: {BUSYBOX}
          imagePullPolicy: Never
          command: [/bin/sh, -c, '{script}']
          env:
            - name: NAME
              valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}
            - name: NODE
              valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}
          ports: [{{containerPort: 8080}}]
          readinessProbe:
            httpGet: {{path: /, port: 8080}}
            periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  type: NodePort
  selector: {{app: echo}}
  ports: [{{port: 80, targetPort: 8080}}]
"
    )
}

async fn with_echo(prefix: &str, replicas: usize) -> Result<Namespace> {
    let namespace = Cluster::shared().await?.namespace(prefix).await?;
    let made = async {
        namespace.apply(&echo(replicas)).await?;
        namespace.rolled_out("deployment/echo", SOON).await
    };
    let made = made.await;
    namespace.explain(made)?;
    Ok(namespace)
}

#[tokio::test]
async fn a_deployment_spreads_over_the_nodes_and_its_service_reaches_all() -> Result<()> {
    let namespace = with_echo("service", SHARED_NODES.into()).await?;
    let result = async {
        let pods = namespace.pods("app=echo").await?;
        let nodes: BTreeSet<&String> = pods.iter().map(|(_, node)| node).collect();
        ensure!(nodes.len() == usize::from(SHARED_NODES), "{pods:?}");
        let expected: BTreeSet<String> = pods
            .iter()
            .map(|(pod, node)| format!("{pod} on {node}"))
            .collect();
        // Every pod of every node asks the Service by its short name until all have answered.
        for (pod, _) in &pods {
            let have_all_answered = async || {
                let line = "for i in $(seq 40); do fetch -t 5 http://echo/; done";
                let answers = namespace.shell(pod, line).await?;
                let answered: BTreeSet<String> = answers.lines().map(ToOwned::to_owned).collect();
                ensure!(answered == expected, "{pod} got {answered:?}");
                Ok(true)
            };
            // A node's proxy learns of a pod some time after the pod is ready.
            let cluster = namespace.cluster();
            cluster
                .wait_for("all answer", SOON, have_all_answered)
                .await?;
        }
        // From outside of the cluster, through any node's port.
        let cluster = namespace.cluster();
        let service = cluster
            .get(&["--namespace", namespace.name(), "service", "echo"])
            .await?;
        let port = service["spec"]["ports"][0]["nodePort"].as_u64();
        let port = u16::try_from(port.context("a NodePort")?)?;
        for node in 1..=SHARED_NODES {
            let address = (cluster.node_address(node)?, port).into();
            let answer = http::get(address, "/").await?;
            ensure!(expected.contains(answer.text().trim()), "{}", answer.text());
        }
        Ok(())
    };
    let result = result.await;
    namespace.explain(result)
}

#[tokio::test]
async fn names_of_the_cluster_resolve_and_no_others() -> Result<()> {
    let namespace = with_echo("dns", 1).await?;
    let result = async {
        let (pod, _) = namespace.pods("app=echo").await?.pop().context("a pod")?;
        let service = namespace
            .kubectl(&[
                "get",
                "service",
                "echo",
                "--output=jsonpath={.spec.clusterIP}",
            ])
            .await?;
        let name = format!("echo.{}.svc.cluster.local", namespace.name());
        let answer = namespace.shell(&pod, &format!("nslookup {name}")).await?;
        ensure!(answer.contains(&service), "{answer}");
        let api = namespace.shell(&pod, "nslookup kubernetes.default.svc.cluster.local");
        ensure!(api.await?.contains(".0.1"), "the API server has a name");
        let other = namespace.shell(&pod, "nslookup example.org").await;
        let refusal = other.err().context("example.org resolved")?;
        ensure!(format!("{refusal:#}").contains("NXDOMAIN"), "{refusal:#}");
        Ok(())
    };
    let result = result.await;
    namespace.explain(result)
}

#[tokio::test]
async fn exec_logs_and_port_forward_work() -> Result<()> {
    let namespace = with_echo("kubectl", 1).await?;
    let result = async {
        let (pod, node) = namespace.pods("app=echo").await?.pop().context("a pod")?;
        let logs = namespace.kubectl(&["logs", &pod]).await?;
        ensure!(logs == "serving\n", "{logs}");
        let said = namespace.shell(&pod, "echo from $NODE; exit 7").await;
        let said = format!("{:#}", said.err().context("exit codes come back")?);
        ensure!(
            said.contains(&format!("from {node}")) && said.contains('7'),
            "{said}"
        );
        for target in [format!("pod/{pod}"), "service/echo".to_owned()] {
            let port = if target.starts_with("pod") { 8080 } else { 80 };
            let forward = namespace.forward(&target, port).await?;
            let answer = http::get(forward.address, "/").await?;
            ensure!(answer.text().contains(&pod), "{target}: {}", answer.text());
        }
        Ok(())
    };
    let result = result.await;
    namespace.explain(result)
}

#[tokio::test]
async fn eviction_honours_a_disruption_budget() -> Result<()> {
    let namespace = with_echo("eviction", 2).await?;
    let result = async {
        let budget = "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: echo}
spec:
  minAvailable: 2
  selector: {matchLabels: {app: echo}}
";
        namespace.apply(budget).await?;
        let cluster = namespace.cluster();
        let observed = async || {
            let path = "--output=jsonpath={.status.currentHealthy}";
            Ok(namespace.kubectl(&["get", "pdb", "echo", path]).await? == "2")
        };
        cluster
            .wait_for("the budget counts", SOON, observed)
            .await?;
        let pods = namespace.pods("app=echo").await?;
        let (pod, _) = pods.first().context("a pod")?;
        let refused = evict(&namespace, pod).await;
        let refused = format!("{:#}", refused.err().context("evicted against the budget")?);
        ensure!(refused.contains("disruption budget"), "{refused}");
        let patch = r#"--patch={"spec":{"minAvailable":1}}"#;
        namespace
            .kubectl(&["patch", "pdb", "echo", "--type=merge", patch])
            .await?;
        let allowed = async || evict(&namespace, pod).await.map(|()| true);
        cluster
            .wait_for("the eviction is allowed", SOON, allowed)
            .await?;
        let replaced = async || {
            let now = namespace.pods("app=echo").await?;
            Ok(now.len() == 2 && now.iter().all(|(name, _)| name != pod))
        };
        cluster
            .wait_for("the pod is replaced", SOON, replaced)
            .await
    };
    let result = result.await;
    namespace.explain(result)
}

async fn evict(namespace: &Namespace, pod: &str) -> Result<()> {
    let name = namespace.name();
    let scratch = Scratch::new()?;
    let body = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}","namespace":"{name}"}}}}"#
    );
    let path = scratch.write("eviction.json", &body)?.display().to_string();
    let url = format!("/api/v1/namespaces/{name}/pods/{pod}/eviction");
    namespace
        .cluster()
        .kubectl(&["create", "--raw", &url, "--filename", &path])
        .await
        .map(drop)
}

const STORE: &str = "
apiVersion: v1
kind: Service
metadata: {name: store}
spec:
  clusterIP: None
  selector: {app: store}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  serviceName: store
  replicas: 1
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, runAsNonRoot: true}
      containers:
        - name: store
          image: BUSYBOX
          imagePullPolicy: Never
          command: [/bin/sh, -c, 'date +%s%N >> /data/starts; exec sleep 100000']
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 10Mi}}
";

#[tokio::test]
async fn a_volume_outlives_its_pod() -> Result<()> {
    let namespace = Cluster::shared().await?.namespace("volume").await?;
    let result = async {
        namespace.apply(&STORE.replace("BUSYBOX", BUSYBOX)).await?;
        namespace.rolled_out("statefulset/store", SOON).await?;
        let first = namespace.shell("store-0", "cat /data/starts").await?;
        ensure!(first.lines().count() == 1, "{first}");
        namespace.kubectl(&["delete", "pod", "store-0"]).await?;
        let again = async || {
            let starts = namespace.shell("store-0", "cat /data/starts").await?;
            Ok(starts.lines().count() == 2 && starts.starts_with(&first))
        };
        let cluster = namespace.cluster();
        cluster.wait_for("the volume is back", SOON, again).await?;
        // With the claim goes the volume, and its folder on the node.
        let volume = [
            "get",
            "pvc",
            "data-store-0",
            "--output=jsonpath={.spec.volumeName}",
        ];
        let volume = namespace.kubectl(&volume).await?;
        namespace
            .kubectl(&["delete", "statefulset,pvc", "--all"])
            .await?;
        let gone = async || {
            let found = ["get", "pv", &volume, "--ignore-not-found", "--output=name"];
            Ok(cluster.kubectl(&found).await?.is_empty())
        };
        cluster.wait_for("the volume is deleted", SOON, gone).await
    };
    let result = result.await;
    namespace.explain(result)
}

#[tokio::test]
async fn pods_against_the_security_standard_are_refused() -> Result<()> {
    let namespace = Cluster::shared().await?.namespace("security").await?;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let cluster = namespace.cluster();
    cluster
        .kubectl(&["label", "namespace", namespace.name(), label])
        .await?;
    let image = format!("--image={BUSYBOX}");
    let words = ["run", "root", &image, "--restart=Never", "--privileged"];
    let refused = namespace.kubectl(&words).await;
    let refused = format!(
        "{:#}",
        refused.err().context("a privileged pod was let in")?
    );
    ensure!(refused.contains("violates PodSecurity"), "{refused}");
    Ok(())
}
