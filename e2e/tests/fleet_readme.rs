//! What the README says of several data planes: `examples/redis.yaml`, twice, on one Redis.

use anyhow::Result;
use serde_json::json;
use sluice_e2e::ports::free_port;
use sluice_e2e::redis::{Options, RedisServer};
use sluice_e2e::sluice::{Sluice, root};
use sluice_e2e::token;

#[tokio::test]
async fn clients_of_two_processes_chat() -> Result<()> {
    let redis = RedisServer::start(Options::default()).await?;
    let example = std::fs::read_to_string(root().join("examples/redis.yaml"))?;
    let example = example.replace("redis://127.0.0.1:6379", &redis.url());
    let mut planes = Vec::new();
    for _ in 0..2 {
        let port = free_port()?;
        let text = example.replace("port: 8000", &format!("port: {port}"));
        planes.push(Sluice::start_text(&text, port).await?);
    }
    let token = |user: &str| {
        let claims = json!({ "sub": user, "account": "acme" });
        token::sign_with(&claims, "only-for-trying-tokens")
    };
    let about = json!({ "channel": "chat:all" });
    let mut alice = planes[0].client(&token("alice")).await?;
    alice.call("subscribe", about.clone()).await?;
    let mut bob = planes[1].client(&token("bob")).await?;
    bob.call("subscribe", about).await?;
    bob.call(
        "publish",
        json!({ "channel": "chat:all", "data": { "text": "hello" } }),
    )
    .await?;
    let heard = alice.push_of("pub").await?;
    assert_eq!(heard["pub"]["data"]["text"], "hello");
    assert_eq!(heard["pub"]["info"]["user"], "bob");
    Ok(())
}
