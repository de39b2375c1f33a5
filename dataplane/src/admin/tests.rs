use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;
use crate::config::tests::sample;

struct Server {
    address: SocketAddr,
    readiness: Readiness,
    drain: Drain,
    task: tokio::task::JoinHandle<()>,
    /// Keeps the configuration's channel open, as the process does.
    _config: watch::Sender<Arc<GatewayConfig>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn server() -> Server {
    let mut registry = Registry::default();
    crate::resources::register(&mut registry);
    let config = watch::Sender::new(Arc::new(sample()));
    let (readiness, drain) = (Readiness::default(), Drain::new());
    let state = AdminState {
        readiness: readiness.clone(),
        drain: drain.clone(),
        registry: Arc::new(registry),
        config: config.subscribe(),
        log: LogControl::detached("info"),
        routes: Vec::new(),
    };
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), state)
        .await
        .unwrap();
    let address = admin.local_addr().unwrap();
    Server {
        address,
        readiness,
        drain,
        task: tokio::spawn(admin.serve()),
        _config: config,
    }
}

impl Server {
    /// Sends the bytes as they are and reads until the server closes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is fine.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.raw(request.as_bytes()).await;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        (
            status,
            answer
                .split_once("\r\n\r\n")
                .map(|(_, body)| body.to_owned())
                .unwrap_or_default(),
        )
    }
}

#[tokio::test]
async fn ready_follows_guards_and_drain() {
    let server = server().await;
    let (store, listeners) = (
        server.readiness.guard("store"),
        server.readiness.guard("listeners"),
    );
    assert_eq!(
        server.request("GET", "/livez", "").await,
        (200, "ok\n".to_owned())
    );
    let missing = "waiting for listeners\nwaiting for store\n".to_owned();
    assert_eq!(server.request("GET", "/readyz", "").await, (503, missing));
    store.release();
    listeners.release();
    assert_eq!(
        server.request("GET", "/readyz", "").await,
        (200, "ok\n".to_owned())
    );
    let _watcher = server.drain.subscribe();
    server.drain.start(Duration::from_secs(60));
    assert_eq!(
        server.request("GET", "/readyz", "").await,
        (503, "draining\n".to_owned())
    );
    assert_eq!(server.request("GET", "/livez", "").await.0, 200);
}

#[tokio::test]
async fn metrics_and_configuration() {
    let server = server().await;
    let (status, body) = server.request("GET", "/metrics", "").await;
    assert_eq!(status, 200);
    assert!(
        body.contains("\nprocess_cpu_seconds_total ") && body.ends_with("# EOF\n"),
        "{body}"
    );
    let (status, body) = server.request("GET", "/config", "").await;
    assert_eq!(status, 200);
    assert!(
        body.contains("name: \"game\"") && body.contains("Secret(14 bytes)"),
        "{body}"
    );
    assert!(!body.contains("top-secret"), "{body}");
}

#[tokio::test]
async fn the_log_filter_is_read_and_set() {
    let server = server().await;
    assert_eq!(
        server.request("GET", "/log", "").await,
        (200, "info\n".to_owned())
    );
    assert_eq!(
        server.request("PUT", "/log", "warn,hyper=error\n").await.0,
        200
    );
    assert_eq!(
        server.request("GET", "/log", "").await.1,
        "warn,hyper=error\n"
    );
    let (status, body) = server.request("PUT", "/log", "loud").await;
    assert!(
        status == 400 && body.contains("\"loud\""),
        "{status} {body}"
    );
    assert_eq!(server.request("PUT", "/log", "").await.0, 400);
    assert_eq!(
        server
            .request("PUT", "/log", &"info,".repeat(2_000))
            .await
            .0,
        413
    );
    assert_eq!(
        server.request("GET", "/log", "").await.1,
        "warn,hyper=error\n"
    );
}

#[tokio::test]
async fn other_requests_are_refused() {
    let server = server().await;
    assert_eq!(server.request("GET", "/", "").await.0, 404);
    assert_eq!(server.request("POST", "/livez", "").await.0, 405);
    assert_eq!(server.request("DELETE", "/log", "").await.0, 405);
    assert!(
        server
            .raw(b"HEAD /livez HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        server
            .raw(b"\x16\x03\x01 no http\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    let long = format!(
        "GET /livez HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(2 * ADMIN_REQUEST_BYTES_MAX)
    );
    assert!(
        !server
            .raw(long.as_bytes())
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert_eq!(server.request("GET", "/livez", "").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn slow_clients_lose_their_place() {
    let server = server().await;
    let start = Instant::now();
    let mut slow = Vec::new();
    for index in 0..ADMIN_CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // Half of them stop in the head, half in the body.
        let part: &[u8] = if index % 2 == 0 {
            b"GET /li"
        } else {
            b"PUT /log HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"
        };
        stream.write_all(part).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(server.request("GET", "/livez", "").await.0, 200);
    assert!(
        start.elapsed() <= ADMIN_CONNECTION_TIMEOUT,
        "{:?}",
        start.elapsed()
    );
    for mut stream in slow {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert!(
        start.elapsed() <= ADMIN_CONNECTION_TIMEOUT + ADMIN_HEADER_TIMEOUT,
        "{:?}",
        start.elapsed()
    );
}
