use http::StatusCode;
use serde_json::{Map, json};

use super::*;
use crate::fixtures::{ApiServer, GATEWAY_PATH, gateway};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

fn name() -> GatewayName {
    GatewayName {
        namespace: "n".to_owned(),
        name: "g".to_owned(),
    }
}

fn status(refused: Refusal) -> StatusCode {
    api::Answer::from(refused).status()
}

/// A cluster with the Gateway `g`, in which everybody may everything, or nothing.
fn cluster(allowed: bool) -> (ApiServer, Viewers) {
    let server = ApiServer::default();
    server.put(REVIEWS, json!({"status": {"allowed": allowed}}));
    server.put(GATEWAY_PATH, gateway("{listeners: []}"));
    let viewers = Viewers::by(server.client());
    (server, viewers)
}

#[tokio::test]
async fn what_somebody_may_is_asked_once_for_a_while() {
    let (server, viewers) = cluster(true);
    for _ in 0..3 {
        let rights = viewers.rights("token", &name()).await.unwrap();
        assert!(rights.requests && rights.replay && rights.edit);
        assert_eq!(viewers.seen("token", vec![name()]).await, Ok(vec![name()]));
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 5, "{asked:?}");
    // Somebody else is another one.
    viewers.rights("another", &name()).await.unwrap();
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn who_may_not_see_a_gateway_is_told_so() {
    let (_server, viewers) = cluster(false);
    let refused = viewers.rights("token", &name()).await.unwrap_err();
    assert_eq!(status(refused), StatusCode::FORBIDDEN);
    assert_eq!(viewers.seen("token", vec![name()]).await, Ok(Vec::new()));
    let (server, viewers) = cluster(true);
    server.refuse("selfsubjectaccessreviews", 401, "who is that?");
    let refused = viewers.rights("token", &name()).await.unwrap_err();
    assert_eq!(status(refused), StatusCode::UNAUTHORIZED);
    // A token that cannot be sent is nobody's either.
    let refused = viewers.rights("to\nken", &name()).await.unwrap_err();
    assert_eq!(status(refused), StatusCode::UNAUTHORIZED);
    let (server, viewers) = cluster(true);
    server.refuse("selfsubjectaccessreviews", 500, "not now");
    let refused = viewers.rights("token", &name()).await.unwrap_err();
    assert_eq!(status(refused), StatusCode::SERVICE_UNAVAILABLE);
}

fn edit(generation: i64) -> Edit {
    Edit {
        generation,
        spec: Map::from_iter([("listeners".to_owned(), json!([{"name": "clients"}]))]),
    }
}

#[tokio::test]
async fn an_object_is_changed_that_still_is_what_was_seen() {
    let (server, viewers) = cluster(true);
    let changed = async |edit: &Edit| {
        objects::edit(&viewers, "token", &name(), &Written::Gateway, edit, false).await
    };
    let stale = changed(&edit(0)).await.unwrap_err();
    assert_eq!(status(stale), StatusCode::CONFLICT);
    assert!(server.writes().is_empty());
    let after = changed(&edit(1)).await.unwrap();
    assert_eq!(after["spec"]["listeners"][0]["name"], "clients");
    // Written all the time: given up, and said.
    server.refuse("gateways/g", 409, "the object has been modified");
    let refused = changed(&edit(1)).await.unwrap_err();
    assert_eq!(status(refused), StatusCode::CONFLICT);
    server.allow_all();
    server.refuse("gateways/g", 422, "spec.listeners: Required value");
    let refused = api::Answer::from(changed(&edit(1)).await.unwrap_err());
    let text = String::from_utf8_lossy(refused.body()).into_owned();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text.contains("spec.listeners: Required value"), "{text}");
}

#[tokio::test]
async fn nothing_but_objects_of_the_gateway_is_found() {
    let (server, viewers) = cluster(true);
    let path = "/apis/sluice.dev/v1alpha1/namespaces/n/applications/a";
    for of in ["g", "other"] {
        let application = json!({
            "metadata": {"name": "a", "namespace": "n"}, "spec": {"gatewayRef": {"name": of}},
        });
        server.put(path, application);
        let object = Written::Application {
            namespace: "n".to_owned(),
            name: "a".to_owned(),
        };
        let found = objects::find(&viewers, "token", &name(), &object).await;
        assert_eq!(found.is_ok(), of == "g", "{of}");
    }
    server.asked();
    for (namespace, object) in [("n", "../secrets/s"), ("", "a"), ("n", "a%2f"), ("N", "a")] {
        let object = Written::Application {
            namespace: namespace.to_owned(),
            name: object.to_owned(),
        };
        let found = objects::find(&viewers, "token", &name(), &object).await;
        assert_eq!(status(found.unwrap_err()), StatusCode::NOT_FOUND);
    }
    assert!(server.asked().is_empty());
}

#[test]
fn a_token_is_what_comes_after_bearer() {
    let token = |value: &str| {
        let request = Request::builder().header(AUTHORIZATION, value).body(());
        bearer(&request.unwrap().into_parts().0).map(str::to_owned)
    };
    assert_eq!(token("Bearer abc"), Some("abc".to_owned()));
    assert_eq!(token("bearer  abc "), Some("abc".to_owned()));
    for none in ["Basic abc", "Bearer", "Bearer ", "abc"] {
        assert_eq!(token(none), None, "{none}");
    }
}
