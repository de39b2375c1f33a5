//! Statuses, keys, bodies, batches and the old form.

use super::*;

#[tokio::test]
async fn the_key_is_required() {
    let open = post("/api/info", "{}");
    assert_eq!(
        send(&shared_with(None), open).await.0,
        StatusCode::UNAUTHORIZED
    );
    let wrong = Request::builder()
        .method("POST")
        .uri("/api/info")
        .header("X-API-Key", "other");
    let wrong = wrong
        .header("X-Centrifugo-Error-Mode", "transport")
        .body(Full::new("{}".into()))
        .expect("a request");
    assert_eq!(send(&shared(), wrong).await.0, StatusCode::UNAUTHORIZED);
    let query = Request::builder()
        .method("POST")
        .uri(format!("/api/channels?api_key={KEY}"));
    let query = query.body(Full::new("{}".into())).expect("a request");
    assert_eq!(
        send(&shared(), query).await,
        (StatusCode::OK, r#"{"result":{"channels":{}}}"#.to_owned())
    );
}

#[tokio::test]
async fn only_post_and_known_paths() {
    let shared = shared();
    let get = Request::builder()
        .uri("/api/info")
        .header("X-API-Key", KEY)
        .body(Full::default())
        .expect("a request");
    assert_eq!(send(&shared, get).await.0, StatusCode::METHOD_NOT_ALLOWED);
    for path in [
        "/api/nothing",
        "/api/publish/x",
        "/api/map_publish",
        "/api/Publish",
    ] {
        let (status, body) = send(&shared, post(path, "{}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            serde_json::from_str::<Value>(&body).expect("JSON"),
            error(104, "not found")
        );
    }
    assert_eq!(
        call(&shared, "rpc", json!({"method": "x"})).await,
        error(104, "not found")
    );
    assert_eq!(call(&shared, "rpc", json!({})).await, bad_request());
}

#[tokio::test]
async fn malformed_bodies_are_refused() {
    let shared = shared();
    for body in [
        "",
        "{",
        "[]",
        "7",
        r#"{"channel":5,"data":{}}"#,
        r#"{"channel":"a","data":{]}"#,
        "{} x",
    ] {
        assert_eq!(
            send(&shared, post("/api/publish", body)).await.0,
            StatusCode::BAD_REQUEST,
            "{body}"
        );
    }
    assert_eq!(
        send(
            &shared,
            post("/api/publish", &b"{\"channel\":\"\xff\"}"[..])
        )
        .await
        .0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        send(&shared, post("/api/info", "")).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        send(
            &shared,
            post("/api/batch", r#"{"commands":[{"publish":7}]}"#)
        )
        .await
        .0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        send(&shared, post("/api", r#"{"method":"#)).await.0,
        StatusCode::BAD_REQUEST
    );
    let large = vec![b' '; API_BODY_BYTES_MAX + 1];
    assert_eq!(
        send(&shared, post("/api/publish", large)).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

/// A body that does not say how long it is.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(Bytes::from_static(
            &[b' '; 65_536],
        )))))
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_bounded() {
    let request = Request::builder()
        .method("POST")
        .uri("/api/info")
        .header("X-API-Key", KEY)
        .body(Endless);
    let response = handle(&shared(), request.expect("a request")).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn errors_as_statuses_on_request() {
    let shared = shared();
    let cases = [
        ("/api/publish", "{}", StatusCode::BAD_REQUEST, 107),
        (
            "/api/publish",
            r#"{"channel":"no:x","data":1}"#,
            StatusCode::NOT_FOUND,
            102,
        ),
        ("/api/nothing", "{}", StatusCode::NOT_FOUND, 104),
        (
            "/api/presence",
            r#"{"channel":"a"}"#,
            StatusCode::BAD_REQUEST,
            108,
        ),
        (
            "/api/history",
            r#"{"channel":"full:a","since":{"epoch":"other"}}"#,
            StatusCode::RANGE_NOT_SATISFIABLE,
            112,
        ),
    ];
    for (path, body, status, code) in cases {
        let mut request = post(path, body);
        request.headers_mut().insert(
            "X-Centrifugo-Error-Mode",
            HeaderValue::from_static("transport"),
        );
        let answer = send(&shared, request).await;
        assert_eq!(answer.0, status, "{path}");
        assert_eq!(
            serde_json::from_str::<Value>(&answer.1).expect("JSON")["code"],
            code,
            "{path}"
        );
    }
    let mut good = post("/api/publish", r#"{"channel":"a","data":1}"#);
    good.headers_mut().insert(
        "X-Centrifugo-Error-Mode",
        HeaderValue::from_static("transport"),
    );
    assert_eq!(
        send(&shared, good).await,
        (StatusCode::OK, r#"{"result":{}}"#.to_owned())
    );
}

#[tokio::test]
async fn batches_answer_each_command() {
    let shared = shared();
    for parallel in [false, true] {
        let body = json!({"parallel": parallel, "commands": [
            {"publish": {"channel": "a", "data": 1}},
            null,
            {"publish": {"channel": "no:a", "data": 1}},
            {},
            {"map_publish": {}},
            {"presence_stats": {"channel": "full:p"}},
            {"publish": null, "channels": {}},
        ]});
        let replies = json!([
            {"publish": {}},
            bad_request(),
            error(102, "unknown channel"),
            error(104, "not found"),
            error(104, "not found"),
            {"presence_stats": {"num_clients": 0, "num_users": 0}},
            {"channels": {"channels": {}}},
        ]);
        assert_eq!(
            call(&shared, "batch", body).await,
            json!({"replies": replies})
        );
    }
    assert_eq!(
        call(&shared, "batch", json!({})).await,
        json!({"replies": []})
    );
}

#[tokio::test]
async fn the_old_form_takes_several_commands() {
    let body = "{\"method\":\"publish\",\"params\":{\"channel\":\"a\",\"data\":{}}}\n\
                {\"id\":2,\"method\":\"nothing\",\"params\":{}} {\"id\":3,\"method\":\"publish\",\"params\":7}\n";
    let (status, text) = send(&shared(), post("/api", body)).await;
    assert_eq!(status, StatusCode::OK);
    let replies = "{\"result\":{}}\n{\"id\":2,\"error\":{\"code\":104,\"message\":\"not found\"}}\n\
                   {\"id\":3,\"error\":{\"code\":107,\"message\":\"bad request\"}}";
    assert_eq!(text, replies);
}
