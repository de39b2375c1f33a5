//! Something wrong in what the user wrote, said so that the user can put it right.

use std::cmp::Reverse;
use std::fmt;

/// One thing that is wrong: where, what, and what to write instead.
///
/// The texts hold no secret values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// `Gateway default/demo`, `Secret default/keys` or `file demo.yaml`.
    pub object: String,
    /// Path of the field, as in `spec.listeners[0].port`; empty when the object as a whole is meant.
    pub field: String,
    pub what: String,
    pub instead: String,
    pub reason: Reason,
}

/// What sort of problem it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Reason {
    /// What is written cannot be carried out.
    #[default]
    Invalid,
    /// An object that is referred to, or a key of it, is not there.
    RefNotFound,
    /// The Gateway that an Application names is not there.
    TargetNotFound,
    /// The Gateway takes no Applications of this namespace.
    NotAllowed,
    /// Another object came first.
    Conflicted,
}

impl Problem {
    pub(crate) fn new(
        object: impl Into<String>,
        field: impl Into<String>,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        Self {
            object: object.into(),
            field: field.into(),
            what: what.into(),
            instead: instead.into(),
            reason: Reason::Invalid,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.what, self.instead)
    }
}

/// Text of the user as it may stand in a problem: quoted, on one line, cut when long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if shown.len() < text.len() { "..." } else { "" };
    format!("{:?}", format!("{shown}{dots}"))
}

/// The known word nearest to a misspelt one, when it is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A misspelling longer than every name is none; this also bounds the work below.
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        // Of equally near ones the one that begins like the word.
        .min_by_key(|(distance, candidate)| (*distance, Reverse(same_start(&lower, candidate))))
        .map(|(_, candidate)| candidate)
}

fn same_start(a: &str, b: &str) -> usize {
    let pairs = a.bytes().zip(b.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

/// Insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_words_find_their_neighbour() {
        let known = ["listeners", "relay", "dataPlane"];
        assert_eq!(nearest("listener", known), Some("listeners"));
        assert_eq!(nearest("dataplane", known), Some("dataPlane"));
        assert_eq!(nearest("quux", known), None);
        assert_eq!(nearest("relais", ["redis", "relay"]), Some("relay"));
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn user_text_stays_on_one_line_and_short() {
        let shown = quoted(&"a\n".repeat(1000));
        assert!(!shown.contains('\n') && shown.len() < 150, "{shown}");
    }
}
