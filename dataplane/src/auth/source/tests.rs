//! Rotation, refresh on demand and failure of key sets, with a server on the loopback interface or a file.

use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;

use super::super::testing::{NOW, Pair, Server, key_set, with_url};
use super::super::{AuthError, Authenticator};

const HOUR: Duration = Duration::from_secs(3600);

fn named(pair: &Pair, id: &str) -> serde_json::Value {
    pair.jwk_with(&json!({"kid": id}))
}

fn start(url: &str, refresh: Duration) -> Authenticator {
    Authenticator::new(&with_url(url, refresh), &Handle::current()).unwrap()
}

async fn check(authenticator: &Authenticator, pair: &Pair, id: &str) -> Result<(), AuthError> {
    let token = pair.token_of("ES256", id, &json!({"sub": "42"}));
    authenticator.connection(&token, NOW).await.map(|_| ())
}

async fn eventually(authenticator: &Authenticator, pair: &Pair, id: &str) {
    for _ in 0..400 {
        if check(authenticator, pair, id).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("key {id} not accepted within 20 s");
}

#[tokio::test]
async fn a_new_key_is_accepted_at_once_and_forgeries_fetch_no_more() {
    let (old, new, forged) = (Pair::p256(), Pair::p256(), Pair::p256());
    let server = Server::start(key_set(&[named(&old, "old")])).await;
    let authenticator = start(&server.url, HOUR);
    assert_eq!(
        check(&authenticator, &old, "old").await,
        Ok(()),
        "waits for the first fetch"
    );
    assert_eq!(server.hits(), 1);
    server.answer.lock().1 = key_set(&[named(&new, "new")]);
    assert_eq!(
        check(&authenticator, &old, "old").await,
        Ok(()),
        "no fetch while keys fit"
    );
    assert_eq!(check(&authenticator, &new, "new").await, Ok(()));
    assert!(
        matches!(
            check(&authenticator, &old, "old").await,
            Err(AuthError::Invalid(_))
        ),
        "taken back"
    );
    let storm = (0..50).map(|number| {
        let (authenticator, forged) = (&authenticator, &forged);
        async move { check(authenticator, forged, &format!("forged {number}")).await }
    });
    for result in futures_util::future::join_all(storm).await {
        assert!(matches!(result, Err(AuthError::Invalid(_))), "{result:?}");
    }
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn a_storm_of_unknown_keys_is_one_fetch_and_all_see_it() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let server = Server::start(key_set(&[named(&old, "old")])).await;
    let authenticator = start(&server.url, HOUR);
    check(&authenticator, &old, "old").await.unwrap();
    server.answer.lock().1 = key_set(&[named(&old, "old"), named(&new, "new")]);
    let storm = (0..50).map(|_| check(&authenticator, &new, "new"));
    assert!(
        futures_util::future::join_all(storm)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn a_failed_fetch_keeps_the_old_set() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let server = Server::start(key_set(&[named(&old, "old")])).await;
    for (status, body) in [
        ("500 Internal Server Error", key_set(&[named(&new, "new")])),
        ("302 Found", key_set(&[named(&new, "new")])),
        ("200 OK", "no json".to_owned()),
        ("200 OK", key_set(&[])),
        ("200 OK", " ".repeat(2 * 1024 * 1024)),
    ] {
        let authenticator = start(&server.url, Duration::from_millis(100));
        eventually(&authenticator, &old, "old").await;
        *server.answer.lock() = (status, body);
        // The second one from here began after the answer changed.
        let hits = server.hits();
        while server.hits() < hits + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let unknown = check(&authenticator, &new, "new").await;
        assert!(
            matches!(unknown, Err(AuthError::Unavailable(_))),
            "{status}: {unknown:?}"
        );
        assert_eq!(check(&authenticator, &old, "old").await, Ok(()), "{status}");
        *server.answer.lock() = ("200 OK", key_set(&[named(&old, "old")]));
    }
}

#[tokio::test]
async fn unavailable_until_the_first_success() {
    let pair = Pair::p256();
    let server = Server::start(key_set(&[named(&pair, "a")])).await;
    server.answer.lock().0 = "503 Service Unavailable";
    let authenticator = start(&server.url, HOUR);
    let early = check(&authenticator, &pair, "a").await;
    assert_eq!(early, Err(AuthError::Unavailable("status 503".to_owned())));
    server.answer.lock().0 = "200 OK";
    eventually(&authenticator, &pair, "a").await;
}

#[tokio::test]
async fn a_file_is_read_again() {
    let (old, new) = (Pair::p256(), Pair::p256());
    let path = std::env::temp_dir().join(format!(
        "sluice-key-set-{}-{}.json",
        std::process::id(),
        fastrand::u64(..)
    ));
    let url = format!("file://{}", path.display());
    std::fs::write(&path, key_set(&[named(&old, "a")])).unwrap();
    let authenticator = start(&url, Duration::from_millis(100));
    check(&authenticator, &old, "a").await.unwrap();
    // The same id: no token asks for a fetch here.
    std::fs::write(&path, key_set(&[named(&new, "a")])).unwrap();
    eventually(&authenticator, &new, "a").await;
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        check(&authenticator, &new, "a").await,
        Ok(()),
        "the set outlives the file"
    );
}

#[tokio::test]
async fn renewal_takes_the_set_over_and_the_end_ends_the_task() {
    let (pair, other) = (Pair::p256(), Pair::p256());
    let server = Server::start(key_set(&[named(&pair, "a")])).await;
    let first = start(&server.url, HOUR);
    check(&first, &pair, "a").await.unwrap();
    *server.answer.lock() = ("500 Internal Server Error", String::new());
    let same = first.renew(&with_url(&server.url, HOUR)).unwrap();
    assert_eq!(check(&same, &pair, "a").await, Ok(()));
    assert_eq!(server.hits(), 1, "the same source goes on");
    drop(first);
    let often = same
        .renew(&with_url(&server.url, Duration::from_millis(100)))
        .unwrap();
    assert_eq!(
        check(&often, &pair, "a").await,
        Ok(()),
        "another interval, the same set"
    );
    let elsewhere = often
        .renew(&with_url("http://127.0.0.1:1/keys", HOUR))
        .unwrap();
    assert!(matches!(
        check(&elsewhere, &pair, "a").await,
        Err(AuthError::Unavailable(_))
    ));
    *server.answer.lock() = ("200 OK", key_set(&[named(&other, "a")]));
    eventually(&often, &other, "a").await;
    drop((same, often));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let hits = server.hits();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(server.hits(), hits, "nobody fetches any more");
}

#[test]
fn tokens_are_checked_on_other_runtimes_than_the_refresh() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let pair = std::sync::Arc::new(Pair::p256());
    let (sender, receiver) = std::sync::mpsc::channel();
    let home_pair = std::sync::Arc::clone(&pair);
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    let home = std::thread::spawn(move || {
        runtime().block_on(async {
            let server = Server::start(key_set(&[named(&home_pair, "a")])).await;
            sender.send(start(&server.url, HOUR)).unwrap();
            let _ = wait.await;
        });
    });
    let authenticator = receiver.recv().unwrap();
    assert_eq!(
        runtime().block_on(check(&authenticator, &pair, "a")),
        Ok(())
    );
    drop(done);
    home.join().unwrap();
}
