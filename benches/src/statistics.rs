//! What a list of measurements comes to.

/// The figures that are shown of a list of measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// How many there were.
    pub(crate) count: usize,
    /// The least.
    pub(crate) minimum: f64,
    /// Half are at most this.
    pub(crate) median: f64,
    /// 99 of 100 are at most this; the greatest where there are fewer.
    pub(crate) p99: f64,
}

impl Summary {
    /// None of an empty list.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&minimum, &median) = (sorted.first()?, percentile(&sorted, 50)?);
        Some(Self { count: sorted.len(), minimum, median, p99: *percentile(&sorted, 99)? })
    }
}

/// The least value that `percent` of a sorted list are not above (the nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> Option<&f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_to_nothing() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_is_everything() {
        assert_eq!(Summary::of(&[3.0]), Some(Summary { count: 1, minimum: 3.0, median: 3.0, p99: 3.0 }));
    }

    #[test]
    fn order_does_not_matter() {
        let backwards: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let expected = Summary { count: 200, minimum: 1.0, median: 100.0, p99: 198.0 };
        assert_eq!(Summary::of(&backwards), Some(expected));
        assert_eq!(Summary::of(&[5.0, 1.0, 9.0]).unwrap().median, 5.0);
        assert_eq!(Summary::of(&[5.0, 1.0, 9.0, 7.0]).unwrap().median, 5.0, "the lower of two in the middle");
        assert_eq!(Summary::of(&[5.0, 1.0, 9.0]).unwrap().p99, 9.0);
    }
}
