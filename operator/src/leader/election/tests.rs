use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn lease(version: u64, holder: &str) -> Lease {
    Lease {
        resource_version: version.to_string(),
        holder: holder.to_owned(),
        transitions: 0,
        time: LEASE_TIME,
        address: String::new(),
    }
}

fn write(version: Option<u64>, holder: &str, transitions: i32) -> Action {
    Action::Write {
        resource_version: version.map(|version| version.to_string()),
        holder: holder.to_owned(),
        transitions,
    }
}

/// Carries an action out in no time.
fn answer(election: &mut Election, answer: Answer, now: Instant) -> Action {
    let action = election.next(now);
    election.answered(&action, answer, now, now);
    action
}

#[test]
fn an_absent_lease_is_created() {
    let now = Instant::now();
    let mut one = Election::new("a", now);
    assert_eq!(answer(&mut one, Answer::Absent, now), Action::Read);
    assert!(!one.may_write(now));
    let made = answer(&mut one, Answer::Found(lease(1, "a")), now);
    assert_eq!(made, write(None, "a", 0));
    assert!(one.may_write(now));
    assert_eq!(one.next(now), Action::Wait(now + RETRY));
    assert_eq!(one.next(now + RETRY), write(Some(1), "a", 0));
}

#[test]
fn another_holder_is_waited_for_by_the_own_clock() {
    let mut now = Instant::now();
    let mut one = Election::new("a", now);
    let begin = now;
    answer(&mut one, Answer::Found(lease(7, "b")), now);
    while now < begin + LEASE_TIME - RETRY {
        now += RETRY;
        assert_eq!(
            answer(&mut one, Answer::Found(lease(7, "b")), now),
            Action::Read
        );
    }
    now = begin + LEASE_TIME + RETRY;
    assert_eq!(one.next(now), write(Some(7), "a", 1));
    // It was renewed meanwhile: the time begins anew.
    one.answered(&write(Some(7), "a", 1), Answer::Conflict, now, now);
    assert_eq!(
        answer(&mut one, Answer::Found(lease(8, "b")), now),
        Action::Read
    );
    now += LEASE_TIME - SECOND;
    assert_eq!(
        answer(&mut one, Answer::Found(lease(8, "b")), now),
        Action::Read
    );
    now += RETRY;
    assert_eq!(one.next(now), write(Some(8), "a", 1));
}

#[test]
fn a_holder_that_cannot_renew_stops_before_others_begin() {
    let begin = Instant::now();
    let mut one = Election::new("a", begin);
    answer(&mut one, Answer::Absent, begin);
    let action = one.next(begin);
    // The request took a while: the lease counts from when it was sent.
    one.answered(
        &action,
        Answer::Found(lease(1, "a")),
        begin,
        begin + 3 * SECOND,
    );
    let mut now = begin + 3 * SECOND;
    while now < begin + RENEW_DEADLINE {
        assert!(one.may_write(now));
        if !matches!(one.next(now), Action::Wait(_)) {
            answer(&mut one, Answer::Failed, now);
        }
        now += SECOND;
    }
    assert!(!one.may_write(begin + RENEW_DEADLINE));
    assert!(RENEW_DEADLINE + WRITE_TIMEOUT < LEASE_TIME);
}

#[test]
fn a_lost_lease_is_not_written_under() {
    let now = Instant::now();
    let mut one = Election::new("a", now);
    answer(&mut one, Answer::Absent, now);
    answer(&mut one, Answer::Found(lease(1, "a")), now);
    let later = now + RETRY;
    answer(&mut one, Answer::Conflict, later);
    assert!(one.may_write(later), "nobody may have taken it yet");
    answer(&mut one, Answer::Found(lease(2, "b")), later);
    assert!(!one.may_write(later));
}

#[test]
fn a_released_lease_is_free_at_once() {
    let now = Instant::now();
    let mut one = Election::new("a", now);
    answer(&mut one, Answer::Absent, now);
    answer(&mut one, Answer::Found(lease(1, "a")), now);
    one.release(now);
    assert!(!one.may_write(now));
    let released = answer(&mut one, Answer::Found(lease(2, "")), now);
    assert_eq!(released, write(Some(1), "", 0));
    assert_eq!(one.next(now + RETRY), Action::Done);
    let mut other = Election::new("b", now);
    answer(&mut other, Answer::Found(lease(2, "")), now);
    assert_eq!(other.next(now), write(Some(2), "b", 1));
    // Who holds nothing gives nothing back.
    let mut idle = Election::new("c", now);
    answer(&mut idle, Answer::Found(lease(2, "b")), now);
    idle.release(now);
    assert_eq!(idle.next(now), Action::Done);
}

/// The Lease as the API server has it.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
}

impl Server {
    fn carry_out(&mut self, action: &Action) -> Answer {
        match action {
            Action::Read => self.lease.clone().map_or(Answer::Absent, Answer::Found),
            Action::Write {
                resource_version,
                holder,
                transitions,
            } => {
                let current = self.lease.as_ref().map(|lease| &lease.resource_version);
                if current != resource_version.as_ref() {
                    return Answer::Conflict;
                }
                self.version += 1;
                let written = Lease {
                    transitions: *transitions,
                    ..lease(self.version, holder)
                };
                self.lease = Some(written.clone());
                Answer::Found(written)
            }
            Action::Wait(_) | Action::Done => unreachable!("nothing to carry out"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Step {
    who: usize,
    ms: u64,
    /// How long the request is on its way there, and back.
    there_ms: u64,
    back_ms: u64,
    fate: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3_usize, 0..4000_u64, 0..3000_u64, 0..3000_u64, 0..10_u8);
    let step = step.prop_map(|(who, ms, there_ms, back_ms, fate)| Step {
        who,
        ms,
        there_ms,
        back_ms,
        fate,
    });
    prop::collection::vec(step, 1..400)
}

proptest! {
    /// Requests and answers take their time or are lost; processes look as late as they like. Of writes that take no longer
    /// than they may, no two processes ever have one under way at the same time.
    #[test]
    fn no_two_write_at_a_time(steps in steps()) {
        let begin = Instant::now();
        let mut now = begin;
        let mut server = Server::default();
        let mut all: Vec<Election> = ["a", "b", "c"].map(|name| Election::new(name, now)).into();
        for step in steps {
            now += Duration::from_millis(step.ms);
            let one = &mut all[step.who];
            let action = one.next(now);
            if !matches!(action, Action::Wait(_) | Action::Done) {
                let sent = now;
                now += Duration::from_millis(step.there_ms);
                let answer = if step.fate == 0 { Answer::Failed } else { server.carry_out(&action) };
                now += Duration::from_millis(step.back_ms);
                let answer = if step.fate == 1 { Answer::Failed } else { answer };
                one.answered(&action, answer, sent, now);
            }
            if step.fate == 2 && step.ms > 3900 {
                all[step.who].release(now);
            }
            // A write that another began at the last moment it might is still under way.
            let under_way = |one: &Election| {
                one.deadline().is_some_and(|deadline| now < deadline + WRITE_TIMEOUT)
            };
            let writing = all.iter().filter(|one| one.may_write(now)).count();
            prop_assert!(writing <= 1, "{writing} write");
            if let Some(index) = all.iter().position(|one| one.may_write(now)) {
                let others = all.iter().enumerate().filter(|(other, one)| *other != index && !one.releasing && under_way(one));
                prop_assert_eq!(others.count(), 0);
            }
        }
    }
}
