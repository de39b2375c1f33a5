//! Bytes that must not appear in logs, nor in a configuration file.
//!
//! A file holds references to secrets in their place: `{"file": "redis_password"}`. What the references stand for is in
//! the hands of `config_file`, which opens a scope around writing and reading; outside of one, writing a secret fails,
//! so that none gets into a text by accident. A scope is one thread's and ends with its call.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that must not appear in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// What stands for a secret.
#[derive(Serialize, Deserialize)]
struct Reference {
    file: String,
}

enum Scope {
    /// References are numbers after [`MARK`].
    Writing(Vec<Secret>),
    /// Secrets are empty; their names are gathered.
    Naming(Vec<String>),
    Reading(BTreeMap<String, Secret>),
}

/// Begins a reference that has no name yet; no name has it.
pub(crate) const MARK: char = '\0';

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Runs `work` within a scope, and returns the scope with what it made.
fn within<T>(scope: Scope, work: impl FnOnce() -> T) -> (T, Option<Scope>) {
    /// Closes the scope even when `work` panics.
    struct Close;
    impl Drop for Close {
        fn drop(&mut self) {
            SCOPE.with_borrow_mut(|scope| *scope = None);
        }
    }
    SCOPE.with_borrow_mut(|current| *current = Some(scope));
    let close = Close;
    let made = work();
    let scope = SCOPE.with_borrow_mut(Option::take);
    drop(close);
    (made, scope)
}

/// Lets secrets be written, as [`MARK`] and their place in the returned list.
pub(crate) fn writing<T>(work: impl FnOnce() -> T) -> (T, Vec<Secret>) {
    match within(Scope::Writing(Vec::new()), work) {
        (made, Some(Scope::Writing(secrets))) => (made, secrets),
        (made, _) => (made, Vec::new()),
    }
}

/// Gathers the names of the secrets that are read; each is empty.
pub(crate) fn naming<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    match within(Scope::Naming(Vec::new()), work) {
        (made, Some(Scope::Naming(names))) => (made, names),
        (made, _) => (made, Vec::new()),
    }
}

/// Lets secrets be read by name.
pub(crate) fn reading<T>(secrets: BTreeMap<String, Secret>, work: impl FnOnce() -> T) -> T {
    within(Scope::Reading(secrets), work).0
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = SCOPE.with_borrow_mut(|scope| match scope {
            Some(Scope::Writing(secrets)) => {
                secrets.push(self.clone());
                Some(secrets.len() - 1)
            }
            Some(Scope::Naming(_) | Scope::Reading(_)) | None => None,
        });
        let number = number.ok_or_else(|| S::Error::custom("a secret is not written here"))?;
        let file = format!("{MARK}{number}");
        Reference { file }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Reference { file } = Reference::deserialize(deserializer)?;
        SCOPE.with_borrow_mut(|scope| match scope {
            Some(Scope::Naming(names)) => {
                names.push(file);
                Ok(Self::new(Vec::new()))
            }
            Some(Scope::Reading(secrets)) => secrets
                .get(&file)
                .cloned()
                .ok_or_else(|| D::Error::custom(format!("there is no secret {file:?}"))),
            Some(Scope::Writing(_)) | None => Err(D::Error::custom("a secret is not read here")),
        })
    }
}
