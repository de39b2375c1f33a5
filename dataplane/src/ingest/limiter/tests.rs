use proptest::prelude::*;

use super::*;

const MAX: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);

fn settings() -> LimiterSettings {
    LimiterSettings {
        concurrency_min: 1,
        concurrency_max: MAX,
        weight: 1,
        timeout_max: Duration::from_secs(30),
    }
}

fn sample(outcome: SampleOutcome) -> Sample {
    Sample {
        latency: Duration::from_millis(20),
        outcome,
    }
}

/// Sends one request after the other, each ending like this after 20 ms; how many were sent until `until`.
fn drive(limiter: &mut Limiter, now: &mut Instant, until: Instant, outcome: SampleOutcome) -> u32 {
    let mut sent = 0;
    while *now < until {
        match limiter.permit(Class::Queued, *now) {
            Permit::Go => {
                limiter.sent(Class::Queued, *now);
                *now += Duration::from_millis(20);
                limiter.settled(Class::Queued, sample(outcome), *now);
                sent += 1;
            }
            Permit::Hold { until, .. } => *now = until.expect("nothing is in flight"),
        }
    }
    sent
}

/// As many at once as are let go, each answered after 20 ms.
fn fill(limiter: &mut Limiter, class: Class, now: Instant) -> u32 {
    let mut sent = 0;
    while limiter.permit(class, now) == Permit::Go {
        limiter.sent(class, now);
        sent += 1;
        assert!(sent <= 2 * MAX);
    }
    sent
}

fn answer_all(limiter: &mut Limiter, class: Class, count: u32, now: Instant) {
    for _ in 0..count {
        limiter.settled(class, sample(SampleOutcome::Ok), now);
    }
}

/// A limiter that has grown to its maximum.
fn grown() -> (Limiter, Instant) {
    let mut now = Instant::now();
    let mut limiter = Limiter::new(settings(), 1, now);
    for _ in 0..1000 {
        let sent = fill(&mut limiter, Class::Queued, now);
        now += Duration::from_millis(20);
        answer_all(&mut limiter, Class::Queued, sent, now);
    }
    assert_eq!(limiter.snapshot(now).limit, f64::from(MAX));
    (limiter, now)
}

#[test]
fn starts_with_one_and_grows_to_the_maximum() {
    let now = Instant::now();
    let mut limiter = Limiter::new(settings(), 1, now);
    assert_eq!(fill(&mut limiter, Class::Queued, now), 1);
    let (mut limiter, now) = grown();
    assert_eq!(fill(&mut limiter, Class::Queued, now), MAX);
    assert_eq!(limiter.snapshot(now).why, Cause::Growing);
}

#[test]
fn the_reserve_is_for_proxied_calls_and_only_while_there_are_some() {
    let (mut limiter, now) = grown();
    assert_eq!(limiter.permit(Class::Proxied, now), Permit::Go);
    let queued = fill(&mut limiter, Class::Queued, now);
    assert_eq!(queued, MAX * 4 / 5);
    let proxied = fill(&mut limiter, Class::Proxied, now);
    assert_eq!(queued + proxied, MAX);
    answer_all(&mut limiter, Class::Queued, queued, now);
    answer_all(&mut limiter, Class::Proxied, proxied, now);
    let later = now + RESERVE_KEPT;
    assert!(fill(&mut limiter, Class::Queued, later) > MAX * 4 / 5);
}

#[test]
fn proxied_calls_leave_something_to_the_queue() {
    let (mut limiter, now) = grown();
    let proxied = fill(&mut limiter, Class::Proxied, now);
    assert_eq!(proxied, MAX);
    answer_all(&mut limiter, Class::Proxied, 1, now);
    assert_eq!(limiter.permit(Class::Queued, now), Permit::Go);
}

#[test]
fn the_breaker_opens_on_failures_alone_and_closes_on_one_answer() {
    let mut now = Instant::now();
    let mut limiter = Limiter::new(settings(), 1, now);
    let start = now;
    drive(
        &mut limiter,
        &mut now,
        start + 10 * SECOND,
        SampleOutcome::Ok,
    );
    drive(
        &mut limiter,
        &mut now,
        start + 11 * SECOND,
        SampleOutcome::Failed,
    );
    assert!(limiter.is_failing());
    let in_outage = drive(
        &mut limiter,
        &mut now,
        start + 71 * SECOND,
        SampleOutcome::Failed,
    );
    assert!((10..=30).contains(&in_outage), "{in_outage}");
    drive(
        &mut limiter,
        &mut now,
        start + 80 * SECOND,
        SampleOutcome::Ok,
    );
    assert_eq!(limiter.snapshot(now).breaker, BreakerState::Closed);
}

#[test]
fn failures_of_requests_sent_before_it_opened_do_not_count_as_probes() {
    let mut now = Instant::now();
    let mut limiter = Limiter::new(settings(), 1, now);
    for _ in 0..40 {
        limiter.sent(Class::Queued, now);
    }
    now += 2 * SECOND;
    for _ in 0..40 {
        now += Duration::from_millis(5);
        let latency = Duration::from_secs(2);
        let outcome = SampleOutcome::TimedOut;
        limiter.settled(Class::Queued, Sample { latency, outcome }, now);
    }
    let Permit::Hold {
        why: Hold::Breaker,
        until: Some(until),
    } = limiter.permit(Class::Queued, now)
    else {
        panic!("not open");
    };
    assert!(until - now < SECOND);
}

#[test]
fn probes_overlap_when_requests_are_swallowed() {
    let mut now = Instant::now();
    let mut limiter = Limiter::new(settings(), 1, now);
    let start = now;
    drive(
        &mut limiter,
        &mut now,
        start + 5 * SECOND,
        SampleOutcome::Ok,
    );
    drive(
        &mut limiter,
        &mut now,
        start + 7 * SECOND,
        SampleOutcome::TimedOut,
    );
    let mut unanswered = 0;
    let end = now + 30 * SECOND;
    while now < end {
        match limiter.permit(Class::Queued, now) {
            Permit::Go => {
                limiter.sent(Class::Queued, now);
                unanswered += 1;
            }
            Permit::Hold {
                until: Some(until), ..
            } => now = until,
            Permit::Hold { until: None, .. } => break,
        }
    }
    assert!(unanswered >= 2, "{unanswered}");
}

#[test]
fn retry_after_closes_the_whole_upstream_and_zero_does_not() {
    let (mut limiter, now) = grown();
    limiter.sent(Class::Queued, now);
    let wait = |seconds| SampleOutcome::RateLimited {
        retry_after: Some(Duration::from_secs(seconds)),
    };
    limiter.settled(Class::Queued, sample(wait(0)), now);
    assert_eq!(limiter.snapshot(now).retry_after_until, None);
    limiter.sent(Class::Queued, now);
    limiter.settled(Class::Queued, sample(wait(10)), now);
    limiter.sent(Class::Queued, now);
    limiter.settled(Class::Queued, sample(wait(2)), now);
    let until = Some(now + 10 * SECOND);
    for class in [Class::Queued, Class::Proxied] {
        let why = Hold::RetryAfter;
        assert_eq!(
            limiter.permit(class, now + 9 * SECOND),
            Permit::Hold { why, until }
        );
    }
    assert_eq!(limiter.permit(Class::Queued, now + 10 * SECOND), Permit::Go);
    limiter.settled(Class::Queued, sample(wait(86_400)), now);
    assert_eq!(
        limiter.snapshot(now).retry_after_until,
        Some(now + RETRY_AFTER_MAX)
    );
}

#[test]
fn the_timeout_follows_what_requests_take() {
    let mut now = Instant::now();
    let mut limiter = Limiter::new(settings(), 1, now);
    assert_eq!(limiter.timeout(), Duration::from_secs(30));
    let start = now;
    drive(
        &mut limiter,
        &mut now,
        start + 10 * SECOND,
        SampleOutcome::Ok,
    );
    assert_eq!(limiter.timeout(), Duration::from_secs(2));
    for _ in 0..40 {
        limiter.sent(Class::Queued, now);
        let latency = Duration::from_secs(1);
        let outcome = SampleOutcome::Ok;
        limiter.settled(Class::Queued, Sample { latency, outcome }, now);
    }
    let timeout = limiter.timeout().as_secs_f64();
    assert!((4.0..=4.8).contains(&timeout), "{timeout}");
}

#[test]
fn an_upstream_slower_than_the_timeout_is_given_more() {
    let mut now = Instant::now();
    let mut limiter = Limiter::new(settings(), 1, now);
    let start = now;
    drive(
        &mut limiter,
        &mut now,
        start + 10 * SECOND,
        SampleOutcome::Ok,
    );
    for _ in 0..40 {
        limiter.sent(Class::Queued, now);
        let latency = limiter.timeout();
        now += latency;
        let outcome = SampleOutcome::TimedOut;
        limiter.settled(Class::Queued, Sample { latency, outcome }, now);
    }
    assert_eq!(limiter.timeout(), Duration::from_secs(30));
}

#[test]
fn after_hours_of_nothing_the_limit_is_low_and_soon_back() {
    let (mut limiter, now) = grown();
    let mut now = now + 7200 * SECOND;
    assert!(fill(&mut limiter, Class::Queued, now) <= 2);
    let sent = limiter.snapshot(now).in_flight;
    now += Duration::from_millis(20);
    answer_all(&mut limiter, Class::Queued, sent, now);
    let end = now + 10 * SECOND;
    while now < end {
        let sent = fill(&mut limiter, Class::Queued, now);
        now += Duration::from_millis(20);
        answer_all(&mut limiter, Class::Queued, sent, now);
    }
    assert_eq!(limiter.snapshot(now).limit, f64::from(MAX));
}

#[test]
fn new_bounds_hold_at_once() {
    let (mut limiter, now) = grown();
    limiter.reconfigure(LimiterSettings {
        concurrency_max: 3,
        ..settings()
    });
    assert_eq!(fill(&mut limiter, Class::Queued, now), 3);
    limiter.reconfigure(LimiterSettings {
        concurrency_min: 9,
        concurrency_max: 5,
        ..settings()
    });
    assert_eq!(fill(&mut limiter, Class::Queued, now), 6);
}

#[test]
fn answers_that_say_nothing_of_load_do_not_hold_it_down() {
    let mut now = Instant::now();
    let mut limiter = Limiter::new(settings(), 1, now);
    for _ in 0..1000 {
        let sent = fill(&mut limiter, Class::Queued, now);
        now += Duration::from_millis(20);
        for _ in 0..sent {
            limiter.settled(Class::Queued, sample(SampleOutcome::Neutral), now);
        }
    }
    assert!(limiter.snapshot(now).limit > 20.0);
}

#[test]
fn load_is_less_where_more_is_left() {
    let (mut limiter, now) = grown();
    let idle = limiter.load();
    limiter.sent(Class::Queued, now);
    assert!(limiter.load() > idle);
    let heavy = Limiter::new(
        LimiterSettings {
            weight: 4,
            ..settings()
        },
        1,
        now,
    );
    let light = Limiter::new(settings(), 1, now);
    assert!(heavy.load() < light.load());
}

#[derive(Debug, Clone)]
enum Step {
    Ask(Class),
    Settle(u8, Class, u64),
    Wait(u64),
    Reconfigure(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let class = prop_oneof![Just(Class::Queued), Just(Class::Proxied)];
    let latency = prop_oneof![0u64..500, 0u64..40_000, Just(u64::MAX)];
    let pause = prop_oneof![4 => 0u64..50, 2 => 0u64..5_000, 1 => 0u64..20_000_000];
    prop_oneof![
        8 => class.clone().prop_map(Step::Ask),
        8 => (0u8..9, class, latency).prop_map(|(end, class, ms)| Step::Settle(end, class, ms)),
        4 => pause.prop_map(Step::Wait),
        1 => (0u32..20, 0u32..60).prop_map(|(min, max)| Step::Reconfigure(min, max)),
    ]
}

fn outcome(end: u8, ms: u64) -> SampleOutcome {
    let retry_after = Some(Duration::from_millis(ms));
    match end {
        0 => SampleOutcome::RateLimited { retry_after: None },
        1 => SampleOutcome::RateLimited { retry_after },
        2 => SampleOutcome::Overloaded { retry_after: None },
        3 => SampleOutcome::Overloaded { retry_after },
        4 => SampleOutcome::TimedOut,
        5 if ms.is_multiple_of(2) => SampleOutcome::Erred,
        5 => SampleOutcome::Failed,
        6 => SampleOutcome::Neutral,
        7 => SampleOutcome::Abandoned,
        _ => SampleOutcome::Ok,
    }
}

fn check(limiter: &Limiter, now: Instant) {
    let snapshot = limiter.snapshot(now);
    let max = f64::from(
        limiter
            .settings
            .concurrency_max
            .max(limiter.settings.concurrency_min)
            .max(1),
    );
    assert!(
        snapshot.limit.is_finite() && (1.0..=max).contains(&snapshot.limit),
        "{snapshot:?}"
    );
    assert!(
        snapshot
            .rate
            .is_none_or(|rate| rate.is_finite() && rate > 0.0),
        "{snapshot:?}"
    );
    assert!(
        snapshot.goodput.is_finite() && snapshot.goodput >= 0.0,
        "{snapshot:?}"
    );
    assert!(
        (0.0..1.0).contains(&snapshot.unrelated_failures),
        "{snapshot:?}"
    );
    assert!(limiter.load().is_finite() && limiter.load() > 0.0);
    assert!(limiter.timeout() <= limiter.settings.timeout_max);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happened before: bounds hold, nothing is stuck, and an upstream that is well is used.
    #[test]
    fn any_history_stays_in_bounds_and_ends_well(
        seed: u64,
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let mut now = Instant::now();
        let mut limiter = Limiter::new(settings(), seed, now);
        let mut in_flight = [0u32; 2];
        for step in steps {
            match step {
                Step::Ask(class) => match limiter.permit(class, now) {
                    Permit::Go => {
                        limiter.sent(class, now);
                        in_flight[class.index()] += 1;
                        let total = in_flight[0] + in_flight[1];
                        let bounds = limiter.settings;
                        prop_assert!(total <= bounds.concurrency_max.max(bounds.concurrency_min).max(1));
                    }
                    Permit::Hold { why, until } => {
                        prop_assert!(until.is_none_or(|until| until > now));
                        prop_assert_eq!(until.is_none(), why == Hold::InFlight);
                        prop_assert!(why != Hold::InFlight || in_flight[0] + in_flight[1] > 0);
                    }
                },
                Step::Settle(end, class, ms) => {
                    if in_flight[class.index()] > 0 {
                        in_flight[class.index()] -= 1;
                        let latency = Duration::from_millis(ms);
                        let outcome = outcome(end, ms);
                        limiter.settled(class, Sample { latency, outcome }, now);
                    }
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Reconfigure(concurrency_min, concurrency_max) => {
                    limiter.reconfigure(LimiterSettings { concurrency_min, concurrency_max, ..settings() });
                }
            }
            check(&limiter, now);
        }
        for class in [Class::Queued, Class::Proxied] {
            for _ in 0..in_flight[class.index()] {
                limiter.settled(class, sample(SampleOutcome::Abandoned), now);
            }
        }
        let wait = now + RETRY_AFTER_MAX + 180 * SECOND;
        drive(&mut limiter, &mut now, wait, SampleOutcome::Ok);
        let end = now + 10 * SECOND;
        let sent = drive(&mut limiter, &mut now, end, SampleOutcome::Ok);
        // One at a time with 20 ms each: 500 are possible.
        prop_assert!(sent >= 400, "{} of 500, {:?}", sent, limiter.snapshot(now));
    }
}
