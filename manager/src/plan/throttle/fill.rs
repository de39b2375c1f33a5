//! A part for each who wants one: nobody gets more than it wants while others want more, and what is left is for all alike.

pub(crate) fn fill(total: f64, wants: &[f64]) -> Vec<f64> {
    let mut parts = vec![0.0; wants.len()];
    if wants.is_empty() {
        return parts;
    }
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by(|a, b| wants[*a].total_cmp(&wants[*b]));
    let mut left = total;
    for (done, index) in order.iter().enumerate() {
        let equal = left / (wants.len() - done) as f64;
        parts[*index] = wants[*index].min(equal);
        left -= parts[*index];
    }
    let each = left.max(0.0) / wants.len() as f64;
    for part in &mut parts {
        *part += each;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_waits_gets_what_others_leave() {
        let inf = f64::INFINITY;
        assert_eq!(fill(100.0, &[inf, 10.0]), [90.0, 10.0]);
        assert_eq!(fill(100.0, &[inf, inf]), [50.0, 50.0]);
        assert_eq!(fill(100.0, &[inf, 60.0, 10.0]), [45.0, 45.0, 10.0]);
        // Nobody waits: what is left is lent to all.
        assert_eq!(fill(100.0, &[30.0, 10.0]), [60.0, 40.0]);
        assert_eq!(fill(0.0, &[inf]), [0.0]);
        assert!(fill(1.0, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn everything_is_given_and_no_more(
            total in 0.0f64..1e6,
            wants in prop::collection::vec(prop_oneof![Just(f64::INFINITY), 0.0f64..1e6], 1..50),
        ) {
            let parts = fill(total, &wants);
            let sum: f64 = parts.iter().sum();
            prop_assert!((sum - total).abs() <= 1e-6 * total.max(1.0), "{sum}");
            prop_assert!(parts.iter().all(|part| *part >= 0.0));
        }
    }
}
