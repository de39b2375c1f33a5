//! Data planes and servers that die during traffic: exact accounts afterwards.

use super::*;

/// What clients and upstreams know.
#[derive(Default)]
struct Account {
    accepted: Mutex<HashSet<EntryId>>,
    refused: AtomicUsize,
    delivered: Mutex<HashMap<EntryId, u32>>,
}

const APPLICATIONS: usize = 24;

/// Appends about so many per second until told to end.
fn clients(
    queue: Arc<RedisQueue>,
    account: Arc<Account>,
    rate: u64,
    ends: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
        let mut serial = 0_usize;
        let mut tasks = tokio::task::JoinSet::new();
        while !*ends.borrow() {
            ticks.tick().await;
            serial += 1;
            let application = format!("app-{}", serial % APPLICATIONS);
            let new = entry(&queue, &application, format!("request {serial}"));
            let (queue, account) = (Arc::clone(&queue), Arc::clone(&account));
            tasks.spawn(async move {
                let id = new.id;
                match queue.append(new).await {
                    Ok(()) => drop(account.accepted.lock().insert(id)),
                    Err(_) => drop(account.refused.fetch_add(1, Ordering::Relaxed)),
                }
            });
        }
        tasks.join_all().await;
    })
}

/// Claims and settles what there is, as a delivery does.
fn upstream(queue: Arc<RedisQueue>, account: Arc<Account>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let mut verdicts = Vec::new();
            for stats in queue.lanes() {
                let Ok(claimed) = queue.claim(&stats.lane, ALL).await else {
                    continue;
                };
                for entry in claimed {
                    if queue.may_send(entry.token) {
                        *account.delivered.lock().entry(entry.id).or_default() += 1;
                        verdicts.push((entry.token, delivered()));
                    }
                }
            }
            while !verdicts.is_empty() && queue.settle(verdicts.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

/// Every accepted entry is delivered within some time; tells how many more than once.
async fn settles(account: &Account, within: Duration) -> usize {
    let missing = || {
        let delivered = account.delivered.lock();
        let accepted = account.accepted.lock();
        accepted
            .iter()
            .filter(|id| !delivered.contains_key(id))
            .count()
    };
    let began = Instant::now();
    while missing() > 0 {
        assert!(
            began.elapsed() < within,
            "{} of {} accepted entries are lost",
            missing(),
            account.accepted.lock().len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let delivered = account.delivered.lock();
    delivered.values().filter(|times| **times > 1).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_data_plane_is_followed() {
    let _turn = TURN.lock().await;
    let cluster = RedisCluster::start(3, 0, Options::default()).await.unwrap();
    let seeds = seeds(cluster.nodes());
    let account = Arc::new(Account::default());
    let one = pod(&seeds, "g", "one", Durability::Group);
    let two = pod(&seeds, "g", "two", Durability::Group);
    let even = || one.held().0 == 6 && two.held().0 == 6;
    until("an even share", PATIENCE, even).await;
    let (end, ends) = watch::channel(false);
    let mut deliveries = Vec::new();
    for pod in [&one, &two] {
        let running = clients(Arc::clone(pod), Arc::clone(&account), 150, ends.clone());
        deliveries.push((running, upstream(Arc::clone(pod), Arc::clone(&account))));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Everything of the first one ends at once; what it had not answered is nobody's.
    let (running, delivery) = deliveries.remove(0);
    delivery.abort();
    running.abort();
    for task in one.tasks.lock().drain(..) {
        task.abort();
    }
    let killed = Instant::now();
    drop(one);
    until("taken over", PATIENCE, || two.held().0 == 12).await;
    eprintln!("taken over after {:?}", killed.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    until("traffic enough", PATIENCE, || {
        account.accepted.lock().len() > 1_500
    })
    .await;
    end.send(true).unwrap();
    let (running, _delivery) = deliveries.remove(0);
    running.await.unwrap();
    let twice = settles(&account, PATIENCE).await;
    until("nothing waits", PATIENCE, || two.stats().waiting == 0).await;
    let accepted = account.accepted.lock().len();
    eprintln!("{accepted} accepted, {twice} delivered twice");
    assert_eq!(account.refused.load(Ordering::Relaxed), 0);
}

async fn through_a_lost_primary(pauses: bool) {
    let _turn = TURN.lock().await;
    let cluster = RedisCluster::start(3, 1, Options::default()).await.unwrap();
    let seeds = seeds(cluster.nodes());
    let account = Arc::new(Account::default());
    let one = pod(&seeds, "g", "one", Durability::Replicated);
    let two = pod(&seeds, "g", "two", Durability::Replicated);
    let even = || one.held().0 == 6 && two.held().0 == 6;
    until("an even share", PATIENCE, even).await;
    let (end, ends) = watch::channel(false);
    let mut running = Vec::new();
    for pod in [&one, &two] {
        running.push(clients(
            Arc::clone(pod),
            Arc::clone(&account),
            150,
            ends.clone(),
        ));
        upstream(Arc::clone(pod), Arc::clone(&account));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let old = if pauses {
        cluster.pause_primary(1).await.unwrap()
    } else {
        cluster.kill_primary(1).await.unwrap()
    };
    let lost = Instant::now();
    let taken = cluster.wait_taken_over(1, old, PATIENCE).await;
    taken.unwrap();
    let failover = lost.elapsed();
    let before = account.accepted.lock().len();
    if pauses {
        cluster.resume(old).unwrap();
    } else {
        cluster.restart(old).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    until("the shard is used again", PATIENCE, || {
        account.accepted.lock().len() - before > 1_000
    })
    .await;
    end.send(true).unwrap();
    for running in running {
        running.await.unwrap();
    }
    let twice = settles(&account, PATIENCE).await;
    let waiting = || one.stats().waiting + two.stats().waiting;
    until("nothing waits", PATIENCE, || waiting() == 0).await;
    let accepted = account.accepted.lock().len();
    let refused = account.refused.load(Ordering::Relaxed);
    eprintln!(
        "failover after {failover:?}; {accepted} accepted ({} since), {refused} refused, {twice} delivered twice",
        accepted - before
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_replicated_is_lost_with_a_killed_primary() {
    through_a_lost_primary(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_replicated_is_lost_with_a_stopped_primary() {
    through_a_lost_primary(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_waited_for() {
    let options = Options {
        append_only: true,
        ..Options::default()
    };
    let server = RedisServer::start(options).await.unwrap();
    let queue = pod(&seeds([&server]), "g", "one", Durability::Group);
    holds_all(&queue).await;
    for number in 0..50 {
        let new = entry(&queue, "shop", format!("request {number}"));
        queue.append(new).await.unwrap();
    }
    server.kill().unwrap();
    let began = Instant::now();
    let refused = queue.append(entry(&queue, "shop", "refused")).await;
    assert!(
        matches!(refused, Err(QueueError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(16),
        "{:?}",
        began.elapsed()
    );
    server.restart().await.unwrap();
    let back = Instant::now();
    while queue.append(entry(&queue, "shop", "after")).await.is_err() {
        assert!(back.elapsed() < PATIENCE, "it goes on by itself");
    }
    let lane = entry(&queue, "shop", "").lane;
    let mut requests = Vec::new();
    while requests.len() < 51 && back.elapsed() < PATIENCE {
        let claimed = queue.claim(&lane, ALL).await.unwrap_or_default();
        requests.extend(claimed.into_iter().map(|entry| entry.request));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let expected = (0..50).map(|number| Bytes::from(format!("request {number}")));
    assert_eq!(requests[..50], expected.collect::<Vec<_>>());
    assert_eq!(requests[50], "after");
}
