//! Filters over publication tags, chosen by subscribers.
//!
//! [`Filter::compile`] checks what a client sent and bounds its cost, since a filter runs for every publication of
//! its channel; [`Filter::matches`] cannot fail. Equal filters compare and hash equal, so that a hub can evaluate
//! one for many subscribers. Tags without the key: `neq`, `nin` and `nex` hold, everything else does not (but `in`
//! and `nin` read a missing tag as empty text, as Centrifugo does).

use std::cmp::Ordering;

use thiserror::Error;

use super::protocol::{FilterNode, Tags};

/// Nodes of one filter; each costs a comparison per publication and subscriber.
pub const NODES_MAX: usize = 256;

/// Nesting of one filter; bounds the stack of [`Filter::matches`].
pub const DEPTH_MAX: usize = 32;

/// Values of all `in` and `nin` of one filter; each costs a comparison per publication and subscriber.
pub const VALUES_MAX: usize = 1024;

/// Longest number that is compared as one; longer ones match nothing. The same as Centrifugo's.
const NUMBER_BYTES_MAX: usize = 200;

/// Most digits after the point of a number that is compared as one. The same as Centrifugo's.
const FRACTION_DIGITS_MAX: usize = 19;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FilterError {
    #[error("unknown operation")]
    UnknownOperation,
    #[error("unknown comparison")]
    UnknownComparison,
    #[error("comparison without a key")]
    NoKey,
    #[error("comparison needs a single value")]
    NeedsValue,
    #[error("comparison needs a list of values")]
    NeedsValues,
    #[error("comparison takes no values")]
    TakesNoValue,
    #[error("wrong number of nodes for the operation")]
    WrongNodeCount,
    #[error("more than {NODES_MAX} nodes, {VALUES_MAX} values or {DEPTH_MAX} levels")]
    TooLarge,
}

/// A checked filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    root: Node,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Node {
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    Tag { key: Box<str>, test: Test },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Test {
    Equal(Box<str>),
    NotEqual(Box<str>),
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    NotExists,
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Less(Box<str>),
    LessOrEqual(Box<str>),
    Greater(Box<str>),
    GreaterOrEqual(Box<str>),
}

impl Filter {
    pub fn compile(node: &FilterNode) -> Result<Self, FilterError> {
        let mut budget = Budget {
            nodes: NODES_MAX,
            values: VALUES_MAX,
        };
        Ok(Self {
            root: compile_node(node, DEPTH_MAX, &mut budget)?,
        })
    }

    pub fn matches(&self, tags: &Tags) -> bool {
        self.root.matches(tags)
    }
}

struct Budget {
    nodes: usize,
    values: usize,
}

fn compile_node(
    node: &FilterNode,
    depth_left: usize,
    budget: &mut Budget,
) -> Result<Node, FilterError> {
    let depth_left = depth_left.checked_sub(1).ok_or(FilterError::TooLarge)?;
    budget.nodes = budget.nodes.checked_sub(1).ok_or(FilterError::TooLarge)?;
    budget.values = budget
        .values
        .checked_sub(node.vals.len())
        .ok_or(FilterError::TooLarge)?;
    let mut children = || -> Result<Box<[Node]>, FilterError> {
        node.nodes
            .iter()
            .map(|node| compile_node(node, depth_left, budget))
            .collect()
    };
    match node.op.as_str() {
        "" => compile_leaf(node),
        "and" | "or" if node.nodes.is_empty() => Err(FilterError::WrongNodeCount),
        "and" => Ok(Node::All(children()?)),
        "or" => Ok(Node::Any(children()?)),
        "not" => match node.nodes.as_slice() {
            [only] => Ok(Node::Not(Box::new(compile_node(only, depth_left, budget)?))),
            _ => Err(FilterError::WrongNodeCount),
        },
        _ => Err(FilterError::UnknownOperation),
    }
}

fn compile_leaf(node: &FilterNode) -> Result<Node, FilterError> {
    let one = |test: fn(Box<str>) -> Test| match (node.val.as_str(), node.vals.is_empty()) {
        ("", _) | (_, false) => Err(FilterError::NeedsValue),
        (value, true) => Ok(test(value.into())),
    };
    let many = |test: fn(Box<[Box<str>]>) -> Test| {
        if node.vals.is_empty() || !node.val.is_empty() {
            return Err(FilterError::NeedsValues);
        }
        Ok(test(
            node.vals
                .iter()
                .map(|value| value.as_str().into())
                .collect(),
        ))
    };
    let none = |test: Test| {
        if node.val.is_empty() && node.vals.is_empty() {
            Ok(test)
        } else {
            Err(FilterError::TakesNoValue)
        }
    };
    let test = match node.cmp.as_str() {
        "eq" => one(Test::Equal),
        "neq" => one(Test::NotEqual),
        "in" => many(Test::In),
        "nin" => many(Test::NotIn),
        "ex" => none(Test::Exists),
        "nex" => none(Test::NotExists),
        "sw" => one(Test::StartsWith),
        "ew" => one(Test::EndsWith),
        "ct" => one(Test::Contains),
        "lt" => one(Test::Less),
        "lte" => one(Test::LessOrEqual),
        "gt" => one(Test::Greater),
        "gte" => one(Test::GreaterOrEqual),
        _ => Err(FilterError::UnknownComparison),
    }?;
    if node.key.is_empty() && !matches!(test, Test::Exists | Test::NotExists) {
        return Err(FilterError::NoKey);
    }
    Ok(Node::Tag {
        key: node.key.as_str().into(),
        test,
    })
}

impl Node {
    fn matches(&self, tags: &Tags) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(tags)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(tags)),
            Self::Not(node) => !node.matches(tags),
            Self::Tag { key, test } => {
                let tag = tags
                    .iter()
                    .find(|(name, _)| **name == **key)
                    .map(|(_, value)| &**value);
                test.holds(tag)
            }
        }
    }
}

impl Test {
    fn holds(&self, tag: Option<&str>) -> bool {
        let text = tag.unwrap_or_default();
        let numeric = |value: &str, wanted: fn(Ordering) -> bool| {
            let order = Decimal::parse(text)
                .zip(Decimal::parse(value))
                .map(|(tag, value)| tag.cmp(&value));
            tag.is_some() && order.is_some_and(wanted)
        };
        match self {
            Self::Equal(value) => tag == Some(value),
            Self::NotEqual(value) => tag != Some(value),
            Self::In(values) => values.iter().any(|value| **value == *text),
            Self::NotIn(values) => values.iter().all(|value| **value != *text),
            Self::Exists => tag.is_some(),
            Self::NotExists => tag.is_none(),
            Self::StartsWith(value) => text.starts_with(&**value),
            Self::EndsWith(value) => text.ends_with(&**value),
            Self::Contains(value) => text.contains(&**value),
            Self::Less(value) => numeric(value, Ordering::is_lt),
            Self::LessOrEqual(value) => numeric(value, Ordering::is_le),
            Self::Greater(value) => numeric(value, Ordering::is_gt),
            Self::GreaterOrEqual(value) => numeric(value, Ordering::is_ge),
        }
    }
}

/// A decimal number compared digit by digit, without rounding. Holds no leading zeros in `whole` and no trailing
/// ones in `fraction`; zero is never negative.
#[derive(Debug, PartialEq, Eq)]
struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    /// An optional sign, digits, and optionally a point with digits: no exponent, nothing else.
    fn parse(text: &'a str) -> Option<Self> {
        if text.len() > NUMBER_BYTES_MAX {
            return None;
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(unsigned) => (true, unsigned),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (unsigned, ""),
        };
        let all_digits = whole
            .bytes()
            .chain(fraction.bytes())
            .all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits || fraction.len() > FRACTION_DIGITS_MAX {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let zero = whole.is_empty() && fraction.is_empty();
        Some(Self {
            negative: negative && !zero,
            whole,
            fraction,
        })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = |number: &Self| -> (usize, &'a str, &'a str) {
            (number.whole.len(), number.whole, number.fraction)
        };
        match (self.negative, other.negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => magnitude(self).cmp(&magnitude(other)),
            (true, true) => magnitude(other).cmp(&magnitude(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(key: &str, cmp: &str, val: &str, vals: &[&str]) -> FilterNode {
        let vals = vals.iter().map(|value| (*value).to_owned()).collect();
        FilterNode {
            key: key.into(),
            cmp: cmp.into(),
            val: val.into(),
            vals,
            ..FilterNode::default()
        }
    }

    fn group(op: &str, nodes: Vec<FilterNode>) -> FilterNode {
        FilterNode {
            op: op.into(),
            nodes,
            ..FilterNode::default()
        }
    }

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn comparisons() {
        let tags = tags(&[("t", "AAPL"), ("price", "100.50"), ("empty", "")]);
        let cases: &[(&str, &str, &str, &[&str], bool)] = &[
            ("t", "eq", "AAPL", &[], true),
            ("t", "eq", "aapl", &[], false),
            ("none", "eq", "x", &[], false),
            ("t", "neq", "AAPL", &[], false),
            ("none", "neq", "x", &[], true),
            ("t", "in", "", &["MSFT", "AAPL"], true),
            ("none", "in", "", &["x"], false),
            ("none", "in", "", &["x", ""], true),
            ("t", "nin", "", &["AAPL"], false),
            ("none", "nin", "", &["x"], true),
            ("empty", "ex", "", &[], true),
            ("none", "ex", "", &[], false),
            ("none", "nex", "", &[], true),
            ("t", "sw", "AA", &[], true),
            ("t", "ew", "PL", &[], true),
            ("t", "ct", "AP", &[], true),
            ("none", "ct", "AP", &[], false),
            ("price", "gt", "100.5", &[], false),
            ("price", "gte", "100.5", &[], true),
            ("price", "gt", "99", &[], true),
            ("price", "lt", "1000", &[], true),
            ("price", "lte", "100.49", &[], false),
            ("price", "lt", "1e9", &[], false),
            ("t", "lt", "1", &[], false),
            ("none", "lt", "1", &[], false),
        ];
        for (key, cmp, val, vals, expected) in cases {
            let filter = Filter::compile(&leaf(key, cmp, val, vals)).unwrap();
            assert_eq!(
                filter.matches(&tags),
                *expected,
                "{key} {cmp} {val} {vals:?}"
            );
        }
    }

    #[test]
    fn refuses_malformed_filters() {
        let eq = || leaf("a", "eq", "b", &[]);
        let cases = [
            (group("xor", vec![eq()]), FilterError::UnknownOperation),
            (group("and", vec![]), FilterError::WrongNodeCount),
            (group("or", vec![]), FilterError::WrongNodeCount),
            (group("not", vec![eq(), eq()]), FilterError::WrongNodeCount),
            (leaf("a", "", "b", &[]), FilterError::UnknownComparison),
            (leaf("a", "like", "b", &[]), FilterError::UnknownComparison),
            (leaf("", "eq", "b", &[]), FilterError::NoKey),
            (leaf("a", "eq", "", &[]), FilterError::NeedsValue),
            (leaf("a", "eq", "b", &["c"]), FilterError::NeedsValue),
            (leaf("a", "in", "", &[]), FilterError::NeedsValues),
            (leaf("a", "in", "b", &["c"]), FilterError::NeedsValues),
            (leaf("a", "ex", "b", &[]), FilterError::TakesNoValue),
            (
                group("and", vec![group("or", vec![leaf("a", "eq", "", &[])])]),
                FilterError::NeedsValue,
            ),
        ];
        for (node, expected) in cases {
            assert_eq!(Filter::compile(&node), Err(expected), "{node:?}");
        }
    }

    #[test]
    fn bounds_size() {
        let eq = || leaf("a", "eq", "b", &[]);
        let nested = |levels| (1..levels).fold(eq(), |node, _| group("not", vec![node]));
        assert!(Filter::compile(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(
            Filter::compile(&nested(DEPTH_MAX + 1)),
            Err(FilterError::TooLarge)
        );
        assert!(Filter::compile(&group("or", vec![eq(); NODES_MAX - 1])).is_ok());
        assert_eq!(
            Filter::compile(&group("or", vec![eq(); NODES_MAX])),
            Err(FilterError::TooLarge)
        );
        assert!(Filter::compile(&leaf("a", "in", "", &["x"; VALUES_MAX])).is_ok());
        assert_eq!(
            Filter::compile(&leaf("a", "in", "", &["x"; VALUES_MAX + 1])),
            Err(FilterError::TooLarge)
        );
    }

    #[test]
    fn numbers() {
        for text in [
            "",
            "+",
            "-",
            ".5",
            "5.",
            "-.5",
            "1e3",
            " 1",
            "1.2.3",
            "٣",
            "1.-2",
            "0.00000000000000000001",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
        let order = |a: &'static str, b: &'static str| {
            Decimal::parse(a).unwrap().cmp(&Decimal::parse(b).unwrap())
        };
        assert_eq!(order("-0", "+0.000"), Ordering::Equal);
        assert_eq!(order("007.50", "7.5"), Ordering::Equal);
        assert_eq!(order("-10", "-9"), Ordering::Less);
        assert_eq!(order("1.09", "1.1"), Ordering::Less);
        assert_eq!(
            order(
                "340282366920938463463374607431768211457",
                "340282366920938463463374607431768211456"
            ),
            Ordering::Greater
        );
    }

    fn any_leaf() -> impl Strategy<Value = FilterNode> {
        (
            "[ab]",
            prop::sample::select(vec!["eq", "neq", "sw", "lt", "gte", "ex", "in", "?"]),
            "[0-2a]{0,2}",
        )
            .prop_map(|(key, cmp, val)| match cmp {
                "in" => leaf(&key, cmp, "", &[&val]),
                "ex" => leaf(&key, cmp, "", &[]),
                _ => leaf(&key, cmp, &val, &[]),
            })
    }

    fn any_filter() -> impl Strategy<Value = FilterNode> {
        any_leaf().prop_recursive(4, 24, 3, |inner| {
            (
                prop::sample::select(vec!["and", "or", "not"]),
                prop::collection::vec(inner, 0..3),
            )
                .prop_map(|(op, nodes)| group(op, nodes))
        })
    }

    proptest! {
        #[test]
        fn integers_compare_as_numbers(a in any::<i64>(), b in any::<i64>()) {
            let (left, right) = (a.to_string(), b.to_string());
            prop_assert_eq!(Decimal::parse(&left).unwrap().cmp(&Decimal::parse(&right).unwrap()), a.cmp(&b));
        }

        #[test]
        fn not_inverts_and_groups_follow_logic(a in any_filter(), b in any_filter(), value in "[0-2a]{0,2}") {
            let tags = tags(&[("a", &value)]);
            if let (Ok(fa), Ok(fb)) = (Filter::compile(&a), Filter::compile(&b)) {
                let (ma, mb) = (fa.matches(&tags), fb.matches(&tags));
                let both = Filter::compile(&group("and", vec![a.clone(), b.clone()])).unwrap();
                let either = Filter::compile(&group("or", vec![a.clone(), b])).unwrap();
                let neither = Filter::compile(&group("not", vec![a.clone()])).unwrap();
                prop_assert_eq!(both.matches(&tags), ma && mb);
                prop_assert_eq!(either.matches(&tags), ma || mb);
                prop_assert_eq!(neither.matches(&tags), !ma);
                prop_assert_eq!(&fa, &Filter::compile(&a).unwrap());
            }
        }
    }
}
