//! Times in configuration files: as in manifests, `1m30s`.

/// A time.
pub(super) mod time {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use crate::resolve::duration;

    pub(in crate::config) fn serialize<S: Serializer>(
        time: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration::text(*time))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration::parse(&text).ok_or_else(|| D::Error::custom("not a duration such as 1m30s"))
    }
}

/// A time that may be absent.
pub(super) mod optional_time {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use crate::resolve::duration;

    pub(in crate::config) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&duration::text(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let time = duration::parse(&text);
        let time = time.ok_or_else(|| D::Error::custom("not a duration such as 1m30s"))?;
        Ok(Some(time))
    }
}
