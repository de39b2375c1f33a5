//! Patterns for channel names: `*`, `?`, `[a-z]`, `[!a-z]`, `{one,two}`, `\` before a literal.
//!
//! Matching takes time linear in the name, whatever the pattern.

use globset::{GlobBuilder, GlobSet};

use super::answer::ApiError;

/// Bounds the time and memory to compile a pattern; channel names are shorter.
const PATTERN_BYTES_MAX: usize = 1_024;

pub(super) struct Pattern(Option<GlobSet>);

impl Pattern {
    /// An empty pattern matches every name.
    pub(super) fn compile(pattern: &str) -> Result<Self, ApiError> {
        if pattern.is_empty() {
            return Ok(Self(None));
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(ApiError::BadRequest);
        }
        let mut glob = GlobBuilder::new(pattern);
        glob.literal_separator(false)
            .backslash_escape(true)
            .empty_alternates(true);
        let glob = glob.build().map_err(|_| ApiError::BadRequest)?;
        // A set of one: unlike a single matcher, it reports a pattern that nests too deep.
        let set = GlobSet::builder()
            .add(glob)
            .build()
            .map_err(|_| ApiError::BadRequest)?;
        Ok(Self(Some(set)))
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|glob| glob.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_documented() {
        let cases = [
            ("", "anything", true),
            ("*", "", true),
            ("*", "chat:a/b", true),
            ("chat:*", "chat:1", true),
            ("chat:*", "chats:1", false),
            ("chat:?", "chat:1", true),
            ("chat:?", "chat:12", false),
            ("chat:[ab]", "chat:b", true),
            ("chat:[!ab]", "chat:b", false),
            ("chat:[0-9]", "chat:7", true),
            ("{chat,news}:*", "news:1", true),
            ("{chat,news}:*", "other:1", false),
            ("{c[ah]at,{news,x*}}", "xyz", true),
            ("a**b", "a/x/b", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("$a.b#1,2", "$a.b#1,2", true),
            ("a.b", "axb", false),
        ];
        for (pattern, name, matches) in cases {
            let compiled = Pattern::compile(pattern).expect(pattern);
            assert_eq!(compiled.matches(name), matches, "{pattern} on {name}");
        }
    }

    #[test]
    fn refuses_bad_patterns_without_harm() {
        let deep = format!("{}a{}", "{".repeat(500), "}".repeat(500));
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        for pattern in ["[a", "{a", "a}", "[z-a]", &long, &deep] {
            assert_eq!(
                Pattern::compile(pattern).err(),
                Some(ApiError::BadRequest),
                "{pattern:.20}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = Pattern::compile(&format!("{}b", "*a".repeat(300))).expect("a pattern");
        assert!(!pattern.matches(&"a".repeat(1_000)));
    }
}
