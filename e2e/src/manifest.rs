//! Manifests for tests, as values; rendered for Sluice, and for a Centrifugo that serves as the oracle.
//!
//! A manifest is rendered as JSON, which is YAML. Only what tests vary is here.

use serde_json::{Map, Value, json};

use crate::token::SECRET;

/// The server API key of every test manifest.
pub const API_KEY: &str = "api-key";

/// Options of a namespace. Words are the manifest's own.
#[derive(Debug, Clone)]
pub struct Namespace {
    pub presence: bool,
    pub join_leave: &'static str,
    /// Size and seconds.
    pub history: Option<(u32, u32)>,
    pub recovery: &'static str,
    pub positioning: &'static str,
    pub delta: bool,
    pub subscribe: &'static str,
    pub publish: &'static str,
    pub ask_presence: &'static str,
    pub ask_history: &'static str,
}

impl Namespace {
    /// Everything off, nobody may do anything.
    pub fn closed() -> Self {
        Self {
            presence: false,
            join_leave: "Disabled",
            history: None,
            recovery: "Disabled",
            positioning: "Disabled",
            delta: false,
            subscribe: "Nobody",
            publish: "Nobody",
            ask_presence: "Nobody",
            ask_history: "Nobody",
        }
    }

    /// Everything on, for clients with a token.
    pub fn full() -> Self {
        Self {
            presence: true,
            join_leave: "Always",
            history: Some((100, 300)),
            recovery: "Always",
            positioning: "OnRequest",
            delta: true,
            subscribe: "Authenticated",
            publish: "Subscriber",
            ask_presence: "Subscriber",
            ask_history: "Subscriber",
        }
    }

    /// Subscribe and publish, nothing kept.
    pub fn plain() -> Self {
        Self {
            subscribe: "Authenticated",
            publish: "Subscriber",
            ..Self::closed()
        }
    }

    fn sluice(&self) -> Value {
        let mut options = json!({
            "presence": switch(self.presence),
            "joinLeave": self.join_leave,
            "recovery": self.recovery,
            "positioning": self.positioning,
            "delta": if self.delta { "Fossil" } else { "Disabled" },
            "allow": {
                "subscribe": self.subscribe,
                "publish": self.publish,
                "presence": self.ask_presence,
                "history": self.ask_history,
            },
        });
        if let Some((size, ttl_s)) = self.history {
            options["history"] = json!({ "size": size, "ttl": format!("{ttl_s}s") });
        }
        options
    }

    fn centrifugo(&self, name: Option<&str>) -> Value {
        let mut options = json!({
            "presence": self.presence,
            "join_leave": self.join_leave != "Disabled",
            "force_push_join_leave": self.join_leave == "Always",
            "allow_recovery": self.recovery == "OnRequest",
            "allow_positioning": self.positioning == "OnRequest",
            "force_recovery": self.recovery == "Always",
            "force_positioning": self.positioning == "Always",
            "allowed_delta_types": if self.delta { json!(["fossil"]) } else { json!([]) },
            "delta_publish": self.delta,
            "allow_user_limited_channels": self.subscribe != "Nobody",
            // "Token" is always possible there.
        });
        if let Some((size, ttl_s)) = self.history {
            options["history_size"] = json!(size);
            options["history_ttl"] = json!(format!("{ttl_s}s"));
        }
        for (operation, allowed) in [
            ("subscribe", self.subscribe),
            ("publish", self.publish),
            ("presence", self.ask_presence),
            ("history", self.ask_history),
        ] {
            match allowed {
                "Authenticated" => options[format!("allow_{operation}_for_client")] = json!(true),
                "Subscriber" => options[format!("allow_{operation}_for_subscriber")] = json!(true),
                "Anyone" => {
                    options[format!("allow_{operation}_for_client")] = json!(true);
                    options[format!("allow_{operation}_for_anonymous")] = json!(true);
                }
                _ => {}
            }
        }
        if let Some(name) = name {
            options["name"] = json!(name);
        }
        options
    }
}

fn switch(on: bool) -> &'static str {
    if on { "Enabled" } else { "Disabled" }
}

/// A gateway for a test.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Tokens must name their account.
    pub accounts: bool,
    pub anonymous: bool,
    pub personal_channel: bool,
    pub default_namespace: Namespace,
    pub namespaces: Vec<(&'static str, Namespace)>,
    /// Members of `spec.relay.limits`, verbatim.
    pub limits: Map<String, Value>,
    /// Ping interval and pong timeout, seconds.
    pub heartbeat_s: (u32, u32),
    pub expiry_grace_s: u32,
    pub drain_s: u32,
    pub server_api: bool,
    /// Certificate chain and key, PEM.
    pub tls: Option<(String, String)>,
    /// `spec.redis`, verbatim; `None`: each data plane has its own state.
    pub redis: Option<Value>,
    /// `spec.ingest`, verbatim.
    pub ingest: Option<Value>,
    /// What the gateway refers to, and what refers to it.
    pub documents: Vec<Value>,
}

impl Manifest {
    /// Everything on in the default namespace, tokens of the default account.
    pub fn full() -> Self {
        Self {
            accounts: false,
            anonymous: false,
            personal_channel: false,
            default_namespace: Namespace::full(),
            namespaces: Vec::new(),
            limits: Map::new(),
            heartbeat_s: (25, 8),
            expiry_grace_s: 25,
            drain_s: 2,
            server_api: true,
            tls: None,
            redis: None,
            ingest: None,
            documents: Vec::new(),
        }
    }

    pub fn limit(mut self, name: &str, value: Value) -> Self {
        self.limits.insert(name.to_owned(), value);
        self
    }

    /// The data planes share this Redis.
    #[must_use]
    pub fn redis(mut self, url: String) -> Self {
        self.redis = Some(external(&url));
        self
    }

    /// The text of the manifest file.
    pub fn render(&self, port: u16) -> String {
        let (listener, certificate) = listener("clients", port, self.tls.as_ref());
        let mut documents = Vec::from_iter(certificate);
        documents.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" },
            "stringData": { "hmac": SECRET, "api": API_KEY },
        }));
        let relay = self.relay();
        let members = [
            ("relay", Some(&relay)),
            ("ingest", self.ingest.as_ref()),
            ("redis", self.redis.as_ref()),
        ];
        documents.push(gateway(&listener, self.drain_s, &members));
        documents.extend(self.documents.iter().cloned());
        text(&documents)
    }

    fn relay(&self) -> Value {
        let mut jwt = json!({ "hmac": [{ "secretRef": { "name": "keys", "key": "hmac" } }] });
        if self.accounts {
            jwt["accountClaim"] = json!("account");
        }
        let namespaces: Vec<Value> = self
            .namespaces
            .iter()
            .map(|(n, o)| json!({ "name": n, "options": o.sluice() }))
            .collect();
        let mut relay = json!({
            "authentication": {
                "jwt": jwt,
                "anonymous": if self.anonymous { "Allowed" } else { "Refused" },
                "expiryGrace": format!("{}s", self.expiry_grace_s),
            },
            "defaultNamespace": { "options": self.default_namespace.sluice() },
            "namespaces": namespaces,
            "personalChannel": switch(self.personal_channel),
            "heartbeat": {
                "interval": format!("{}s", self.heartbeat_s.0),
                "timeout": format!("{}s", self.heartbeat_s.1),
            },
            "limits": self.limits,
        });
        if self.server_api {
            relay["serverApi"] = json!({ "keySecretRef": { "name": "keys", "key": "api" } });
        }
        relay
    }

    /// The same as a Centrifugo 6 configuration. Accounts, rates and TLS have no counterpart.
    pub fn render_for_centrifugo(&self, port: u16) -> String {
        let namespaces: Vec<Value> = self
            .namespaces
            .iter()
            .map(|(n, o)| o.centrifugo(Some(n)))
            .collect();
        let grace = format!("{}s", self.expiry_grace_s);
        let mut config = json!({
            "http_server": { "address": "127.0.0.1", "port": port.to_string() },
            "health": { "enabled": true },
            "prometheus": { "enabled": true },
            "http_api": { "key": API_KEY },
            "shutdown": { "timeout": format!("{}s", self.drain_s.max(1)) },
            "client": {
                "token": { "hmac_secret_key": SECRET },
                "allow_anonymous_connect_without_token": self.anonymous,
                "ping_interval": format!("{}s", self.heartbeat_s.0),
                "pong_timeout": format!("{}s", self.heartbeat_s.1),
                "expired_close_delay": grace,
                "expired_sub_close_delay": grace,
                "subscribe_to_user_personal_channel": { "enabled": self.personal_channel },
            },
            "channel": {
                "without_namespace": self.default_namespace.centrifugo(None),
                "namespaces": namespaces,
            },
        });
        if let Some(bytes) = self.limits.get("messageBytes") {
            config["websocket"] = json!({ "message_size_limit": bytes });
        }
        let client = &mut config["client"];
        for (ours, theirs) in [
            ("queueBytesPerClient", "queue_max_size"),
            ("channelsPerClient", "channel_limit"),
            ("channelNameBytes", "channel_max_length"),
            ("connections", "connection_limit"),
            ("connectionsPerSecond", "connection_rate_limit"),
        ] {
            if let Some(value) = self.limits.get(ours) {
                client[theirs] = value.clone();
            }
        }
        config.to_string()
    }
}

/// `spec.redis` of servers that need no more than an address.
pub(crate) fn external(url: &str) -> Value {
    json!({ "external": { "url": url } })
}

/// The Gateway of every test manifest; `members` of its `spec` as far as they are there.
pub(crate) fn gateway(listener: &Value, drain_s: u32, members: &[(&str, Option<&Value>)]) -> Value {
    let mut gateway = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Gateway", "metadata": { "name": "test" },
        "spec": {
            "listeners": [listener],
            "dataPlane": { "drain": { "timeout": format!("{drain_s}s") } },
        },
    });
    for (name, member) in members {
        if let Some(member) = member {
            gateway["spec"][name] = (*member).clone();
        }
    }
    gateway
}

/// Documents as a file has them.
pub(crate) fn text(documents: &[Value]) -> String {
    let texts: Vec<String> = documents.iter().map(|d| format!("{d:#}\n")).collect();
    texts.join("---\n")
}

/// A listener, and the Secret of its certificate when it has one (PEM: chain and key).
pub(crate) fn listener(
    name: &str,
    port: u16,
    tls: Option<&(String, String)>,
) -> (Value, Option<Value>) {
    let mut listener = json!({ "name": name, "port": port, "protocol": "HTTP" });
    let certificate = tls.map(|(certificate, key)| {
        listener["protocol"] = json!("HTTPS");
        listener["tls"] = json!({ "certificateRef": { "name": "certificate" } });
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "certificate" },
            "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": certificate, "tls.key": key },
        })
    });
    (listener, certificate)
}
