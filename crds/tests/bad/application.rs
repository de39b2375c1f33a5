//! Bad Applications: the good manifest of `ingest` with one text replaced by another, and the line that says what is
//! wrong with it.

pub(crate) const BAD: &[(&str, &str, &str)] = &[
    (
        "kind: Application",
        "kind: Aplication",
        "file demo.yaml: kind: \"Aplication\" is an unknown kind; write Application",
    ),
    (
        "sluice.dev/v1alpha1\nkind: Application",
        "app.k8s.io/v1beta1\nkind: Application",
        "Application default/shop: apiVersion: \"app.k8s.io/v1beta1\" is unknown; write sluice.dev/v1alpha1",
    ),
    (
        "metadata: {name: shop}",
        "metadata: {name: shop, creationTimestamp: 5}",
        "Application default/shop: metadata.creationTimestamp: not a time; write one such as 2026-01-31T12:00:00Z, or remove it",
    ),
    (
        "metadata: {name: shop}",
        "metadata: {}",
        "file demo.yaml: Application metadata.name: missing; write lower-case letters",
    ),
    (
        "metadata: {name: shop}\nspec:",
        "metadata: {name: shop}\nspecs:",
        "Application default/shop: specs: unknown field; write spec",
    ),
    (
        "metadata: {name: books}",
        "metadata: {name: shop}",
        "Application default/shop: metadata.name: two objects have this name; keep one of them, or rename one",
    ),
    (
        "gatewayRef: {name: demo}",
        "gatewayRef: {name: dmo}",
        "Application default/shop: spec.gatewayRef.name: Gateway default/dmo does not exist; write demo",
    ),
    (
        "gatewayRef: {name: demo}",
        "gatewayRef: {name: production}",
        "Application default/shop: spec.gatewayRef.name: Gateway default/production does not exist; add the Gateway, or name one that exists",
    ),
    (
        "metadata: {name: books}",
        "metadata: {name: books, namespace: other}",
        "Application other/books: spec.gatewayRef.name: Gateway other/demo does not exist; put the Application into namespace default, where there is such a Gateway",
    ),
    (
        "gatewayRef: {name: demo}",
        "gatewayRef: demo",
        "Application default/shop: spec.gatewayRef: text stands here; write {name: ..., namespace: ...}",
    ),
    (
        "  gatewayRef: {name: demo}\n",
        "",
        "Application default/shop: spec.gatewayRef: missing; add gatewayRef: {name: ..., namespace: ...}",
    ),
    (
        "keys: [{value: hidden-3}]",
        "keys: []",
        "Application default/books: spec.keys: the list is empty; write 1 or more",
    ),
    (
        "keys: [{value: hidden-3}]",
        "keys: hidden-3",
        "Application default/books: spec.keys: text stands here; write a list",
    ),
    (
        "{value: hidden-3}",
        "hidden-3",
        "Application default/books: spec.keys[0]: text stands here; write {secretRef: ..., value: ...}",
    ),
    (
        "{value: hidden-3}",
        "{}",
        "Application default/books: spec.keys[0]: names no source; write value, or secretRef with name and key",
    ),
    (
        "{value: hidden-3}",
        "{value: \"\"}",
        "Application default/books: spec.keys[0].value: too short; write some text",
    ),
    (
        "{value: hidden-3}",
        "{value: 33}",
        "Application default/books: spec.keys[0].value: a number stands here; put it in quotes",
    ),
    (
        "{value: hidden-3}",
        "{value: \"hidden-3 \"}",
        "Application default/books: spec.keys[0].value: the value begins or ends with white space; write it without",
    ),
    (
        "{value: hidden-3}",
        "{value: hidden-3, secretRef: {name: keys, key: second}}",
        "Application default/books: spec.keys[0]: names more than one source; keep one of them",
    ),
    (
        "{value: hidden-3}",
        "{value: hidden-3}, {value: hidden-4}, {value: hidden-3}",
        "Application default/books: spec.keys[2].value: the same key as keys[0]; keep one of them",
    ),
    (
        "{value: hidden-3}",
        "{value: hidden-3}, {value: hidden-1}",
        "Application default/books: spec.keys[1].value: the key belongs to Application default/shop (spec.keys[0].value), which comes first; remove it here or there: a key belongs to one application",
    ),
    (
        "{value: hidden-3}",
        "{value: hidden-2}",
        "Application default/books: spec.keys[0].value: the key belongs to Application default/shop (spec.keys[1].secretRef.key), which comes first; remove it here or there",
    ),
    (
        "metadata: {name: books}\nspec:\n  gatewayRef: {name: demo}\n  keys: [{value: hidden-3}]",
        "metadata: {name: books, creationTimestamp: \"2026-01-31T12:00:00Z\"}\nspec:\n  gatewayRef: {name: demo}\n  keys: [{value: hidden-1}]",
        "Application default/shop: spec.keys[0].value: the key belongs to Application default/books (spec.keys[0].value), which is older; remove it here or there",
    ),
    (
        "key: second",
        "key: secnd",
        "Application default/shop: spec.keys[1].secretRef.key: Secret default/keys has no key \"secnd\"; write second",
    ),
    (
        "secretRef: {name: keys",
        "secretRef: {name: others",
        "Application default/shop: spec.keys[1].secretRef.name: Secret default/others does not exist; add the Secret, or name one that exists",
    ),
    (
        "second: hidden-2",
        "second: \"hidden-2\\n\"",
        "Application default/shop: spec.keys[1].secretRef.key: the value ends with a line break; write it without, as printf does and echo does not",
    ),
    (
        "salt: {value: hidden-salt}",
        "salt: hidden-salt",
        "Application default/shop: spec.salt: text stands here; write {secretRef: ..., value: ...}",
    ),
    (
        "salt: {value: hidden-salt}",
        "salt: {value: \" \"}",
        "Application default/shop: spec.salt.value: the value is blank; give it a value",
    ),
    (
        "salt: {value: hidden-salt}",
        "salt: {vallue: hidden-salt}",
        "Application default/shop: spec.salt.vallue: unknown field; write value",
    ),
    (
        "weight: 2",
        "weight: 0",
        "Application default/shop: spec.throttle.weight: 0 is out of range; write a number from 1 to 1000",
    ),
    (
        "delivery: {timeout: 10s}",
        "delivery: {backoff: {initial: 4m}}",
        "Application default/shop: spec.delivery.backoff.initial: 4m is longer than max, 3m of the Gateway; write a shorter initial, or a longer max",
    ),
    (
        "delivery: {timeout: 10s}",
        "delivery: {backoff: {max: 1s}}",
        "Application default/shop: spec.delivery.backoff.initial: 2s is longer than max, 1s, while initial is that of the Gateway; write a shorter initial, or a longer max",
    ),
    (
        "http://own.example",
        "\"http://own.example?hidden\"",
        "Application default/shop: spec.upstreams[0].url: the address holds a query",
    ),
    (
        "retention: {time: 1h}",
        "retention: {time: 10s}",
        "Application default/shop: spec.retention.time: 10s is out of range; write a duration from 1m to 720h",
    ),
    (
        "processing: Active",
        "processing: active",
        "Application default/shop: spec.processing: \"active\" is not one of the choices; write Active",
    ),
    (
        "processing: Active",
        "paused: true",
        "Application default/shop: spec.paused: unknown field; remove it, or write one of delivery, gatewayRef, keys, processing, retention, salt, throttle, upstreams",
    ),
];
