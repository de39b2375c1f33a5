//! Bad ingest, in its Gateway: what follows `GATEWAY` in a good manifest, with one text replaced by another, and the line
//! that says what is wrong with it. Keys and salts hold the word that no line may hold.

pub(crate) const GOOD: &str = r#"  ingest:
    accept:
      dialect: Countly
      bodyBytes: 2048
      requiredFields: [{parameter: timestamp}]
    retention: {time: 24h, bytes: 67108864}
    throttle: {requestsPerMinute: 60000}
    delivery: {attempts: 10, backoff: {initial: 2s, max: 3m}, timeout: 30s}
    upstreams:
      - {name: one, url: http://one.example, concurrency: {max: 10}, health: {path: /ping}}
      - {name: two, url: http://two.example}
---
apiVersion: sluice.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec:
  gatewayRef: {name: demo}
  keys: [{value: hidden-1}, {secretRef: {name: keys, key: second}}]
  salt: {value: hidden-salt}
  throttle: {weight: 2}
  delivery: {timeout: 10s}
  upstreams: [{name: own, url: http://own.example}]
  retention: {time: 1h}
  processing: Active
---
apiVersion: sluice.dev/v1alpha1
kind: Application
metadata: {name: books}
spec:
  gatewayRef: {name: demo}
  keys: [{value: hidden-3}]
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {second: hidden-2}
"#;

pub(crate) const BAD: &[(&str, &str, &str)] = &[
    (
        "dialect: Countly",
        "dialect: countly",
        "Gateway default/demo: spec.ingest.accept.dialect: \"countly\" is not one of the choices; write Countly",
    ),
    (
        "dialect: Countly",
        "generic: {applicationKey: {header: X-App-Key}}",
        "Gateway default/demo: spec.ingest.accept.generic: dialect Countly takes no generic; write dialect: Generic, or remove generic",
    ),
    (
        "dialect: Countly",
        "pathPrefix: collect",
        "Gateway default/demo: spec.ingest.accept.pathPrefix: \"collect\" is not a path; write a path such as /collect, of letters, digits and -._~!$&'()*+,;=:@/",
    ),
    (
        "dialect: Countly",
        "pathPrefix: /collect?x=y",
        "Gateway default/demo: spec.ingest.accept.pathPrefix: \"/collect?x=y\" is not a path; write a path such as /collect, of",
    ),
    (
        "dialect: Countly",
        "pathPrefix: \"\"",
        "Gateway default/demo: spec.ingest.accept.pathPrefix: too short; write a path such as /collect, of",
    ),
    (
        "dialect: Countly",
        "pathPrefix: /a//b",
        "Gateway default/demo: spec.ingest.accept.pathPrefix: a part of the path is empty, . or .., and clients or proxies would change it; write it without",
    ),
    (
        "dialect: Countly",
        "pathPrefix: /a/..",
        "Gateway default/demo: spec.ingest.accept.pathPrefix: a part of the path is empty, . or .., and clients or proxies would change it; write it without",
    ),
    (
        "  ingest:\n    accept:",
        "  relay: {authentication: {anonymous: Allowed}}\n  ingest:\n    accept:\n      pathPrefix: /api/",
        "Gateway default/demo: spec.ingest.accept.pathPrefix: the paths below /api are those of relay; write another prefix",
    ),
    (
        "bodyBytes: 2048",
        "bodyBytes: 1023",
        "Gateway default/demo: spec.ingest.accept.bodyBytes: 1023 is out of range; write a number from 1024 to 67108864",
    ),
    (
        "bodyBytes: 2048",
        "bodyBytes: 1MiB",
        "Gateway default/demo: spec.ingest.accept.bodyBytes: text stands here; write a number from 1024 to 67108864",
    ),
    (
        "bodyBytes: 2048",
        "concurrentRequests: 100001",
        "Gateway default/demo: spec.ingest.accept.concurrentRequests: 100001 is out of range; write a number from 1 to 100000",
    ),
    (
        "bodyBytes: 2048",
        "tamperCheck: true",
        "Gateway default/demo: spec.ingest.accept.tamperCheck: a boolean stands here; write Enabled or Disabled",
    ),
    (
        "bodyBytes: 2048",
        "unknownKeys: Drop",
        "Gateway default/demo: spec.ingest.accept.unknownKeys: \"Drop\" is not one of the choices; write Reject, AcceptAndDiscard or Accept",
    ),
    (
        "{parameter: timestamp}",
        "timestamp",
        "Gateway default/demo: spec.ingest.accept.requiredFields[0]: text stands here; write {header: ..., parameter: ...}",
    ),
    (
        "{parameter: timestamp}",
        "{}",
        "Gateway default/demo: spec.ingest.accept.requiredFields[0]: names no part of a request; write header: <name> or parameter: <name>",
    ),
    (
        "{parameter: timestamp}",
        "{parameter: a, header: b}",
        "Gateway default/demo: spec.ingest.accept.requiredFields[0]: names both a header and a parameter; keep one of them",
    ),
    (
        "{parameter: timestamp}",
        "{header: \"X-Key:\"}",
        "Gateway default/demo: spec.ingest.accept.requiredFields[0].header: \"X-Key:\" is not a valid name; write the name of a header, such as X-App-Key",
    ),
    (
        "{parameter: timestamp}",
        "{parameter: a=b}",
        "Gateway default/demo: spec.ingest.accept.requiredFields[0].parameter: \"a=b\" is not a valid name; write letters, digits and -_.~:$@!*[]",
    ),
    (
        "{parameter: timestamp}",
        "{header: X-Key}, {header: x-key}",
        "Gateway default/demo: spec.ingest.accept.requiredFields[1]: the same as requiredFields[0]; keep one of them",
    ),
    (
        "    retention: {time: 24h",
        "    durability: Fsync\n    retention: {time: 24h",
        "Gateway default/demo: spec.ingest.durability: \"Fsync\" is not one of the choices; write Memory, Group or Replicated",
    ),
    (
        "time: 24h",
        "time: 30d",
        "Gateway default/demo: spec.ingest.retention.time: \"30d\" is not a duration; write a duration from 1m to 720h",
    ),
    (
        "time: 24h",
        "time: 721h",
        "Gateway default/demo: spec.ingest.retention.time: 721h is out of range; write a duration from 1m to 720h",
    ),
    (
        "bytes: 67108864",
        "bytes: 67108863",
        "Gateway default/demo: spec.ingest.retention.bytes: 67108863 is out of range; write a number from 67108864 to 17592186044416",
    ),
    (
        "bytes: 67108864",
        "bytes: 17592186044417",
        "Gateway default/demo: spec.ingest.retention.bytes: 17592186044417 is out of range; write a number from 67108864 to 17592186044416",
    ),
    (
        "requestsPerMinute: 60000",
        "requestsPerMinute: 0",
        "Gateway default/demo: spec.ingest.throttle.requestsPerMinute: 0 is out of range; write a number from 1 to 1000000000",
    ),
    (
        "attempts: 10",
        "attempts: 0",
        "Gateway default/demo: spec.ingest.delivery.attempts: 0 is out of range; write a number from 1 to 1000",
    ),
    (
        "initial: 2s",
        "initial: 3m1s",
        "Gateway default/demo: spec.ingest.delivery.backoff.initial: 3m1s is longer than max, 3m; write a shorter initial, or a longer max",
    ),
    (
        "initial: 2s",
        "intial: 2s",
        "Gateway default/demo: spec.ingest.delivery.backoff.intial: unknown field; write initial",
    ),
    (
        "timeout: 30s",
        "timeout: 11m",
        "Gateway default/demo: spec.ingest.delivery.timeout: 11m is out of range; write a duration from 100ms to 10m",
    ),
    (
        "timeout: 30s",
        "ordering: perKey",
        "Gateway default/demo: spec.ingest.delivery.ordering: \"perKey\" is not one of the choices; write PerKey",
    ),
    (
        "name: two, url: http://two.example",
        "name: one, url: http://two.example",
        "Gateway default/demo: spec.ingest.upstreams[1].name: \"one\" is already used by upstreams[0]; give each entry a name of its own",
    ),
    (
        "name: two, url: http://two.example",
        "name: two",
        "Gateway default/demo: spec.ingest.upstreams[1].url: missing; add url: text",
    ),
    (
        "http://two.example",
        "two.example:80",
        "Gateway default/demo: spec.ingest.upstreams[1].url: the address does not begin with http:// or https://; write http:// or https://, a host, and optionally a port and a path",
    ),
    (
        "http://two.example",
        "ftp://two.example",
        "Gateway default/demo: spec.ingest.upstreams[1].url: the address does not begin with http:// or https://",
    ),
    (
        "http://two.example",
        "\"http:///in\"",
        "Gateway default/demo: spec.ingest.upstreams[1].url: the address has no host",
    ),
    (
        "http://two.example",
        "\"http://two.example/?token=hidden\"",
        "Gateway default/demo: spec.ingest.upstreams[1].url: the address holds a query",
    ),
    (
        "http://two.example",
        "\"http://two.example/#hidden\"",
        "Gateway default/demo: spec.ingest.upstreams[1].url: the address holds a fragment",
    ),
    (
        "http://two.example",
        "\"http://me:hidden@two.example\"",
        "Gateway default/demo: spec.ingest.upstreams[1].url: the address holds a user or password",
    ),
    (
        "http://two.example",
        "\"http://two.example:70000\"",
        "Gateway default/demo: spec.ingest.upstreams[1].url: the port is not a number from 1 to 65535",
    ),
    (
        "{max: 10}",
        "{min: 11, max: 10}",
        "Gateway default/demo: spec.ingest.upstreams[0].concurrency.min: 11 is greater than max, 10; write a smaller min, or a greater max",
    ),
    (
        "{max: 10}",
        "{max: 0}",
        "Gateway default/demo: spec.ingest.upstreams[0].concurrency.max: 0 is out of range; write a number from 1 to 100000",
    ),
    (
        "{path: /ping}",
        "{path: ping}",
        "Gateway default/demo: spec.ingest.upstreams[0].health.path: \"ping\" is not a path; write a path such as /ping, with or without a query",
    ),
    (
        "{path: /ping}",
        "{interval: 5s}",
        "Gateway default/demo: spec.ingest.upstreams[0].health.path: missing; add path: a path such as /ping, with or without a query",
    ),
];

pub(crate) const GOOD_GENERIC: &str = r#"  relay: {authentication: {anonymous: Allowed}}
  ingest:
    accept:
      dialect: Generic
      pathPrefix: /apis
      unknownKeys: Reject
      generic: {applicationKey: {header: X-App-Key}}
    upstreams: [{name: one, url: http://one.example}]
---
apiVersion: sluice.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec:
  gatewayRef: {name: demo}
  keys: [{value: hidden-1}]
"#;

pub(crate) const BAD_GENERIC: &[(&str, &str, &str)] = &[
    (
        "pathPrefix: /apis",
        "pathPrefix: /api",
        "Gateway default/demo: spec.ingest.accept.pathPrefix: the paths below /api are those of relay; write another prefix",
    ),
    (
        "upstreams: [{name: one, url: http://one.example}]",
        "upstreams: []",
        "Gateway default/demo: spec.ingest.upstreams: the list is empty; write 1 or more",
    ),
    (
        "    upstreams: [{name: one, url: http://one.example}]\n",
        "",
        "Gateway default/demo: spec.ingest.upstreams: missing; add upstreams: a list",
    ),
    (
        "      generic: {applicationKey: {header: X-App-Key}}\n",
        "",
        "Gateway default/demo: spec.ingest.accept.unknownKeys: no request would be delivered: none is of a known application; write generic: {applicationKey: {header: <name>}}, or unknownKeys: Accept",
    ),
    (
        "applicationKey: {header: X-App-Key}",
        "orderingKey: {header: X-Device}",
        "Gateway default/demo: spec.ingest.accept.unknownKeys: no request would be delivered: none is of a known application",
    ),
    (
        "applicationKey",
        "applicationKeys",
        "Gateway default/demo: spec.ingest.accept.generic.applicationKeys: unknown field; write applicationKey",
    ),
    (
        "unknownKeys: Reject\n      generic: {applicationKey: {header: X-App-Key}}",
        "unknownKeys: Accept",
        "Application default/shop: spec.gatewayRef.name: Gateway default/demo takes no application key from requests, so none would be of this application; write spec.ingest.accept.generic.applicationKey there, or remove this one",
    ),
    (
        "keys: [{value: hidden-1}]",
        "keys: [{value: hidden-1}]\n  salt: {value: hidden}",
        "Application default/shop: spec.salt: Gateway default/demo has dialect Generic, which knows no checksums; remove it",
    ),
    (
        "  ingest:\n    accept:\n      dialect: Generic\n      pathPrefix: /apis\n      unknownKeys: Reject\n      generic: {applicationKey: {header: X-App-Key}}\n    upstreams: [{name: one, url: http://one.example}]\n",
        "",
        "Application default/shop: spec.gatewayRef.name: Gateway default/demo has no ingest; add ingest to it, or name a Gateway that has one",
    ),
];
