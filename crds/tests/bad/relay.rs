//! Bad relays: `examples/relay.yaml` with one text replaced by another, and the line that says what is wrong with it.

pub(crate) const BAD: &[(&str, &str, &str)] = &[
    (
        "port: 8000",
        "port: 99999",
        "Gateway default/demo: spec.listeners[0].port: 99999 is not a port; write a number from 1 to 65535",
    ),
    (
        "port: 8000",
        "port: http",
        "Gateway default/demo: spec.listeners[0].port: text stands here; write a number from 1 to 65535",
    ),
    (
        "port: 8000",
        "prt: 8000",
        "Gateway default/demo: spec.listeners[0].prt: unknown field; write port",
    ),
    (
        "      port: 8000\n",
        "",
        "Gateway default/demo: spec.listeners[0].port: missing; add port: a number from 1 to 65535",
    ),
    (
        "name: clients",
        "name: Clients",
        "Gateway default/demo: spec.listeners[0].name: \"Clients\" is not a valid name; write lower-case letters, digits and -, with a letter or digit first and last",
    ),
    (
        "port: 8000",
        "port: 8000\n      protocol: https",
        "Gateway default/demo: spec.listeners[0].protocol: \"https\" is not one of the choices; write HTTPS",
    ),
    (
        "port: 8000",
        "port: 8000\n      protocol: HTTPS",
        "Gateway default/demo: spec.listeners[0].tls: protocol HTTPS needs a certificate; write tls: {certificateRef: {name: <secret>}}, or protocol: HTTP",
    ),
    (
        "port: 8000",
        "port: 8000\n      tls: {certificateRef: {name: relay-keys}}",
        "Gateway default/demo: spec.listeners[0].tls: protocol HTTP takes no tls; write protocol: HTTPS, or remove tls",
    ),
    (
        "port: 8000",
        "port: 8000\n    - {name: more, port: 8000}",
        "Gateway default/demo: spec.listeners[1].port: 8000 is already used by listeners[0]; give every listener a port of its own",
    ),
    (
        "port: 8000",
        "port: 8000\n    - {name: clients, port: 8001}",
        "Gateway default/demo: spec.listeners[1].name: \"clients\" is already used by listeners[0]; give each entry a name of its own",
    ),
    (
        "name: relay-keys, key: tokens",
        "name: relay-kes, key: tokens",
        "Gateway default/demo: spec.relay.authentication.jwt.hmac[0].secretRef.name: Secret default/relay-kes does not exist; add the Secret, or name one that exists",
    ),
    (
        "key: tokens}",
        "key: token}",
        "Gateway default/demo: spec.relay.authentication.jwt.hmac[0].secretRef.key: Secret default/relay-keys has no key \"token\"; write tokens",
    ),
    (
        "tokens: only-for-trying-tokens",
        "tokens: \"\"",
        "Gateway default/demo: spec.relay.authentication.jwt.hmac[0].secretRef.key: key \"tokens\" of Secret default/relay-keys is empty; give it a value",
    ),
    (
        "api: only-for-trying-api",
        "api: \" \"",
        "Gateway default/demo: spec.relay.serverApi.keySecretRef.key: the value is blank; give it a value",
    ),
    (
        "api: only-for-trying-api",
        "api: |\n    key",
        "Gateway default/demo: spec.relay.serverApi.keySecretRef.key: the value ends with a line break; write it without, as printf does and echo does not",
    ),
    (
        "accountClaim: account",
        "jwks: {url: keys.json}",
        "Gateway default/demo: spec.relay.authentication.jwt.jwks.url: the address has no scheme; write an http:// or https:// address, or file:///path",
    ),
    (
        "accountClaim: account",
        "publicKeys: [{secretRef: {name: relay-keys, key: api}}]",
        "Gateway default/demo: spec.relay.authentication.jwt.publicKeys[0].secretRef.key: the value is not a PEM key; put PEM public keys there: RSA, EC P-256 or P-384, or Ed25519",
    ),
    (
        "accountClaim: account",
        "jwks: {secretRef: {name: relay-keys, key: api}}",
        "Gateway default/demo: spec.relay.authentication.jwt.jwks.secretRef.key: the value is not a JSON Web Key Set; put JSON of the form {\"keys\": [...]} there",
    ),
    (
        "accountClaim: account",
        "jwks: {}",
        "Gateway default/demo: spec.relay.authentication.jwt.jwks: names no source; write secretRef or configMapRef with name and key",
    ),
    (
        "ttl: 10m",
        "ttl: 10 minutes",
        "Gateway default/demo: spec.relay.namespaces[1].options.history.ttl: \"10 minutes\" is not a duration; write a duration from 1s to 8760h",
    ),
    (
        "ttl: 10m",
        "ttl: 10ms",
        "Gateway default/demo: spec.relay.namespaces[1].options.history.ttl: 10ms is out of range; write a duration from 1s to 8760h",
    ),
    (
        "size: 100",
        "size: -1",
        "Gateway default/demo: spec.relay.namespaces[1].options.history.size: -1 is out of range; write a number from 1 to 100000",
    ),
    (
        "history: {size: 100, ttl: 10m}",
        "positioning: Disabled",
        "Gateway default/demo: spec.relay.namespaces[1].options.recovery: recovery needs history, and these channels keep none; write history: {size: 100, ttl: 5m}, or recovery: Disabled",
    ),
    (
        "name: servers",
        "name: s",
        "Gateway default/demo: spec.relay.namespaces[0].name: too short; write two or more letters, digits, - and _",
    ),
    (
        "name: servers",
        "name: chat",
        "Gateway default/demo: spec.relay.namespaces[1].name: \"chat\" is already used by namespaces[0]; give each entry a name of its own",
    ),
    (
        "joinLeave: Always",
        "joinLeave: yes",
        "Gateway default/demo: spec.relay.namespaces[0].options.joinLeave: \"yes\" is not one of the choices; write Disabled, OnRequest or Always",
    ),
    (
        "    serverApi:",
        "    heartbeat: {interval: 5s}\n    serverApi:",
        "Gateway default/demo: spec.relay.heartbeat.timeout: 8s is not shorter than the interval of 5s; write a shorter timeout, or a longer interval",
    ),
    (
        "    serverApi:",
        "    limits: {messageBytes: 2097152}\n    serverApi:",
        "Gateway default/demo: spec.relay.limits.queueBytesPerClient: 1048576 holds no message of messageBytes; write 2097152 or more, or lower messageBytes",
    ),
    (
        "    serverApi:",
        "    limit: {}\n    serverApi:",
        "Gateway default/demo: spec.relay.limit: unknown field; write limits",
    ),
    (
        "kind: Secret",
        "kind: Secrets",
        "file demo.yaml: kind: \"Secrets\" is an unknown kind; write Secret",
    ),
    (
        "stringData:",
        "stringdata:",
        "Secret default/relay-keys: stringdata: unknown field; write stringData",
    ),
    (
        "stringData:",
        "data:",
        "Secret default/relay-keys: data[\"api\"]: the value is not base64; encode the value, or write it as it is under stringData",
    ),
    (
        "kind: Gateway",
        "kind: Gateway\nkind: Gateway",
        "file demo.yaml: not YAML",
    ),
    (
        "sluice.dev/v1alpha1",
        "sluice.dev/v1",
        "Gateway default/demo: apiVersion: \"sluice.dev/v1\" is unknown; write sluice.dev/v1alpha1",
    ),
    (
        "metadata:\n  name: demo",
        "metadata: {}",
        "file demo.yaml: Gateway metadata.name: missing; write lower-case letters, digits, - and ., with a letter or digit first and last",
    ),
];
