use super::{Place, Report};

fn place() -> (Place, Report) {
    let place = Place {
        channel: "a".to_owned(),
        position: None,
        last: 0,
        told: false,
    };
    (place, Report::default())
}

fn reply(offset: u64, recovered: bool, numbers: &[u64]) -> String {
    let publications: Vec<String> = numbers
        .iter()
        .map(|n| format!(r#"{{"data":{{"t":1000000000000000007,"v":{n}}},"offset":{n}}}"#))
        .collect();
    format!(
        r#"{{"id":2,"subscribe":{{"offset":{offset},"epoch":"e","recovered":{recovered},"publications":[{}]}}}}"#,
        publications.join(",")
    )
}

#[test]
fn what_comes_in_order_live_and_recovered_is_in_order() {
    let (mut place, mut report) = place();
    place.subscribed(&mut report, false, br#"{"id":2,"subscribe":{"epoch":"e"}}"#);
    place.take(&mut report, false, 1, 1, 1);
    assert!(place.subscribe().contains(r#""offset":1"#));
    place.subscribed(&mut report, true, reply(3, true, &[2, 3]).as_bytes());
    place.take(&mut report, true, 1, 4, 4);
    let found = report.followed;
    assert_eq!(
        (found.reached, found.lost, found.repeated, found.told),
        (4, 0, 0, 0)
    );
    assert_eq!((found.recovered, found.latency.count()), (2, 3));
}

#[test]
fn a_jump_is_a_loss_unless_the_server_said_so() {
    let (mut place, mut report) = place();
    place.subscribed(&mut report, false, br#"{"id":2,"subscribe":{"epoch":"e"}}"#);
    place.take(&mut report, false, 1, 3, 3);
    assert_eq!(report.followed.lost, 2);
    place.take(&mut report, false, 1, 3, 3);
    assert_eq!(report.followed.repeated, 1);
    place.subscribed(&mut report, false, reply(7, false, &[]).as_bytes());
    place.take(&mut report, false, 1, 8, 8);
    let found = report.followed;
    assert_eq!((found.lost, found.told, found.told_missing), (2, 1, 4));
}

#[test]
fn an_offset_that_does_not_follow_is_a_loss() {
    let (mut place, mut report) = place();
    place.subscribed(&mut report, false, br#"{"id":2,"subscribe":{"epoch":"e"}}"#);
    place.take(&mut report, false, 1, 1, 2);
    assert_eq!(report.followed.lost, 1);
}
