use proptest::prelude::*;

use super::assessor::CALM;
use super::*;

const LIMIT: u64 = 1000;

fn sample(delay_ms: u64, memory: u64, egress: u64) -> Sample {
    Sample {
        loop_delay: Duration::from_millis(delay_ms),
        memory_bytes: memory,
        memory_limit_bytes: LIMIT,
        egress_queue_bytes: egress,
        egress_limit_bytes: LIMIT,
        clients_behind: 0,
        clients: LIMIT,
    }
}

fn behind(clients_behind: u64) -> Sample {
    Sample {
        clients_behind,
        ..sample(0, 0, 0)
    }
}

#[test]
fn levels_by_threshold() {
    use Level::{Normal, ShedConnections, ShedQueries};
    let cases = [
        (sample(0, 0, 0), Normal, None),
        (sample(200, 700, 500), Normal, None),
        (sample(201, 0, 0), ShedQueries, Some(Cause::LoopDelay)),
        (sample(0, 701, 0), ShedQueries, Some(Cause::Memory)),
        (sample(0, 0, 501), ShedQueries, Some(Cause::EgressQueue)),
        (behind(100), Normal, None),
        (behind(101), ShedQueries, Some(Cause::ClientsBehind)),
        (behind(LIMIT), ShedQueries, Some(Cause::ClientsBehind)),
        (
            Sample {
                clients: 99,
                ..behind(99)
            },
            Normal,
            None,
        ),
        (sample(500, 850, 800), ShedQueries, Some(Cause::LoopDelay)),
        (sample(501, 0, 0), ShedConnections, Some(Cause::LoopDelay)),
        (sample(201, 851, 0), ShedConnections, Some(Cause::Memory)),
        (sample(0, 0, 801), ShedConnections, Some(Cause::EgressQueue)),
        (sample(0, u64::MAX, 0), ShedConnections, Some(Cause::Memory)),
        (
            Sample {
                memory_limit_bytes: 0,
                egress_limit_bytes: 0,
                ..sample(0, u64::MAX, u64::MAX)
            },
            Normal,
            None,
        ),
    ];
    for (sample, level, cause) in cases {
        let mut assessor = Assessor::default();
        assert_eq!(assessor.update(Instant::now(), sample), level, "{sample:?}");
        assert_eq!(assessor.cause(), cause, "{sample:?}");
    }
}

/// (time in ms, sample, expected level)
fn run(steps: &[(u64, Sample, Level)]) {
    let start = Instant::now();
    let mut assessor = Assessor::default();
    for (at_ms, sample, level) in steps {
        assert_eq!(
            assessor.update(start + Duration::from_millis(*at_ms), *sample),
            *level,
            "at {at_ms} ms: {sample:?}"
        );
    }
}

#[test]
fn falls_one_level_per_calm_time() {
    use Level::{Normal, ShedConnections, ShedQueries};
    let calm = sample(0, 0, 0);
    run(&[
        (0, sample(900, 0, 0), ShedConnections),
        (100, calm, ShedConnections),
        (2_099, calm, ShedConnections),
        (2_100, calm, ShedQueries),
        (2_200, calm, ShedQueries),
        (4_199, calm, ShedQueries),
        (4_200, calm, Normal),
        (9_000, calm, Normal),
    ]);
}

#[test]
fn between_leave_and_enter_the_level_stays() {
    use Level::{Normal, ShedConnections, ShedQueries};
    run(&[
        (0, sample(0, 0, 0), Normal),
        (100, sample(150, 650, 450), Normal),
        (200, sample(0, 710, 0), ShedQueries),
        (300, sample(0, 601, 0), ShedQueries),
        (60_000, sample(0, 601, 0), ShedQueries),
        (60_100, sample(101, 0, 0), ShedQueries),
        (120_000, sample(0, 860, 0), ShedConnections),
        (180_000, sample(0, 760, 0), ShedConnections),
        (180_100, sample(0, 750, 0), ShedConnections),
        (181_000, sample(251, 0, 0), ShedConnections),
        (182_200, sample(0, 750, 0), ShedConnections),
        (184_200, sample(0, 750, 0), ShedQueries),
    ]);
}

#[test]
fn a_new_rise_starts_the_calm_time_anew() {
    use Level::{ShedConnections, ShedQueries};
    let calm = sample(0, 0, 0);
    run(&[
        (0, sample(300, 0, 0), ShedQueries),
        (100, calm, ShedQueries),
        (2_000, sample(600, 0, 0), ShedConnections),
        (2_100, calm, ShedConnections),
        (3_000, calm, ShedConnections),
        (4_100, calm, ShedQueries),
    ]);
}

fn samples() -> impl Strategy<Value = Vec<(u64, Sample)>> {
    let one = (0u64..1_500, 0u64..800, 0u64..1_100, 0u64..1_100);
    proptest::collection::vec(
        one.prop_map(|(step, delay, memory, egress)| (step, sample(delay, memory, egress))),
        1..200,
    )
}

proptest! {
    /// Down by one level at a time, never sooner than the calm time after the last change or rise, and never while a
    /// measure asks for more.
    #[test]
    fn the_level_never_falls_early(steps in samples()) {
        let mut now = Instant::now();
        let mut assessor = Assessor::default();
        let mut level = Level::Normal;
        let mut changed = now;
        for (step_ms, sample) in steps {
            now += Duration::from_millis(step_ms);
            let wanted = Assessor::default().update(now, sample);
            let next = assessor.update(now, sample);
            prop_assert!(next >= wanted);
            if next < level {
                prop_assert_eq!(next as u8 + 1, level as u8);
                prop_assert!(now - changed >= CALM);
            }
            prop_assert!(!next.sheds_connections() || next.sheds_queries());
            if next != level {
                changed = now;
                level = next;
            }
        }
    }

    #[test]
    fn retry_times_are_spread_and_bounded(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        for (level, range) in Level::ALL.into_iter().zip([1..=5, 2..=10, 6..=30]) {
            let drawn: Vec<u32> = (0..200).map(|_| retry_after_seconds(level, &mut random)).collect();
            prop_assert!(drawn.iter().all(|seconds| range.contains(seconds)));
            let distinct: std::collections::BTreeSet<_> = drawn.into_iter().collect();
            prop_assert!(distinct.len() * 2 > range.count());
        }
    }
}

fn pressure(workers: usize) -> (Arc<Pressure>, Registry) {
    let mut registry = Registry::default();
    let pressure = Pressure::new(workers, MemoryBudget::detect(Some(1 << 40)), &mut registry);
    (pressure, registry)
}

#[test]
fn loop_delay_is_the_smoothed_maximum() {
    let (pressure, _) = pressure(2);
    assert_eq!(pressure.sample(Duration::ZERO).loop_delay, Duration::ZERO);
    pressure.record_loop_delay(0, Duration::from_secs(4));
    let lone = pressure.sample(Duration::ZERO).loop_delay;
    assert!(lone.is_zero(), "{lone:?}");
    pressure.record_loop_delay(0, Duration::from_millis(400));
    let second = pressure.sample(Duration::ZERO).loop_delay;
    assert!(
        second > Duration::from_millis(100) && second < Duration::from_millis(200),
        "{second:?}"
    );
    for _ in 0..20 {
        pressure.record_loop_delay(0, Duration::from_millis(400));
        pressure.record_loop_delay(1, Duration::from_millis(40));
    }
    assert!(pressure.sample(Duration::ZERO).loop_delay > Duration::from_millis(390));
    pressure.record_loop_delay(7, Duration::MAX);
    pressure.record_loop_delay(1, Duration::MAX);
    pressure.record_loop_delay(1, Duration::MAX);
}

#[test]
fn a_silent_worker_counts_as_delayed_unless_the_sampler_stood_still_too() {
    let (pressure, _) = pressure(1);
    pressure.record_loop_delay(0, Duration::ZERO);
    std::thread::sleep(PRESSURE_INTERVAL * 3);
    assert!(pressure.sample(Duration::ZERO).loop_delay < PRESSURE_INTERVAL);
    std::thread::sleep(Duration::from_micros(SILENCE_US));
    assert!(pressure.sample(Duration::ZERO).loop_delay >= PRESSURE_INTERVAL);
    assert!(
        pressure
            .sample(Duration::from_secs(60))
            .loop_delay
            .is_zero()
    );
}

#[test]
fn egress_is_summed_over_workers() {
    let (pressure, _) = pressure(3);
    for worker in 0..5 {
        pressure.record_egress(worker, 10);
    }
    pressure.record_egress(0, 7);
    let sample = pressure.sample(Duration::ZERO);
    assert_eq!(sample.egress_queue_bytes, 27);
    assert_eq!(sample.egress_limit_bytes, (1 << 40) / 100 * 25);
}

#[test]
fn transitions_are_published_and_counted() {
    let (pressure, registry) = pressure(1);
    let mut assessor = Assessor::default();
    let now = Instant::now();
    for (at, delay) in [(0, 0), (1, 300), (2, 300), (3, 900), (4, 0), (6, 0)] {
        pressure.apply(
            &mut assessor,
            now + Duration::from_secs(at),
            sample(delay, 0, 0),
        );
    }
    assert_eq!(pressure.level(), Level::ShedQueries);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "sluice_overload_level 1",
        "sluice_overload_transitions_total{level=\"shed_queries\"} 2",
        "sluice_overload_transitions_total{level=\"shed_connections\"} 1",
        "sluice_overload_transitions_total{level=\"normal\"} 0",
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line} is not in:\n{text}"
        );
    }
}

#[tokio::test]
async fn the_sampler_raises_the_level() {
    let (pressure, _) = pressure(1);
    let sampler = tokio::spawn(Arc::clone(&pressure).run());
    while pressure.level() != Level::ShedConnections {
        pressure.record_loop_delay(0, Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sampler.abort();
}
