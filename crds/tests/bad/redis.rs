//! Bad Redis, in its Gateway: what follows `GATEWAY` in a good manifest, with one text replaced by another, and the line
//! that says what is wrong with it. Passwords hold the word that no line may hold.

pub(crate) const GOOD: &str = r#"  relay: {authentication: {anonymous: Allowed}}
  redis:
    external:
      url: redis://a.example:6379
      credentials: {username: app, passwordSecretRef: {name: redis, key: password}}
---
apiVersion: v1
kind: Secret
metadata: {name: redis}
stringData: {user: app, password: hidden, line: "redis://:hidden@a\n"}
data: {binary: /w==}
"#;

pub(crate) const BAD: &[(&str, &str, &str)] = &[
    (
        "url: redis://a.example:6379",
        "url: redis://app:hidden@a.example",
        "Gateway default/demo: spec.redis.external.url: the address holds a user or password, and everybody who may see the Gateway may see it; use urlSecretRef or credentials for it",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://:hidden@a.example",
        "Gateway default/demo: spec.redis.external.url: the address holds a user or password, and everybody who may see the Gateway may see it; use urlSecretRef or credentials for it",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://hidden@a.example",
        "Gateway default/demo: spec.redis.external.url: the address holds a user without a password; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://:@a.example",
        "Gateway default/demo: spec.redis.external.url: the password is empty; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: http://a.example",
        "Gateway default/demo: spec.redis.external.url: the address does not begin with redis:// or rediss://; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: a.example:6379",
        "Gateway default/demo: spec.redis.external.url: the address does not begin with redis:// or rediss://; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://",
        "Gateway default/demo: spec.redis.external.url: the address has no host; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: \"redis://a.example,\"",
        "Gateway default/demo: spec.redis.external.url: the address has no host; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://a_/b",
        "Gateway default/demo: spec.redis.external.url: the address names a database, and only the first one is used; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://a.example/2",
        "Gateway default/demo: spec.redis.external.url: the address names a database, and only the first one is used; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://a.example?db=2",
        "Gateway default/demo: spec.redis.external.url: the address holds a query; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: \"redis://a.example#2\"",
        "Gateway default/demo: spec.redis.external.url: the address holds a fragment; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://a.example:0",
        "Gateway default/demo: spec.redis.external.url: the port is not a number from 1 to 65535; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: \"redis://[::g]:1\"",
        "Gateway default/demo: spec.redis.external.url: the host is no host; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: \"redis://a b\"",
        "Gateway default/demo: spec.redis.external.url: the host is no host; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: \"\"",
        "Gateway default/demo: spec.redis.external.url: too short; write",
    ),
    (
        "url: redis://a.example:6379",
        "url: 6379",
        "Gateway default/demo: spec.redis.external.url: a number stands here; put it in quotes",
    ),
    (
        "url: redis://a.example:6379\n",
        "\n",
        "Gateway default/demo: spec.redis.external: there is no address; write url: redis://<host>, or urlSecretRef",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://a.example:6379\n      urlSecretRef: {name: redis, key: password}",
        "Gateway default/demo: spec.redis.external: there are both url and urlSecretRef; keep one of them",
    ),
    (
        "url: redis://a.example:6379",
        "urlSecretRef: {name: redis, key: url}",
        "Gateway default/demo: spec.redis.external.urlSecretRef.key: Secret default/redis has no key \"url\"; ",
    ),
    (
        "url: redis://a.example:6379",
        "urlSecretRef: {name: absent, key: password}",
        "Gateway default/demo: spec.redis.external.urlSecretRef.name: Secret default/absent does not exist; add the Secret, or name one that exists",
    ),
    (
        "url: redis://a.example:6379",
        "urlSecretRef: {name: redis, key: password}",
        "Gateway default/demo: spec.redis.external.urlSecretRef.key: the address does not begin with redis:// or rediss://; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "urlSecretRef: {name: redis, key: line}",
        "Gateway default/demo: spec.redis.external.urlSecretRef.key: the value ends with a line break; write it without, as printf does and echo does not",
    ),
    (
        "url: redis://a.example:6379",
        "urlSecretRef: {name: redis, key: binary}",
        "Gateway default/demo: spec.redis.external.urlSecretRef.key: the value is no text; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "url: redis://a.example:6379",
        "url: redis://a.example:6379\n      tls: {}",
        "Gateway default/demo: spec.redis.external.tls: the address begins with redis://, which is without TLS; write rediss:// in the address, or remove tls",
    ),
    (
        "url: redis://a.example:6379",
        "url: rediss://a\n      tls: {ca: {}}",
        "Gateway default/demo: spec.redis.external.tls.ca: names no source; write secretRef or configMapRef with name and key",
    ),
    (
        "url: redis://a.example:6379",
        "url: rediss://a\n      tls: {ca: {secretRef: {name: redis, key: password}, configMapRef: {name: redis, key: password}}}",
        "Gateway default/demo: spec.redis.external.tls.ca: names more than one source; keep one of them",
    ),
    (
        "url: redis://a.example:6379",
        "url: rediss://a\n      tls: {ca: {secretRef: {name: redis, key: password}}}",
        "Gateway default/demo: spec.redis.external.tls.ca.secretRef.key: the value is not a PEM certificate; put the PEM certificates of the authorities there",
    ),
    (
        "url: redis://a.example:6379",
        "url: rediss://a\n      tls: {ca: {configMapRef: {name: absent, key: k}}}",
        "Gateway default/demo: spec.redis.external.tls.ca.configMapRef.name: ConfigMap default/absent does not exist; add the ConfigMap, or name one that exists",
    ),
    (
        "url: redis://a.example:6379",
        "url: rediss://a\n      tls: {clientCertificateRef: {name: redis}}",
        "Gateway default/demo: spec.redis.external.tls.clientCertificateRef.name: Secret default/redis has no key \"tls.crt\"; ",
    ),
    (
        "url: redis://a.example:6379",
        "url: rediss://a\n      tls: {serverName: Redis}",
        "Gateway default/demo: spec.redis.external.tls.serverName: \"Redis\" is not a valid name; write lower-case letters, digits, - and ., with a letter or digit first and last",
    ),
    (
        "username: app",
        "usernme: app",
        "Gateway default/demo: spec.redis.external.credentials.usernme: unknown field; write username",
    ),
    (
        "username: app",
        "username: app, usernameSecretRef: {name: redis, key: user}",
        "Gateway default/demo: spec.redis.external.credentials: there are both username and usernameSecretRef; keep one of them",
    ),
    (
        "username: app",
        "usernameSecretRef: {name: redis, key: binary}",
        "Gateway default/demo: spec.redis.external.credentials.usernameSecretRef.key: the value is no text; put the name of the user there",
    ),
    (
        "key: password}",
        "key: pasword}",
        "Gateway default/demo: spec.redis.external.credentials.passwordSecretRef.key: Secret default/redis has no key \"pasword\"; write password",
    ),
    (
        "passwordSecretRef: {name: redis, key: password}",
        "",
        "Gateway default/demo: spec.redis.external.credentials.passwordSecretRef: missing; add passwordSecretRef",
    ),
    (
        "external:",
        "managed:",
        "Gateway default/demo: spec.redis.managed.credentials: unknown field; ",
    ),
    (
        "  redis:\n",
        "  redus:\n",
        "Gateway default/demo: spec.redus: unknown field; write redis",
    ),
];

pub(crate) const GOOD_SECRET: &str = r#"  ingest: {durability: Replicated, upstreams: [{name: main, url: http://main.example}]}
  redis: {external: {urlSecretRef: {name: redis, key: url}}}
---
apiVersion: v1
kind: Secret
metadata: {name: redis}
stringData: {url: "redis://app:hidden@a", password: hidden}
"#;

pub(crate) const BAD_SECRET: &[(&str, &str, &str)] = &[
    (
        "hidden@a",
        "hidden@a/1",
        "Gateway default/demo: spec.redis.external.urlSecretRef.key: the address names a database, and only the first one is used; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "app:hidden@",
        "app:%zz@",
        "Gateway default/demo: spec.redis.external.urlSecretRef.key: a % in the user or password is not followed by two hex digits; write redis:// or rediss:// and a host, perhaps with a port, and more of them after commas",
    ),
    (
        "external: {",
        "external: {tls: {}, ",
        "Gateway default/demo: spec.redis.external.tls: the address begins with redis://, which is without TLS; write rediss:// in the address, or remove tls",
    ),
    (
        "external: {",
        "external: {credentials: {passwordSecretRef: {name: redis, key: password}}, ",
        "Gateway default/demo: spec.redis.external.credentials: the address holds a user or password, and there are credentials besides; keep one of them",
    ),
    (
        "redis: {ext",
        "redys: {ext",
        "Gateway default/demo: spec.redys: unknown field; write redis",
    ),
    (
        "  redis: {external: {urlSecretRef: {name: redis, key: url}}}\n",
        "",
        "Gateway default/demo: spec.ingest.durability: Replicated needs a Redis, and there is none; write redis, or durability: Group",
    ),
];
