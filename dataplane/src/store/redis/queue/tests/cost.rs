//! What an entry costs the server, against one `XADD` per request: a third of the memory and half of the CPU at most.
//!
//! Runs with the other tests, at 10,000 requests per second. `SLUICE_COST_RATES=1000,10000` sets rates of one's own:
//!
//! `cargo test --release -p sluice-dataplane --lib redis::queue::tests::cost -- --nocapture`
//!
//! For each rate it prints bytes and CPU microseconds per request, `plain` for the `XADD` and `own` for the queue, then
//! what the server says of its commands.

use super::*;
use futures_util::future::join_all;
use sluice_e2e::timing::{Promises, kept_in_one_run};

/// About what an SDK sends.
fn request(number: u64) -> Bytes {
    let device = fastrand::u64(..);
    let events: Vec<String> = (0..4)
        .map(|event| {
            let (key, level) = (fastrand::u8(..20), fastrand::u16(..));
            format!(
                "{{\"key\":\"event-{key}\",\"count\":1,\"timestamp\":18000000{number:05},\"hour\":{event},\
                 \"dow\":3,\"segmentation\":{{\"level\":{level},\"screen\":\"view-{key}\",\"ab\":\"{:x}\"}}}}",
                fastrand::u32(..)
            )
        })
        .collect();
    format!(
        "\x01\x00\x7f\x00\x00\x01\x04POST\x02/i\x03\x0acontent-type\x21application/x-www-form-urlencoded\
         \x0auser-agent\x10Countly/24.4.1\x06accept\x03*/*app_key=0123456789abcdef0123456789abcdef&\
         device_id={device:016x}&timestamp=18000000{number:05}&hour=12&dow=3&tz=120&sdk_name=javascript_native_web&\
         sdk_version=24.4.1&metrics={{\"_os\":\"Linux\",\"_resolution\":\"{}x{}\"}}&events=[{}]",
        fastrand::u16(..3000),
        fastrand::u16(..3000),
        events.join(",")
    )
    .into()
}

async fn cpu_ms(server: &RedisServer) -> f64 {
    let info = server.call(&["INFO", "cpu"]).await.unwrap().to_string();
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse::<f64>().unwrap()
    };
    (field("used_cpu_user_main_thread:") + field("used_cpu_sys_main_thread:")) * 1_000.0
}

async fn memory(server: &RedisServer) -> f64 {
    let info = server.call(&["INFO", "memory"]).await.unwrap().to_string();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_dataset:"));
    line.unwrap().trim().parse().unwrap()
}

/// Bytes and CPU microseconds per request of one way to store requests at a rate, beyond what the idle server takes.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    server: &RedisServer,
    rate: u64,
    seconds: u64,
    store: impl Fn(u64) -> F,
) -> (f64, f64) {
    let (cpu, bytes) = (cpu_ms(server).await, memory(server).await);
    let began = Instant::now();
    let (mut sent, total) = (0, rate * seconds);
    let mut tasks = Vec::new();
    while sent < total {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due.min(total) {
            tasks.push(tokio::spawn(store(sent)));
            sent += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for done in join_all(tasks).await {
        done.unwrap();
    }
    let used = cpu_ms(server).await - cpu;
    let grown = memory(server).await - bytes;
    (grown / total as f64, used * 1_000.0 / total as f64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_costs_much_less_than_a_plain_one() {
    let _turn = TURN.lock().await;
    kept_in_one_run(async || Ok(costs().await)).await.unwrap();
}

async fn costs() -> Promises {
    let mut promises = Promises::new();
    let rates: Vec<u64> = match std::env::var("SLUICE_COST_RATES") {
        Ok(rates) => rates.split(',').map(|rate| rate.parse().unwrap()).collect(),
        Err(_) => vec![10_000],
    };
    for rate in rates {
        let server = RedisServer::start(Options::default()).await.unwrap();
        let cluster = connect(settings(seeds([&server]), "plain"));
        let warm = cluster.command(0, "PING", vec![], Again::Safe);
        warm.await.unwrap();
        let plain = measure(&server, rate, 3, |number| {
            let cluster = Arc::clone(&cluster);
            async move {
                let text = Bytes::from_static;
                let args = vec![text(b"s"), text(b"*"), text(b"r"), request(number)];
                cluster.command(0, "XADD", args, Again::Safe).await.unwrap();
            }
        })
        .await;
        let queue = pod(&seeds([&server]), "own", "one", Durability::Group);
        holds_all(&queue).await;
        let own = measure(&server, rate, 3, |number| {
            let queue = Arc::clone(&queue);
            let new = entry(&queue, "shop", request(number));
            let new = NewEntry {
                key: format!("{:016x}", fastrand::u64(..)).into(),
                ..new
            };
            async move { queue.append(new).await.unwrap() }
        })
        .await;
        let stats = server.call(&["INFO", "commandstats"]).await.unwrap();
        eprintln!(
            "{rate}/s: plain {:.0} B {:.1} us, own {:.0} B {:.1} us\n{stats}",
            plain.0, plain.1, own.0, own.1
        );
        assert!(own.0 <= plain.0 / 3.0, "memory: {own:?} of {plain:?}");
        // A third on a quiet machine; beside other tests the server is woken up more dearly than it works.
        promises = promises.expect(own.1 <= plain.1 / 2.0, format!("CPU: {own:?} of {plain:?}"));
    }
    promises
}
