//! Lua scripts: each in its own file, named by its hash once the server knows it.

use std::sync::LazyLock;

use bytes::Bytes;
use sha1::{Digest, Sha1};

/// A script that runs on the server of its keys' slot, atomically.
pub struct Script {
    pub text: &'static str,
    hash: LazyLock<Bytes>,
}

impl Script {
    /// For a `static` with its text: `script!("publish.lua")`.
    pub const fn new(text: &'static str, hash: fn() -> Bytes) -> Self {
        Self {
            text,
            hash: LazyLock::new(hash),
        }
    }

    pub(super) fn hash(&self) -> Bytes {
        LazyLock::force(&self.hash).clone()
    }

    pub(super) fn text(&self) -> Bytes {
        Bytes::from_static(self.text.as_bytes())
    }
}

/// What Redis calls the script.
pub fn hash_of(text: &str) -> Bytes {
    let digest = Sha1::digest(text.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.into()
}

/// The script of a file in `lua/`.
macro_rules! script {
    ($file:literal) => {{
        const TEXT: &str = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/store/redis/lua/",
            $file
        ));
        $crate::store::redis::script::Script::new(TEXT, || {
            $crate::store::redis::script::hash_of(TEXT)
        })
    }};
}
pub(crate) use script;
