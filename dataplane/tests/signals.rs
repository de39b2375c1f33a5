//! Signals drain the process. In a binary of its own, because handlers are the whole process'.

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use sluice_dataplane::drain::{Drain, Outcome, Phase};
use tokio::time::{Instant, timeout};

const WAIT: Duration = Duration::from_secs(40);

fn send(signal: Signal) {
    kill_process(getpid(), signal).expect("a process may signal itself");
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_ends() {
    let drain = Drain::new();
    let mut watcher = drain.subscribe();
    // Handlers are in place before anything is polled: an early signal is not lost and does not kill.
    let signals = drain.signals(|| Duration::from_secs(30)).unwrap();
    tokio::pin!(signals);
    send(Signal::TERM);

    let start = Instant::now();
    let (since, until) = tokio::select! {
        () = &mut signals => panic!("ended by the first signal"),
        times = timeout(WAIT, watcher.draining()) => times.unwrap(),
    };
    assert_eq!(until - since, Duration::from_secs(30));
    assert!(since >= start);
    assert!(matches!(drain.phase(), Phase::Draining { .. }));

    send(Signal::INT);
    timeout(WAIT, signals)
        .await
        .expect("ended by the second signal");
    drop(watcher);
    assert_eq!(
        timeout(WAIT, drain.complete()).await.unwrap(),
        Outcome::Finished
    );
}
