//! A batch that comes again, because nobody saw its outcome, is answered and not published twice.

use bytes::Bytes;
use sluice_e2e::redis::{Options, RedisServer};

use super::*;
use crate::store::redis::broker::publish::PUBLISH;
use crate::store::redis::cluster::{Again, CallError};
use crate::store::redis::reply::Reply;

fn args(batch: u64) -> Vec<Bytes> {
    let frame = [&[1, 1], [7; 16].as_slice(), b"data"].concat();
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut args = vec![text(&batch.to_string())];
    args.extend(["60000", "2678400", "300000", "1", "epoch"].map(text));
    for key in ["0", "1"] {
        args.extend(["1", key].map(text));
        args.push(Bytes::from(frame.clone()));
        args.extend(["10", "60000", "", ""].map(text));
    }
    args
}

#[tokio::test]
async fn a_batch_counts_once() {
    let server = RedisServer::start(Options::default()).await.unwrap();
    let settings = settings(seeds([&server]), &fresh_gateway());
    let cluster = connect(settings);
    let keys = ["lane", "channel", "stream", "meta", "answer"]
        .map(|key| Bytes::from_static(key.as_bytes()));
    let publish = |batch| cluster.call(0, &PUBLISH, &keys, args(batch), Again::Never);
    while publish(1).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let texts = |reply: Reply| -> Vec<String> {
        let texts = reply
            .list()
            .iter()
            .map(|answer| answer.text().unwrap().to_owned());
        texts.collect()
    };
    assert_eq!(texts(publish(1).await.unwrap()), ["+1:epoch", "+2:epoch"]);
    let length = server.call(&["XLEN", "stream"]).await.unwrap();
    assert_eq!(length.int(), Some(2));
    assert_eq!(
        texts(publish(2).await.unwrap()),
        ["+3:epoch", "-2:epoch"],
        "another batch, whose key is known"
    );
    assert!(
        matches!(publish(1).await, Err(CallError::Refused(_))),
        "too late"
    );
    let length = server.call(&["XLEN", "stream"]).await.unwrap();
    assert_eq!(length.int(), Some(3));
}
