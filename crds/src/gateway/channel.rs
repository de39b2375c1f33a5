//! What channels offer and who may use them.
//!
//! The defaults are safe to expose: clients with a token may subscribe and, once subscribed, read what the channel
//! keeps; nobody but the server publishes until a namespace says so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CHANNEL_NAMESPACE, DURATION};

/// A channel namespace.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct NamedOptions {
    /// Name: letters, digits, `-` and `_`, from 2 to 64 characters.
    #[schemars(length(min = 2, max = 64), regex(pattern = CHANNEL_NAMESPACE))]
    pub name: String,
    /// What these channels offer and who may use them.
    #[serde(default)]
    pub options: ChannelOptions,
}

/// What channels offer and who may use them.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.history) || self.recovery == 'Disabled'",
        "message": "recovery needs history"
    },
    {
        "rule": "has(self.history) || self.positioning == 'Disabled'",
        "message": "positioning needs history"
    }
]))]
pub struct ChannelOptions {
    /// Enabled keeps the list of clients in each channel; default Disabled.
    #[serde(default)]
    pub presence: Switch,
    /// Messages when clients come and go: Disabled (the default), OnRequest for clients that ask, or Always.
    #[serde(default)]
    pub join_leave: Feature,
    /// Publications the channel keeps; unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Missed publications after a reconnect: Disabled (the default), OnRequest or Always. Needs history.
    #[serde(default)]
    pub recovery: Feature,
    /// Watching the position in the stream, so that loss is noticed: Disabled (the default), OnRequest or Always.
    /// Needs history.
    #[serde(default)]
    pub positioning: Feature,
    /// Fossil lets clients receive publications as differences; default Disabled.
    #[serde(default)]
    pub delta: Delta,
    /// Who may do what.
    #[serde(default)]
    pub allow: Allow,
}

/// On or off.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Switch {
    Enabled,
    #[default]
    Disabled,
}

/// Something clients may ask for, or always get.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Feature {
    #[default]
    Disabled,
    OnRequest,
    Always,
}

/// How publications may be shortened.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Delta {
    Fossil,
    #[default]
    Disabled,
}

/// Publications that a channel keeps.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct History {
    /// Number of publications, from 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub size: i32,
    /// How long a publication is kept: a duration from 1s to 8760h.
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('8760h')",
        "message": "must be from 1s to 8760h"
    }]))]
    pub ttl: String,
}

/// Who may do what on a channel.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct Allow {
    /// Who may subscribe: Nobody, Token (clients with a subscription token for the channel), Authenticated (clients
    /// that connected with a token; the default) or Anyone. A subscription token suffices unless it is Nobody.
    #[serde(default)]
    pub subscribe: SubscribeAccess,
    /// Which clients may publish: Nobody (the default; the server API still may), Subscriber, Authenticated or Anyone.
    #[serde(default = "nobody")]
    pub publish: Access,
    /// Who may ask for the list of clients: Nobody, Subscriber (the default), Authenticated or Anyone.
    #[serde(default = "subscriber")]
    pub presence: Access,
    /// Who may read kept publications: Nobody, Subscriber (the default), Authenticated or Anyone.
    #[serde(default = "subscriber")]
    pub history: Access,
}

impl Default for Allow {
    fn default() -> Self {
        Self {
            subscribe: SubscribeAccess::default(),
            publish: nobody(),
            presence: subscriber(),
            history: subscriber(),
        }
    }
}

/// Who may subscribe.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum SubscribeAccess {
    Nobody,
    Token,
    #[default]
    Authenticated,
    Anyone,
}

/// Who may use an operation.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub enum Access {
    Nobody,
    Subscriber,
    Authenticated,
    Anyone,
}

fn nobody() -> Access {
    Access::Nobody
}

fn subscriber() -> Access {
    Access::Subscriber
}
