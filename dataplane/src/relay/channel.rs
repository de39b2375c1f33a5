//! Channel names and account scope.
//!
//! A [`Channel`] is always scoped to an account; code outside this file cannot make one without naming the
//! account, which is what keeps accounts apart in hub, broker and presence.

use std::fmt;
use std::sync::Arc;

/// Separates account and name in the scoped form. Client channel names are printable ASCII and account names
/// hold no control characters, so neither side can contain it.
const SEPARATOR: char = '\u{1f}';

/// Longest account name, in bytes.
pub const ACCOUNT_BYTES_MAX: usize = 255;

/// A channel of an account. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    scoped: Arc<str>,
    name_start: u16,
}

impl Channel {
    /// `account` is empty for the default account. The caller has validated both parts.
    pub fn new(account: &str, name: &str) -> Self {
        debug_assert!(account.len() <= ACCOUNT_BYTES_MAX && !account.contains(SEPARATOR));
        let mut scoped = String::with_capacity(account.len() + 1 + name.len());
        scoped.push_str(account);
        scoped.push(SEPARATOR);
        let name_start = u16::try_from(scoped.len()).unwrap_or(u16::MAX);
        scoped.push_str(name);
        Self {
            scoped: scoped.into(),
            name_start,
        }
    }

    /// The channel that [`Channel::scoped`] names; `None` for anything else.
    pub fn from_scoped(scoped: &str) -> Option<Self> {
        let (account, name) = scoped.split_once(SEPARATOR)?;
        (account.len() <= ACCOUNT_BYTES_MAX).then(|| Self::new(account, name))
    }

    /// The name as the client knows it.
    pub fn name(&self) -> &str {
        &self.scoped[usize::from(self.name_start)..]
    }

    pub fn account(&self) -> &str {
        &self.scoped[..usize::from(self.name_start) - SEPARATOR.len_utf8()]
    }

    /// Unique over all accounts: the key for stores.
    pub fn scoped(&self) -> &str {
        &self.scoped
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account(), self.name())
    }
}

/// Whether a claim can serve as an account name.
pub fn account_is_valid(account: &str) -> bool {
    !account.is_empty()
        && account.len() <= ACCOUNT_BYTES_MAX
        && !account.chars().any(char::is_control)
}
