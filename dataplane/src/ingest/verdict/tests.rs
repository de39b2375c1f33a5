use proptest::prelude::*;

use super::*;

const NOW_MS: u64 = 1_784_000_000_000;

fn context(dialect: Dialect) -> Context {
    Context {
        dialect,
        application_succeeds: true,
        upstream_fails: false,
        attempts: 0,
        attempts_max: 10,
        now_ms: NOW_MS,
    }
}

fn countly() -> Context {
    context(Dialect::Countly)
}

fn answer(status: u16, body: &str) -> Attempt<'_> {
    Attempt::Answered {
        status,
        body: body.as_bytes(),
        retry_after: None,
    }
}

fn retry(reason: Reason) -> Verdict {
    Verdict::Retry {
        reason,
        after: None,
    }
}

fn parked(judged: &Judged) -> Option<Reason> {
    match &judged.verdict {
        Verdict::Park { reason, .. } => Some(*reason),
        Verdict::Done { .. } | Verdict::Retry { .. } | Verdict::PauseLane { .. } => None,
    }
}

const OVERLOADED: SampleOutcome = SampleOutcome::Overloaded { retry_after: None };

#[test]
fn countly_success_is_any_result_in_json() {
    for (body, info) in [
        (r#"{"result":"Success"}"#, ""),
        (
            r#" {"result" : "Success" , "info":"Request ignored: Duplicate request"} "#,
            "Request ignored: Duplicate request",
        ),
        (r#"{"result":{"a":1}}"#, ""),
        (r#"{"result":["x"]}"#, ""),
        (r#"{"result":"Queued for later"}"#, "Queued for later"),
        (r#"countlyCallback({"result":"Success"})"#, ""),
        ("\u{feff}{\"result\":\"Success\"}", ""),
        (r#"jQuery12.cb_1({"result":"Success"});"#, ""),
    ] {
        let judged = judge(answer(200, body), &countly());
        assert_eq!(
            judged.verdict,
            Verdict::Done { info: info.into() },
            "{body}"
        );
        assert_eq!(judged.outcome, SampleOutcome::Ok);
        assert_eq!(judged.attempts, 1);
    }
}

#[test]
fn countly_answers_without_a_result_are_tried_a_few_times() {
    for body in [
        "",
        "<html>It works</html>",
        "{}",
        r#"{"result":null}"#,
        r#"{"result":""}"#,
        "[1]",
        r#"{"result":"Succ"#,
    ] {
        let mut context = countly();
        let first = judge(answer(200, body), &context);
        assert_eq!(first.verdict, retry(Reason::UnexpectedAnswer), "{body}");
        assert_eq!(first.outcome, SampleOutcome::Neutral);
        context.attempts = 2;
        let third = judge(answer(200, body), &context);
        assert_eq!(parked(&third), Some(Reason::UnexpectedAnswer), "{body}");
        assert_eq!(third.attempts, 3);
    }
    let redirected = judge(answer(302, ""), &countly());
    assert_eq!(redirected.verdict, retry(Reason::Redirected));
}

#[test]
fn countly_says_what_is_wrong_for_good() {
    for (status, result, reason) in [
        (
            200,
            "Request does not match checksum",
            Reason::ChecksumRejected,
        ),
        (
            200,
            "Request does not have checksum",
            Reason::ChecksumRejected,
        ),
        (
            400,
            "Request does not match checksum",
            Reason::ChecksumRejected,
        ),
        (
            400,
            "Missing parameter \\\"app_key\\\" or \\\"device_id\\\"",
            Reason::InvalidRequest,
        ),
        (
            400,
            "Invalid parameter \\\"app_key\\\"",
            Reason::InvalidRequest,
        ),
        (400, "Invalid path", Reason::InvalidRequest),
        (403, "App is locked", Reason::ApplicationLocked),
    ] {
        let body = format!(r#"{{"result":"{result}"}}"#);
        let judged = judge(answer(status, &body), &countly());
        assert_eq!(parked(&judged), Some(reason), "{body}");
        assert_eq!(judged.outcome, SampleOutcome::Neutral);
    }
}

#[test]
fn countly_database_trouble_is_overload_and_not_a_refusal() {
    for result in [
        "Cannot get app user",
        "Could not ingest data",
        "Cannot update user",
        "Cannot create uid",
        "Too many retries",
        "App does not exist",
    ] {
        let body = format!(r#"{{"result":"{result}"}}"#);
        let judged = judge(answer(400, &body), &countly());
        assert_eq!(judged.verdict, retry(Reason::UpstreamDatabase), "{result}");
        assert_eq!(judged.outcome, SampleOutcome::Erred);
    }
}

#[test]
fn an_application_that_never_succeeded_is_unknown_after_all_attempts() {
    let body = r#"{"result":"App does not exist"}"#;
    let mut context = countly();
    context.application_succeeds = false;
    let first = judge(answer(400, body), &context);
    assert_eq!(first.verdict, retry(Reason::ApplicationUnknown));
    assert_eq!((first.attempts, first.outcome), (1, SampleOutcome::Neutral));
    context.attempts = 9;
    let last = judge(answer(400, body), &context);
    assert_eq!(parked(&last), Some(Reason::ApplicationUnknown));
}

#[test]
fn a_paused_application_pauses_its_lane_and_costs_nothing() {
    let body = r#"{"result":"App is currently not accepting data"}"#;
    let judged = judge(answer(400, body), &countly());
    assert!(matches!(
        judged.verdict,
        Verdict::PauseLane {
            reason: Reason::ApplicationPaused,
            ..
        }
    ));
    assert_eq!(
        (judged.attempts, judged.outcome),
        (0, SampleOutcome::Neutral)
    );
}

#[test]
fn unknown_refusals_are_not_believed_at_once() {
    let judged = judge(answer(400, r#"{"result":"Something new"}"#), &countly());
    assert_eq!(judged.verdict, retry(Reason::Rejected));
    let mut late = countly();
    late.attempts = 2;
    assert_eq!(
        parked(&judge(answer(404, "no such page"), &late)),
        Some(Reason::Rejected)
    );
    assert_eq!(
        parked(&judge(answer(413, ""), &countly())),
        Some(Reason::Rejected)
    );
}

#[test]
fn generic_goes_by_the_status() {
    let context = context(Dialect::Generic);
    assert!(matches!(
        judge(answer(204, ""), &context).verdict,
        Verdict::Done { .. }
    ));
    for status in [400, 401, 403, 404, 409, 410, 413, 422] {
        let judged = judge(answer(status, "no\nway"), &context);
        let park = Verdict::Park {
            reason: Reason::Rejected,
            info: "no way".into(),
        };
        assert_eq!(judged.verdict, park);
    }
    for status in [301, 302, 307] {
        assert_eq!(
            parked(&judge(answer(status, ""), &context)),
            Some(Reason::Redirected)
        );
    }
    for status in [500, 501, 502, 503, 504, 507, 599] {
        let judged = judge(answer(status, ""), &context);
        assert_eq!(judged.verdict, retry(Reason::UpstreamError));
        // Only these say that it is for load.
        let outcome = match status {
            503 | 504 => OVERLOADED,
            _ => SampleOutcome::Erred,
        };
        assert_eq!((judged.attempts, judged.outcome), (1, outcome));
    }
    assert_eq!(
        judge(answer(408, ""), &context).verdict,
        retry(Reason::Timeout)
    );
}

#[test]
fn only_failures_of_its_own_use_up_attempts() {
    for dialect in [Dialect::Countly, Dialect::Generic] {
        let mut context = context(dialect);
        context.attempts = 9;
        for attempt in [answer(429, ""), Attempt::NotConnected] {
            let judged = judge(attempt, &context);
            assert!(matches!(judged.verdict, Verdict::Retry { .. }));
            assert_eq!(judged.attempts, 9);
        }
        for attempt in [answer(503, ""), Attempt::TimedOut, Attempt::Broken] {
            let judged = judge(attempt, &context);
            assert_eq!(parked(&judged), Some(Reason::AttemptsExhausted));
            assert_eq!(judged.attempts, 10);
            let outage = Context {
                upstream_fails: true,
                ..context
            };
            let judged = judge(attempt, &outage);
            assert!(matches!(judged.verdict, Verdict::Retry { .. }));
            assert_eq!(judged.attempts, 9);
        }
    }
}

#[test]
fn attempts_lowered_by_the_user_do_not_park_what_did_not_fail_by_itself() {
    let context = Context {
        attempts: 7,
        attempts_max: 3,
        upstream_fails: true,
        ..countly()
    };
    assert_eq!(
        judge(answer(503, ""), &context).verdict,
        retry(Reason::UpstreamError)
    );
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let parse = |value: &str| parse_retry_after(value.as_bytes(), 784_111_777_000);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(parse("7"), seconds(7));
    assert_eq!(parse(" 7 "), seconds(7));
    assert_eq!(parse("0"), None);
    assert_eq!(parse("-3"), None);
    assert_eq!(parse("1.5"), None);
    assert_eq!(parse("99999999999999999999999"), seconds(300));
    assert_eq!(parse("86400"), seconds(300));
    assert_eq!(parse("Sun, 06 Nov 1994 08:50:07 GMT"), seconds(30));
    assert_eq!(parse("Sunday, 06-Nov-94 08:50:07 GMT"), seconds(30));
    assert_eq!(parse("Sun Nov  6 08:50:07 1994"), seconds(30));
    assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), None);
    assert_eq!(parse("Sun, 06 Nov 1994 08:00:00 GMT"), None);
    assert_eq!(parse("Sat, 06 Nov 2094 08:00:00 GMT"), seconds(300));
    assert_eq!(parse("soon"), None);
    assert_eq!(parse(""), None);
}

#[test]
fn retry_after_reaches_the_request_and_the_limiter() {
    let attempt = Attempt::Answered {
        status: 503,
        body: b"",
        retry_after: Some(b"12"),
    };
    let judged = judge(attempt, &countly());
    let wait = Some(Duration::from_secs(12));
    assert_eq!(
        judged.verdict,
        Verdict::Retry {
            reason: Reason::UpstreamError,
            after: wait
        }
    );
    assert_eq!(
        judged.outcome,
        SampleOutcome::Overloaded { retry_after: wait }
    );
}

#[test]
fn a_long_answer_that_looks_like_success_is_one() {
    let body = format!(
        r#"{{"result":"Success","more":"{}"#,
        "x".repeat(2 * REPLY_BODY_MAX)
    );
    let judged = judge(answer(200, &body[..REPLY_BODY_MAX]), &countly());
    assert!(matches!(judged.verdict, Verdict::Done { .. }));
}

#[test]
fn backoff_doubles_up_to_its_end() {
    let pause = |failures, spread| {
        backoff(
            Duration::from_secs(1),
            Duration::from_secs(60),
            failures,
            spread,
        )
        .as_secs_f64()
    };
    assert_eq!(
        [pause(1, 1.0), pause(2, 1.0), pause(3, 1.0)],
        [1.0, 2.0, 4.0]
    );
    assert_eq!(
        [pause(7, 1.0), pause(40, 1.0), pause(u32::MAX, 1.0)],
        [60.0; 3]
    );
    assert_eq!(
        [pause(3, 0.0), pause(3, 0.5), pause(3, f64::NAN)],
        [2.0, 3.0, 4.0]
    );
}

proptest! {
    #[test]
    fn no_answer_panics_or_goes_beyond_bounds(
        status in 0u16..1000,
        body in prop::collection::vec(any::<u8>(), 0..600),
        retry_after in prop::option::of(prop::collection::vec(any::<u8>(), 0..70)),
        attempts in 0u32..12,
        attempts_max in 1u32..12,
        is_countly: bool,
        application_succeeds: bool,
        upstream_fails: bool,
    ) {
        let dialect = if is_countly { Dialect::Countly } else { Dialect::Generic };
        let context = Context {
            dialect, application_succeeds, upstream_fails, attempts, attempts_max, now_ms: NOW_MS,
        };
        let attempt = Attempt::Answered { status, body: &body, retry_after: retry_after.as_deref() };
        let judged = judge(attempt, &context);
        prop_assert!(judged.attempts - attempts <= 1);
        match judged.verdict {
            Verdict::Done { info } | Verdict::Park { info, .. } => {
                prop_assert!(info.chars().count() <= INFO_CHARS_MAX);
            }
            Verdict::Retry { after, .. } => {
                prop_assert!(after.is_none_or(|after| after <= Duration::from_secs(300)));
            }
            Verdict::PauseLane { .. } => prop_assert_eq!(judged.attempts, attempts),
        }
    }

    #[test]
    fn an_outage_of_any_length_parks_nothing(statuses in prop::collection::vec(500u16..600, 1..2000)) {
        let mut context = Context { upstream_fails: true, ..countly() };
        for status in statuses {
            let judged = judge(answer(status, ""), &context);
            prop_assert_eq!(parked(&judged), None);
            context.attempts = judged.attempts;
        }
    }
}
