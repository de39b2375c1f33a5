use std::time::Duration;

use prost::Message;

use super::*;
use crate::fleet_wire as wire;

fn past() -> Past {
    let point = PastPoint {
        arrived_per_minute: 1.0,
        delivered_per_minute: 2.0,
        failed_per_minute: 3.0,
        waiting: 4.0,
        oldest_seconds: 5.5,
        connections: 6.0,
        messages_in_per_second: 7.0,
        messages_out_per_second: 8.0,
    };
    Past {
        from_s: 1_000,
        points: vec![None, Some(point)],
    }
}

fn report() -> Report {
    Report {
        gateway: "shop/front".into(),
        pod: "front-1".into(),
        instance: "a".into(),
        sequence: 7,
        release: "0.1.0".into(),
        applied: Version {
            term: 3,
            generation: 9,
        },
        phase: Phase::Draining,
        cpu_request_cores: Some(0.25),
        connections_max: Some(20_000),
        relay: Relay {
            connections: 12,
            opened_total: 30,
            refused_total: 1,
            shed_total: 2,
            messages_in_total: 5,
            messages_out_total: 6,
        },
        load: Load {
            cpu_seconds_total: 1.5,
            memory_bytes: 1,
            memory_limit_bytes: 2,
            loop_delay: Duration::from_millis(3),
            overload_level: 1,
        },
        caps: vec![Cap {
            key: CapKey::Application("web".into()),
            arrived_total: 10,
            sent_total: 9,
            waiting: 1,
            oldest: Duration::from_secs(2),
            allowed_per_minute: 600.0,
            lease_left: Duration::from_secs(12),
            safe_per_minute: Some(200.0),
        }],
        upstreams: vec![Upstream {
            name: "a/b".into(),
            succeeded_total: 1,
            failed_total: 2,
            in_flight: 3,
            in_flight_limit: 4.5,
            pace_per_second: None,
            closed: true,
            wanted: true,
        }],
        queue: Queue {
            waiting: 1,
            bytes: 2,
            parked: 3,
            oldest: Duration::from_secs(4),
            arrived_total: 5,
            delivered_total: 6,
            failed_total: 7,
            dispatch_lag: Duration::from_millis(8),
        },
        ends_in: Some(Duration::from_secs(9)),
        sends_nothing: true,
        applications: vec![application()],
        past: Some(past()),
    }
}

fn application() -> Application {
    Application {
        name: "web".into(),
        arrived_total: 10,
        delivered_total: 8,
        failed_total: 1,
        waiting: 1,
        parked: 1,
        oldest: Duration::from_secs(2),
        held: "Cap".into(),
    }
}

fn directive() -> Directive {
    Directive {
        version: Version {
            term: 3,
            generation: 10,
        },
        answers: 7,
        steering: Steering::Fence,
        shed_to: 12,
        valid: Some(Duration::from_secs(5)),
        shares: vec![Share {
            key: CapKey::Gateway,
            per_minute: 100.5,
            lease: Duration::from_secs(15),
            safe_per_minute: 10.0,
        }],
        upstreams: vec![UpstreamShare {
            name: "a".into(),
            per_second: Some(3.5),
        }],
        report_every: None,
        retry_spread: Some(Duration::from_secs(4)),
    }
}

#[test]
fn everything_arrives_as_it_was_sent() {
    let bytes = wire::Report::from(report()).encode_to_vec();
    let read = wire::Report::decode(&*bytes).unwrap();
    assert_eq!(Report::try_from(read).unwrap(), report());
    let bytes = wire::Directive::from(directive()).encode_to_vec();
    let read = wire::Directive::decode(&*bytes).unwrap();
    assert_eq!(Directive::try_from(read).unwrap(), directive());
}

/// What an older release does not say, and what a later one says in other words.
#[test]
fn a_release_before_or_after_is_understood() {
    let least = wire::Report {
        gateway: "n/g".to_owned(),
        pod: "p".to_owned(),
        instance: "i".to_owned(),
        phase: 77,
        caps: vec![wire::Cap {
            key: "zone/a".to_owned(),
            ..wire::Cap::default()
        }],
        ..wire::Report::default()
    };
    let read = Report::try_from(least).unwrap();
    assert_eq!(read.phase, Phase::Serving);
    assert!(read.caps.is_empty() && read.cpu_request_cores.is_none());
    let unknown = wire::Directive {
        steering: 77,
        ..wire::Directive::default()
    };
    let read = Directive::try_from(unknown).unwrap();
    assert_eq!((read.steering, read.valid), (Steering::Accept, None));
    // Fields of a later release are passed over.
    let mut bytes = wire::Directive::from(directive()).encode_to_vec();
    bytes.extend([0xf8, 0x3f, 0x01]);
    let read = wire::Directive::decode(&*bytes).unwrap();
    assert_eq!(Directive::try_from(read).unwrap(), directive());
}

#[test]
fn more_than_can_be_true_is_taken_for_less() {
    let mut said = wire::Report::from(report());
    said.queue.as_mut().unwrap().oldest_ms = u64::MAX;
    said.relay.as_mut().unwrap().connections = u64::MAX;
    said.load.as_mut().unwrap().cpu_seconds_total = f64::MAX;
    let read = Report::try_from(said).unwrap();
    assert_eq!(read.relay.connections, 1 << 53);
    assert_eq!(read.queue.oldest, Duration::from_millis(1 << 53));
    assert_eq!(read.load.cpu_seconds_total, 1e15);
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |change: fn(&mut wire::Report)| {
        let mut report = wire::Report::from(report());
        change(&mut report);
        Report::try_from(report).unwrap_err().to_string()
    };
    assert_eq!(wrong(|report| report.pod.clear()), "pod is empty");
    assert_eq!(
        wrong(|report| report.gateway = "g".repeat(513)),
        "gateway has 513 bytes, more than 512"
    );
    assert_eq!(
        wrong(|report| report.cpu_request_cores = f64::NAN),
        "cpu_request_cores is no number, or below zero"
    );
    assert_eq!(
        wrong(|report| report.caps[0].allowed_per_minute = -1.0),
        "caps.allowed_per_minute is no number, or below zero"
    );
    assert_eq!(
        wrong(|report| report.caps = vec![wire::Cap::default(); CAPS_MAX + 1]),
        "caps has 10002 entries, more than 10001"
    );
}

#[test]
fn keys_of_caps() {
    for key in [CapKey::Gateway, CapKey::Application("gateway".into())] {
        assert_eq!(CapKey::parse(&key.to_string()), Some(key));
    }
    for text in ["", "application/", "zone/a", "Gateway"] {
        assert_eq!(CapKey::parse(text), None, "{text}");
    }
}

#[test]
fn a_past_is_no_longer_than_it_may_be_and_has_numbers_alone() {
    let read = |change: &dyn Fn(&mut wire::Past)| {
        let mut report: wire::Report = report().into();
        change(report.past.as_mut().unwrap());
        Report::try_from(report)
    };
    let point = wire::PastPoint {
        known: true,
        ..wire::PastPoint::default()
    };
    assert!(read(&|past| past.points = vec![point; PAST_MAX]).is_ok());
    assert!(read(&|past| past.points = vec![point; PAST_MAX + 1]).is_err());
    assert!(read(&|past| past.points[1].waiting = f32::NAN).is_err());
    let odd = read(&|past| past.from_s = 1_007).unwrap();
    assert_eq!(odd.past.unwrap().from_s, 1_000);
}
