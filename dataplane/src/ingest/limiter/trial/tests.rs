use proptest::prelude::*;

use super::*;

const BASE_S: f64 = 0.02;

fn window(total: u32, failed: u32) -> Results {
    Results {
        seconds: 0.25,
        total,
        answered: total - failed,
        failed,
        failed_latency_s: f64::from(failed) * 0.005,
    }
}

/// Goes on with results of which `share` fail until the trial is over.
fn finish(trials: &mut Trials, share: f64, seed: u64, now: &mut Instant) -> (Finding, u32) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut results = 0;
    loop {
        *now += Duration::from_millis(2);
        results += 1;
        let sent_at = now.checked_sub(Duration::from_millis(1));
        if let Some(finding) = trials.result(random.f64() < share, sent_at, *now) {
            return (finding, results);
        }
    }
}

fn begun(total: u32, failed: u32, now: Instant) -> Trials {
    let mut trials = Trials::new();
    let advice = trials.observe(window(total, failed), BASE_S, now);
    assert!(matches!(advice, Advice::Try { .. }), "{advice:?}");
    trials
}

#[test]
fn hypotheses_are_told_apart_by_enough_results_only() {
    // Expected share, share before, results, failures among them, late; whether it is unrelated.
    let cases = [
        (0.0, 0.11, 60, 0, false, None),
        (0.0, 0.11, 90, 0, false, Some(false)),
        (0.0, 0.11, 90, 10, false, Some(true)),
        (0.0, 0.11, 11, 6, false, None),
        (0.0, 0.11, 90, 4, false, None),
        (0.0, 0.11, 90, 4, true, Some(false)),
        (0.0, 0.11, 90, 7, true, Some(true)),
        (0.0, 0.5, 20, 0, false, Some(false)),
        (0.0, 0.5, 20, 10, false, Some(true)),
        (0.0, 0.95, 12, 12, false, Some(true)),
        (0.0, 0.02, 200, 0, false, None),
        (0.0, 0.02, 420, 0, false, Some(false)),
        // A share is expected already: what exceeds it is judged.
        (0.1, 0.3, 150, 15, false, Some(false)),
        (0.1, 0.3, 150, 45, false, Some(true)),
        // Nothing came back: less is safe.
        (0.0, 0.11, 0, 0, true, Some(false)),
    ];
    for (expected, share, total, failed, late, unrelated) in cases {
        let found = Hypotheses::new(expected, share).decide(total, failed, late);
        assert_eq!(found, unrelated, "{expected} {share}: {failed} of {total}");
    }
}

#[test]
fn windows_lead_to_what_they_call_for() {
    let now = Instant::now();
    // Results and failures of a window, and what is to be done about it.
    let cases = [
        ((250, 0), Advice::Go),
        ((250, 2), Advice::Go),
        ((20, 3), Advice::Watch),
        // 222 * 4 answers per second came through.
        (
            (250, 28),
            Advice::Try {
                rate: 0.832 * 888.0,
            },
        ),
        ((250, 200), Advice::Try { rate: 100.0 }),
        // Nothing comes through: there is nothing to compare with.
        ((250, 250), Advice::Relieve),
        ((6, 6), Advice::Watch),
    ];
    for ((total, failed), expected) in cases {
        assert_eq!(
            Trials::new().observe(window(total, failed), BASE_S, now),
            expected,
            "{failed} of {total}"
        );
    }
}

#[test]
fn a_flood_is_relieved_before_its_share_can_be_told() {
    let mut trials = Trials::new();
    let flood = Results {
        seconds: 0.02,
        ..window(40, 35)
    };
    assert_eq!(
        trials.observe(flood, BASE_S, Instant::now()),
        Advice::Relieve
    );
    assert!(trials.is_watching() && !trials.is_trying());
}

#[test]
fn failures_of_load_leave_nothing_to_expect_and_say_what_came_through() {
    let mut now = Instant::now();
    let mut trials = begun(250, 28, now);
    let (finding, results) = finish(&mut trials, 0.0, 1, &mut now);
    assert_eq!(finding, Finding::Load { through: 888.0 });
    assert!(results < 120, "{results}");
    assert_eq!(trials.share(), 0.0);
}

#[test]
fn failures_that_stay_are_expected_from_then_on_and_tried_out_again() {
    let mut now = Instant::now();
    let mut trials = begun(250, 28, now);
    let (finding, _) = finish(&mut trials, 0.11, 1, &mut now);
    assert_eq!(finding, Finding::Unrelated { is_news: true });
    assert!((0.08..0.15).contains(&trials.share()), "{}", trials.share());
    assert_eq!(trials.observe(window(250, 28), BASE_S, now), Advice::Go);
    now += CONFIRM_MAX;
    let advice = trials.observe(window(250, 28), BASE_S, now);
    assert!(matches!(advice, Advice::Try { .. }), "{advice:?}");
    let (finding, _) = finish(&mut trials, 0.11, 2, &mut now);
    assert_eq!(finding, Finding::Unrelated { is_news: false });
    // It was load after all.
    now += CONFIRM_MAX;
    trials.observe(window(250, 28), BASE_S, now);
    let (finding, _) = finish(&mut trials, 0.0, 3, &mut now);
    assert!(matches!(finding, Finding::Load { .. }));
    assert_eq!(trials.share(), 0.0);
}

#[test]
fn what_is_expected_fades_when_failures_end_and_rises_little_without_a_trial() {
    let mut now = Instant::now();
    let mut trials = begun(250, 28, now);
    finish(&mut trials, 0.11, 1, &mut now);
    let found = trials.share();
    for failed in 30..60 {
        trials.observe(window(250, failed), BASE_S, now);
        if trials.is_trying() {
            break;
        }
        assert!(trials.share() <= 1.25 * found);
    }
    assert!(trials.is_trying(), "a share that doubles is judged anew");
    trials.interrupt();
    for _ in 0..20 {
        trials.observe(window(250, 0), BASE_S, now);
    }
    assert_eq!(trials.share(), 0.0);
    assert_eq!(
        trials.observe(window(250, 0), BASE_S, now + CONFIRM_MAX),
        Advice::Go
    );
}

#[test]
fn results_of_requests_from_before_a_trial_do_not_count() {
    let now = Instant::now();
    let mut trials = begun(250, 28, now);
    let before = now.checked_sub(Duration::from_millis(1));
    for _ in 0..1000 {
        let later = now + Duration::from_secs(1);
        assert_eq!(trials.result(true, before, later), None);
        assert_eq!(trials.result(true, None, later), None);
    }
}

#[test]
fn a_trial_without_results_ends() {
    let now = Instant::now();
    let mut trials = begun(250, 28, now);
    let end = now + TRIAL_MAX + Duration::from_secs(1);
    let finding = trials.result(false, Some(now), end);
    assert!(matches!(finding, Some(Finding::Load { .. })));
    assert!(!trials.is_trying());
}

proptest! {
    #[test]
    fn whatever_comes_shares_and_rates_stay_sane(
        windows in prop::collection::vec((0u32..600, 0.0f64..=1.0, 0.0f64..3.0, 0u64..4000), 1..80),
        share in 0.0f64..1.0,
    ) {
        let mut now = Instant::now();
        let mut trials = Trials::new();
        for (total, failed, seconds, pause_ms) in windows {
            let failed = (f64::from(total) * failed) as u32;
            let window = Results { seconds, ..window(total, failed) };
            if let Advice::Try { rate } = trials.observe(window, BASE_S, now) {
                prop_assert!(rate.is_finite() && rate > 0.0);
                let (finding, _) = finish(&mut trials, share, pause_ms, &mut now);
                if let Finding::Load { through } = finding {
                    prop_assert!(through >= rate);
                }
            }
            prop_assert!((0.0..=SHARE_MAX).contains(&trials.share()));
            now += Duration::from_millis(pause_ms);
        }
    }
}
